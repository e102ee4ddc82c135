//! A backend that is down, slow or lies: a bounded time, a stated outcome, and nobody else is harmed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};

use super::{asking, signing};
use crate::harness::backend::{self, Backend, json_answer, status};
use crate::harness::{self, Client, Node};

/// A URL that nobody listens at for as long as the test holds the port.
fn nobody() -> (crate::harness::ports::Port, String) {
    let port = crate::harness::ports::Port::free();
    let url = format!("http://127.0.0.1:{}/", port.number);
    (port, url)
}

async fn everything(node: &Node, room: &str) -> (Client, Value, Value) {
    let mut ann = node.client("ann").await;
    let join = ann.ask(json!({"type": "join", "room": room})).await;
    let call = ann.ask(json!({"type": "call", "name": "x"})).await;
    (ann, join, call)
}

#[tokio::test]
async fn while_nobody_answers_the_default_is_to_deny_and_an_operator_may_allow() {
    let (_port, url) = nobody();
    let events = "events = [\"join\", \"chat\", \"call\"]";
    let node = signing(harness::node())
        .entry("hooks.ask", &format!("url = \"{url}\"\nname = \"strict\"\n{events}\nrooms = [\"strict\"]"))
        .entry(
            "hooks.ask",
            &format!("url = \"{url}\"\nname = \"lax\"\nevents = [\"join\", \"chat\"]\nrooms = [\"lax\"]\nwhen_down = \"allow\""),
        )
        .start()
        .await;
    let (mut ann, join, call) = everything(&node, "strict").await;
    for error in [join, call] {
        assert_eq!(error["code"], "unavailable", "{error}");
        assert!(error["retry_after_ms"].as_u64() > Some(0), "{error}");
    }
    ann.join("lax").await;
    ann.chat("lax", "hi").await;
    ann.join("free").await;
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum(
            "conclave_hook_requests_total",
            &[("hook", "strict"), ("result", "connect")]
        ),
        2.0
    );
    assert_eq!(
        metrics.sum(
            "conclave_hook_requests_total",
            &[("hook", "lax"), ("result", "connect")]
        ),
        2.0
    );
}

#[tokio::test]
async fn a_connection_that_nobody_vouches_for_is_told_to_come_back() {
    let (_port, url) = nobody();
    let open = |when_down: &str| {
        signing(harness::node()).entry(
            "hooks.ask",
            &format!("url = \"{url}\"\nevents = [\"open\"]\nwhen_down = \"{when_down}\""),
        )
    };
    let node = open("deny").start().await;
    let mut ann = node.socket().query_token(&node.token("ann")).open().await;
    assert_eq!(ann.closed().await, (1013, "overloaded".to_owned()));
    let node = open("allow").start().await;
    node.client("ann").await.join("lobby").await;
}

