//! What is seen of hooks: the signature, the trace, and nothing secret anywhere.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{asking, signing};
use crate::harness::backend::{self, Backend};
use crate::harness::collector::{Collector, about, hex};
use crate::harness::{self, token};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// `v1,<base64>` as the standard computes it.
fn signature(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    format!("v1,{}", STANDARD.encode(aws_lc_rs::hmac::sign(&key, &signed)))
}

#[tokio::test]
async fn requests_are_signed_with_both_secrets_while_they_change() {
    const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let backend = Backend::start().await;
    let node = asking(&backend, "events = [\"join\"]")
        .set("hooks.previous_secret_file", "old-secret")
        .file("old-secret", format!("{OLD}\n"))
        .start()
        .await;
    node.client("ann").await.join("lobby").await;
    let asked = &backend.asked()[0];
    let (id, timestamp) = (asked.header("webhook-id"), asked.header("webhook-timestamp"));
    let age_s = token::now().abs_diff(timestamp.parse().unwrap());
    assert!(age_s < 60, "{timestamp}");
    let each: Vec<_> = asked.header("webhook-signature").split(' ').collect();
    let expected = [backend::SECRET, OLD].map(|secret| signature(secret, id, timestamp, &asked.body));
    assert_eq!(each, expected);
    assert_eq!(asked.header("content-type"), "application/json");
}

#[tokio::test]
async fn the_trace_goes_on_at_the_backend() {
    let (backend, collector) = (Backend::start().await, Collector::start().await);
    let node = asking(&backend, "events = [\"open\", \"join\", \"chat\", \"call\"]")
        .set("traces.endpoint", &collector.endpoint)
        .set("traces.sample_ratio", "1")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    let traceparent = format!("00-{TRACE}-b7ad6b7169203331-01");
    ann.ask(json!({"type": "join", "room": "lobby", "traceparent": traceparent}))
        .await;
    ann.chat("lobby", "hi").await;
    ann.ask(json!({"type": "call", "name": "x", "traceparent": format!("00-{TRACE}-b7ad6b7169203331-00")}))
        .await;
    ann.close(1000).await;
    node.terminate("TERM");
    node.wait_exit().await;
    let spans = collector.spans();
    let asked = backend.asked();
    let told: Vec<_> = asked
        .iter()
        .map(|asked| asked.header("traceparent").to_owned())
        .collect();
    for (event, told) in ["open", "join", "chat"].iter().zip(&told) {
        let span = spans
            .iter()
            .find(|span| span.name == format!("ask {event}"))
            .expect(event);
        assert_eq!(
            *told,
            format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)),
            "{event}"
        );
        assert_eq!(about(span)["conclave.hook.result"], "allowed", "{event}");
    }
    let named = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
    // The connection's belongs to the upgrade, the join's to the caller, and the chat is published in the trace of its
    // question.
    assert_eq!(named("ask open").parent_span_id, named("GET /ws").span_id);
    assert_eq!(hex(&named("ask join").trace_id), TRACE);
    assert_eq!(named("publish").trace_id, named("ask chat").trace_id);
    // What its caller does not record is not recorded here, and the name goes along.
    assert_eq!(told[3], format!("00-{TRACE}-b7ad6b7169203331-00"));
    assert!(!spans.iter().any(|span| span.name == "ask call"));
}

#[tokio::test]
async fn no_secret_and_no_token_is_ever_said() {
    const CANARY: &str = "canary7Kq";
    let secret = format!(
        "whsec_{}",
        STANDARD.encode(format!("{CANARY} of twenty-four bytes and more"))
    );
    let (backend, collector) = (Backend::start().await, Collector::start().await);
    backend.answers(|asked| {
        let answer = match asked.event["event"].as_str() {
            Some("join") => backend::status(500),
            _ => backend::allow(),
        };
        std::future::ready(answer)
    });
    let url = format!("{}/{CANARY}?key={CANARY}", backend.url);
    let node = harness::node()
        .set("hooks.secret", &secret)
        .set("log.level", "trace")
        .set("traces.endpoint", &collector.endpoint)
        .set("traces.sample_ratio", "1")
        .entry(
            "hooks.ask",
            &format!("url = \"{url}\"\nevents = [\"open\", \"join\", \"chat\", \"call\"]\ncircuit_failures = 1"),
        )
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.ask(json!({"type": "join", "room": "lobby"})).await;
    ann.ask(json!({"type": "join", "room": "lobby"})).await;
    ann.ask(json!({"type": "call", "name": "x"})).await;
    ann.close(1000).await;
    let metrics = node.admin("/metrics").await.body;
    node.terminate("TERM");
    node.wait_exit().await;
    let seen = node.process.seen();
    let encoded = secret.trim_start_matches("whsec_").to_owned();
    let signature = backend.asked()[0].header("webhook-signature").to_owned();
    let jwt = node.token("ann").split('.').next_back().unwrap().to_owned();
    for form in [CANARY.to_owned(), encoded, signature, jwt] {
        for line in seen.stdout.iter().map(String::as_str).chain(seen.stderr.lines()) {
            assert!(!line.contains(&form), "{line}");
        }
        assert!(!metrics.contains(&form));
        for body in collector.bodies() {
            assert!(!String::from_utf8_lossy(&body).contains(&form));
        }
    }
    for asked in backend.asked() {
        let said = format!("{:?} {}", HeaderMap::clone(&asked.headers), asked.event);
        assert!(!said.contains("eyJ"), "a token: {said}");
    }
}

#[tokio::test]
async fn mistakes_are_told_at_once_each_with_its_remedy() {
    let (exit, seen) = signing(harness::node())
        .set("hooks.previous_secret_file", "old-secret")
        .file("old-secret", "short")
        .entry(
            "hooks.ask",
            "url = \"ftp://app\"\nevents = [\"join\", \"left\"]\nrooms = [\"a*b\"]",
        )
        .entry(
            "hooks.ask",
            "url = \"http://localhost:1\"\nname = \"two words\"\nevents = [\"join\"]\nrooms = [\"a*b\"]",
        )
        .entry("hooks.tell", "events = [\"call\"]")
        .entry(
            "hooks.ask",
            "url = \"http://localhost:1\"\nevents = [\"call\"]\nanswer_bytes = \"1MiB\"",
        )
        .fail()
        .await;
    assert_eq!(exit.code(), Some(64));
    let said = seen.stderr.clone();
    for expected in [
        "hooks.previous_secret_file: it does not begin with whsec_",
        "hooks.ask[0].url: a URL that begins with neither https:// nor http://",
        "hooks.ask[0].events: \"left\" is no event here",
        "hooks.ask[0].rooms: \"a*b\" has a * before its end",
        "hooks.ask[1].name:",
        "hooks.ask[1].events: hooks.ask[0] is asked about join in \"a*b\" too",
        "hooks.ask[2].answer_bytes: a reply of 1048576 bytes",
        "hooks.tell[0].url: not set",
        "hooks.tell[0].events: \"call\" is no event here",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}
