//! Good tokens of every algorithm, and far more bad ones.

use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA384};
use serde_json::json;

use super::*;
use crate::auth::DeniedWord::*;
use crate::auth::fixtures::*;
use crate::auth::{Policy, Verb};
use crate::config;

const ISSUER: &str = "https://issuer.example";

fn named(kid: &str, key: config::Key) -> config::Key {
    config::Key {
        kid: Some(kid.into()),
        ..key
    }
}

/// Several keys as an operator may have them.
fn ring() -> Policy {
    let ed = named("ed", public("EdDSA", "ed.pem"));
    let ed = config::Key {
        issuer: Some(ISSUER.into()),
        audience: vec!["conclave".into(), "chat".into()],
        user_prefix: "ed-".into(),
        ..ed
    };
    let mut keys = Keys::load(&[
        secret("HS256", SECRET),
        named("hs", secret("HS256", OTHER_SECRET)),
        named("rs", public("RS256", "rsa.pem")),
        named("es", public("ES256", "p256.pem")),
        named("es384", public("ES384", "p384.pem")),
        ed,
    ])
    .unwrap();
    keys.add_session(b"the guests' secret is 32 bytes at least").unwrap();
    policy(keys, &[])
}

fn verdict(policy: &Policy, token: &str) -> Result<Verified, DeniedWord> {
    policy.verify(token, NOW).map_err(Denied::word)
}

#[test]
fn a_good_token_of_every_algorithm_passes_and_another_library_agrees() {
    for algorithm in super::super::algorithm::Algorithm::ALL.map(super::super::algorithm::Algorithm::as_str) {
        let (file, key) = match &algorithm[..2] {
            "HS" => (None, secret(algorithm, SECRET)),
            "RS" | "PS" => (Some("rsa.pem"), public(algorithm, "rsa.pem")),
            "Ed" => (Some("ed.pem"), public(algorithm, "ed.pem")),
            _ if algorithm == "ES256" => (Some("p256.pem"), public(algorithm, "p256.pem")),
            _ => (Some("p384.pem"), public(algorithm, "p384.pem")),
        };
        let policy = policy(Keys::load(&[key]).unwrap(), &[]);
        let token = token(
            algorithm,
            &format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#),
            claims(""),
        );
        let verified = verdict(&policy, &token).unwrap_or_else(|word| panic!("{algorithm}: {word:?}"));
        assert_eq!(&*verified.identity().user_id, "u1");
        assert!(oracle(algorithm, file, &token), "{algorithm}");
        let bad = flip(&token);
        assert_eq!(verdict(&policy, &bad).err(), Some(TokenSignature), "{algorithm}");
        assert!(!oracle(algorithm, file, &bad), "{algorithm}");
    }
}

fn oracle(algorithm: &str, file: Option<&str>, token: &str) -> bool {
    use jsonwebtoken::{DecodingKey, Validation, decode};
    let pem = file
        .map(|file| std::fs::read(PAIRS.path(file)).unwrap())
        .unwrap_or_default();
    let key = match &algorithm[..2] {
        "HS" => DecodingKey::from_secret(SECRET.as_bytes()),
        "RS" | "PS" => DecodingKey::from_rsa_pem(&pem).unwrap(),
        "Ed" => DecodingKey::from_ed_pem(&pem).unwrap(),
        _ => DecodingKey::from_ec_pem(&pem).unwrap(),
    };
    let mut signature_only = Validation::new(algorithm.parse().unwrap());
    signature_only.validate_exp = false;
    decode::<serde_json::Value>(token, &key, &signature_only).is_ok()
}

/// One bit of the signature's first byte changed.
fn flip(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    signature[0] ^= 1;
    format!("{signed}.{}", b64(signature))
}

