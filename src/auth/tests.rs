//! From a request to an `Admitted`: the order of the questions.

use ::http::Request;
use serde_json::json;

use super::fixtures::*;
use super::*;

fn ask(headers: &[(&str, &str)], uri: &str) -> Result<Result<Admitted, DeniedWord>, Foreign> {
    let policy = policy(
        Keys::load(&[secret("HS256", SECRET)]).unwrap(),
        &["https://app.example.com", "https://*.example.org", "*"],
    );
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let origin = policy.origin(&parts, &|host| host == "localhost")?;
    let admitted = policy.shown(&parts, origin).and_then(|shown| match shown {
        Shown::Token(token, place) => policy.admit_token(&token, place, NOW),
        Shown::Ticket(_) => Err(Denied::new(DeniedWord::TicketUsed, "")),
        Shown::Nothing(denied) => Err(denied),
    });
    Ok(admitted.map_err(Denied::word))
}

#[test]
fn a_cookie_needs_a_named_origin() {
    let cookie = format!("conclave_token={}", hs256(claims("")));
    let with = |origin: Option<&str>| {
        let mut headers = vec![("cookie", cookie.as_str()), ("host", "localhost")];
        headers.extend(origin.map(|origin| ("origin", origin)));
        ask(&headers, "/ws").unwrap().map(|admitted| admitted.place())
    };
    assert_eq!(with(Some("https://app.example.com")), Ok(Place::Cookie));
    assert_eq!(with(Some("https://localhost")), Ok(Place::Cookie));
    assert_eq!(with(Some("https://a.example.org")), Err(DeniedWord::CookieOrigin));
    assert_eq!(with(Some("https://anyone.net")), Err(DeniedWord::CookieOrigin));
    assert_eq!(with(None), Err(DeniedWord::CookieOrigin));
}

#[test]
fn a_bad_token_is_not_rescued_by_another_place() {
    let good = hs256(claims(""));
    let (bearer, cookie) = (format!("Bearer {good}"), format!("conclave_token={good}"));
    let rest = [
        ("authorization", bearer.as_str()),
        ("cookie", cookie.as_str()),
        ("origin", "https://app.example.com"),
    ];
    assert_eq!(
        ask(&rest, &format!("/ws?token={good}")).unwrap().unwrap().place(),
        Place::Query
    );
    assert_eq!(
        ask(&rest, "/ws?token=bad").unwrap().unwrap_err(),
        DeniedWord::TokenMalformed
    );
    assert_eq!(ask(&rest, "/ws").unwrap().unwrap().place(), Place::Bearer);
    let rest = [("authorization", "Bearer bad"), rest[1], rest[2]];
    assert_eq!(ask(&rest, "/ws").unwrap().unwrap_err(), DeniedWord::TokenMalformed);
    assert_eq!(ask(&[], "/ws").unwrap().unwrap_err(), DeniedWord::TokenMissing);
    assert_eq!(
        ask(&[("origin", "null")], &format!("/ws?token={good}")).unwrap_err(),
        Foreign::Null
    );
}

#[test]
fn a_ticket_is_one_only_in_the_query_and_no_other_place_rescues_it() {
    let bearer = format!("Bearer {}", hs256(claims("")));
    let good = ("authorization", bearer.as_str());
    assert_eq!(
        ask(&[good], "/ws?token=t_x").unwrap().unwrap_err(),
        DeniedWord::TicketUsed
    );
    assert_eq!(
        ask(&[good], "/ws?token=t%5Fx").unwrap().unwrap_err(),
        DeniedWord::TicketUsed
    );
    let elsewhere = [("authorization", "Bearer t_x")];
    assert_eq!(ask(&elsewhere, "/ws").unwrap().unwrap_err(), DeniedWord::TokenMalformed);
}

#[test]
fn without_query_tokens_a_jwt_there_is_refused_and_a_ticket_is_not() {
    let policy = Policy {
        query_token: false,
        ..policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[])
    };
    let show = |uri: &str, bearer: &str| {
        let request = Request::builder().uri(uri).header("authorization", bearer);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let shown = policy.shown(&parts, OriginVerdict::Absent);
        shown
            .map(|shown| matches!(shown, Shown::Ticket(_)))
            .map_err(Denied::word)
    };
    let token = hs256(claims(""));
    assert_eq!(
        show(&format!("/ws?token={token}"), &format!("Bearer {token}")),
        Err(DeniedWord::TokenMalformed)
    );
    assert_eq!(show("/ws", &format!("Bearer {token}")), Ok(false));
    assert_eq!(show("/ws?token=t_x", ""), Ok(true));
}

#[test]
fn nothing_prints_a_token_or_a_secret() {
    let admitted = ask(
        &[],
        &format!("/ws?token={}", hs256(claims(r#","jti":"t-1","name":"Ann""#))),
    )
    .unwrap()
    .unwrap();
    let text = format!("{admitted:?}");
    assert!(!text.contains("Ann") && !text.contains("t-1"), "{text}");
    let policy = policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[]);
    assert!(!format!("{policy:?}").contains(&SECRET[..8]));
}

#[test]
fn a_minted_token_is_good_where_its_key_is() {
    let key = crate::config::Key {
        kid: Some("k".into()),
        issuer: Some("us".into()),
        audience: vec!["chat".into(), "other".into()],
        ..secret("HS512", SECRET)
    };
    let policy = policy(Keys::load(std::slice::from_ref(&key)).unwrap(), &[]);
    let token = mint(&json!({"sub": "u1", "exp": NOW + 1}), &key).unwrap();
    assert_eq!(&*policy.verify(&token, NOW).unwrap().identity().user_id, "u1");
    let token = mint(&json!({"sub": "u1", "exp": NOW + 1, "iss": "them"}), &key).unwrap();
    assert_eq!(policy.verify(&token, NOW).unwrap_err().word(), DeniedWord::TokenIssuer);
}

#[test]
fn what_cannot_be_minted_says_why() {
    let check = |key: crate::config::Key, part: &str| {
        let error = mint(&json!({"sub": "u1"}), &key).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(public("ES256", "p256.pem"), "private key");
    check(key("", crate::config::KeySource::JwksFile("x".into())), "private key");
    check(secret("HS256", "short"), "shorter than 32");
    assert!(matches!(
        mint(&json!([]), &secret("HS256", SECRET)),
        Err(MintError::NotAnObject)
    ));
}
