//! Keys out of a JWK set (RFC 7517). The set says which algorithm a key has; what we cannot use is skipped.
//!
//! A file is the operator's: what is wrong with it is told at once. A URL is somebody else's, and one bad key in it must
//! not take the others with it.

use aws_lc_rs::digest;
use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Family, Unfit, Verifier};
use super::json;
use super::keys::{Flaw, Loaded, flaw_of};

type Jwk = Map<String, Value>;

/// Most keys of a set by URL, those that we cannot use included.
const KEYS_MAX: usize = 64;

/// One key of a set by URL.
pub(super) struct Listed {
    /// Of its whole entry: another digest is another key, whatever its name.
    pub digest: [u8; 32],
    pub loaded: Loaded,
}

/// A set by URL.
#[derive(Default)]
pub(super) struct SetRead {
    pub keys: Vec<Listed>,
    /// Sentences about keys that should not be there, or are damaged. No key material.
    pub ignored: Vec<String>,
}

/// Why an answer is no set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadSet {
    NotASet,
    TooMany,
}

impl BadSet {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotASet => "the answer is not a JWK set: {\"keys\":[{\"kty\":…}]}",
            Self::TooMany => "the set has more than 64 keys",
        }
    }
}

/// The keys of a set by URL that may be used with `allowed`; with none named: the algorithm that a key names, else that of
/// its curve, else RS256.
pub(super) fn read_set(body: &[u8], allowed: &[Algorithm]) -> Result<SetRead, BadSet> {
    let mut set = json::object(body).map_err(|_| BadSet::NotASet)?;
    let Some(Value::Array(keys)) = set.remove("keys") else {
        return Err(BadSet::NotASet);
    };
    if keys.len() > KEYS_MAX {
        return Err(BadSet::TooMany);
    }
    let mut read = SetRead::default();
    for (index, key) in keys.iter().enumerate() {
        match listed(key, allowed) {
            Ok(listed) => read.keys.extend(listed),
            Err(what) => read.ignored.push(format!("key {index} of the set: {what}")),
        }
    }
    Ok(read)
}

fn listed(key: &Value, allowed: &[Algorithm]) -> Result<Vec<Listed>, &'static str> {
    let jwk = key.as_object().ok_or("not an object")?;
    if text(jwk, "kty") == Some("oct") || jwk.contains_key("k") {
        return Err("a secret, which everybody can read there who can read the URL");
    }
    if jwk.contains_key("d") {
        return Err("a private key, which everybody can read there who can read the URL");
    }
    if !is_for_verifying(jwk) {
        return Ok(Vec::new());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, key.to_string().as_bytes()).as_ref());
    let load = |algorithm| {
        let verifier = verifier(jwk, algorithm).map_err(|_| "damaged, or an RSA key of less than 2048 bits")?;
        let kid = text(jwk, "kid").map(str::to_owned);
        let loaded = Loaded {
            algorithm,
            kid,
            verifier,
        };
        Ok(Listed { digest, loaded })
    };
    usable(jwk, allowed).into_iter().map(load).collect()
}

/// What a key of a set by URL is used with.
fn usable(jwk: &Jwk, allowed: &[Algorithm]) -> Vec<Algorithm> {
    let Some(own) = algorithm(jwk, None) else {
        return Vec::new();
    };
    let is_open = own.family() == Family::Rsa && !jwk.contains_key("alg");
    match allowed {
        [] => vec![own],
        allowed if is_open => allowed
            .iter()
            .copied()
            .filter(|one| one.family() == Family::Rsa)
            .collect(),
        allowed => allowed.iter().copied().filter(|one| *one == own).collect(),
    }
}

/// The keys of the set, or the one key, in `file`. `wanted` and `kid` keep only keys of that algorithm and name.
pub(super) fn load(file: &[u8], wanted: Option<Algorithm>, kid: Option<&str>) -> Result<Vec<Loaded>, Flaw> {
    let mut file = json::object(file).map_err(|_| not_a_set())?;
    let keys = match file.remove("keys") {
        Some(Value::Array(keys)) => keys,
        None if file.contains_key("kty") => vec![Value::Object(file)],
        _ => return Err(not_a_set()),
    };
    let mut loaded = Vec::new();
    for key in &keys {
        let key = key.as_object().ok_or_else(not_a_set)?;
        if text(key, "kid").is_some_and(|name| kid.is_some_and(|kid| kid != name)) {
            continue;
        }
        loaded.extend(load_one(key, wanted)?);
    }
    if loaded.is_empty() {
        let remedy =
            "RSA, EC P-256 and P-384, OKP Ed25519 and oct keys for signatures can be used; check algorithm and kid";
        return Err(Flaw::new("no key in the JWK set can be used", remedy));
    }
    Ok(loaded)
}

