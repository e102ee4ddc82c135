//! Entries of `auth.keys`: algorithm and source fit together, files are there and private. Whether a key can
//! really be used is found by `auth::keys`, which loads it.

use std::path::Path;

use secrecy::ExposeSecret;

use crate::config::files::{self, Readers};
use crate::config::problem::Problem;
use crate::config::{Key, KeySource};

/// Shortest shared secret: that of HS256 (RFC 7518 section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Checks one entry; `entry` is its dotted name.
pub fn check(entry: &str, key: &Key) -> Vec<Problem> {
    let mut problems = Vec::from_iter(algorithm(entry, key));
    let dotted = |name: &str| format!("{entry}.{name}");
    match &key.source {
        KeySource::Secret(secret) => {
            problems.extend(length(
                &dotted("secret"),
                secret.expose_secret().len(),
                secret_bytes_min(key),
            ));
        }
        KeySource::SecretFile(path) => {
            problems.extend(secret_file(&dotted("secret_file"), path, secret_bytes_min(key)));
        }
        KeySource::PublicKeyFile(path) => problems.extend(readable(&dotted("public_key_file"), path)),
        KeySource::JwksFile(path) => problems.extend(readable(&dotted("jwks_file"), path)),
    }
    problems
}

/// Two issuers whose user ids mix: one's `admin` would be the other's.
pub fn prefixes(keys: &[Key]) -> Vec<Problem> {
    let clash = keys.iter().enumerate().find_map(|(index, key)| {
        let other = keys[..index]
            .iter()
            .position(|other| other.issuer != key.issuer && other.user_prefix == key.user_prefix)?;
        Some((index, other))
    });
    let Some((index, other)) = clash else {
        return Vec::new();
    };
    let what = format!(
        "entries {other} and {index} have different issuers and the same user_prefix: their user ids are not told apart"
    );
    let remedy = "give each issuer a user_prefix of its own, such as \"shop:\"";
    vec![Problem::warning(
        format!("auth.keys[{index}].user_prefix"),
        what,
        remedy,
    )]
}

/// A shared secret that can be guessed signs anything.
pub fn length(key: &str, bytes: usize, bytes_min: usize) -> Option<Problem> {
    let remedy = "\"openssl rand -base64 48\" makes a good one";
    (bytes < bytes_min).then(|| {
        Problem::error(
            key,
            format!("a secret of {bytes} bytes is too short, at least {bytes_min}"),
            remedy,
        )
    })
}

fn algorithm(entry: &str, key: &Key) -> Option<Problem> {
    let dotted = format!("{entry}.algorithm");
    let is_symmetric = key.algorithm.starts_with("HS");
    let (what, remedy) = match &key.source {
        KeySource::JwksFile(_) => return None,
        _ if key.algorithm.is_empty() => (
            "not set".to_owned(),
            "name what the tokens are signed with, such as \"HS256\" or \"ES256\"",
        ),
        KeySource::PublicKeyFile(_) if is_symmetric => (
            format!(
                "{} has no public key, its secret both signs and verifies",
                key.algorithm
            ),
            "use secret_file, or the algorithm of the public key",
        ),
        KeySource::Secret(_) | KeySource::SecretFile(_) if !is_symmetric => (
            format!("{} is verified with a public key, not a secret", key.algorithm),
            "use public_key_file, or one of HS256, HS384, HS512",
        ),
        _ => return None,
    };
    Some(Problem::error(dotted, what, remedy))
}

/// A secret as long as the hash (RFC 7518 section 3.2).
fn secret_bytes_min(key: &Key) -> usize {
    match key.algorithm.as_str() {
        "HS384" => 48,
        "HS512" => 64,
        _ => SECRET_BYTES_MIN,
    }
}

fn secret_file(key: &str, path: &Path, bytes_min: usize) -> Vec<Problem> {
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(what) => {
            return vec![Problem::error(key, what, "put the secret there, or correct the path")];
        }
    };
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let mut problems = Vec::from_iter(length(key, secret.len(), bytes_min));
    problems.extend(private(key, path));
    problems
}

/// A secret that other users of the machine can read is theirs too.
pub fn private(key: &str, path: &Path) -> Option<Problem> {
    let who = match files::readers(path) {
        Readers::Nobody => return None,
        Readers::Group => "its group",
        Readers::World => "every user of this machine",
    };
    let what = format!("{} can be read by {who}", path.display());
    Some(Problem::warning(key, what, format!("chmod 600 {}", path.display())))
}

fn readable(key: &str, path: &Path) -> Option<Problem> {
    files::read(path)
        .err()
        .map(|what| Problem::error(key, what, "put the file there, or correct the path"))
}
