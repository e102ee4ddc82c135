//! Signing in as a page does it, and as another site would like to.

use std::net::SocketAddr;

use ::http::header::RETRY_AFTER;
use ::http::request::Builder;
use ::http::{Method, Request as HttpRequest};
use tower::ServiceExt;

use super::*;
use crate::auth::Keys;
use crate::auth::fixtures::{NOW, SECRET, hs256, policy, secret};
use crate::backplane::contract::{Revocation, Subject};

const OWN: &str = "https://localhost:8443";

fn app(per_minute: u32) -> (Router, Arc<Policy>) {
    let mut keys = Keys::load(&[secret("HS256", SECRET)]).unwrap();
    keys.add_session(&[9; 32]).unwrap();
    let policy = Arc::new(policy(keys, &["https://app.example.com", "https://*.example.org", "*"]));
    let limiter = NonZeroU32::new(per_minute).map(|n| AddressLimiter::new(Quota::per_minute(n)));
    let host_is_ours: HostIsOurs = Box::new(|host| host == "localhost");
    let sessions = Sessions {
        policy: Arc::clone(&policy),
        host_is_ours,
        ttl: Duration::from_secs(3600),
        limiter,
    };
    (routes(Arc::new(sessions)), policy)
}

fn request(method: Method, origin: Option<&str>) -> Builder {
    let request = HttpRequest::builder()
        .method(method)
        .uri("/session")
        .header("host", "localhost:8443");
    match origin {
        Some(origin) => request.header("origin", origin),
        None => request,
    }
}

