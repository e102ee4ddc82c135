use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn key(kid: Option<&str>, source: KeySource) -> Key {
    Key {
        algorithm: "HS256".to_owned(),
        source,
        kid: kid.map(str::to_owned),
        issuer: Some("https://app.example.com".to_owned()),
        audience: vec!["conclave".to_owned(), "other".to_owned()],
        user_prefix: String::new(),
        set_in: "conclave.toml:9".to_owned(),
    }
}

fn claims(rooms: &[&str], claims: &[&str]) -> Result<Value, Failure> {
    let own = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (rooms, claims) = (own(rooms), own(claims));
    let wish = Wish {
        sub: "u1",
        name: Some("Ann"),
        ttl: Duration::from_secs(60),
        rooms: &rooms,
        probe: false,
        claims: &claims,
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    wish.claims(&key(None, KeySource::SecretFile("s".into())), now)
        .map(|(claims, _)| claims)
}

#[test]
fn claims_are_those_of_the_protocol() {
    assert_eq!(
        claims(
            &["lobby", "a=b/*=join,chat"],
            &["info={\"team\":7}", "plan=gold", "name=\"Bea\""]
        )
        .unwrap(),
        json!({
            "sub": "u1", "name": "Bea", "iat": 1_000, "exp": 1_060, "iss": "https://app.example.com", "aud": "conclave",
            "rooms": {"lobby": ["*"], "a=b/*": ["join", "chat"]}, "info": {"team": 7}, "plan": "gold",
        })
    );
}

#[test]
fn bad_wishes_are_refused_as_usage() {
    for (rooms, wanted) in [
        (&["lobby=shout"][..], &[][..]),
        (&["a*b"], &[]),
        (&["=join"], &[]),
        (&[], &["=1"]),
        (&[], &["plan"]),
    ] {
        assert_eq!(claims(rooms, wanted).unwrap_err().report(), 64, "{rooms:?} {wanted:?}");
    }
}

#[test]
fn the_first_key_that_can_sign_is_taken_unless_one_is_named() {
    let keys = [
        key(Some("rsa"), KeySource::PublicKeyFile("p".into())),
        key(Some("one"), KeySource::SecretFile("a".into())),
        key(Some("two"), KeySource::SecretFile("b".into())),
    ];
    assert_eq!(choose(&keys, None).unwrap().kid.as_deref(), Some("one"));
    assert_eq!(choose(&keys, Some("two")).unwrap().kid.as_deref(), Some("two"));
    assert_eq!(choose(&keys, Some("three")).unwrap_err().report(), 64);
    assert_eq!(choose(&keys[..1], None).unwrap_err().report(), 64);
}
