//! Traces that hang together, as a collector receives them.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::collector::{Collector, Span, about, hex};
use crate::harness::{self, Node};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const TRACE_OF_MESSAGE: &str = "11112222333344445555666677778888";

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PARENT}-{flags}")
}

fn linked(span: &Span, to: &Span, name: &str) {
    assert!(span.parent_span_id.is_empty(), "{name} is a root");
    assert_ne!(span.trace_id, to.trace_id, "{name}");
    let links: Vec<_> = span.links.iter().map(|link| (&link.trace_id, &link.span_id)).collect();
    assert_eq!(links, [(&to.trace_id, &to.span_id)], "{name}");
}

async fn traced(collector: &Collector, ratio: &str) -> Node {
    harness::node()
        .set("traces.endpoint", &collector.endpoint)
        .set("traces.sample_ratio", ratio)
        .start()
        .await
}

#[tokio::test]
async fn a_session_and_its_chats_reach_the_collector_as_linked_traces() {
    let collector = Collector::start().await;
    let node = traced(&collector, "1").await;
    let ask = node.socket().query_token(&node.token("ann"));
    let mut ann = ask
        .header("traceparent", &traceparent(TRACE, "01"))
        .header("tracestate", "vendor=1")
        .open()
        .await
        .welcomed()
        .await;
    let mut others = Vec::new();
    for number in 0..3 {
        let mut other = node.client(&format!("u{number}")).await;
        other.join("lobby").await;
        others.push(other);
    }
    ann.join("lobby").await;
    let message = json!({"type": "chat", "room": "lobby", "content": "hi",
        "traceparent": traceparent(TRACE_OF_MESSAGE, "01")});
    assert_eq!(ann.ask(message).await["seq"], 1);
    assert_eq!(ann.chat("lobby", "again").await["seq"], 2);
    ann.close(1001).await;
    node.metric_reaches("conclave_disconnects_total", &[("code", "1001")], 1.0)
        .await;
    drop(others);
    node.metric_reaches("conclave_disconnects_total", &[], 4.0).await;
    node.terminate("TERM");
    assert_eq!(node.wait_exit().await.code(), Some(0));

    let spans = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let upgrades = named("GET /ws");
    assert_eq!(upgrades.len(), 4);
    let upgrade = *upgrades
        .iter()
        .find(|span| hex(&span.trace_id) == TRACE)
        .expect("in the caller's trace");
    assert_eq!(hex(&upgrade.parent_span_id), PARENT);
    assert_eq!(upgrade.trace_state, "vendor=1");
    let told = about(upgrade);
    assert_eq!(told["http.response.status_code"], "101");
    assert_eq!(told["conclave.upgrade.result"], "admitted");
    assert_eq!(told["network.protocol.version"], "1.1");
    assert_eq!(told["tls.protocol.version"], "1.3");
    let of_ann = |name: &str| {
        let to_ann = |span: &&&Span| span.links.iter().any(|link| link.span_id == upgrade.span_id);
        named(name).iter().find(to_ann).copied().expect(name)
    };
    linked(of_ann("websocket session start"), upgrade, "start");
    let end = of_ann("websocket session end");
    linked(end, upgrade, "end");
    assert_eq!(about(end)["conclave.close.code"], "1001");

    let publishes = named("publish");
    assert_eq!(publishes.len(), 2);
    let (of_message, own): (Vec<_>, Vec<_>) = publishes
        .into_iter()
        .partition(|span| hex(&span.trace_id) == TRACE_OF_MESSAGE);
    assert_eq!(hex(&of_message[0].parent_span_id), PARENT);
    assert_eq!(of_message[0].links[0].span_id, upgrade.span_id);
    linked(own[0], upgrade, "publish");
    assert_eq!(about(of_message[0])["conclave.seq"], "1");
    assert_eq!(about(own[0])["conclave.seq"], "2");
    let fan_outs = named("fan-out");
    assert_eq!(fan_outs.len(), 2);
    for publish in [of_message[0], own[0]] {
        let to_it = |span: &&&Span| span.links[0].span_id == publish.span_id;
        let fan_out = fan_outs.iter().find(to_it).expect("one fan-out per publish");
        linked(fan_out, publish, "fan-out");
        let told = about(fan_out);
        assert_eq!((&*told["conclave.members"], &*told["conclave.delivered"]), ("4", "4"));
    }
    // Nobody is named, and nothing lasts as long as a socket or the node.
    let known = [
        "GET /ws",
        "websocket session start",
        "websocket session end",
        "publish",
        "fan-out",
    ];
    for span in &spans {
        assert!(known.contains(&&*span.name), "{}", span.name);
        let told = format!("{:?}", about(span));
        assert!(!told.contains("ann") && !told.contains("lobby"), "{told}");
    }
}