/// What a lying backend does, by the name of the room that it is asked about.
async fn lie(asked: backend::Asked) -> Response<Body> {
    match asked.event["room"].as_str().unwrap_or("") {
        "huge" => backend::body("x".repeat(10 << 20)),
        "endless" => backend::flood(),
        "drip" => backend::endless(Duration::from_millis(100)),
        "text" => backend::body("allow"),
        "empty" => backend::body(""),
        "list" => backend::body("[true]"),
        "string" => json_answer(&json!({"allow": "true"})),
        "twice" => backend::body(r#"{"allow":false,"allow":true}"#),
        "binary" => backend::body(vec![b'{', 0xff, 0xfe]),
        "gzip" => Response::builder()
            .header("content-encoding", "gzip")
            .body(Body::from(vec![0x1f, 0x8b, 8, 0]))
            .unwrap(),
        "redirect" => Response::builder()
            .status(307)
            .header("location", "/elsewhere")
            .body(Body::empty())
            .unwrap(),
        "created" => status(201),
        "teapot" => status(418),
        "error" => status(500),
        "slow" => std::future::pending().await,
        _ => backend::allow(),
    }
}

#[tokio::test]
async fn a_lying_backend_opens_no_door() {
    let backend = Backend::start().await;
    backend.answers(lie);
    let node = asking(
        &backend,
        "events = [\"join\"]\nname = \"liar\"\ntimeout = \"2s\"\ncircuit_failures = 0",
    )
    .start()
    .await;
    let mut ann = node.client("ann").await;
    for (room, result) in [
        ("huge", "too_large"),
        ("endless", "too_large"),
        ("drip", "timeout"),
        ("text", "malformed"),
        ("empty", "malformed"),
        ("list", "malformed"),
        ("string", "malformed"),
        ("twice", "malformed"),
        ("binary", "malformed"),
        ("gzip", "malformed"),
        ("redirect", "status"),
        ("created", "status"),
        ("teapot", "status"),
        ("error", "status"),
        ("slow", "timeout"),
    ] {
        let before = node.metrics().await;
        let error = ann.ask(json!({"type": "join", "room": room})).await;
        assert_eq!(error["code"], "unavailable", "{room}: {error}");
        let labels = [("hook", "liar"), ("result", result)];
        let counted = |metrics: &crate::harness::metrics::Metrics| metrics.sum("conclave_hook_requests_total", &labels);
        assert_eq!(counted(&node.metrics().await) - counted(&before), 1.0, "{room}");
    }
    assert!(
        backend.asked().iter().all(|asked| asked.path == "/hook"),
        "no redirect is followed"
    );
    ann.join("honest").await;
    // One line for a run of failures, not one each.
    let lines = node.log();
    let said = lines
        .iter()
        .filter(|line| line["hook"] == "liar" && line["level"] == "WARN")
        .count();
    assert_eq!(said, 1, "{lines:?}");
}

#[tokio::test]
async fn a_hook_that_keeps_failing_is_left_alone_and_asked_again() {
    let backend = Backend::start().await;
    backend.answers(|_| std::future::ready(status(500)));
    let node = asking(
        &backend,
        "events = [\"chat\"]\nname = \"moderator\"\ncircuit_failures = 3\ncircuit_pause = \"1s\"",
    )
    .start()
    .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let chat = json!({"type": "chat", "room": "lobby", "content": "hi"});
    for _ in 0..3 {
        assert_eq!(ann.ask(chat.clone()).await["code"], "unavailable");
    }
    node.logged("the circuit opening", |line| {
        line["hook"] == "moderator" && line["result"] == "status"
    })
    .await;
    assert_eq!(
        node.metrics()
            .await
            .sum("conclave_hook_circuit_open", &[("hook", "moderator")]),
        1.0
    );
    backend.says(json!({"allow": true}));
    // Until it has been left alone for long enough nobody is asked; then one is, and all is well again.
    let mut refused = 0;
    loop {
        let answer = ann.ask(chat.clone()).await;
        if answer["type"] == "ok" {
            break;
        }
        assert_eq!(answer["code"], "unavailable", "{answer}");
        assert!(answer["retry_after_ms"].as_u64() > Some(0));
        refused += 1;
        assert!(refused < 1_000_000, "it was never asked again");
    }
    let metrics = node.metrics().await;
    let of = |result| {
        metrics.sum(
            "conclave_hook_requests_total",
            &[("hook", "moderator"), ("result", result)],
        )
    };
    assert_eq!((of("status"), of("ok")), (3.0, 1.0));
    assert_eq!(of("circuit_open"), f64::from(refused));
    assert_eq!(metrics.sum("conclave_hook_circuit_open", &[("hook", "moderator")]), 0.0);
    assert_eq!(backend.asked().len(), 4);
}

#[tokio::test]
async fn more_questions_than_may_be_under_way_are_not_asked() {
    let backend = Backend::start().await;
    let most = Arc::new(AtomicUsize::new(0));
    let (open, opened) = tokio::sync::watch::channel(false);
    let (under_way, peak) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most));
    backend.answers(move |_| {
        let (mut opened, under_way, peak) = (opened.clone(), Arc::clone(&under_way), Arc::clone(&peak));
        async move {
            peak.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            opened.wait_for(|open| *open).await.unwrap();
            under_way.fetch_sub(1, Ordering::SeqCst);
            backend::allow()
        }
    });
    let node = asking(&backend, "events = [\"join\"]\nin_flight = 4\ntimeout = \"5m\"")
        .start()
        .await;
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = node.client(&format!("u{number}")).await;
        client.send(json!({"type": "join", "room": "lobby", "ref": 1})).await;
        clients.push(client);
    }
    backend.asked_times(4).await;
    let mut late = node.client("late").await;
    for _ in 0..20 {
        assert_eq!(
            late.ask(json!({"type": "join", "room": "lobby"})).await["code"],
            "unavailable"
        );
    }
    open.send(true).unwrap();
    for client in &mut clients {
        assert_eq!(
            client.find("its answer", |answer| answer["ref"] == 1).await["type"],
            "list"
        );
    }
    late.join("lobby").await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("conclave_hook_requests_total", &[("hook", "join"), ("result", "busy")]),
        20.0
    );
    assert_eq!(metrics.sum("conclave_hook_waiting", &[("hook", "join")]), 0.0);
}

#[tokio::test]
async fn a_question_outlasts_the_heartbeat() {
    let backend = Backend::start().await;
    let (open, opened) = tokio::sync::watch::channel(false);
    backend.answers(move |_| {
        let mut opened = opened.clone();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            backend::allow()
        }
    });
    let node = asking(&backend, "events = [\"join\"]\ntimeout = \"5m\"")
        .set("heartbeat.interval", "1s")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.send(json!({"type": "join", "room": "lobby", "ref": 1})).await;
    backend.asked_times(1).await;
    // Three visits pass while nothing is read from it.
    for _ in 0..3 {
        loop {
            match ann.raw().await {
                Some(harness::Frame::Ping(_)) => break,
                Some(_) => {}
                None => panic!("it was ended while it was not listened to"),
            }
        }
    }
    open.send(true).unwrap();
    assert_eq!(ann.find("the list", |answer| answer["ref"] == 1).await["type"], "list");
}
