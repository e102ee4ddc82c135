//! `/echo`: says back what it hears, however large, however it is cut, and holds no more than one message.

use serde_json::Value;

use crate::harness::frames::{self, BINARY, CONTINUATION, FIN, PING, TEXT, frame};
use crate::harness::{self, Builder, Client, Frame, Node, within};

const MIB: usize = 1024 * 1024;

fn node() -> Builder {
    harness::node().set("echo.enabled", "true")
}

async fn echo(node: &Node) -> Client {
    node.ask("GET", "/echo")
        .upgrade()
        .query_token(&node.token("ann"))
        .open()
        .await
}

/// One message in fragments of `size`, with a ping in front of each that `pings`.
fn fragments(opcode: u8, payload: &[u8], size: usize, pings: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + payload.len() / size * 16);
    let last = payload.len().div_ceil(size) - 1;
    for (index, piece) in payload.chunks(size).enumerate() {
        if pings {
            bytes.extend(frame(FIN | PING, &index.to_be_bytes()));
        }
        let opcode = if index == 0 { opcode } else { CONTINUATION };
        bytes.extend(frame(if index == last { FIN | opcode } else { opcode }, piece));
    }
    bytes
}

fn resident(node: &Node) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process.pid())).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse::<usize>()
        .expect("a number")
        * 1024
}

#[tokio::test]
async fn large_messages_in_many_fragments_come_back_whole() {
    for runtime in ["per-core", "shared"] {
        let node = node().runtime(runtime).start().await;
        let mut client = echo(&node).await;
        let text = "é👋 a".repeat(MIB / 8);
        client.send_bytes(&fragments(TEXT, text.as_bytes(), 1_001, false)).await;
        assert!(client.next().await == Some(Frame::Text(text)));
        let bytes: Vec<u8> = (0..4 * MIB).map(|number| number as u8).collect();
        client.send_bytes(&fragments(BINARY, &bytes, 65_537, false)).await;
        assert!(client.next().await == Some(Frame::Binary(bytes)));
        client.close(1000).await;
    }
}

#[tokio::test]
async fn pings_between_fragments_are_answered_in_order() {
    let node = node().start().await;
    let mut client = echo(&node).await;
    let bytes = vec![7; 300_000];
    client.send_bytes(&fragments(BINARY, &bytes, 1_000, true)).await;
    for index in 0..300_usize {
        assert_eq!(client.next().await, Some(Frame::Pong(index.to_be_bytes().to_vec())));
    }
    assert!(client.next().await == Some(Frame::Binary(bytes)));
}

#[tokio::test]
async fn heartbeats_come_between_replies_and_never_inside_one() {
    let node = node().set("heartbeat.interval", "1s").start().await;
    let mut client = echo(&node).await;
    let bytes = vec![7; MIB];
    let message = frame(FIN | BINARY, &bytes);
    let (mut pings, mut replies) = (0, 0);
    within("three heartbeats", async {
        while pings < 3 {
            client.send_bytes(&message).await;
            loop {
                // A ping inside a reply would be found by its length and its content.
                match client.raw().await {
                    Some(Frame::Binary(reply)) => {
                        assert!(reply == bytes);
                        replies += 1;
                        break;
                    }
                    Some(Frame::Ping(payload)) => {
                        pings += 1;
                        client.send_frame(FIN | frames::PONG, &payload).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    })
    .await;
    assert!(replies > 0);
}

#[tokio::test]
async fn who_does_not_read_is_not_read_from_and_costs_one_message() {
    let node = node().start().await;
    let message = frame(FIN | BINARY, &vec![7; 8 * MIB]);
    // What the first large message leaves in the allocator is not the second reader's.
    let mut warm = echo(&node).await;
    warm.send_bytes(&message).await;
    assert!(matches!(warm.next().await, Some(Frame::Binary(_))));
    warm.close(1000).await;
    let before = resident(&node);
    let mut stalled = echo(&node).await;
    let mut offered = 0;
    let offering = async {
        while offered < 16 {
            stalled.send_bytes(&message).await;
            offered += 1;
        }
    };
    // The node stops reading, so the offer never ends: how long is waited only decides how much was tried.
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(3), offering)
            .await
            .is_err()
    );
    assert!(offered < 4, "{offered} messages were taken from who reads nothing");
    let grown = resident(&node).saturating_sub(before);
    assert!(grown < 40 * MIB, "{grown} bytes more");
    // Others are served meanwhile.
    let mut other = echo(&node).await;
    other.send_text("still here").await;
    assert_eq!(other.next().await, Some(Frame::Text("still here".to_owned())));
    drop(stalled);
}

#[tokio::test]
async fn a_drain_lets_a_reply_end_and_says_nothing_after_its_close() {
    for runtime in ["per-core", "shared"] {
        let node = node().runtime(runtime).set("drain.time", "5s").start().await;
        let mut idle = echo(&node).await;
        let mut busy = echo(&node).await;
        let bytes = vec![7; 8 * MIB];
        busy.send_frame(FIN | BINARY, &bytes).await;
        // The reply has begun: it does not fit what lies between.
        node.metric_reaches("conclave_sends_total", &[], 1.0).await;
        node.terminate("TERM");
        closing(&mut idle).await;
        // RFC 6455 section 5.5.1: after a close frame no more data.
        idle.send_text("too late").await;
        idle.send_frame(FIN | PING, b"too late").await;
        idle.send_bytes(&frames::close(1012, "")).await;
        idle.gone().await;
        assert!(
            busy.next().await == Some(Frame::Binary(bytes)),
            "{runtime}: the reply is whole"
        );
        closing(&mut busy).await;
        busy.send_text("too late").await;
        busy.send_bytes(&frames::close(1012, "")).await;
        busy.gone().await;
        assert_eq!(node.wait_exit().await.code(), Some(0));
    }
}

/// `closing`, then the close frame of a restart.
async fn closing(client: &mut Client) {
    match client.next().await {
        Some(Frame::Text(text)) => {
            let closing: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(
                (&closing["type"], &closing["reason"]),
                (&"closing".into(), &"restart".into())
            );
        }
        other => panic!("{other:?}"),
    }
    client.expect_close(1012, "restart").await;
}
