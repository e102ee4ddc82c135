//! Keys and tokens for tests, made with the crypto library itself, so that no token library stands between.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::token::Rules;
use super::{Keys, Policy, UnixSeconds, parse_allow};
use crate::config::{self, KeySource};

/// What the tests' clock shows.
pub(crate) const NOW: UnixSeconds = 1_800_000_000;
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub(crate) const OTHER_SECRET: &str = "another secret, as long as any hash needs it to be: 64 bytes ok!";

/// One key pair of each kind, and their public halves as PEM files.
pub(crate) struct Pairs {
    pub dir: tempfile::TempDir,
    pub rsa: RsaKeyPair,
    pub p256: EcdsaKeyPair,
    pub p256_der: EcdsaKeyPair,
    pub p384: EcdsaKeyPair,
    pub ed: Ed25519KeyPair,
}

pub(crate) static PAIRS: LazyLock<Pairs> = LazyLock::new(|| {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pairs = Pairs {
        dir: tempfile::tempdir().unwrap(),
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        p256: EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap(),
        p256_der: EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap(),
        p384: EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(),
        ed: Ed25519KeyPair::generate().unwrap(),
    };
    let public = |name: &str, der: &[u8]| drop(pairs.write(name, pem("PUBLIC KEY", der).as_bytes()));
    public(
        "rsa.pem",
        AsDer::<PublicKeyX509Der>::as_der(pairs.rsa.public_key())
            .unwrap()
            .as_ref(),
    );
    public(
        "p256.pem",
        AsDer::<PublicKeyX509Der>::as_der(pairs.p256.public_key())
            .unwrap()
            .as_ref(),
    );
    public(
        "p384.pem",
        AsDer::<PublicKeyX509Der>::as_der(pairs.p384.public_key())
            .unwrap()
            .as_ref(),
    );
    public(
        "ed.pem",
        AsDer::<PublicKeyX509Der>::as_der(pairs.ed.public_key())
            .unwrap()
            .as_ref(),
    );
    pairs
});

impl Pairs {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// The signature of `algorithm` over `message`, by the pair that has this algorithm, or by `SECRET`.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match algorithm {
            "HS256" => hmac_of(hmac::HMAC_SHA256, SECRET.as_bytes(), message),
            "HS384" => hmac_of(hmac::HMAC_SHA384, SECRET.as_bytes(), message),
            "HS512" => hmac_of(hmac::HMAC_SHA512, SECRET.as_bytes(), message),
            "RS256" => self.rsa_sign(&signature::RSA_PKCS1_SHA256, message),
            "RS384" => self.rsa_sign(&signature::RSA_PKCS1_SHA384, message),
            "RS512" => self.rsa_sign(&signature::RSA_PKCS1_SHA512, message),
            "PS256" => self.rsa_sign(&signature::RSA_PSS_SHA256, message),
            "PS384" => self.rsa_sign(&signature::RSA_PSS_SHA384, message),
            "PS512" => self.rsa_sign(&signature::RSA_PSS_SHA512, message),
            "ES256" => self.p256.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            "ES256-der" => self
                .p256_der
                .sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec(),
            "ES384" => self.p384.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            other => panic!("no pair for {other}"),
        }
    }

    fn rsa_sign(&self, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa
            .sign(padding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    }
}

pub(crate) fn hmac_of(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message)
        .as_ref()
        .to_vec()
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of exactly these bytes, signed by `sign`.
pub(crate) fn token_by(header: &str, claims: impl AsRef<[u8]>, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}

/// A token with this header and these claims, signed with `algorithm`.
pub(crate) fn token(algorithm: &str, header: &str, claims: impl AsRef<[u8]>) -> String {
    token_by(header, claims, |message| PAIRS.sign(algorithm, message))
}

/// A token that says `claims`, signed by `SECRET`.
pub(crate) fn hs256(claims: impl AsRef<[u8]>) -> String {
    token("HS256", r#"{"alg":"HS256"}"#, claims)
}

/// `{"sub":"u1","exp":…}` and `more`, such as `,"nbf":1`.
pub(crate) fn claims(more: &str) -> String {
    format!(r#"{{"sub":"u1","exp":{}{more}}}"#, NOW + 60)
}

pub(crate) fn key(algorithm: &str, source: KeySource) -> config::Key {
    config::Key {
        algorithm: algorithm.into(),
        source,
        kid: None,
        issuer: None,
        audience: Vec::new(),
        user_prefix: String::new(),
        set_in: "conclave.toml:7".into(),
    }
}

pub(crate) fn secret(algorithm: &str, secret: &str) -> config::Key {
    key(algorithm, KeySource::Secret(SecretString::from(secret)))
}

pub(crate) fn public(algorithm: &str, file: &str) -> config::Key {
    key(algorithm, KeySource::PublicKeyFile(PAIRS.path(file)))
}

/// A policy with 5 s leeway, required expiry, and the origins in `allow`.
pub(crate) fn policy(keys: Keys, allow: &[&str]) -> Policy {
    let allow: Vec<String> = allow.iter().map(std::string::ToString::to_string).collect();
    let rules = Rules {
        leeway: Duration::from_secs(5),
        require_expiry: true,
    };
    Policy {
        allow: parse_allow(&allow).unwrap(),
        keys,
        cookie: "conclave_token".into(),
        query_token: true,
        rules,
        forward: config::default_config().auth.forward,
        revoked: Arc::default(),
    }
}

pub(crate) fn rsa_jwk(more: Value) -> Value {
    let public = aws_lc_rs::signature::RsaPublicKeyComponents::<Vec<u8>>::from(PAIRS.rsa.public_key());
    with(json!({"kty": "RSA", "n": b64(public.n), "e": b64(public.e)}), more)
}

pub(crate) fn ec_jwk(more: Value) -> Value {
    let point = PAIRS.p256.public_key().as_ref();
    with(
        json!({"kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..])}),
        more,
    )
}

pub(crate) fn with(mut jwk: Value, more: Value) -> Value {
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

/// The keys of `issuer` by URL, which nobody serves.
pub(crate) fn by_url(issuer: &str) -> config::Key {
    let source = config::JwksUrl {
        target: crate::outbound::Target::parse("http://127.0.0.1:9/keys").unwrap(),
        ca_file: None,
        algorithms: Vec::new(),
        refresh: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        minimum_gap: Duration::from_secs(1),
        maximum_age: Duration::from_hours(24),
        grace: Duration::from_secs(60),
    };
    config::Key {
        issuer: Some(issuer.into()),
        ..key("", KeySource::JwksUrl(Box::new(source)))
    }
}
