//! Tokens that we sign ourselves: for guests, for `conclave token`, and one at start to see that signing works.
//! The signing library is another one than the verifying code, so that neither can hide the other's mistake.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::{Value, json};

use super::keys::{Keys, SESSION_ISSUER};
use super::{Policy, UnixSeconds, token};
use crate::config;

/// Why no token could be minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("the key is a public one ({0}): the private key that signs is with your application, not here")]
    PublicOnly(String),
    #[error("claims must be a JSON object")]
    NotAnObject,
    #[error("the key cannot be used: {0}")]
    Key(String),
    #[error("signing failed")]
    Signing,
}

/// The crypto library does not do what it must.
#[derive(Debug, thiserror::Error)]
#[error("the crypto library failed its self-test: a token signed with it does not verify")]
pub struct ProviderBroken;

/// Who a guest is, for the token that says so.
#[derive(Serialize)]
pub(crate) struct Guest<'a> {
    /// Begins with `guest:`.
    pub sub: &'a str,
    pub name: &'a str,
    pub iat: UnixSeconds,
    pub exp: UnixSeconds,
    pub jti: &'a str,
}

/// Makes aws-lc-rs the one provider of rustls and jsonwebtoken for this process, and signs and verifies a token.
/// Without it both would panic at their first use if a dependency brought a second provider. May be called again.
///
/// # Errors
/// The token did not verify.
pub fn install_provider() -> Result<(), ProviderBroken> {
    // An error means that one is installed already, by an earlier call.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let mut keys = Keys::default();
    keys.add_session(&[7; 32]).map_err(|_| ProviderBroken)?;
    let guest = Guest {
        sub: "guest:self-test",
        name: "",
        iat: 1,
        exp: 2,
        jti: "",
    };
    let minted = mint_guest(&keys, &guest).ok_or(ProviderBroken)?;
    let rules = token::Rules {
        leeway: std::time::Duration::ZERO,
        require_expiry: true,
    };
    token::verify(&minted, &keys, rules, 1)
        .map(drop)
        .map_err(|_| ProviderBroken)
}

/// A token for `claims`, signed with the secret of `key`. `iss`, `aud` and the header's `kid` come from `key` where
/// the claims do not say otherwise, so that the result is good where the key is configured.
///
/// # Errors
/// The key is a public one or unusable, or `claims` is not an object.
pub fn mint(claims: &Value, key: &config::Key) -> Result<String, MintError> {
    let algorithm = match key.algorithm.as_str() {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        other => {
            return Err(MintError::PublicOnly(
                if other.is_empty() { "JWK set" } else { other }.into(),
            ));
        }
    };
    // The same checks as at start: what `serve` would refuse signs nothing.
    Keys::load(std::slice::from_ref(key)).map_err(|problems| {
        MintError::Key(
            problems
                .into_iter()
                .map(|problem| problem.to_string())
                .collect::<Vec<_>>()
                .join("; "),
        )
    })?;
    let secret = match &key.source {
        config::KeySource::Secret(secret) => secret.expose_secret().as_bytes().to_vec(),
        config::KeySource::SecretFile(path) => {
            super::keys::secret_file(path).map_err(|flaw| MintError::Key(flaw.what))?
        }
        _ => return Err(MintError::PublicOnly(key.algorithm.clone())),
    };
    let mut claims = claims.as_object().ok_or(MintError::NotAnObject)?.clone();
    if let Some(issuer) = &key.issuer {
        claims.entry("iss").or_insert_with(|| json!(issuer));
    }
    if let [one, ..] = key.audience.as_slice() {
        claims.entry("aud").or_insert_with(|| json!(one));
    }
    let header = Header {
        kid: key.kid.clone(),
        ..Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).map_err(|_| MintError::Signing)
}

impl Policy {
    /// A guest's token; none if guests may not sign in.
    pub(crate) fn mint_guest(&self, guest: &Guest<'_>) -> Option<String> {
        mint_guest(&self.keys, guest)
    }
}

fn mint_guest(keys: &Keys, guest: &Guest<'_>) -> Option<String> {
    #[derive(Serialize)]
    struct Claims<'a> {
        iss: &'a str,
        #[serde(flatten)]
        guest: &'a Guest<'a>,
    }
    let header = Header {
        kid: Some(SESSION_ISSUER.into()),
        ..Header::new(Algorithm::HS256)
    };
    jsonwebtoken::encode(
        &header,
        &Claims {
            iss: SESSION_ISSUER,
            guest,
        },
        keys.session_secret()?,
    )
    .ok()
}
