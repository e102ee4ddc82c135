//! One entry of the configuration becomes keys, or a sentence that says why not.

use std::fmt;
use std::io::Read;
use std::path::Path;

use secrecy::ExposeSecret;

use super::GUEST_PREFIX;
use crate::auth::algorithm::{Algorithm, Family, Unfit, Verifier};
use crate::auth::{jwk, pem};
use crate::config;

/// Longest key file that is read.
const KEY_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a key cannot be used, and what to do. Never holds key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyProblem {
    /// `conclave.toml:12`
    pub set_in: String,
    pub what: String,
    pub remedy: String,
}

/// A problem that does not know yet where its key was set.
pub(in crate::auth) struct Flaw {
    pub what: String,
    pub remedy: String,
}

impl Flaw {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Key material and the name it goes by.
pub(in crate::auth) struct Loaded {
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    pub verifier: Verifier,
}

impl Flaw {
    pub fn at(self, set_in: &str) -> KeyProblem {
        KeyProblem {
            set_in: set_in.into(),
            what: self.what,
            remedy: self.remedy,
        }
    }
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  set in {}\n  help: {}", self.what, self.set_in, self.remedy)
    }
}

/// No entry's users are guests.
pub(super) fn check_prefix(entry: &config::Key) -> Result<(), Flaw> {
    if entry.user_prefix.starts_with(GUEST_PREFIX) {
        return Err(Flaw::new(
            "user_prefix begins with guest:, which is for guests only",
            "choose another user_prefix",
        ));
    }
    Ok(())
}

/// The keys of one `[[auth.keys]]` entry; those of a URL are read later.
pub(super) fn load_entry(entry: &config::Key) -> Result<Vec<Loaded>, Flaw> {
    let algorithm = match (entry.algorithm.as_str(), &entry.source) {
        ("", config::KeySource::JwksFile(_) | config::KeySource::JwksUrl(_)) => None,
        (name, _) => Some(Algorithm::parse(name).ok_or_else(|| unknown_algorithm(name))?),
    };
    match (&entry.source, algorithm) {
        (config::KeySource::JwksFile(path), wanted) => jwk::load(&read(path)?, wanted, entry.kid.as_deref()),
        (config::KeySource::SecretFile(path), Some(algorithm)) => {
            Ok(one(secret_verifier(&secret_file(path)?, algorithm)?, algorithm))
        }
        (config::KeySource::Secret(text), Some(algorithm)) => Ok(one(
            secret_verifier(text.expose_secret().as_bytes(), algorithm)?,
            algorithm,
        )),
        (config::KeySource::PublicKeyFile(path), Some(algorithm)) => {
            Ok(one(public_verifier(&read(path)?, algorithm)?, algorithm))
        }
        (config::KeySource::JwksUrl(_), _) => Ok(Vec::new()),
        (_, None) => Err(unknown_algorithm("")),
    }
}

fn one(verifier: Verifier, algorithm: Algorithm) -> Vec<Loaded> {
    vec![Loaded {
        algorithm,
        kid: None,
        verifier,
    }]
}

fn secret_verifier(secret: &[u8], algorithm: Algorithm) -> Result<Verifier, Flaw> {
    if algorithm.family() != Family::Secret {
        return Err(Flaw::new(
            format!("{} needs a public key, not a secret", algorithm.as_str()),
            "use public_key_file or jwks_file",
        ));
    }
    // Whoever has the public key could sign with it.
    if secret.starts_with(b"-----BEGIN") {
        return Err(Flaw::new(
            "the secret is a PEM file, perhaps a public key",
            "use public_key_file with RS256, ES256 or EdDSA",
        ));
    }
    Verifier::from_secret(algorithm, secret).map_err(|unfit| flaw_of(unfit, algorithm))
}

fn public_verifier(file: &[u8], algorithm: Algorithm) -> Result<Verifier, Flaw> {
    if algorithm.family() == Family::Secret {
        return Err(Flaw::new(
            format!("{} needs a secret, not a public key", algorithm.as_str()),
            "use secret_file",
        ));
    }
    let key = pem::public_key(file)?;
    Verifier::from_public(algorithm, &key).map_err(|unfit| flaw_of(unfit, algorithm))
}

/// What to tell the operator about key material that does not fit.
pub(in crate::auth) fn flaw_of(unfit: Unfit, algorithm: Algorithm) -> Flaw {
    match unfit {
        Unfit::ShortSecret { bytes_min } => short_secret(bytes_min),
        Unfit::RsaSize => Flaw::new(
            "the RSA key has less than 2048 or more than 8192 bits",
            "generate one of 2048 to 4096 bits",
        ),
        Unfit::NotThatKey => {
            let name = algorithm.as_str();
            Flaw::new(
                format!("the key is not one for {name}, or is damaged"),
                format!("set algorithm to the key's, or give a key for {name}"),
            )
        }
    }
}

pub(super) fn short_secret(bytes_min: usize) -> Flaw {
    let remedy = format!("openssl rand -base64 {} > file", bytes_min + bytes_min / 2);
    Flaw::new(
        format!("the secret is shorter than {bytes_min} bytes, as long as its hash"),
        remedy,
    )
}

pub(in crate::auth) fn unknown_algorithm(name: &str) -> Flaw {
    let known: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.as_str()).collect();
    Flaw::new(
        format!("unknown algorithm {name:?}"),
        format!("one of {}", known.join(", ")),
    )
}

fn read(path: &Path) -> Result<Vec<u8>, Flaw> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            Flaw::new(
                format!("cannot read {}: {error}", path.display()),
                "check the path and who may read the file",
            )
        })?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(Flaw::new(
            format!("{} is larger than 1 MiB", path.display()),
            "check the path",
        ));
    }
    Ok(bytes)
}

/// The bytes of a secret file. One line end at its end is an editor's, not the secret's.
pub(in crate::auth) fn secret_file(path: &Path) -> Result<Vec<u8>, Flaw> {
    let mut bytes = read(path)?;
    let newline = [&b"\r\n"[..], b"\n"]
        .into_iter()
        .find(|newline| bytes.ends_with(newline));
    bytes.truncate(bytes.len() - newline.map_or(0, <[u8]>::len));
    Ok(bytes)
}
