//! A node that is asked to stop: readiness first, then every client told when to come back, and a bounded end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::http2::Http2;
use crate::harness::node::{Builder, read_to_end};
use crate::harness::{self, Frame, Node, within};

const RUNTIMES: [&str; 2] = ["per-core", "shared"];

fn draining(runtime: &str, grace: &str, time: &str) -> Builder {
    harness::node()
        .runtime(runtime)
        .set("drain.grace", grace)
        .set("drain.time", time)
}

/// Waits until the log says that stopping has come to `phase`.
async fn phase(node: &Node, phase: &str) {
    node.logged(phase, |line| line["message"] == "stopping" && line["phase"] == phase)
        .await;
}

/// The numbers in the order in which the node said its phases.
fn phases(node: &Node) -> Vec<String> {
    let stopping = node.log().into_iter().filter(|line| line["message"] == "stopping");
    stopping
        .map(|line| line["phase"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn both_signals_tell_every_client_and_end_with_0() {
    for runtime in RUNTIMES {
        for signal in ["TERM", "INT"] {
            let node = draining(runtime, "0s", "10s").start().await;
            let http2 = Http2::connect(&node).await;
            let mut clients = Vec::new();
            for number in 0..8 {
                let mut client = match number % 4 {
                    0 => http2.socket(&node.token(&format!("u{number}"))).await.welcomed().await,
                    _ => node.client(&format!("u{number}")).await,
                };
                client.join("lobby").await;
                clients.push(client);
            }
            node.terminate(signal);
            let began = Instant::now();
            let mut times = BTreeSet::new();
            for client in &mut clients {
                let closing = client.until("closing").await;
                assert_eq!(closing["reason"], "restart");
                let after_ms = closing["reconnect_after_ms"].as_u64().expect("a number");
                assert!((100..=10_100).contains(&after_ms), "{closing}");
                times.insert(after_ms);
                client.expect_close(1012, "restart").await;
                client.send_bytes(&harness::frames::close(1012, "")).await;
            }
            drop(clients);
            assert!(times.len() > 1, "they are not all sent back at once: {times:?}");
            assert_eq!(node.wait_exit().await.code(), Some(0), "{runtime} {signal}");
            assert!(began.elapsed() < Duration::from_secs(11), "within drain.time");
            assert_eq!(phases(&node), ["Grace", "Closing", "Stopped"], "{runtime} {signal}");
        }
    }
}

#[tokio::test]
async fn closes_are_spread_over_the_drain() {
    let node = draining("per-core", "0s", "3s").start().await;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(node.client(&format!("u{number}")).await);
    }
    node.terminate("TERM");
    let began = Instant::now();
    let told = clients.into_iter().map(async |mut client| {
        client.until("closing").await;
        began.elapsed()
    });
    let mut times = futures_util::future::join_all(told).await;
    times.sort();
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(last - first >= Duration::from_millis(700), "{times:?}");
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn readiness_goes_first_and_newcomers_are_served_until_the_listener_closes() {
    for runtime in RUNTIMES {
        let node = draining(runtime, "3s", "2s").start().await;
        let mut old = node.client("old").await;
        old.join("lobby").await;
        assert_eq!(node.admin("/readyz").await.status, 200);
        assert_eq!(node.ask("GET", "/readyz").answer().await.status, 200);
        node.terminate("TERM");
        phase(&node, "Grace").await;
        for ready in [node.admin("/readyz").await, node.ask("GET", "/readyz").answer().await] {
            assert_eq!((ready.status, &*ready.body), (503, "draining\n"), "{runtime}");
        }
        for live in [node.admin("/livez").await, node.ask("GET", "/livez").answer().await] {
            assert_eq!(live.status, 200, "{runtime}");
        }
        let metrics = node.metrics().await;
        assert_eq!(metrics.sum("conclave_ready", &[]), 0.0);
        assert_eq!(metrics.sum("conclave_drain_phase", &[("phase", "grace")]), 1.0);
        assert_eq!(metrics.sum("conclave_drain_phase", &[]), 1.0);
        // A balancer that has not looked yet still sends people here.
        let mut new = node.client("new").await;
        new.join("lobby").await;
        old.chat("lobby", "still served").await;
        assert_eq!(new.until("chat").await["content"], "still served");
        phase(&node, "Closing").await;
        within("the listener to close", async {
            while tokio::net::TcpStream::connect(node.listen).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        for client in [&mut old, &mut new] {
            client.until("closing").await;
            client.expect_close(1012, "restart").await;
            client.send_bytes(&harness::frames::close(1012, "")).await;
        }
        assert_eq!(node.wait_exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_delivered_before_the_close() {
    for runtime in RUNTIMES {
        let node = draining(runtime, "0s", "5s").start().await;
        let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
        ann.join("lobby").await;
        bob.join("lobby").await;
        for number in 0..200 {
            ann.send(json!({"type": "chat", "room": "lobby", "content": number, "ref": number}))
                .await;
        }
        ann.find("the first ok", |message| message["type"] == "ok").await;
        node.terminate("TERM");
        // The rest is said while the node stops. Both may be told at any time.
        let (mut acknowledged, mut heard) = (1, BTreeSet::new());
        while let Some(frame) = ann.next().await {
            acknowledged += match frame {
                Frame::Text(text) => usize::from(text.starts_with(r#"{"type":"ok""#)),
                Frame::Close(code, _) => {
                    assert_eq!(code, 1012);
                    break;
                }
                _ => 0,
            };
        }
        loop {
            match bob.next().await.expect("a close frame comes first") {
                Frame::Text(text) => {
                    let message: serde_json::Value = serde_json::from_str(&text).unwrap();
                    if message["type"] == "chat" {
                        heard.insert(message["content"].as_u64().unwrap());
                    }
                }
                Frame::Close(code, _) => {
                    assert_eq!(code, 1012);
                    break;
                }
                _ => {}
            }
        }
        // No hole, whoever was closed first.
        assert_eq!(heard, (0..heard.len() as u64).collect::<BTreeSet<_>>(), "{runtime}");
        assert!(!heard.is_empty() && acknowledged >= 1, "{runtime}");
        drop((ann, bob));
        assert_eq!(node.wait_exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn who_does_not_answer_is_cut_at_the_deadline() {
    for runtime in RUNTIMES {
        // Shorter than the two seconds that an answer is waited for.
        let node = draining(runtime, "0s", "1s").start().await;
        let mut silent = node.client("silent").await;
        let mut reader = node.client("reader").await;
        node.terminate("TERM");
        let began = Instant::now();
        reader.until("closing").await;
        reader.expect_close(1012, "restart").await;
        assert_eq!(node.wait_exit().await.code(), Some(0), "{runtime}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{runtime}: {:?}",
            began.elapsed()
        );
        assert_eq!(phases(&node), ["Grace", "Closing", "Deadline", "Stopped"], "{runtime}");
        node.logged("what was left", |line| line["message"] == "drain deadline passed")
            .await;
        silent.drained().await;
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (runtime, first, second) in [
        ("per-core", "TERM", "INT"),
        ("shared", "INT", "TERM"),
        ("shared", "TERM", "TERM"),
    ] {
        let node = draining(runtime, "10m", "1h").start().await;
        let mut client = node.client("ann").await;
        node.terminate(first);
        phase(&node, "Grace").await;
        node.terminate(second);
        assert_eq!(node.wait_exit().await.code(), Some(1), "{runtime}");
        assert!(node.process.seen().stderr.contains("second signal"));
        client.drained().await;
    }
}

#[tokio::test]
async fn a_second_signal_counts_while_clients_are_being_closed() {
    let node = draining("per-core", "0s", "1h").start().await;
    let mut clients = Vec::new();
    for number in 0..3 {
        clients.push(node.client(&format!("u{number}")).await);
    }
    node.terminate("TERM");
    phase(&node, "Closing").await;
    node.terminate("TERM");
    assert_eq!(node.wait_exit().await.code(), Some(1));
}

#[tokio::test]
async fn nobody_who_says_nothing_holds_it_up() {
    for runtime in RUNTIMES {
        let node = draining(runtime, "0s", "10m").start().await;
        // Nothing at all, half a hello, a handshake and no request, half a request, an idle connection of each version.
        let mut bare = node.tcp().await;
        let mut half = node.tcp().await;
        half.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
        let mut quiet = node.tls().connect().await;
        let mut begun = node.tls().connect().await;
        begun.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
        let (answer, mut idle, _) = node.ask("GET", "/livez").send().await;
        assert_eq!(answer.status, 200);
        let http2 = Http2::connect(&node).await;
        assert_eq!(http2.get("/livez").await.0, 200);
        // A refused socket, whose close nobody answers.
        let mut refused = node.socket().open().await;
        refused.expect_close(1008, "token_missing").await;
        node.terminate("TERM");
        let began = Instant::now();
        assert_eq!(node.wait_exit().await.code(), Some(0), "{runtime}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{runtime}: {:?}",
            began.elapsed()
        );
        for stream in [&mut bare, &mut half] {
            read_to_end(stream).await;
        }
        for stream in [&mut quiet, &mut begun] {
            read_to_end(stream).await;
        }
        read_to_end(&mut idle).await;
    }
}

#[tokio::test]
async fn over_http2_newcomers_are_sent_elsewhere_while_clients_are_closed() {
    let node = draining("per-core", "0s", "20s").start().await;
    let mut staying = Vec::new();
    for number in 0..4 {
        staying.push(node.client(&format!("u{number}")).await);
    }
    // Opened before: their requests come after the listener has closed.
    let mut late = Vec::new();
    for _ in 0..2 {
        late.push(node.tls().connect().await);
    }
    node.terminate("TERM");
    phase(&node, "Closing").await;
    for mut stream in late {
        let request = node.socket().query_token(&node.token("late")).bytes();
        // Either the connection has ended, or the socket is told where to go.
        let _ = stream.write_all(&request).await;
        let said = String::from_utf8_lossy(&read_to_end(&mut stream).await).into_owned();
        assert!(said.is_empty() || said.contains("closing"), "{said:?}");
        assert!(!said.contains("connected"), "{said:?}");
    }
    for client in &mut staying {
        client.until("closing").await;
        client.expect_close(1012, "restart").await;
        client.send_bytes(&harness::frames::close(1012, "")).await;
    }
    assert_eq!(node.wait_exit().await.code(), Some(0));
}
