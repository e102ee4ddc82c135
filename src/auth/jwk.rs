//! Keys out of a JWK set file (RFC 7517). The set says which algorithm a key has; what we cannot use is skipped.

use aws_lc_rs::signature::RsaPublicKeyComponents;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, Family, Unfit, Verifier};
use super::json;
use super::keys::{Flaw, Loaded, flaw_of};

type Jwk = Map<String, Value>;

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
