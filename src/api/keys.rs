//! API keys: 256 random bits each, of which only the SHA-256 is kept.
//!
//! A slow, salted hash protects what people think up: short words that a thief of the file can guess one by one. Nobody
//! can guess 256 random bits, at no speed, so a fast hash hides them as well as a slow one would, and costs a
//! microsecond per request instead of a tenth of a second, which would be a way to keep the server busy.

use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use subtle::ConstantTimeEq;

use super::caller::{Budget, Reach, Scopes};
use crate::auth::UnixSeconds;
use crate::config;

/// How every key begins, so that it is known for one wherever it turns up.
pub const PREFIX: &str = "ck_";

/// How every hash begins.
pub const HASH_PREFIX: &str = "sha256:";

/// SHA-256 of a whole key, prefix included.
pub type Digest = [u8; 32];

/// A new key.
///
/// # Errors
/// The system gave no random bytes.
pub fn generate() -> Result<String, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is kept of a key.
#[must_use]
pub fn digest_of(key: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    bytes
}

/// `sha256:…`, as in the configuration.
#[must_use]
pub fn hash_text(digest: &Digest) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{HASH_PREFIX}{hex}")
}

/// Reads `sha256:…`.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix(HASH_PREFIX)?.as_bytes();
    let mut bytes = [0; 32];
    if hex.len() != bytes.len() * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let digit = |byte: u8| (byte as char).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// One entry of `[[api.keys]]`.
pub struct Key {
    pub name: Arc<str>,
    pub scopes: Scopes,
    pub reach: Reach,
    pub budget: Budget,
    pub expires_at: Option<UnixSeconds>,
    digest: Digest,
}

/// All of them.
pub struct Keys(Box<[Key]>);

impl Keys {
    #[must_use]
    pub fn new(config: &config::Api) -> Self {
        let keys = config.keys.iter().map(|key| {
            let per_second = NonZeroU32::new(key.requests_per_second).unwrap_or(config.requests_per_second);
            let (quota, burst) = quota(per_second, config.requests_burst);
            let limiter: DefaultDirectRateLimiter = RateLimiter::direct(quota);
            Key {
                name: key.name.as_str().into(),
                scopes: key.scopes,
                reach: match key.rooms.as_slice() {
                    [] => Reach::Everywhere,
                    patterns => Reach::Patterns(patterns.into()),
                },
                budget: Budget::Key(Arc::new(limiter), burst),
                expires_at: key.expires_at,
                digest: key.digest,
            }
        });
        Self(keys.collect())
    }

    /// Whose key that is. Takes the same time for every wrong one: each is compared with all, by its hash.
    #[must_use]
    pub fn find(&self, presented: &str) -> Option<&Key> {
        let presented = digest_of(presented);
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.digest.ct_eq(&presented)) {
                found = Some(key);
            }
        }
        found
    }
}

/// At least one second's worth may come at once.
pub(super) fn quota(per_second: NonZeroU32, burst: u32) -> (Quota, NonZeroU32) {
    let burst = NonZeroU32::new(burst).unwrap_or(per_second).max(per_second);
    (Quota::per_second(per_second).allow_burst(burst), burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_and_its_hash_is_read_back() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 43);
        let text = hash_text(&digest_of(&one));
        assert_eq!(parse_hash(&text), Some(digest_of(&one)));
        assert_eq!(
            parse_hash(&text.to_uppercase().replace("SHA256", "sha256")),
            Some(digest_of(&one))
        );
        for bad in [
            "",
            "sha256:",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.replace("sha256", "sha512"),
            &one,
        ] {
            assert_eq!(parse_hash(bad), None, "{bad}");
        }
        assert_eq!(parse_hash(&format!("sha256:{}", "ä".repeat(32))), None);
        assert_eq!(parse_hash(&format!("sha256:{}", "+f".repeat(32))), None);
    }
}
