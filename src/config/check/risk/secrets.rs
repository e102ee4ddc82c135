//! Secrets that are long enough and can be guessed all the same. What is found names no byte of them.

use secrecy::ExposeSecret;

use crate::config::files;
use crate::config::problem::Problem;
use crate::config::{Config, KeySource};

/// Random secrets of 32 bytes or more have more different bytes than this, in hexadecimal too, but for one in billions.
const DISTINCT_BYTES_MIN: usize = 8;

/// What people write where a secret should be; at least six letters, so that chance does not make one.
const WORDS: [&str; 16] = [
    "secret",
    "password",
    "passwort",
    "changeme",
    "change-me",
    "change_me",
    "changeit",
    "replace",
    "example",
    "default",
    "conclave",
    "qwerty",
    "letmein",
    "123456",
    "abcdef",
    "insecure",
];

const REMEDY: &str =
    "\"openssl rand -base64 48\" makes a good one; keep the old key in a second entry until its tokens have ended";

/// Looks at shared secrets of tokens and sessions.
pub fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, key) in config.auth.keys.iter().enumerate() {
        let (name, weakness) = match &key.source {
            KeySource::Secret(secret) => ("secret", weakness(secret.expose_secret().as_bytes())),
            // One that cannot be read has been told of.
            KeySource::SecretFile(path) => match files::read(path) {
                Ok(bytes) => ("secret_file", weakness(bytes.strip_suffix(b"\n").unwrap_or(&bytes))),
                Err(_) => continue,
            },
            KeySource::PublicKeyFile(_) | KeySource::JwksFile(_) | KeySource::JwksUrl(_) => continue,
        };
        let problem = |what| Problem::warning(format!("auth.keys[{index}].{name}"), what, REMEDY);
        problems.extend(weakness.map(problem));
    }
    if let Some(secret) = &config.session.secret {
        let found = weakness(secret.expose_secret().as_bytes());
        problems.extend(found.map(|what| Problem::warning("session.secret", what, REMEDY)));
    }
    problems
}

/// Why it could be guessed.
fn weakness(secret: &[u8]) -> Option<&'static str> {
    let mut seen = [false; 256];
    for byte in secret {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    let lower = secret.to_ascii_lowercase();
    let has_word = |word: &&str| memchr::memmem::find(&lower, word.as_bytes()).is_some();
    match () {
        // What is too short is an error of its own.
        () if secret.is_empty() => None,
        () if distinct == 1 => Some("the same byte over and over: whoever tries such secrets signs tokens for anybody"),
        () if repeats(secret) => Some("a short text over and over: it is as easy to guess as that text"),
        () if distinct < DISTINCT_BYTES_MIN => Some("only a few different bytes: no random secret looks like that"),
        () if WORDS.iter().any(has_word) => Some(
            "it has a word in it that people write where a secret should be: lists of such secrets are tried first",
        ),
        () => None,
    }
}

/// Whether it is one text of at most half its length, repeated.
fn repeats(secret: &[u8]) -> bool {
    (1..=secret.len() / 2).any(|period| secret.iter().zip(&secret[period..]).all(|(one, other)| one == other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_make_up_is_found_and_what_machines_make_is_not() {
        for (secret, why) in [
            (&b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[..], Some("same byte")),
            (
                b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                Some("same byte"),
            ),
            (b"hunter2hunter2hunter2hunter2hunter2", Some("short text")),
            (b"0123456789abcdef0123456789abcdef", Some("short text")),
            (b"abababbaabbabababbaabbbaabababab", Some("few different")),
            (b"my-super-SECRET-jwt-key-for-our-app", Some("a word")),
            (b"please-change-me-before-production!", Some("a word")),
            (b"", None),
            // openssl rand -base64 48, and -hex 32.
            (
                b"8mC0JY2m0k1lqWcWmVb3R6m0u7R2l3pVt0WfE2cKxk0y5oG4dB1nHs9aZQvTiUjX",
                None,
            ),
            (
                b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                None,
            ),
        ] {
            let found = weakness(secret);
            let fits = match (found, why) {
                (Some(found), Some(why)) => found.contains(why),
                (found, why) => found.is_none() && why.is_none(),
            };
            assert!(fits, "{:?}: {found:?}", String::from_utf8_lossy(secret));
        }
    }
}
