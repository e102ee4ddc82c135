//! `call`, and messages of the application's own types.

use serde_json::json;

use super::{asking, signing};
use crate::harness;
use crate::harness::backend::{self, Backend, json_answer, status};

#[tokio::test]
async fn a_call_is_replied_with_its_ref() {
    let backend = Backend::start().await;
    backend.answers(|asked| {
        let event = &asked.event;
        let answer = match event["name"].as_str() {
            Some("orders.create") => json_answer(&json!({"allow": true, "data": {"created": event["data"]}})),
            Some("orders.none") => status(204),
            Some("orders.denied") => json_answer(&json!({"allow": false, "reason": "not yours"})),
            Some("orders.large") => backend::body(format!("{{\"allow\":true,\"data\":\"{}\"}}", "x".repeat(70_000))),
            _ => status(500),
        };
        std::future::ready(answer)
    });
    let node = asking(
        &backend,
        "events = [\"call\"]\ncalls = [\"orders.*\"]\nname = \"orders\"",
    )
    .start()
    .await;
    let mut ann = node.client("ann").await;
    let call = |name: &str| json!({"type": "call", "name": name, "data": {"id": 7}});
    let reply = ann.ask(call("orders.create")).await;
    assert_eq!(
        (&reply["type"], &reply["data"]),
        (&json!("reply"), &json!({"created": {"id": 7}}))
    );
    let asked = backend.asked();
    let event = &asked[0].event;
    assert_eq!(
        (&event["event"], &event["name"], &event["data"]),
        (&json!("call"), &json!("orders.create"), &json!({"id": 7}))
    );
    assert_eq!(
        (&event["user"]["id"], &event["session"]),
        (&json!("ann"), &ann.welcome["session"])
    );
    assert!(event.get("ref").is_none() && event.get("type").is_none(), "{event}");
    let reply = ann.ask(call("orders.none")).await;
    assert_eq!((&reply["type"], &reply["data"]), (&json!("reply"), &json!(null)));
    let error = ann.ask(call("orders.denied")).await;
    assert_eq!(
        (&error["code"], &error["reason"]),
        (&json!("forbidden"), &json!("not yours"))
    );
    assert_eq!(ann.ask(call("orders.large")).await["code"], "too_large");
    let error = ann.ask(call("orders.down")).await;
    assert!(
        error["code"] == "unavailable" && error["retry_after_ms"].as_u64() > Some(0),
        "{error}"
    );
    let asked = backend.asked().len();
    assert_eq!(ann.ask(call("other")).await["code"], "unknown_type");
    assert_eq!(ann.ask(json!({"type": "call"})).await["code"], "bad_message");
    assert_eq!(backend.asked().len(), asked);
    // Without a ref there is no reply, but an error there is.
    ann.send(json!({"type": "call", "name": "orders.create"})).await;
    backend.asked_times(asked + 1).await;
    ann.send(call("orders.denied")).await;
    assert_eq!(ann.message().await["code"], "forbidden");
}

#[tokio::test]
async fn a_type_that_begins_as_configured_is_a_call_and_ours_stay_ours() {
    let backend = Backend::start().await;
    backend.answers(|asked| std::future::ready(json_answer(&json!({"allow": true, "data": asked.event["data"]}))));
    let node = asking(&backend, "events = [\"call\"]\ncalls = [\"app.*\", \"*\", \"pi*\"]")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    let reply = ann.ask(json!({"type": "app.like", "post": 7, "to": ["bob"]})).await;
    assert_eq!(
        (&reply["type"], &reply["data"]),
        (&json!("reply"), &json!({"post": 7, "to": ["bob"]}))
    );
    let asked = backend.asked();
    assert_eq!(
        (&asked[0].event["event"], &asked[0].event["name"]),
        (&json!("call"), &json!("app.like"))
    );
    // `*` is for the names of calls: a mistyped type is answered as ever.
    assert_eq!(
        ann.ask(json!({"type": "jion", "room": "lobby"})).await["code"],
        "unknown_type"
    );
    assert_eq!(
        ann.ask(json!({"type": "call", "name": "anything"})).await["type"],
        "reply"
    );
    assert_eq!(ann.ask(json!({"type": "ping"})).await["type"], "pong");
    assert_eq!(ann.ask(json!({"type": "pint"})).await["type"], "reply");
    ann.send_text(r#"{"type":"app.like","a":1,"a":2}"#).await;
    ann.until("error").await;
    assert_eq!(backend.asked().len(), 3);
}

#[tokio::test]
async fn without_hooks_calls_are_unknown() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    assert_eq!(
        ann.ask(json!({"type": "call", "name": "x"})).await["code"],
        "unknown_type"
    );
    assert_eq!(ann.ask(json!({"type": "app.like"})).await["code"], "unknown_type");
    assert!(!node.metrics().await.has("conclave_hook_requests_total"));
}

