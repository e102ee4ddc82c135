//! What holds while an issuer cannot be reached, and when it comes back.

use super::issuer::{Issuer, Key, comes_in};
use crate::harness::within;

#[tokio::test]
async fn what_is_known_stays_in_use_while_the_issuer_is_down() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    let node = issuer.node().start().await;
    let token = key.sign(&issuer.claims("ann"));
    comes_in(&node, &token).await;
    issuer.fails();
    issuer.fetched(&node, "status", 3.0).await;
    comes_in(&node, &token).await;
    assert!(issuer.shown(&node, "conclave_jwks_age_seconds").await > 0.0);
    issuer.backend.hangs();
    issuer.recovers();
    node.logged("the end", |line| line["message"] == "keys can be read again")
        .await;
    comes_in(&node, &token).await;
    // One line for all of it.
    let said = |text: &str| {
        node.log()
            .iter()
            .filter(|line| line["level"] != "DEBUG" && line["message"] == text)
            .count()
    };
    assert_eq!(said("keys cannot be read; those that are known stay in use"), 1);
}

#[tokio::test]
async fn who_comes_before_the_keys_waits_for_them() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    issuer.fails();
    // It serves all the same: others need no keys by URL.
    let node = issuer.node().start().await;
    let token = key.sign(&issuer.claims("ann"));
    let arrives = comes_in(&node, &token);
    let comes_back = async {
        node.metric_reaches("conclave_jwks_waiting", &[], 1.0).await;
        issuer.recovers();
    };
    within("a login", futures_util::future::join(arrives, comes_back)).await;
}

#[tokio::test]
async fn a_silent_issuer_neither_stops_the_start_nor_makes_a_token_bad() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    issuer.backend.hangs();
    let node = issuer.node().set("auth.jwks_timeout", "300ms").start().await;
    issuer.fetched(&node, "timeout", 1.0).await;
    // 1013: come back, with the same token.
    let token = key.sign(&issuer.claims("ann"));
    let mut client = node.socket().query_token(&token).open().await;
    client.expect("closing").await;
    client.expect_close(1013, "overloaded").await;
    assert_eq!(node.metrics().await.sum("conclave_auth_failures_total", &[]), 0.0);
}

#[tokio::test]
async fn keys_that_are_too_old_vouch_for_nobody_until_they_are_read_again() {
    let key = Key::new("k");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    let node = issuer
        .node()
        .set("auth.jwks_timeout", "300ms")
        .set("auth.jwks_maximum_age", "3s")
        .start()
        .await;
    let token = key.sign(&issuer.claims("ann"));
    comes_in(&node, &token).await;
    issuer.fails();
    node.logged("the end of the keys", |line| {
        line["level"] == "ERROR" && line["message"].to_string().contains("auth.jwks_maximum_age")
    })
    .await;
    assert_eq!(issuer.shown(&node, "conclave_jwks_keys").await, 0.0);
    let arrives = comes_in(&node, &token);
    let comes_back = async {
        node.metric_reaches("conclave_jwks_waiting", &[], 1.0).await;
        issuer.recovers();
    };
    within("a login", futures_util::future::join(arrives, comes_back)).await;
}