fn load_one(jwk: &Jwk, wanted: Option<Algorithm>) -> Result<Option<Loaded>, Flaw> {
    let Some(algorithm) = algorithm(jwk, wanted) else {
        return Ok(None);
    };
    if !is_for_verifying(jwk) || wanted.is_some_and(|wanted| wanted != algorithm) {
        return Ok(None);
    }
    if jwk.contains_key("d") {
        return Err(Flaw::new(
            "the JWK set holds a private key",
            "give the public half only",
        ));
    }
    let kid = text(jwk, "kid").map(str::to_owned);
    let verifier = verifier(jwk, algorithm).map_err(|unfit| flaw_of(unfit, algorithm))?;
    Ok(Some(Loaded {
        algorithm,
        kid,
        verifier,
    }))
}

/// The key's own algorithm. Where RSA and oct keys name none, the wanted one, else the usual one.
fn algorithm(jwk: &Jwk, wanted: Option<Algorithm>) -> Option<Algorithm> {
    let usual = |family, usual| Some(wanted.filter(|wanted| wanted.family() == family).unwrap_or(usual));
    let (by_type, free) = match (text(jwk, "kty")?, text(jwk, "crv")) {
        ("RSA", _) => (usual(Family::Rsa, Algorithm::RS256)?, true),
        ("oct", _) => (usual(Family::Secret, Algorithm::HS256)?, true),
        ("EC", Some("P-256")) => (Algorithm::ES256, false),
        ("EC", Some("P-384")) => (Algorithm::ES384, false),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, false),
        _ => return None,
    };
    match jwk.get("alg") {
        None => Some(by_type),
        Some(named) => {
            let named = Algorithm::parse(named.as_str()?)?;
            (named == by_type || free && named.family() == by_type.family()).then_some(named)
        }
    }
}

fn is_for_verifying(jwk: &Jwk) -> bool {
    let operations = jwk.get("key_ops").and_then(Value::as_array);
    text(jwk, "use").is_none_or(|purpose| purpose == "sig")
        && operations.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"))
}

fn verifier(jwk: &Jwk, algorithm: Algorithm) -> Result<Verifier, Unfit> {
    match algorithm.family() {
        Family::Secret => Verifier::from_secret(algorithm, &bytes(jwk, "k")?),
        Family::Rsa => {
            let (n, e) = (number(jwk, "n")?, number(jwk, "e")?);
            Verifier::from_rsa(algorithm, &RsaPublicKeyComponents { n, e })
        }
        Family::Curve => Verifier::from_public(algorithm, &point(jwk, algorithm)?),
    }
}

/// RFC 7518 section 6.2.1: coordinates are as long as the curve's field, so that no leading zero is lost.
fn point(jwk: &Jwk, algorithm: Algorithm) -> Result<Vec<u8>, Unfit> {
    let x = bytes(jwk, "x")?;
    let coordinate_bytes = match algorithm {
        Algorithm::ES256 => 32,
        Algorithm::ES384 => 48,
        _ => {
            return if x.len() == 32 { Ok(x) } else { Err(Unfit::NotThatKey) };
        }
    };
    let y = bytes(jwk, "y")?;
    if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
        return Err(Unfit::NotThatKey);
    }
    Ok([&[4], x.as_slice(), y.as_slice()].concat())
}

fn number(jwk: &Jwk, name: &str) -> Result<Vec<u8>, Unfit> {
    let bytes = bytes(jwk, name)?;
    // RFC 7518 section 6.3.1.1 warns of libraries that write a leading zero.
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

fn bytes(jwk: &Jwk, name: &str) -> Result<Vec<u8>, Unfit> {
    let text = text(jwk, name).ok_or(Unfit::NotThatKey)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Unfit::NotThatKey)
}

fn text<'j>(jwk: &'j Jwk, name: &str) -> Option<&'j str> {
    jwk.get(name)?.as_str()
}

fn not_a_set() -> Flaw {
    Flaw::new("the file is not a JWK set", "it should read {\"keys\":[{\"kty\":…}]}")
}
