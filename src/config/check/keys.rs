//! Entries of `auth.keys`: algorithm and source fit together, files are there and private. Whether a key can
//! really be used is found by `auth::keys`, which loads it.

use std::path::Path;

use secrecy::ExposeSecret;

use crate::config::files::{self, Readers};
use crate::config::problem::Problem;
use crate::config::{Config, JwksUrl, Key, KeySource};
use crate::outbound::Rule;

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
        KeySource::JwksUrl(url) => problems.extend(by_url(dotted, key, url)),
    }
    problems
}

fn by_url(dotted: impl Fn(&str) -> String, key: &Key, url: &JwksUrl) -> Vec<Problem> {
    let mut problems = Vec::new();
    if key.issuer.is_none() {
        let what = "not set: which of several URLs has a token's key is known by its iss alone";
        let remedy = "set it to the \"iss\" of this issuer's tokens";
        problems.push(Problem::error(dotted("issuer"), what, remedy));
    }
    if !key.algorithm.is_empty() {
        let what = "is for a single key";
        let remedy = format!("write algorithms = [\"{}\"] beside jwks_url", key.algorithm);
        problems.push(Problem::error(dotted("algorithm"), what, remedy));
    }
    if key.kid.is_some() {
        let what = "the keys of a jwks_url have their own";
        problems.push(Problem::error(dotted("kid"), what, "leave it out"));
    }
    if url.target.is_plain() && !url.target.is_here() {
        let what = format!(
            "{} without TLS: whoever is on the way can put a key of their own in, and be any user",
            url.target
        );
        problems.push(Problem::warning(dotted("jwks_url"), what, "use https://"));
    }
    if let Some(path) = &url.ca_file {
        problems.extend(readable(&dotted("jwks_ca_file"), path));
    }
    problems
}

/// What is to be said of all entries with a `jwks_url` together.
pub fn urls(config: &Config) -> Vec<Problem> {
    let rule = Rule::new(&config.outbound.networks);
    let mut problems = Vec::new();
    let mut seen: Vec<(&str, usize)> = Vec::new();
    for (index, key) in config.auth.keys.iter().enumerate() {
        let KeySource::JwksUrl(url) = &key.source else {
            continue;
        };
        if let Err(what) = url.target.check(&rule) {
            let remedy = "give the issuer's own URL";
            problems.push(Problem::error(format!("auth.keys[{index}].jwks_url"), what, remedy));
        }
        let issuer = key.issuer.as_deref().unwrap_or_default();
        match seen.iter().find(|(other, _)| *other == issuer) {
            Some((_, other)) => problems.push(Problem::error(
                format!("auth.keys[{index}].issuer"),
                format!("entry {other} has a jwks_url for this issuer already"),
                "one entry for each issuer; it may have several in audience",
            )),
            None => seen.push((issuer, index)),
        }
        // The same for all entries.
        if seen.len() == 1 && !url.maximum_age.is_zero() && url.maximum_age < url.refresh * 2 + url.timeout {
            let what = "shorter than two readings: keys would be too old now and then while all is well";
            let remedy = "raise it, or lower auth.jwks_refresh; hours are usual";
            problems.push(Problem::error("auth.jwks_maximum_age", what, remedy));
        }
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
        KeySource::JwksFile(_) | KeySource::JwksUrl(_) => return None,
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
