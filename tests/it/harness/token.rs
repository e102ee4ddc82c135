//! Tokens, put together by hand so that they can be wrong in every way.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The secret that every node of the tests knows.
pub const SECRET: &[u8] = b"a secret for tests only, long enough";

/// Seconds since the Unix epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a good token of `sub` says.
pub fn claims(sub: &str) -> Value {
    json!({"sub": sub, "name": sub, "exp": now() + 3600})
}

/// Signed with [`SECRET`].
pub fn sign(claims: &Value) -> String {
    sign_with(&json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

pub fn sign_with(header: &Value, claims: &Value, secret: &[u8]) -> String {
    sign_text(&header.to_string(), &claims.to_string(), secret)
}

/// As text, so that a claim may be there twice.
pub fn sign_text(header: &str, claims: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
