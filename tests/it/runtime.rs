//! One runtime for all shards serves as one per shard does: the core of everything, once more.

use serde_json::json;

use crate::harness::http2::Http2;
use crate::harness::{self, Node, frames};

#[tokio::test]
async fn the_shared_runtime_does_the_whole_job() {
    let node = harness::node()
        .runtime("shared")
        .set("server.threads", "3")
        .set("limits.messages_per_second", "50")
        .set("limits.messages_burst", "60")
        .set("limits.message_bytes", "4KiB")
        .set("drain.time", "10s")
        .start()
        .await;
    admission(&node).await;
    rooms(&node).await;
    limits(&node).await;
    end(node).await;
}

async fn admission(node: &Node) {
    let mut nobody = node.socket().open().await;
    nobody.expect_close(1008, "token_missing").await;
    nobody.gone().await;
    let foreign = node
        .socket()
        .query_token(&node.token("ann"))
        .origin("https://evil.example");
    assert_eq!(foreign.try_open().await.err().map(|answer| answer.status), Some(403));
    assert_eq!(node.ask("GET", "/nowhere").answer().await.status, 404);
}

/// Enough members for every shard, over both versions of HTTP.
async fn rooms(node: &Node) {
    let http2 = Http2::connect(node).await;
    let mut members = Vec::new();
    for number in 0..12 {
        let mut client = match number % 3 {
            0 => http2.socket(&node.token(&format!("u{number}"))).await.welcomed().await,
            _ => node.client(&format!("u{number}")).await,
        };
        let list = client.join("lobby").await;
        assert_eq!(list["count"], number + 1);
        members.push(client);
    }
    for number in 0..12 {
        let ok = members[0].chat("lobby", number).await;
        assert_eq!(ok["seq"], number + 1);
    }
    for member in &mut members[1..] {
        for number in 0..12 {
            let chat = member.until("chat").await;
            assert_eq!((&chat["seq"], &chat["content"]), (&json!(number + 1), &json!(number)));
        }
    }
    members.pop().unwrap().close(1000).await;
    assert_eq!(members[0].until("left").await["user"]["id"], "u11");
    let page = members[0]
        .ask(json!({"type": "history", "room": "lobby", "after": 0}))
        .await;
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(12), "{page}");
    let (epoch, seq) = (page["epoch"].clone(), 7);
    let mut back = node.client("u11").await;
    back.send(json!({"type": "join", "room": "lobby", "since": {"epoch": epoch, "seq": seq}}))
        .await;
    assert_eq!(back.until("list").await["recovered"], true);
    for due in 8..=12 {
        assert_eq!(back.until("chat").await["seq"], due);
    }
}

async fn limits(node: &Node) {
    let mut client = node.client("ann").await;
    client.send_text(&format!("\"{}\"", "x".repeat(5_000))).await;
    client.expect_error("too_large").await;
    client
        .send_bytes(&frames::text(r#"{"type":"ping"}"#).repeat(2_000))
        .await;
    assert_eq!(client.closed().await, (1008, "abuse".to_owned()));
    let mut other = node.client("ann").await;
    other
        .send_bytes(&frames::unmasked(frames::FIN | frames::TEXT, b"{}"))
        .await;
    assert_eq!(other.closed().await, (1002, "protocol".to_owned()));
}

async fn end(node: Node) {
    let mut client = node.client("ann").await;
    node.terminate("TERM");
    assert_eq!(client.expect("closing").await["reason"], "restart");
    client.expect_close(1012, "restart").await;
    drop(client);
    assert_eq!(node.wait_exit().await.code(), Some(0));
}
