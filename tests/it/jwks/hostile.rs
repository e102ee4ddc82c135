//! Tokens that nobody vouches for: they cause no packet, whatever they name.

use std::time::Instant;

use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::issuer::{Issuer, Key, comes_in};
use crate::harness::token::{encode, sign_with};
use crate::harness::{Frame, Node};

const TOKENS: usize = 1_000;
const AT_ONCE: usize = 16;

/// The `index`th of many tokens that want something fetched from `there`.
fn token(index: usize, issuer: &Issuer, key: &Key, there: &str) -> String {
    let mut header = json!({"alg": "ES256", "kid": format!("k{index}")});
    let mut claims = issuer.claims("ann");
    let forger = Key::new("k");
    match index % 10 {
        0 => header["jku"] = json!(there),
        1 => header["x5u"] = json!(there),
        2 => claims["iss"] = json!(there),
        3 => header["kid"] = json!(there),
        4 => header["kid"] = json!(format!("../../{index}?jku={there}")),
        5 => header["jwk"] = forger.jwk(),
        6 => header["x5c"] = json!([there]),
        // The name of a good key, the signature of another.
        7 => header["kid"] = json!(key.kid),
        8 => {
            let claims = encode(claims.to_string());
            return format!(
                "{}.{claims}.",
                encode(json!({"alg": "none", "kid": format!("k{index}")}).to_string())
            );
        }
        // The public key as a secret.
        _ => {
            let public = key.jwk()["x"].as_str().unwrap().to_owned();
            return sign_with(&json!({"alg": "HS256", "kid": key.kid}), &claims, public.as_bytes());
        }
    }
    forger.sign_as(&header, &claims)
}

/// What a token is told: a close code and its word, or 429.
async fn verdict(node: &Node, token: &str) -> Value {
    match node.socket().bearer(token).try_open().await {
        Err(answer) => json!(answer.status),
        Ok(mut client) => loop {
            match client.next().await {
                Some(Frame::Close(code, word)) => break json!([code, word]),
                // Before 1013.
                Some(Frame::Text(text)) if text.contains("\"closing\"") => {}
                other => panic!("let in, or told {other:?}"),
            }
        },
    }
}

#[tokio::test]
async fn a_thousand_unverified_tokens_cause_no_packet() {
    let key = Key::new("good");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let there = format!("http://{}/keys", canary.local_addr().unwrap());
    let begun = Instant::now();
    let node = issuer.node().set("auth.refusals_burst", "1000000").start().await;
    let verdicts: Vec<Value> = stream::iter(0..TOKENS)
        .map(|index| {
            let (node, token) = (&node, token(index, &issuer, &key, &there));
            async move { verdict(node, &token).await }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for told in verdicts {
        assert!(
            told == json!([1008, "token_signature"])
                || told == json!([1008, "token_malformed"])
                // The address waits for as many unknown keys as it may.
                || told == json!([1013, "overloaded"]),
            "{told}"
        );
    }
    // Each came with the clock: 1 s apart less a tenth, one at the start, and one that may be under way.
    let most = begun.elapsed().as_secs_f64() / 0.9 + 2.0;
    assert!((issuer.asked() as f64) <= most, "{} of at most {most}", issuer.asked());
    assert_eq!(canary.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let metrics = node.metrics().await;
    let called = metrics.sum("conclave_outbound_requests_total", &[]);
    assert!(called <= most, "{called} of at most {most}");
    assert_eq!(metrics.sum("conclave_jwks_waiting", &[]), 0.0);
    let too_many = metrics.sum("conclave_refused_total", &[("limit", "jwks_kids_per_address")]);
    assert!(too_many > 0.0);
    comes_in(&node, &key.sign(&issuer.claims("ann"))).await;
}

#[tokio::test]
async fn a_line_that_is_full_takes_nobody_else_and_costs_no_known_key_anything() {
    let key = Key::new("good");
    let issuer = Issuer::start("https://id.example", &[&key]).await;
    let node = issuer
        .node()
        .set("auth.jwks_refresh", "5s")
        .set("auth.jwks_waiting", "3")
        .start()
        .await;
    let stranger = Key::new("unknown");
    let token = stranger.sign(&issuer.claims("ann"));
    let flood = async { futures_util::future::join_all((0..10).map(|_| verdict(&node, &token))).await };
    let good = async {
        node.metric_reaches("conclave_refused_total", &[("limit", "jwks_waiting")], 1.0)
            .await;
        comes_in(&node, &key.sign(&issuer.claims("ben"))).await;
    };
    let (told, ()) = futures_util::future::join(flood, good).await;
    // Who has waited knows; who found no place may come again.
    let known = |verdict: &Value| *verdict == json!([1008, "token_signature"]);
    let later = |verdict: &Value| *verdict == json!([1013, "overloaded"]);
    assert!(told.iter().all(|verdict| known(verdict) || later(verdict)), "{told:?}");
    assert!(told.iter().any(known) && told.iter().any(later), "{told:?}");
    assert!(
        node.metrics()
            .await
            .sum("conclave_refused_total", &[("limit", "jwks_waiting")])
            >= 1.0
    );
}