#[tokio::test]
async fn calls_run_side_by_side_hold_up_nothing_and_are_bounded() {
    let backend = Backend::start().await;
    let (open, opened) = tokio::sync::watch::channel(false);
    backend.answers(move |asked| {
        let mut opened = opened.clone();
        async move {
            if asked.event["name"] == "slow" {
                opened.wait_for(|open| *open).await.unwrap();
            }
            json_answer(&json!({"allow": true, "data": asked.event["data"]}))
        }
    });
    let node = signing(harness::node())
        .entry(
            "hooks.ask",
            &format!("url = \"{}\"\nevents = [\"call\"]\ntimeout = \"5m\"", backend.url),
        )
        .set("limits.calls_per_connection", "4")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 0..3 {
        ann.send(json!({"type": "call", "name": "slow", "data": number, "ref": number}))
            .await;
    }
    backend.asked_times(3).await;
    assert_eq!(
        ann.ask(json!({"type": "call", "name": "quick", "data": "q"})).await["data"],
        "q"
    );
    ann.chat("lobby", "meanwhile").await;
    ann.send(json!({"type": "call", "name": "slow", "data": 3, "ref": 3}))
        .await;
    backend.asked_times(5).await;
    let refused = ann.ask(json!({"type": "call", "name": "quick"})).await;
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    assert!(refused["retry_after_ms"].as_u64() > Some(0));
    // That was no abuse, however often.
    for _ in 0..30 {
        assert_eq!(
            ann.ask(json!({"type": "call", "name": "quick"})).await["code"],
            "rate_limited"
        );
    }
    let waiting = node.metrics().await.sum("conclave_hook_waiting", &[("hook", "call")]);
    assert_eq!(waiting, 4.0);
    open.send(true).unwrap();
    let mut replied = Vec::new();
    for _ in 0..4 {
        let reply = ann.until("reply").await;
        assert_eq!(reply["ref"], reply["data"]);
        replied.push(reply["data"].as_u64().unwrap());
    }
    replied.sort_unstable();
    assert_eq!(replied, [0, 1, 2, 3]);
    assert_eq!(
        ann.ask(json!({"type": "call", "name": "quick", "data": 1})).await["data"],
        1
    );
    assert_eq!(
        node.metrics()
            .await
            .sum("conclave_refused_total", &[("limit", "calls_per_connection")]),
        31.0
    );
}

#[tokio::test]
async fn calls_of_a_client_that_goes_away_are_given_up() {
    let backend = Backend::start().await;
    backend.hangs();
    let node = asking(&backend, "events = [\"call\"]\ntimeout = \"5m\"").start().await;
    let mut ann = node.client("ann").await;
    ann.send(json!({"type": "call", "name": "x", "ref": 1})).await;
    backend.asked_times(1).await;
    ann.close(1000).await;
    node.metric_reaches(
        "conclave_hook_requests_total",
        &[("hook", "call"), ("result", "abandoned")],
        1.0,
    )
    .await;
    assert_eq!(node.metrics().await.sum("conclave_hook_waiting", &[]), 0.0);
}
