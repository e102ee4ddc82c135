//! What operators may hand us as keys, and what we say when it is not one.

use aws_lc_rs::signature::KeyPair;
use rcgen::{CertificateParams, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;
use crate::auth::algorithm::Unfit;
use crate::auth::fixtures::*;
use crate::config::KeySource;

fn load(key: config::Key) -> Result<Keys, Vec<KeyProblem>> {
    Keys::load(&[key])
}

fn problem(key: config::Key) -> KeyProblem {
    let mut problems = load(key).expect_err("a problem");
    assert_eq!(problems.len(), 1);
    let problem = problems.remove(0);
    assert_eq!(problem.set_in, "conclave.toml:7");
    assert!(!problem.to_string().contains(&SECRET[..16]), "{problem}");
    problem
}

fn jwks(name: &str, algorithm: &str, keys: Value) -> config::Key {
    let path = PAIRS.write(name, json!({"keys": keys}).to_string().as_bytes());
    key(algorithm, KeySource::JwksFile(path))
}

fn passes(keys: Keys, algorithm: &str, kid: &str) -> bool {
    let header = json!({"alg": algorithm, "kid": kid}).to_string();
    policy(keys, &[])
        .verify(&token(algorithm, &header, claims("")), NOW)
        .is_ok()
}

#[test]
fn jwks_name_their_own_algorithms() {
    let p384 = PAIRS.p384.public_key().as_ref();
    let set = json!([
        rsa_jwk(json!({"kid": "r", "use": "sig"})),
        rsa_jwk(json!({"kid": "p", "alg": "PS384", "key_ops": ["verify"]})),
        ec_jwk(json!({"kid": "e", "alg": "ES256"})),
        {"kid": "e3", "kty": "EC", "crv": "P-384", "x": b64(&p384[1..49]), "y": b64(&p384[49..])},
        {"kid": "d", "kty": "OKP", "crv": "Ed25519", "x": b64(PAIRS.ed.public_key().as_ref())},
        {"kid": "o", "kty": "oct", "k": b64(SECRET)},
        {"kid": "o5", "kty": "oct", "k": b64(SECRET), "alg": "HS512"},
    ]);
    for (algorithm, kid) in [
        ("RS256", "r"),
        ("PS384", "p"),
        ("ES256", "e"),
        ("ES384", "e3"),
        ("EdDSA", "d"),
        ("HS256", "o"),
        ("HS512", "o5"),
    ] {
        let keys = load(jwks("all.json", "", set.clone())).unwrap();
        assert!(passes(keys, algorithm, kid), "{algorithm}");
    }
    let keys = load(jwks("all.json", "", set)).unwrap();
    assert!(!passes(keys, "RS384", "r"));
}

#[test]
fn what_a_jwk_set_has_for_others_is_skipped() {
    let set = json!([
        rsa_jwk(json!({"kid": "enc", "use": "enc"})),
        rsa_jwk(json!({"kid": "ops", "key_ops": ["encrypt"]})),
        rsa_jwk(json!({"kid": "oaep", "alg": "RSA-OAEP"})),
        ec_jwk(json!({"kid": "k1", "crv": "secp256k1"})),
        ec_jwk(json!({"kid": "confused", "alg": "HS256"})),
        ec_jwk(json!({"kid": "confused2", "alg": "ES384"})),
        {"kid": "new", "kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        ec_jwk(json!({"kid": "e"})),
    ]);
    let keys = load(jwks("mixed.json", "", set)).unwrap();
    assert_eq!(keys.keys.len(), 1);
    assert_eq!(keys.keys[0].describe(), "ES256 key \"e\" (conclave.toml:7)");
}

#[test]
fn an_entry_may_narrow_its_jwk_set() {
    let set = json!([
        rsa_jwk(json!({"kid": "r"})),
        ec_jwk(json!({"kid": "e"})),
        ec_jwk(json!({"kid": "e2"}))
    ]);
    assert_eq!(load(jwks("three.json", "ES256", set.clone())).unwrap().keys.len(), 2);
    assert!(passes(
        load(jwks("three.json", "PS256", set.clone())).unwrap(),
        "PS256",
        "r"
    ));
    let one = config::Key {
        kid: Some("e2".into()),
        ..jwks("three.json", "", set.clone())
    };
    assert_eq!(load(one).unwrap().keys.len(), 1);
    let none = problem(jwks("three.json", "EdDSA", set));
    assert!(none.what.contains("no key in the JWK set"), "{none}");
}

#[test]
fn bad_jwk_sets() {
    let small = json!([{"kty": "RSA", "n": b64([0xff; 128]), "e": "AQAB"}]);
    let check = |set: Value, part: &str| {
        let problem = problem(jwks("bad.json", "", set));
        assert!(problem.what.contains(part), "{problem}");
    };
    check(small, "2048");
    check(json!([]), "no key");
    check(json!([1]), "not a JWK set");
    check(json!([ec_jwk(json!({"d": "AAAA"}))]), "private");
    check(json!([ec_jwk(json!({"x": "AAAA"}))]), "not one for ES256");
    check(json!([ec_jwk(json!({"x": b64([1; 32])}))]), "not one for ES256");
    check(json!([ec_jwk(json!({"y": 1}))]), "not one for ES256");
    check(json!([{"kty": "oct", "k": b64("short")}]), "shorter than 32");
    check(
        json!([{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]),
        "not one for EdDSA",
    );
    let path = PAIRS.write("text.json", b"keys");
    assert!(
        problem(key("", KeySource::JwksFile(path)))
            .what
            .contains("not a JWK set")
    );
}

#[test]
fn a_certificates_key_and_pkcs1_are_public_keys_too() {
    let pair = rcgen::KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let certificate = CertificateParams::new(vec!["a.example".into()])
        .unwrap()
        .self_signed(&pair)
        .unwrap();
    PAIRS.write("certificate.pem", certificate.pem().as_bytes());
    assert!(load(public("EdDSA", "certificate.pem")).is_ok());
    PAIRS.write(
        "pkcs1.pem",
        pem("RSA PUBLIC KEY", PAIRS.rsa.public_key().as_ref()).as_bytes(),
    );
    assert!(passes(load(public("RS256", "pkcs1.pem")).unwrap(), "RS256", "any"));
    assert!(
        problem(public("ES256", "certificate.pem"))
            .what
            .contains("not one for ES256")
    );
}

#[test]
fn every_mistake_has_a_sentence_and_a_remedy() {
    let check = |key: config::Key, what: &str, remedy: &str| {
        let problem = problem(key);
        assert!(
            problem.what.contains(what) && problem.remedy.contains(remedy),
            "{what}: {problem}"
        );
    };
    check(
        secret("HS256", &"a".repeat(31)),
        "shorter than 32",
        "openssl rand -base64 48 > file",
    );
    check(secret("HS384", &"a".repeat(47)), "shorter than 48", "openssl rand");
    check(secret("HS512", &"a".repeat(63)), "shorter than 64", "openssl rand");
    check(secret("RS256", SECRET), "needs a public key", "public_key_file");
    check(secret("HS256", &pem("PUBLIC KEY", &[0; 64])), "PEM", "public_key_file");
    check(secret("hs256", SECRET), "unknown algorithm \"hs256\"", "HS256");
    check(secret("none", SECRET), "unknown algorithm", "HS256");
    check(secret("", SECRET), "unknown algorithm", "HS256");
    check(public("HS256", "rsa.pem"), "needs a secret", "secret_file");
    check(public("RS256", "p256.pem"), "not one for RS256", "algorithm");
    check(public("ES256", "p384.pem"), "not one for ES256", "algorithm");
    check(public("ES384", "p256.pem"), "not one for ES384", "algorithm");
    check(public("ES256", "rsa.pem"), "not one for ES256", "algorithm");
    check(public("EdDSA", "p256.pem"), "not one for EdDSA", "algorithm");
    check(public("EdDSA", "absent.pem"), "cannot read", "path");
    PAIRS.write("private.pem", pem("PRIVATE KEY", &[0; 64]).as_bytes());
    check(public("EdDSA", "private.pem"), "private key", "-pubout");
    PAIRS.write("nothing.pem", b"hello");
    check(public("EdDSA", "nothing.pem"), "no PEM block", "-pubout");
    PAIRS.write("damaged.pem", pem("CERTIFICATE", &[0; 64]).as_bytes());
    check(public("EdDSA", "damaged.pem"), "damaged", "copy");
    PAIRS.write("huge.pem", &vec![b'a'; 1024 * 1024 + 1]);
    check(public("EdDSA", "huge.pem"), "larger than 1 MiB", "path");
    check(
        config::Key {
            user_prefix: "guest:x".into(),
            ..secret("HS256", SECRET)
        },
        "user_prefix",
        "another",
    );
}

#[test]
fn a_small_rsa_key_is_refused() {
    let refused = Verifier::from_rsa(
        Algorithm::RS256,
        &aws_lc_rs::signature::RsaPublicKeyComponents {
            n: vec![0x7f; 256],
            e: vec![1, 0, 1],
        },
    );
    assert_eq!(refused.err(), Some(Unfit::RsaSize));
}

#[test]
fn all_problems_come_at_once() {
    let problems = Keys::load(&[
        secret("HS256", "short"),
        public("EdDSA", "absent.pem"),
        secret("HS256", SECRET),
    ])
    .unwrap_err();
    assert_eq!(problems.len(), 2);
}

#[test]
fn the_keys_tried_for_one_token_are_bounded() {
    let keys = |n: usize| Keys::load(&vec![secret("HS256", SECRET); n]);
    assert!(keys(16).is_ok());
    assert!(keys(17).unwrap_err()[0].what.contains("more than 16 keys for HS256"));
}

#[test]
fn a_secret_files_last_newline_is_not_part_of_it() {
    for end in ["", "\n", "\r\n"] {
        let path = PAIRS.write("secret", format!("{SECRET}{end}").as_bytes());
        assert!(
            passes(load(key("HS256", KeySource::SecretFile(path))).unwrap(), "HS256", "any"),
            "{end:?}"
        );
    }
    let path = PAIRS.write("secret", format!("{SECRET}\n\n").as_bytes());
    assert!(!passes(
        load(key("HS256", KeySource::SecretFile(path))).unwrap(),
        "HS256",
        "any"
    ));
}

#[test]
fn the_guests_secret_is_checked_and_nothing_shows_it() {
    let mut keys = Keys::default();
    assert!(keys.add_session(&[1; 31]).is_err());
    assert!(!keys.have_session());
    keys.add_session(SECRET.as_bytes()).unwrap();
    assert_eq!(
        format!("{keys:?}"),
        "[\"HS256 key \\\"conclave-session\\\" (session.secret)\"]"
    );
}

#[test]
fn the_providers_install_twice() {
    install_provider().unwrap();
    install_provider().unwrap();
}