#[tokio::test]
async fn a_ratio_of_nought_follows_callers_and_nothing_else() {
    let collector = Collector::start().await;
    let node = traced(&collector, "0").await;
    let ask = node.socket().query_token(&node.token("ann"));
    let mut untraced = ask.open().await.welcomed().await;
    untraced.join("lobby").await;
    untraced.chat("lobby", "not traced").await;
    let mut unsampled = ask
        .clone()
        .header("traceparent", &traceparent(TRACE, "00"))
        .open()
        .await
        .welcomed()
        .await;
    unsampled.join("lobby").await;
    unsampled.chat("lobby", "not traced either").await;
    let asked = json!({"type": "chat", "room": "lobby", "content": "traced",
        "traceparent": traceparent(TRACE_OF_MESSAGE, "01")});
    assert_eq!(unsampled.ask(asked).await["type"], "ok");
    for bad in [json!("rubbish"), json!(""), json!(traceparent(&"0".repeat(32), "01"))] {
        let asked = json!({"type": "chat", "room": "lobby", "content": "bad", "traceparent": bad});
        assert_eq!(unsampled.ask(asked).await["type"], "ok", "{bad}");
    }
    node.terminate("TERM");
    drop((untraced, unsampled));
    assert_eq!(node.wait_exit().await.code(), Some(0));
    let mut names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
    names.sort();
    assert_eq!(names, ["fan-out", "publish"]);
}

#[tokio::test]
async fn refusals_are_traced_and_their_log_lines_carry_the_ids() {
    let collector = Collector::start().await;
    let node = traced(&collector, "0").await;
    let ask = node.socket().header("traceparent", &traceparent(TRACE, "01"));
    ask.open().await.expect_close(1008, "token_missing").await;
    let foreign = ask.clone().origin("https://evil.example").try_open().await;
    assert_eq!(foreign.err().map(|answer| answer.status), Some(403));
    for said in ["connection refused", "upgrade refused: foreign origin"] {
        let line = node.logged(said, |line| line["message"] == said).await;
        assert_eq!(line["trace_id"], TRACE, "{line}");
        assert!(
            line["span_id"]
                .as_str()
                .is_some_and(|id| id.len() == 16 && id != PARENT),
            "{line}"
        );
    }
    node.terminate("TERM");
    assert_eq!(node.wait_exit().await.code(), Some(0));
    let told: Vec<_> = collector.spans().iter().map(about).collect();
    let mut results: Vec<_> = told
        .iter()
        .map(|told| (&*told["http.response.status_code"], &*told["conclave.upgrade.result"]))
        .collect();
    results.sort_unstable();
    assert_eq!(results, [("101", "token_missing"), ("403", "foreign_origin")]);
}

#[tokio::test]
async fn an_absent_collector_delays_nothing() {
    // One that refuses, and one that takes everything and never answers.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [closed, silent.local_addr().unwrap()] {
        let node = harness::node()
            .set("traces.endpoint", &format!("http://{address}"))
            .set("traces.sample_ratio", "1")
            .start()
            .await;
        let mut ann = node.client("ann").await;
        ann.join("lobby").await;
        for number in 0..3000 {
            ann.chat("lobby", number).await;
        }
        node.metric_reaches("conclave_trace_spans_total", &[("result", "dropped")], 1.0)
            .await;
        assert_eq!(
            node.metrics()
                .await
                .sum("conclave_trace_spans_total", &[("result", "exported")]),
            0.0
        );
        ann.close(1000).await;
        node.terminate("TERM");
        let stopping = Instant::now();
        assert_eq!(node.wait_exit().await.code(), Some(0));
        // Three seconds for the last spans, and one request that may be on its way.
        assert!(stopping.elapsed() < Duration::from_secs(12), "{:?}", stopping.elapsed());
    }
}
