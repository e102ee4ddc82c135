//! Signatures as Standard Webhooks have them (<https://www.standardwebhooks.com>): HMAC-SHA256 over
//! `id.timestamp.body`, in the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`. Pure.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::auth::UnixSeconds;
use crate::config;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a key, shortest and longest (Standard Webhooks, "Symmetric").
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;

/// How to make a secret.
pub const REMEDY: &str = "echo \"whsec_$(openssl rand -base64 32)\" makes one; put it into a file and name that in hooks.secret_file, and give it to the application";

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Signs with the current key, and with the one before it while there is one.
pub struct Signer(Vec<hmac::Key>);

/// Shows no key.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} keys)", self.0.len())
    }
}

impl Signer {
    /// # Errors
    /// A secret is none. Never quotes it.
    pub fn new(config: &config::Hooks) -> Result<Self, String> {
        let secrets: [Option<&SecretString>; 2] = [config.secret.as_ref(), config.previous_secret.as_ref()];
        let keys = secrets.into_iter().flatten();
        keys.map(|secret| Self::key_of(secret.expose_secret()).map(|bytes| hmac::Key::new(HMAC_SHA256, &bytes)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The bytes that a secret stands for.
    ///
    /// # Errors
    /// What is wrong with it. Never quotes it.
    pub fn key_of(secret: &str) -> Result<Vec<u8>, String> {
        let encoded = secret
            .trim_end()
            .strip_prefix(PREFIX)
            .ok_or_else(|| format!("it does not begin with {PREFIX}"))?;
        let key = STANDARD
            .decode(encoded)
            .map_err(|_| format!("what follows {PREFIX} is not base64"))?;
        if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
            Ok(key)
        } else {
            Err(format!("{} bytes, not {KEY_BYTES_MIN} to {KEY_BYTES_MAX}", key.len()))
        }
    }

    /// Puts the three headers on a request with this body.
    pub fn sign(&self, headers: &mut HeaderMap, id: &str, now: UnixSeconds, body: &[u8]) {
        let signature = self.signature(id, now, body);
        let pairs = [
            (ID, id.to_owned()),
            (TIMESTAMP, now.to_string()),
            (SIGNATURE, signature),
        ];
        for (name, text) in pairs {
            // Ids are ours: letters, digits and dashes. What is none would be a bug, and goes unsigned rather than unsent.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }

    fn signature(&self, id: &str, now: UnixSeconds, body: &[u8]) -> String {
        let one = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{now}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secret: &str, previous: Option<&str>) -> Signer {
        Signer::new(&config::Hooks {
            secret: Some(secret.into()),
            previous_secret: previous.map(Into::into),
            ..config::Hooks::default()
        })
        .unwrap()
    }

    /// The example of the libraries' own tests, github.com/standard-webhooks/standard-webhooks (MIT).
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let signer = signer("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None);
        let signature = signer.signature(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn both_keys_sign_while_they_change() {
        let (old, new) = (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        );
        let both = signer(new, Some(old)).signature("e-1", 7, b"{}");
        let each: Vec<_> = both.split(' ').collect();
        assert_eq!(each[0], signer(new, None).signature("e-1", 7, b"{}"));
        assert_eq!(each[1], signer(old, None).signature("e-1", 7, b"{}"));
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_not_quoted() {
        for (secret, error) in [
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin"),
            ("whsec_~~~", "not base64"),
            ("whsec_c2hvcnQ=", "5 bytes"),
            ("", "does not begin"),
        ] {
            let answer = Signer::key_of(secret).expect_err(secret);
            assert!(answer.contains(error) && !answer.contains("MfKQ"), "{answer}");
        }
    }
}
