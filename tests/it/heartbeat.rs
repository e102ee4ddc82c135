//! Who is still there (PROTOCOL.md section 4): silent peers are ended, all others are left alone.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::harness::frames::{self, FIN, PING, PONG};
use crate::harness::http2::Http2;
use crate::harness::{self, Client, Frame, Node, within};

async fn beating(seconds: u32) -> Node {
    harness::node()
        .set("heartbeat.interval", &format!("{seconds}s"))
        .start()
        .await
}

/// Reads frames, answering none, up to the end; how many pings came.
async fn stay_silent(client: &mut Client) -> usize {
    let mut pings = 0;
    while let Some(frame) = client.raw().await {
        assert_eq!(frame, Frame::Ping(Vec::new()), "nobody is told: it is 1006");
        pings += 1;
    }
    pings
}

#[tokio::test]
async fn a_silent_peer_is_pinged_once_and_cut_at_the_next_visit() {
    let node = beating(1).await;
    let mut ann = node.client("ann").await;
    assert_eq!(ann.welcome["heartbeat"], 1);
    assert_eq!(stay_silent(&mut ann).await, 1);
    node.metric_reaches("conclave_sweeper_terminations_total", &[], 1.0)
        .await;
    let labels = [("code", "1006"), ("reason", "heartbeat"), ("initiator", "server")];
    node.metric_reaches("conclave_disconnects_total", &labels, 1.0).await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_disconnects_total", &[]), 1.0);
    assert_eq!(metrics.sum("conclave_connections", &[]), 0.0);
    assert_eq!(metrics.sum("conclave_ping_rtt_seconds_count", &[]), 0.0);
}

#[tokio::test]
async fn a_peer_that_neither_reads_nor_answers_is_cut_and_leaves_its_rooms() {
    let node = beating(1).await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    // Its kernel takes every ping; the peer itself has gone to sleep, over both versions of HTTP.
    let mut half_open = node.client("half").await;
    half_open.join("lobby").await;
    let http2 = Http2::connect(&node).await;
    let mut stream = http2.socket(&node.token("stream")).await.welcomed().await;
    stream.join("lobby").await;
    for _ in 0..2 {
        ann.until("left").await;
    }
    node.metric_reaches("conclave_sweeper_terminations_total", &[], 2.0)
        .await;
    assert_eq!(ann.ask(json!({"type": "list", "room": "lobby"})).await["count"], 1);
}

#[tokio::test]
async fn whoever_says_anything_lives() {
    let node = beating(1).await;
    // A pong that answers, a pong that nobody asked for, a ping, a message, a fragment, half a frame's head.
    let lives: [(&str, Option<Vec<u8>>); 6] = [
        ("answers", None),
        ("a stray pong", Some(frames::frame(FIN | PONG, b"stray"))),
        ("a ping", Some(frames::frame(FIN | PING, b""))),
        ("a message", Some(frames::text(r#"{"type":"ping"}"#))),
        ("a fragment", Some(frames::frame(frames::CONTINUATION, b" "))),
        ("one byte of a payload", Some(vec![b' '])),
    ];
    let live = async |name: &str, said: Option<Vec<u8>>| {
        let mut client = node.client("ann").await;
        match name {
            "a fragment" => client.send_frame(frames::TEXT, b" ").await,
            // Its mask is of zeros, so that every byte is a space.
            "one byte of a payload" => client.send_bytes(&[0x81, 0xfe, 0x03, 0xe8, 0, 0, 0, 0]).await,
            _ => {}
        }
        // More visits than a silent peer survives.
        let mut pings = 0;
        while pings < 4 {
            match client.raw().await {
                Some(Frame::Ping(payload)) => {
                    pings += 1;
                    let answer = said.clone().unwrap_or_else(|| frames::frame(FIN | PONG, &payload));
                    client.send_bytes(&answer).await;
                }
                Some(Frame::Text(_) | Frame::Pong(_)) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    };
    join_all(lives.into_iter().map(|(name, said)| live(name, said))).await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_sweeper_terminations_total", &[]), 0.0);
    assert!(metrics.sum("conclave_ping_rtt_seconds_count", &[]) >= 3.0);
    assert!(metrics.sum("conclave_messages_total", &[("direction", "out"), ("kind", "ping")]) >= 24.0);
}

#[tokio::test]
async fn half_a_tls_record_is_no_life() {
    let node = beating(1).await;
    let mut records = crate::harness::records::Records::connect(&node).await;
    let request = node.socket().query_token(&node.token("ann")).bytes();
    records.send(&request).await;
    records.hear("connected").await;
    // The head of a record, whose rest never comes.
    records.write(&[23, 3, 3, 0x20, 0]).await;
    records.end().await;
    node.metric_reaches("conclave_sweeper_terminations_total", &[], 1.0)
        .await;
}

#[tokio::test]
async fn visits_are_spread_over_the_interval() {
    let node = beating(3).await;
    let began = Instant::now();
    let clients = join_all((0..30).map(async |number| node.client(&format!("u{number}")).await)).await;
    let first_ping = async |mut client: Client| match client.raw().await {
        Some(Frame::Ping(_)) => began.elapsed(),
        other => panic!("{other:?}"),
    };
    let mut times = join_all(clients.into_iter().map(first_ping)).await;
    times.sort();
    // One tick per second: no visit of all at once leaves two in three for later or earlier ones.
    let second = Duration::from_secs(1);
    let most = (0..times.len())
        .map(|from| {
            times[from..]
                .iter()
                .take_while(|time| **time < times[from] + second / 2)
                .count()
        })
        .max();
    assert!(most.is_some_and(|most| most <= 20), "{times:?}");
}

#[tokio::test]
async fn echo_is_visited_too() {
    let node = harness::node()
        .set("heartbeat.interval", "1s")
        .set("echo.enabled", "true")
        .start()
        .await;
    let ask = node.ask("GET", "/echo").upgrade().query_token(&node.token("probe"));
    let (answer, mut stream, _) = ask.send().await;
    assert_eq!(answer.status, 101);
    let mut bytes = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut bytes)).await;
    node.metric_reaches("conclave_sweeper_terminations_total", &[], 1.0)
        .await;
}