fn post_as(origin: Option<&str>) -> Builder {
    request(Method::POST, origin).header("content-type", "application/json")
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

async fn send(app: &Router, request: Builder, body: impl Into<Body>) -> Answer {
    let response = app.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert_eq!(
        headers.get(CACHE_CONTROL).map(HeaderValue::as_bytes),
        Some(&b"no-store"[..])
    );
    Answer {
        status,
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

fn cookie(answer: &Answer) -> (String, String) {
    let cookie = answer.headers[SET_COOKIE].to_str().unwrap();
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    (pair.into(), attributes.into())
}

#[tokio::test]
async fn a_name_becomes_a_guest_whose_cookie_opens_the_socket() {
    let (app, policy) = app(0);
    let answer = send(&app, post_as(Some(OWN)), r#"{"name":"  Ann "}"#).await;
    assert_eq!(answer.status, 200);
    let (pair, attributes) = cookie(&answer);
    assert_eq!(attributes, "Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=3600");
    let id = answer.body["user"]["id"].as_str().unwrap();
    assert!(id.starts_with("guest:") && id.len() == 6 + 22, "{id}");
    assert_eq!(answer.body["user"]["name"], "Ann");
    assert!(answer.body["expires"].as_u64().unwrap() > NOW - 10_000_000);
    assert!(
        !answer.body.to_string().contains(pair.split_once('=').unwrap().1),
        "the token is for the cookie only"
    );

    let socket = HttpRequest::builder()
        .uri("/ws")
        .header("origin", OWN)
        .header("host", "localhost:8443")
        .header("cookie", &pair);
    let (parts, ()) = socket.body(()).unwrap().into_parts();
    let origin = policy.origin(&parts, &|host| host == "localhost").unwrap();
    let auth::Shown::Token(token, place) = policy.shown(&parts, origin).unwrap() else {
        panic!("no token was found");
    };
    let admitted = policy.admit_token(&token, place, auth::now()).unwrap();
    assert_eq!(&*admitted.identity().user_id, id);

    let who = send(&app, request(Method::GET, None).header("cookie", &pair), "").await;
    assert_eq!((who.status, &who.body["user"]["id"]), (200, &answer.body["user"]["id"]));

    let renamed = send(&app, post_as(Some(OWN)).header("cookie", &pair), r#"{"name":"Bea"}"#).await;
    assert_eq!(
        (&renamed.body["user"]["id"], &renamed.body["user"]["name"]),
        (&answer.body["user"]["id"], &json!("Bea"))
    );
    assert_ne!(cookie(&renamed).0, pair);

    let other = send(
        &app,
        post_as(Some(OWN)).header("cookie", format!("{pair}x")),
        r#"{"name":"Bea"}"#,
    )
    .await;
    assert_ne!(other.body["user"]["id"], answer.body["user"]["id"]);
}

#[tokio::test]
async fn a_revoked_guest_cannot_exchange_the_cookie_for_a_new_one() {
    let (app, policy) = app(0);
    let guest = send(&app, post_as(Some(OWN)), r#"{"name":"Ann"}"#).await;
    let (pair, _) = cookie(&guest);
    let id = guest.body["user"]["id"].as_str().unwrap();
    let revocation = Revocation {
        subject: Subject::User(id.into()),
        issued_before: auth::now(),
        forget_after: auth::now() + 3_600,
    };
    assert_eq!(policy.revoked().write().add(&revocation, auth::now()), Ok(true));
    let who = send(&app, request(Method::GET, None).header("cookie", &pair), "").await;
    assert_eq!(who.status, 401);
    let again = send(&app, post_as(Some(OWN)).header("cookie", &pair), r#"{"name":"Ann"}"#).await;
    assert_eq!(again.status, 200);
    assert_ne!(again.body["user"]["id"].as_str(), Some(id), "somebody new");
}

#[tokio::test]
async fn an_applications_user_signing_in_becomes_a_guest() {
    let (app, _) = app(0);
    let token = hs256(format!(r#"{{"sub":"admin","exp":{}}}"#, auth::now() + 60));
    let pair = format!("conclave_token={token}");
    let who = send(&app, request(Method::GET, None).header("cookie", &pair), "").await;
    assert_eq!((who.status, &who.body["user"]["id"]), (200, &json!("admin")));
    let answer = send(&app, post_as(Some(OWN)).header("cookie", &pair), r#"{"name":"Ann"}"#).await;
    assert!(answer.body["user"]["id"].as_str().unwrap().starts_with("guest:"));
}

#[tokio::test]
async fn signing_out_clears_the_cookie() {
    let (app, _) = app(0);
    let answer = send(&app, request(Method::DELETE, Some(OWN)), "").await;
    assert_eq!(answer.status, 204);
    assert_eq!(
        cookie(&answer),
        (
            "conclave_token=".into(),
            "Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=0".into()
        )
    );
    let foreign = send(&app, request(Method::DELETE, Some("https://evil.net")), "").await;
    assert_eq!((foreign.status, foreign.headers.get(SET_COOKIE)), (403, None));
    assert_eq!(send(&app, request(Method::GET, None), "").await.status, 401);
}

#[tokio::test]
async fn other_sites_are_kept_out() {
    let (app, _) = app(0);
    let name = r#"{"name":"Ann"}"#;
    assert_eq!(
        send(&app, post_as(Some("https://app.example.com")), name).await.status,
        200
    );
    // The last three are fine for a socket with a token in its query, not for a cookie.
    for origin in [
        Some("null"),
        Some("http://localhost:8443"),
        Some("https://evil.net"),
        Some("https://a.example.org"),
        None,
    ] {
        let answer = send(&app, post_as(origin), name).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (403, &json!("foreign_origin")),
            "{origin:?}"
        );
        assert!(answer.headers.get(SET_COOKIE).is_none());
    }
    let rebound = post_as(Some("https://evil.net:8443")).header("host", "evil.net:8443");
    assert_eq!(send(&app, rebound, name).await.status, 403);
    assert_eq!(
        send(&app, post_as(Some(OWN)).header("origin", OWN), name).await.status,
        403
    );
    assert_eq!(
        send(&app, post_as(Some(OWN)).header("sec-fetch-site", "cross-site"), name)
            .await
            .status,
        403
    );
    assert_eq!(
        send(
            &app,
            request(Method::GET, None).header("sec-fetch-site", "cross-site"),
            ""
        )
        .await
        .status,
        403
    );
    assert_eq!(
        send(&app, request(Method::GET, Some("https://evil.net")), "")
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn what_is_no_sign_in_is_named() {
    let (app, _) = app(0);
    let typed = |content_type: &str| request(Method::POST, Some(OWN)).header("content-type", content_type);
    for (content_type, body, status, code) in [
        ("text/plain", r#"{"name":"Ann"}"#, 415, "not_json"),
        ("application/x-www-form-urlencoded", "name=Ann", 415, "not_json"),
        ("", r#"{"name":"Ann"}"#, 415, "not_json"),
        ("application/jsonx", r#"{"name":"Ann"}"#, 415, "not_json"),
        ("application/json", "", 400, "bad_json"),
        ("application/json", "name", 400, "bad_json"),
        ("application/json", "[]", 400, "bad_json"),
        ("application/json", "{}", 422, "bad_name"),
        ("application/json", r#"{"name":1}"#, 422, "bad_name"),
        ("application/json", r#"{"name":"  "}"#, 422, "bad_name"),
        ("application/json", r#"{"name":"a\u202eb"}"#, 422, "bad_name"),
        ("application/json", r#"{"name":"a\nb"}"#, 422, "bad_name"),
        (
            "application/json",
            &format!(r#"{{"name":"{}"}}"#, "a".repeat(65)),
            422,
            "bad_name",
        ),
        (
            "application/json",
            &format!(r#"{{"name":"{}"}}"#, "a".repeat(2000)),
            413,
            "too_large",
        ),
    ] {
        let answer = send(&app, typed(content_type), body.to_owned()).await;
        assert_eq!(
            (answer.status, &answer.body["error"]),
            (status, &json!(code)),
            "{content_type} {body:.40}"
        );
        assert!(answer.body["message"].is_string());
    }
    assert_eq!(
        send(&app, typed("application/json; charset=utf-8"), r#"{"name":"Ann"}"#)
            .await
            .status,
        200
    );
    assert_eq!(
        send(
            &app,
            typed("Application/JSON"),
            format!(r#"{{"name":"{}"}}"#, "😀".repeat(64))
        )
        .await
        .status,
        200
    );
}

#[tokio::test]
async fn an_address_signs_in_so_often_and_no_more() {
    let (app, _) = app(2);
    let from = |ip: &str| {
        let peer = PeerAddress(SocketAddr::new(ip.parse().unwrap(), 1));
        post_as(Some(OWN)).extension(peer)
    };
    for expected in [200, 200, 429] {
        assert_eq!(
            send(&app, from("192.0.2.1"), r#"{"name":"Ann"}"#).await.status,
            expected
        );
    }
    let refused = send(&app, from("192.0.2.1"), r#"{"name":"Ann"}"#).await;
    let wait: u64 = refused.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=31).contains(&wait), "{wait}");
    assert_eq!(send(&app, from("192.0.2.2"), r#"{"name":"Ann"}"#).await.status, 200);
}
