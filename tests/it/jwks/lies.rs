//! Issuers that answer with anything but their keys: the last good set stays, and nobody else notices.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, Version, header};
use futures_util::stream;
use serde_json::json;

use super::issuer::{Issuer, Key, comes_in, status};
use crate::harness::{self, Builder, within};

fn page(kind: &str, body: impl Into<Body>) -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, kind)
        .body(body.into())
        .unwrap()
}

#[tokio::test]
async fn an_answer_that_is_no_set_changes_nothing() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let away = format!("http://{}/", canary.local_addr().unwrap());
    let node = issuer.node().set("auth.jwks_timeout", "2s").start().await;
    let token = key.sign(&issuer.claims("ann"));
    type Lie = Box<dyn Fn() -> Response<Body> + Send + Sync>;
    let lies: Vec<(&str, Lie)> = vec![
        ("bad_set", Box::new(|| page("text/html", "<html>Sign in</html>"))),
        ("bad_set", Box::new(|| page("application/json", "{\"keys\":"))),
        ("bad_set", Box::new(|| page("application/json", "[]"))),
        ("bad_set", Box::new(|| page("application/json", ""))),
        (
            "bad_set",
            Box::new(|| page("application/json", json!({"keys": vec![json!({}); 65]}).to_string())),
        ),
        (
            "too_large",
            Box::new(|| page("application/json", " ".repeat(256 * 1024 + 1))),
        ),
        (
            "too_large",
            Box::new(|| page("application/json", endless(Duration::ZERO))),
        ),
        (
            "timeout",
            Box::new(|| page("application/json", endless(Duration::from_secs(1)))),
        ),
        ("status", Box::new(|| status(404))),
        ("status", Box::new(|| status(204))),
        (
            "status",
            Box::new(move || {
                Response::builder()
                    .status(302)
                    .header(header::LOCATION, &away)
                    .body(Body::empty())
                    .unwrap()
            }),
        ),
    ];
    for (index, (result, lie)) in lies.into_iter().enumerate() {
        let before = issuer.count(&node, result).await;
        issuer.says(move |_| lie());
        issuer.fetched(&node, result, before + 1.0).await;
        comes_in(&node, &token).await;
        // Back to the truth, so that each lie is told to somebody who believes.
        let before = issuer.count(&node, "not_modified").await;
        issuer.recovers();
        issuer.fetched(&node, "not_modified", before + 1.0).await;
        assert_eq!(issuer.shown(&node, "conclave_jwks_keys").await, 1.0, "lie {index}");
    }
    assert_eq!(canary.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

fn endless(pause: Duration) -> Body {
    let chunks = stream::unfold((), move |()| async move {
        tokio::time::sleep(pause).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 64 * 1024])), ()))
    });
    Body::from_stream(chunks)
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again_and_one_connection_is_enough() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    let node = issuer.node().start().await;
    issuer.fetched(&node, "not_modified", 2.0).await;
    issuer.fetched(&node, "ok", 1.0).await;
    let asked = issuer.backend.asked();
    assert_eq!(asked[0].path, "/keys");
    assert!(asked.iter().all(|asked| asked.version == Version::HTTP_2), "{asked:?}");
    assert_eq!(asked[0].header("if-none-match"), "");
    assert!(
        asked[1..].iter().all(|asked| !asked.header("if-none-match").is_empty()),
        "{asked:?}"
    );
    comes_in(&node, &key.sign(&issuer.claims("ann"))).await;
    let metrics = node.metrics().await;
    let fetched = metrics.sum("conclave_jwks_fetches_total", &[]);
    let called = metrics.sum(
        "conclave_outbound_requests_total",
        &[("purpose", "jwks"), ("result", "ok")],
    );
    assert!(called >= fetched && called <= fetched + 1.0, "{called} {fetched}");
}

#[tokio::test]
async fn a_secret_or_a_private_key_in_a_set_is_ignored_and_told() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    let secret = harness::token::encode(harness::token::SECRET);
    let mut private = Key::new("private").jwk();
    private["d"] = json!("AAAA");
    let set = json!({"keys": [key.jwk(), {"kty": "oct", "kid": "o", "k": secret}, private]}).to_string();
    issuer.says(move |_| page("application/json", set.clone()));
    let node = issuer.node().start().await;
    comes_in(&node, &key.sign(&issuer.claims("ann"))).await;
    assert_eq!(issuer.shown(&node, "conclave_jwks_keys").await, 1.0);
    for what in ["a secret", "a private key"] {
        node.logged(what, |line| {
            line["message"] == "a key of the issuer is ignored" && line.to_string().contains(what)
        })
        .await;
    }
    assert!(!serde_json::to_string(&node.log()).unwrap().contains(&secret));
    let token = harness::token::sign_with(
        &json!({"alg": "HS256", "kid": "o"}),
        &issuer.claims("ann"),
        harness::token::SECRET,
    );
    super::issuer::is_refused(&node, &token, 1008, "token_signature").await;
}

#[tokio::test]
async fn who_is_not_who_they_should_be_is_not_believed() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    // Somebody else's authority, and the system's.
    let other = harness::tls::Certificate::new().pem;
    let foreign = |node: Builder| node.file("https---id-example.pem", other.clone());
    for node in [
        foreign(issuer.node()),
        issuer.node().only_key(&issuer.entry().replace("jwks_ca_file", "#")),
    ] {
        let node = node.start().await;
        issuer.fetched(&node, "tls", 1.0).await;
        let line = node.logged("a reason", |line| line["message"] == "a call failed").await;
        assert!(line["what"].as_str().unwrap().contains("certificate"), "{line}");
        assert_eq!(line["target"], issuer.backend.url);
    }
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn the_clouds_metadata_service_is_never_asked() {
    let tables = [
        "http://169.254.169.254/latest/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://[fd00:ec2::254]/",
    ];
    for url in tables {
        let node = harness::node().only_key(&format!("jwks_url = \"{url}\"\nissuer = \"a\"\naudience = [\"a\"]"));
        let (exit, seen) = within("the end", node.fail()).await;
        let said = format!("{seen:?}");
        assert_eq!(exit.code(), Some(64), "{said}");
        assert!(said.contains("outbound.networks"), "{said}");
    }
}
