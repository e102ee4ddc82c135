//! No good login is refused while keys change, and no key counts after its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::json;

use super::issuer::{Issuer, Key, comes_in, is_refused};
use crate::harness::{self, Node, within};

/// Sockets that come in one after the other, on each of several clients.
const CLIENTS: usize = 4;

/// Logs in again and again with whatever the issuer signs with, until told to stop; gives back how often.
async fn logins(
    node: Arc<Node>,
    issuer: Arc<Issuer>,
    signing: Arc<std::sync::Mutex<Key>>,
    stop: Arc<AtomicBool>,
) -> usize {
    let count = AtomicUsize::new(0);
    let client = |index: usize| {
        let (node, issuer, signing, stop, count) = (&node, &issuer, &signing, &stop, &count);
        async move {
            while !stop.load(Ordering::Relaxed) {
                let token = signing.lock().unwrap().sign(&issuer.claims(&format!("u{index}")));
                comes_in(node, &token).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    join_all((0..CLIENTS).map(client)).await;
    count.into_inner()
}

#[tokio::test]
async fn no_good_login_is_refused_while_keys_change() {
    let (first, second, third) = (Key::new("2026-a"), Key::new("2026-b"), Key::new("2026-c"));
    let issuer = Arc::new(Issuer::start("https://id.example", &[&first]).await);
    let node = Arc::new(issuer.node().start().await);
    let signing = Arc::new(std::sync::Mutex::new(first.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let going_on = tokio::spawn(logins(
        Arc::clone(&node),
        Arc::clone(&issuer),
        Arc::clone(&signing),
        Arc::clone(&stop),
    ));
    // As an issuer should: announced, then used, then the old one taken away.
    issuer.asked_anew().await;
    issuer.serves(&[&first, &second]);
    issuer.asked_anew().await;
    *signing.lock().unwrap() = second.clone();
    issuer.asked_anew().await;
    issuer.serves(&[&second]);
    issuer.asked_anew().await;
    // As it should not: at once. Who was just given a token by the old one is still good.
    issuer.serves(&[&third]);
    *signing.lock().unwrap() = third.clone();
    issuer.asked_anew().await;
    issuer.asked_anew().await;
    stop.store(true, Ordering::Relaxed);
    // A login that was refused has failed its task.
    let count = within("the logins", going_on).await.unwrap();
    assert!(count > CLIENTS, "{count}");
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_auth_failures_total", &[]), 0.0);
    assert_eq!(metrics.sum("conclave_jwks_waiting", &[]), 0.0);
}

#[tokio::test]
async fn a_key_that_has_gone_counts_for_its_grace_and_no_longer() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start("https://id.example", &[&old]).await;
    let node = issuer.node().set("auth.jwks_grace", "1s").start().await;
    comes_in(&node, &old.sign(&issuer.claims("ann"))).await;
    issuer.serves(&[&new]);
    node.logged("the change", |line| {
        line["message"] == "keys have changed" && line["removed"].to_string().contains("old")
    })
    .await;
    comes_in(&node, &new.sign(&issuer.claims("ann"))).await;
    let left = async {
        while issuer.shown(&node, "conclave_jwks_keys").await > 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within("the end of the grace", left).await;
    is_refused(&node, &old.sign(&issuer.claims("ann")), 1008, "token_signature").await;
    comes_in(&node, &new.sign(&issuer.claims("ann"))).await;
    // No line has key material.
    let log = serde_json::to_string(&node.log()).unwrap();
    assert!(!log.contains(old.jwk()["x"].as_str().unwrap()));
}

#[tokio::test]
async fn issuers_may_use_the_same_name_for_their_keys() {
    let (shop_key, staff_key) = (Key::new("1"), Key::new("1"));
    let shop = Issuer::start("https://shop.example", &[&shop_key]).await;
    let staff = Issuer::start("https://staff.example", &[&staff_key]).await;
    let node = shop.on(harness::node(), "audience = [\"chat\"]\nuser_prefix = \"shop:\"");
    let node = staff
        .on(
            node,
            "audience = [\"desk\"]\nuser_prefix = \"staff:\"\nalgorithms = [\"ES256\"]",
        )
        .start()
        .await;
    let claims = |issuer: &Issuer, audience: &str| {
        let mut claims = issuer.claims("7");
        claims["aud"] = json!(audience);
        claims
    };
    for (key, issuer, audience, user) in [
        (&shop_key, &shop, "chat", "shop:7"),
        (&staff_key, &staff, "desk", "staff:7"),
    ] {
        let token = key.sign(&claims(issuer, audience));
        let client = node.socket().query_token(&token).open().await.welcomed().await;
        assert_eq!(client.welcome["user"]["id"], user);
    }
    is_refused(&node, &shop_key.sign(&claims(&staff, "desk")), 1008, "token_signature").await;
    is_refused(&node, &staff_key.sign(&claims(&shop, "chat")), 1008, "token_signature").await;
    is_refused(&node, &shop_key.sign(&claims(&shop, "desk")), 1008, "token_audience").await;
    // Keys of the configuration go on beside them.
    node.client("ann").await;
}

#[tokio::test]
async fn a_connection_takes_a_token_with_a_new_key_and_holds_up_nobody() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start("https://id.example", &[&old]).await;
    let node = issuer.node().start().await;
    let open = async |sub: &str| {
        let token = old.sign(&issuer.claims(sub));
        node.socket().query_token(&token).open().await.welcomed().await
    };
    let (mut ann, mut ben) = (open("ann").await, open("ben").await);
    ann.join("lobby").await;
    ben.join("lobby").await;
    // Both on one reading: what ben says meanwhile is neither late nor lost.
    let asked = issuer.asked();
    issuer.serves(&[&old, &new]);
    let auth = json!({"type": "auth", "token": new.sign(&issuer.claims("ann")), "ref": "a"});
    ann.send(auth).await;
    ann.send(json!({"type": "ping", "ref": "p"})).await;
    ben.chat("lobby", "hi").await;
    let ok = ann.find("the answer", |message| message["ref"] == "a").await;
    assert_eq!(ok["type"], "ok", "{ok}");
    assert!(ok["expires"].is_u64(), "{ok}");
    let pong = ann
        .find("what was sent behind it", |message| message["ref"] == "p")
        .await;
    assert_eq!(pong["type"], "pong", "{pong}");
    assert!(issuer.asked() > asked);
    // One that nobody has is refused, and the old one stays.
    let stranger = Key::new("nobody's");
    let refused = ann
        .ask(json!({"type": "auth", "token": stranger.sign(&issuer.claims("ann"))}))
        .await;
    assert_eq!(
        (&refused["code"], &refused["reason"]),
        (&json!("forbidden"), &json!("token_signature"))
    );
    ann.chat("lobby", "still here").await;
}