#[test]
fn what_a_token_says_reaches_the_identity() {
    let policy = ring();
    let more = r#","iat":1,"jti":"t1","name":"Ann \"B\"","info":{"team":"x"},"rooms":{"lobby":["join"]},"nbf":5.9,"extra":[{}]"#;
    let verified = verdict(&policy, &hs256(claims(more))).unwrap();
    let identity = verified.identity();
    assert_eq!(
        &*identity.user_json,
        r#"{"id":"u1","name":"Ann \"B\"","info":{"team":"x"}}"#
    );
    assert_eq!(
        (identity.token_id.as_deref(), identity.issued_at.seconds()),
        (Some("t1"), Some(1))
    );
    assert!(identity.is_granted("lobby", Verb::Join, false) && !identity.is_granted("lobby", Verb::Chat, true));
    assert_eq!(
        (verified.expires_at(), verified.ends_at()),
        (Some(NOW + 60), Some(NOW + 65))
    );
    assert_eq!(format!("{identity:?}"), r#"Identity { user_id: "u1", .. }"#);
    assert!(
        size_of::<crate::auth::Identity>() <= 80,
        "ten thousands of these are alive"
    );
}

/// No claim of the protocol: only what can mean nothing else makes a probe, and nothing is refused for it.
#[test]
fn a_probe_says_so_in_so_many_words() {
    let policy = ring();
    for (more, is_probe) in [
        ("", false),
        (r#","probe":true"#, true),
        (r#","probe":false"#, false),
        (r#","probe":1"#, false),
        (r#","probe":"true""#, false),
        (r#","probe":{"of":"Mars"}"#, false),
    ] {
        let verified = verdict(&policy, &hs256(claims(more))).unwrap();
        assert_eq!(verified.identity().is_probe, is_probe, "{more}");
    }
    for at in [None, Some(0), Some(1), Some(253_402_300_799)] {
        assert_eq!(crate::auth::IssuedAt::from(at).seconds(), at);
    }
}

#[test]
fn good_variants() {
    let policy = ring();
    let ed = |claims: &str| token("EdDSA", r#"{"alg":"EdDSA","kid":"ed"}"#, claims);
    let exp = NOW + 60;
    let at = |rest: &str| format!(r#"{{"exp":{exp},{rest}}}"#);
    for (name, token, id) in [
        ("integer sub", hs256(at(r#""sub":42"#)), "42"),
        ("negative sub", hs256(at(r#""sub":-42"#)), "-42"),
        (
            "256 bytes of sub",
            hs256(at(&format!(r#""sub":"{}""#, "a".repeat(256)))),
            &*"a".repeat(256),
        ),
        ("escaped name of a claim", hs256(at(r#""s\u0075b":"u""#)), "u"),
        (
            "within the leeway",
            hs256(format!(r#"{{"sub":"u","exp":{}}}"#, NOW - 4)),
            "u",
        ),
        (
            "nbf within the leeway",
            hs256(at(&format!(r#""sub":"u","nbf":{}"#, NOW + 5))),
            "u",
        ),
        (
            "iat in the future",
            hs256(at(&format!(r#""sub":"u","iat":{}"#, NOW + 500))),
            "u",
        ),
        ("fractional exp", hs256(format!(r#"{{"sub":"u","exp":{NOW}.75}}"#)), "u"),
        ("exponent in exp", hs256(r#"{"sub":"u","exp":1.9e9}"#), "u"),
        (
            "unknown kid, key without one",
            token("HS256", r#"{"alg":"HS256","kid":"?"}"#, at(r#""sub":"u""#)),
            "u",
        ),
        (
            "no kid, key with one",
            token("ES256", r#"{"alg":"ES256"}"#, at(r#""sub":"u""#)),
            "u",
        ),
        (
            "white space in JSON",
            hs256(format!(" {{ \"sub\" : \"u\" ,\n\"exp\":{exp} }} ")),
            "u",
        ),
        (
            "issuer and audience",
            ed(&at(&format!(r#""sub":"u","iss":"{ISSUER}","aud":"chat""#))),
            "ed-u",
        ),
        (
            "audience in a list",
            ed(&at(&format!(r#""sub":"u","iss":"{ISSUER}","aud":["x","conclave"]"#))),
            "ed-u",
        ),
        (
            "any iss where none is configured",
            hs256(at(r#""sub":"u","iss":"anyone""#)),
            "u",
        ),
        (
            "keys in the header are not looked at",
            token(
                "HS256",
                r#"{"alg":"HS256","jwk":{"kty":"oct","k":""},"jku":"http://127.0.0.1:1/","x5u":"file:///etc/passwd","x5c":["!"]}"#,
                at(r#""sub":"u""#),
            ),
            "u",
        ),
    ] {
        let verified = verdict(&policy, &token).unwrap_or_else(|word| panic!("{name}: {word:?}"));
        assert_eq!(&*verified.identity().user_id, id, "{name}");
    }
}

#[test]
fn a_hundred_bad_tokens() {
    let bad: Vec<_> = [forms(), headers(), signatures(), claim_types(), times_and_issuers()].concat();
    assert!(bad.len() >= 100, "{}", bad.len());
    let policy = ring();
    for (name, token, expected) in &bad {
        assert_eq!(verdict(&policy, token).err(), Some(*expected), "{name}");
        // Not even the explanation shows a signature, and it never fails.
        let lines = crate::auth::diagnose(token, &policy, NOW).join("\n");
        assert!(
            lines.ends_with(&policy.verify(token, NOW).unwrap_err().to_string()),
            "{name}: {lines}"
        );
        let signature = token.rsplit('.').next().unwrap();
        assert!(signature.len() < 20 || !lines.contains(signature), "{name}: {lines}");
    }
}

type Bad = (String, String, DeniedWord);

fn bad(name: impl Into<String>, token: impl Into<String>, word: DeniedWord) -> Bad {
    (name.into(), token.into(), word)
}

fn good() -> String {
    hs256(claims(""))
}

fn forms() -> Vec<Bad> {
    let (header, rest) = good()
        .split_once('.')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let (middle, signature) = rest.split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let claims_bytes = |bytes: &[u8]| token_by(r#"{"alg":"HS256"}"#, bytes, |message| PAIRS.sign("HS256", message));
    let long = hs256(claims(&format!(r#","x":"{}""#, "a".repeat(8192))));
    let deep = claims(&format!(r#","x":{}{}"#, "[".repeat(40), "]".repeat(40)));
    let very_deep = claims(&format!(r#","x":{}{}"#, "[".repeat(2500), "]".repeat(2500)));
    [
        ("nothing", String::new()),
        ("a word", "token".into()),
        ("dots", "..".into()),
        ("many dots", ".".repeat(8000)),
        ("2 parts", format!("{header}.{middle}")),
        ("4 parts", format!("{header}.{middle}.{signature}.")),
        (
            "JWE, 5 parts",
            format!("{header}.{middle}.{signature}.{signature}.{signature}"),
        ),
        ("JSON serialisation", r#"{"payload":"","signatures":[]}"#.into()),
        ("empty header", format!(".{middle}.{signature}")),
        ("empty claims", format!("{header}..{signature}")),
        ("padding on the header", format!("{header}=.{middle}.{signature}")),
        ("padding on the claims", format!("{header}.{middle}==.{signature}")),
        ("padding on the signature", format!("{header}.{middle}.{signature}=")),
        ("space before", format!(" {}", good())),
        ("space after", format!("{} ", good())),
        ("newline after", format!("{}\n", good())),
        ("space inside", format!("{header}. {middle}.{signature}")),
        (
            "newline inside the signature",
            format!("{header}.{middle}.{}\n{}", &signature[..10], &signature[10..]),
        ),
        ("NUL", format!("{}\0", good())),
        ("the other alphabet", format!("{header}.{middle}.+/{}", &signature[2..])),
        ("not ASCII", format!("{header}.{middle}.\u{e4}{signature}")),
        (
            "bits after the end",
            format!("{header}.{middle}.{}", trailing_bits(&signature)),
        ),
        ("Bearer in it", format!("Bearer {}", good())),
        ("too long", long),
        ("too long and nonsense", "a".repeat(8193)),
        ("claims of bytes", claims_bytes(b"\xff\xfe\x00")),
        (
            "claims not UTF-8",
            claims_bytes(b"{\"sub\":\"\xff\",\"exp\":1900000000}"),
        ),
        (
            "overlong UTF-8",
            claims_bytes(b"{\"sub\":\"\xc0\x80\",\"exp\":1900000000}"),
        ),
        (
            "claims with a BOM",
            claims_bytes(&[b"\xef\xbb\xbf", claims("").as_bytes()].concat()),
        ),
        ("claims are a list", hs256("[]")),
        ("claims are a string", hs256("\"sub\"")),
        ("claims are null", hs256("null")),
        ("claims cut", hs256(r#"{"sub":"u1""#)),
        ("claims and more", hs256(format!("{} {{}}", claims("")))),
        ("comma at the end", hs256(claims(","))),
        ("comments", hs256(claims("/* */"))),
        ("single quotes", hs256("{'sub':'u1','exp':1900000000}")),
        ("NaN", hs256(r#"{"sub":"u1","exp":NaN}"#)),
        ("lone surrogate", hs256(claims(r#","x":"\ud800""#))),
        ("raw control character", hs256(claims(",\"x\":\"\n\""))),
        ("deep", hs256(deep)),
        ("very deep", hs256(very_deep)),
    ]
    .map(|(name, token)| bad(name, token, TokenMalformed))
    .to_vec()
}

/// The same bytes to a lenient decoder: the last letter with one of its unused bits set.
fn trailing_bits(signature: &str) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = signature.split_at(signature.len() - 1);
    let place = alphabet.find(last).unwrap();
    format!("{start}{}", alphabet.as_bytes()[place ^ 1] as char)
}

fn headers() -> Vec<Bad> {
    let form = |name: &str, header: &str| bad(name, token("HS256", header, claims("")), TokenMalformed);
    let unsigned = |alg: &str| {
        let token = token_by(&format!(r#"{{"alg":"{alg}"}}"#), claims(""), |_| Vec::new());
        bad(format!("alg {alg}, no signature"), token, TokenSignature)
    };
    let signed = |alg: &str| {
        bad(
            format!("alg {alg}, HS256 signature"),
            token("HS256", &format!(r#"{{"alg":"{alg}"}}"#), claims("")),
            TokenSignature,
        )
    };
    let kid = |kid: &str| {
        let token = token("RS256", &json!({"alg": "RS256", "kid": kid}).to_string(), claims(""));
        bad(format!("kid {kid:?}"), token, TokenSignature)
    };
    let mut all = vec![
        form("header is a list", "[]"),
        form("header is a string", "\"HS256\""),
        form("header is no JSON", "{alg:HS256}"),
        form("no alg", "{}"),
        form("alg null", r#"{"alg":null}"#),
        form("alg number", r#"{"alg":256}"#),
        form("alg list", r#"{"alg":["HS256"]}"#),
        form("alg twice", r#"{"alg":"none","alg":"HS256"}"#),
        form("alg twice, escaped", r#"{"alg":"none","\u0061lg":"HS256"}"#),
        form("kid number", r#"{"alg":"HS256","kid":1}"#),
        form("kid null", r#"{"alg":"HS256","kid":null}"#),
        form("kid list", r#"{"alg":"HS256","kid":["hs"]}"#),
        form("kid object", r#"{"alg":"HS256","kid":{"$ne":""}}"#),
        form("crit", r#"{"alg":"HS256","crit":["exp"]}"#),
        form("crit empty", r#"{"alg":"HS256","crit":[]}"#),
        form("crit b64", r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#),
        form(
            "deep header",
            &format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(40), "]".repeat(40)),
        ),
        bad(
            "header not UTF-8",
            format!("{}.{}.", b64(b"{\"alg\":\"\xff\"}"), b64(claims(""))),
            TokenMalformed,
        ),
    ];
    all.extend(["none", "None", "NONE", "nOnE", "", "HS256", "RS256", "null"].map(unsigned));
    all.extend(
        [
            "none",
            "hs256",
            "HS256 ",
            " HS256",
            "HS256\\u0000",
            "HS384",
            "HS512",
            "HS1",
            "RS256",
            "ES256",
            "EdDSA",
            "dir",
            "A128KW",
        ]
        .map(signed),
    );
    all.extend(
        [
            "../../../dev/null",
            "/dev/null",
            "x' OR '1'='1",
            "hs",
            "es",
            "ed",
            "rs ",
            "RS",
            "",
            "rs\0",
            "file:///rsa.pem",
            "http://127.0.0.1/k",
        ]
        .map(kid),
    );
    all
}

#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn signatures() -> Vec<Bad> {
    let pem = std::fs::read(PAIRS.path("rsa.pem")).unwrap();
    let (rs, es) = (r#"{"alg":"RS256","kid":"rs"}"#, r#"{"alg":"ES256","kid":"es"}"#);
    let by = |name: &str, header: &str, secret: &[u8]| {
        bad(
            name,
            token_by(header, claims(""), |message| hmac_of(HMAC_SHA256, secret, message)),
            TokenSignature,
        )
    };
    let bytes = |name: &str, header: &str, signature: Vec<u8>| {
        bad(name, token_by(header, claims(""), |_| signature), TokenSignature)
    };
    let (signed, signature) = good()
        .rsplit_once('.')
        .map(|(a, b)| (a.to_owned(), URL_SAFE_NO_PAD.decode(b).unwrap()))
        .unwrap();
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32)
        .map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let mut all = vec![
        by("RSA's PEM as HMAC secret", r#"{"alg":"HS256","kid":"rs"}"#, &pem),
        by("RSA's PEM as HMAC secret, no kid", r#"{"alg":"HS256"}"#, &pem),
        by(
            "RSA's PEM without its last newline",
            r#"{"alg":"HS256","kid":"rs"}"#,
            pem.trim_ascii_end(),
        ),
        by("HMAC under RS256", rs, &pem),
        by("HMAC under ES256", es, SECRET.as_bytes()),
        by("another secret", r#"{"alg":"HS256"}"#, &[0; 32]),
        by("an empty secret", r#"{"alg":"HS256"}"#, b""),
        by("another key's kid", r#"{"alg":"HS256","kid":"hs"}"#, SECRET.as_bytes()),
        by(
            "the guests' kid",
            r#"{"alg":"HS256","kid":"conclave-session"}"#,
            SECRET.as_bytes(),
        ),
        by(
            "a named key under an unknown name",
            r#"{"alg":"HS256","kid":"?"}"#,
            OTHER_SECRET.as_bytes(),
        ),
        bad("RS256 under ES256", token("RS256", es, claims("")), TokenSignature),
        bad("ES256 under RS256", token("ES256", rs, claims("")), TokenSignature),
        bad("PS256 under RS256", token("PS256", rs, claims("")), TokenSignature),
        bad(
            "PS256 with an RS256 key",
            token("PS256", r#"{"alg":"PS256","kid":"rs"}"#, claims("")),
            TokenSignature,
        ),
        bad(
            "RS512 with an RS256 key",
            token("RS512", r#"{"alg":"RS512","kid":"rs"}"#, claims("")),
            TokenSignature,
        ),
        bad("ES384 under ES256", token("ES384", es, claims("")), TokenSignature),
        bad("EdDSA under ES256", token("EdDSA", es, claims("")), TokenSignature),
        bad("ES256 as DER", token("ES256-der", es, claims("")), TokenSignature),
        bytes("r = s = 0", es, vec![0; 64]),
        bytes("r = s = 1", es, [[0; 31].as_slice(), &[1], &[0; 31], &[1]].concat()),
        bytes("r = s = the order", es, [order.as_slice(), &order].concat()),
        bytes("zeros for RSA", rs, vec![0; 256]),
        bytes("one for RSA", rs, [[0; 255].as_slice(), &[1]].concat()),
        bytes("short for RSA", rs, vec![1; 128]),
        bytes("long for RSA", rs, vec![1; 512]),
        bytes("zeros for Ed25519", r#"{"alg":"EdDSA","kid":"ed"}"#, vec![0; 64]),
        bytes(
            "small order for Ed25519",
            r#"{"alg":"EdDSA","kid":"ed"}"#,
            [[1].as_slice(), &[0; 63]].concat(),
        ),
        bad(
            "HS384 cut to 32 bytes",
            token_by(r#"{"alg":"HS256"}"#, claims(""), |m| {
                hmac_of(HMAC_SHA384, SECRET.as_bytes(), m)[..32].to_vec()
            }),
            TokenSignature,
        ),
        bad("none", format!("{signed}."), TokenSignature),
        bad(
            "other claims",
            format!(
                "{}.{}.{}",
                b64(r#"{"alg":"HS256"}"#),
                b64(claims(r#","x":1"#)),
                b64(&signature)
            ),
            TokenSignature,
        ),
        bad(
            "other header",
            format!("{}.{}.{}", b64(r#"{"alg":"HS256" }"#), b64(claims("")), b64(&signature)),
            TokenSignature,
        ),
        bad(
            "signature twice",
            format!("{signed}.{}", b64([signature.as_slice(), &signature].concat())),
            TokenSignature,
        ),
        bad(
            "its own key in the header",
            token_by(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#, claims(""), |m| {
                hmac_of(HMAC_SHA256, &[0; 3], m)
            }),
            TokenSignature,
        ),
    ];
    all.extend([1, 16, 31].map(|n| {
        bad(
            format!("{n} bytes of the signature"),
            format!("{signed}.{}", b64(&signature[..n])),
            TokenSignature,
        )
    }));
    all.extend((0..256).step_by(37).map(|bit| {
        let mut flipped = signature.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        bad(
            format!("bit {bit} flipped"),
            format!("{signed}.{}", b64(flipped)),
            TokenSignature,
        )
    }));
    all
}

#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn claim_types() -> Vec<Bad> {
    let mut all = Vec::new();
    let wrong = |name: &str, values: &[&str], all: &mut Vec<Bad>| {
        for value in values {
            let claims = match name {
                "sub" => format!(r#"{{"sub":{value},"exp":1900000000}}"#),
                "exp" => format!(r#"{{"sub":"u1","exp":{value}}}"#),
                _ => claims(&format!(r#","{name}":{value}"#)),
            };
            all.push(bad(format!("{name}: {value:.40}"), hs256(claims), TokenMalformed));
        }
    };
    let long = format!("\"{}\"", "a".repeat(257));
    let times = [
        "null",
        "true",
        "\"1900000000\"",
        "\"\"",
        "-1",
        "-0.5",
        "[1900000000]",
        "{}",
        "1e300",
        "1e999",
        "253402300800",
        "1800000000000",
        "18446744073709551615",
        "99999999999999999999999",
    ];
    wrong(
        "sub",
        &[
            "null",
            "true",
            "\"\"",
            "1.5",
            "1e3",
            "99999999999999999999999",
            "[\"u1\"]",
            "{\"a\":1}",
            &long,
            "\"a\\u0000b\"",
            "\"a\\nb\"",
            "\"\\u0085\"",
        ],
        &mut all,
    );
    wrong("exp", &times, &mut all);
    wrong("nbf", &times, &mut all);
    wrong("iat", &times, &mut all);
    wrong("iss", &["null", "1", "[\"a\"]", "{}", "false"], &mut all);
    wrong(
        "aud",
        &["null", "1", "{}", "[1]", "[\"a\",null]", "[[\"a\"]]", "true"],
        &mut all,
    );
    wrong("jti", &["null", "1", "[]", "{}", &long], &mut all);
    wrong(
        "name",
        &["null", "1", "[]", "{\"toString\":1}", &long, "\"a\\u001b[2Jb\""],
        &mut all,
    );
    wrong(
        "info",
        &[
            "null",
            "1",
            "\"x\"",
            "[]",
            &format!("{{\"a\":\"{}\"}}", "a".repeat(1024)),
        ],
        &mut all,
    );
    wrong(
        "rooms",
        &[
            "null",
            "1",
            "\"*\"",
            "[\"lobby\"]",
            "{\"a\":\"join\"}",
            "{\"a\":[1]}",
            "{\"a\":[\"admin\"]}",
            "{\"a*b\":[\"join\"]}",
            "{\"\":[]}",
            "{\"a\":{\"join\":true}}",
            "{\"a\":[],\"a\":[\"*\"]}",
        ],
        &mut all,
    );
    let exp = NOW + 60;
    for (name, claims) in [
        ("no sub", format!(r#"{{"exp":{exp}}}"#)),
        ("no exp", r#"{"sub":"u1"}"#.into()),
        ("nothing", "{}".into()),
        ("sub twice", format!(r#"{{"sub":"u1","sub":"admin","exp":{exp}}}"#)),
        (
            "sub twice, escaped",
            format!(r#"{{"sub":"u1","\u0073ub":"admin","exp":{exp}}}"#),
        ),
        ("exp twice", format!(r#"{{"sub":"u1","exp":1,"exp":{exp}}}"#)),
        ("unknown claim twice", claims(r#","x":1,"x":1"#)),
        ("info's member twice", claims(r#","info":{"a":1,"a":2}"#)),
        ("Sub is not sub", format!(r#"{{"Sub":"u1","exp":{exp}}}"#)),
        (
            "a guest's id from an application",
            format!(r#"{{"sub":"guest:abc","exp":{exp}}}"#),
        ),
    ] {
        all.push(bad(name, hs256(claims), TokenMalformed));
    }
    all
}

fn times_and_issuers() -> Vec<Bad> {
    let at = |exp: UnixSeconds| hs256(format!(r#"{{"sub":"u1","exp":{exp}}}"#));
    let ed = |name: &str, more: &str, word| {
        bad(
            name,
            token("EdDSA", r#"{"alg":"EdDSA","kid":"ed"}"#, claims(more)),
            word,
        )
    };
    let iss = format!(r#","iss":"{ISSUER}""#);
    let prefixed = format!(
        r#"{{"sub":"{}","exp":{},"iss":"{ISSUER}","aud":"chat"}}"#,
        "a".repeat(254),
        NOW + 60
    );
    let guest = |claims: &str| {
        let secret = b"the guests' secret is 32 bytes at least";
        token_by(r#"{"alg":"HS256","kid":"conclave-session"}"#, claims, |message| {
            hmac_of(HMAC_SHA256, secret, message)
        })
    };
    vec![
        bad("expired by the leeway", at(NOW - 5), TokenExpired),
        bad("expired long ago", at(0), TokenExpired),
        bad(
            "expired and not yet valid",
            hs256(format!(r#"{{"sub":"u1","exp":1,"nbf":{}}}"#, NOW + 60)),
            TokenExpired,
        ),
        bad(
            "nbf a second too far",
            hs256(claims(&format!(r#","nbf":{}"#, NOW + 6))),
            TokenNotYetValid,
        ),
        bad(
            "nbf far away",
            hs256(claims(r#","nbf":253402300799"#)),
            TokenNotYetValid,
        ),
        bad(
            "aud where none is configured",
            hs256(claims(r#","aud":"conclave""#)),
            TokenAudience,
        ),
        bad(
            "empty aud where none is configured",
            hs256(claims(r#","aud":[]"#)),
            TokenAudience,
        ),
        ed("no iss", r#","aud":"chat""#, TokenIssuer),
        ed(
            "another iss",
            r#","iss":"https://other.example","aud":"chat""#,
            TokenIssuer,
        ),
        ed(
            "iss with a slash",
            r#","iss":"https://issuer.example/","aud":"chat""#,
            TokenIssuer,
        ),
        ed(
            "iss in capitals",
            r#","iss":"https://ISSUER.example","aud":"chat""#,
            TokenIssuer,
        ),
        ed("no aud", &iss, TokenAudience),
        ed("another aud", &format!(r#"{iss},"aud":"other""#), TokenAudience),
        ed("empty aud", &format!(r#"{iss},"aud":[]"#), TokenAudience),
        ed("aud in capitals", &format!(r#"{iss},"aud":"CHAT""#), TokenAudience),
        ed("other auds", &format!(r#"{iss},"aud":["a","chat2"]"#), TokenAudience),
        bad(
            "too long with its prefix",
            token("EdDSA", r#"{"alg":"EdDSA","kid":"ed"}"#, prefixed),
            TokenMalformed,
        ),
        bad("a guest without its issuer", guest(&claims("")), TokenIssuer),
        bad(
            "a guest who is no guest",
            guest(&claims(r#","iss":"conclave-session""#)),
            TokenMalformed,
        ),
        bad("bad signature and expired", flip(&at(1)), TokenSignature),
    ]
}

#[test]
fn entries_that_share_a_key_are_told_apart_by_issuer() {
    let entry = |issuer: &str, prefix: &str| config::Key {
        issuer: Some(issuer.into()),
        user_prefix: prefix.into(),
        ..named("k", secret("HS256", SECRET))
    };
    let policy = policy(Keys::load(&[entry("a", "a-"), entry("b", "b-")]).unwrap(), &[]);
    let id = |iss: &str| {
        verdict(&policy, &hs256(claims(&format!(r#","iss":"{iss}""#)))).map(|v| v.identity().user_id.to_string())
    };
    assert_eq!(id("a").as_deref(), Ok("a-u1"));
    assert_eq!(id("b").as_deref(), Ok("b-u1"));
    assert_eq!(id("c").as_deref(), Err(&TokenIssuer));
}

#[test]
fn expiry_is_optional_where_the_operator_says_so() {
    let mut policy = ring();
    policy.rules.require_expiry = false;
    assert_eq!(verdict(&policy, &hs256(r#"{"sub":"u1"}"#)).unwrap().expires_at(), None);
    assert_eq!(
        verdict(&policy, &hs256(r#"{"sub":"u1","exp":1}"#)).err(),
        Some(TokenExpired)
    );
}

#[test]
fn without_sign_in_a_sub_may_begin_with_guest() {
    let policy = policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[]);
    let token = hs256(format!(r#"{{"sub":"guest:1","exp":{}}}"#, NOW + 60));
    assert_eq!(&*verdict(&policy, &token).unwrap().identity().user_id, "guest:1");
}

#[test]
fn the_explanation_names_keys_times_and_verdict() {
    let lines = crate::auth::diagnose(&hs256(format!(r#"{{"sub":"u1","exp":{}}}"#, NOW - 3600)), &ring(), NOW);
    let text = lines.join("\n");
    for part in [
        "header: alg \"HS256\", kid none",
        "HS256 key without kid (conclave.toml:7): tried, made the signature",
        "HS256 key \"hs\" (conclave.toml:7): tried, did not make the signature",
        "RS256 key \"rs\" (conclave.toml:7): not tried, another algorithm",
        "(1h ago)",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(lines.last().unwrap(), "verdict: token_expired: exp has passed");
}

proptest::proptest! {
    #[test]
    fn any_text_is_judged_without_a_panic(text in "\\PC*", header in "\\PC*", claims in "\\PC*") {
        let policy = ring_of_one();
        let _ = policy.verify(&text, NOW);
        let _ = policy.verify(&hs256(&claims), NOW);
        let _ = policy.verify(&token("HS256", &header, &claims), NOW);
    }
}

fn ring_of_one() -> Policy {
    policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[])
}
