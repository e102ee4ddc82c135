//! Many who come at once: who gets in, in which order, and what the others notice of it.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::frames::{CONTINUATION, FIN, TEXT, frame};
use crate::harness::{self, Ask, Client, Node};

#[tokio::test]
async fn the_last_connections_are_for_clients_that_return() {
    let node = harness::node()
        .set("server.page", "true")
        .set("limits.connections", "20")
        .set("limits.returning_share", "0.25")
        .start()
        .await;
    let mut inside = clients(&node, 15).await;
    let mut newcomer = node.socket().bearer(&node.token("new")).open().await;
    let closing = newcomer.message().await;
    assert_eq!(
        (&closing["type"], &closing["reason"]),
        (&json!("closing"), &json!("overloaded"))
    );
    assert!(
        closing["reconnect_after_ms"].as_u64().is_some_and(|ms| ms >= 500),
        "{closing}"
    );
    newcomer.expect_close(1013, "overloaded").await;
    newcomer.gone().await;
    // A word that anybody can say is no proof.
    let mut liar = resuming(&node).bearer("rubbish").open().await;
    liar.expect_close(1008, "token_malformed").await;
    liar.gone().await;
    let page = node.ask("GET", "/").answer().await;
    assert_eq!(
        (page.status, page.header("connection")),
        (503, Some("close")),
        "{page:?}"
    );
    let wait: u64 = page.header("retry-after").expect("when to come back").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(
        node.ask("GET", "/livez").answer().await.status,
        200,
        "health is not shed"
    );
    for number in 0..3 {
        let back = resuming(&node).bearer(&node.token(&format!("back{number}")));
        inside.push(back.open().await.welcomed().await);
    }
    let request = [("stage", "request"), ("reason", "connections")];
    node.metric_reaches("conclave_admission_refused_total", &request, 2.0)
        .await;
    node.metric_reaches("conclave_resumed_sockets_total", &[], 3.0).await;
    node.metric_reaches("conclave_upgrades_total", &[("result", "overloaded")], 1.0)
        .await;
    for client in &mut inside {
        assert_eq!(
            client.pending().await,
            Vec::<Value>::new(),
            "who is inside notices nothing"
        );
    }
}

#[tokio::test]
async fn who_cannot_be_told_gets_503() {
    let node = harness::node()
        .set("limits.connections", "20")
        .set("limits.returning_share", "0.5")
        .set("limits.turn_aways", "1")
        .start()
        .await;
    let _inside = clients(&node, 10).await;
    let ask = node.socket().bearer(&node.token("new"));
    // One after the other, until one finds the place of another that does not answer its close.
    let mut told = Vec::new();
    for _ in 0..20 {
        match ask.try_open().await {
            Ok(client) => told.push(client),
            Err(answer) => {
                assert_eq!(answer.status, 503);
                assert!(answer.header("retry-after").is_some());
                assert_eq!(answer.header("connection"), Some("close"));
                return node
                    .metric_reaches("conclave_refused_total", &[("limit", "turn_aways")], 1.0)
                    .await;
            }
        }
    }
    panic!("{} were told, one at a time", told.len());
}

#[tokio::test]
async fn half_hellos_and_garbage_hold_no_place_in_line() {
    let node = harness::node()
        .set("limits.handshakes_in_flight", "1")
        .set("limits.handshake_wait", "10ms")
        .start()
        .await;
    let mut slow = Vec::new();
    for number in 0..300 {
        let mut stream = node.tcp().await;
        let bytes: &[u8] = match number % 3 {
            0 => b"\x16\x03\x01\x02\x00\x01\x00",
            1 => b"\x16",
            _ => b"\x80garbage that is no hello",
        };
        // Of garbage the node may have hung up already.
        drop(stream.write_all(bytes).await);
        slow.push(stream);
    }
    for number in 0..5 {
        let mut client = node.client(&format!("u{number}")).await;
        assert_eq!(client.pending().await, Vec::<Value>::new());
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_handshakes_waiting", &[]), 0.0);
    assert_eq!(metrics.sum("conclave_admission_refused_total", &[]), 0.0);
    node.metric_reaches("conclave_handshakes_total", &[("result", "not_tls")], 100.0)
        .await;
    drop(slow);
}

#[tokio::test]
async fn a_hello_that_goes_on_to_nothing_gives_its_turn_back() {
    let node = harness::node().set("limits.handshakes_in_flight", "2").start().await;
    let hello = hello_of(&node);
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut stream = node.tcp().await;
        stream.write_all(&hello).await.unwrap();
        silent.push(stream);
    }
    // Each of the eight holds one of the two turns for a second at most.
    node.client("ann").await.close(1000).await;
    drop(silent);
}

#[tokio::test]
async fn an_address_that_shakes_hands_too_often_is_dropped() {
    let node = harness::node()
        .set("limits.handshakes_per_address_per_second", "3")
        .start()
        .await;
    let (mut inside, mut dropped) = (Vec::new(), 0);
    // A slow machine may have earned another one in between: a few more then.
    while dropped < 3 && inside.len() < 100 {
        match node.tls().try_connect().await {
            Ok(stream) => inside.push(stream),
            Err(_) => dropped += 1,
        }
    }
    assert_eq!(dropped, 3);
    let limit = [("limit", "handshakes_per_address_per_second")];
    node.metric_reaches("conclave_rate_limited_total", &limit, 3.0).await;
    let stage = [("stage", "tls"), ("reason", "address_rate")];
    node.metric_reaches("conclave_admission_refused_total", &stage, 3.0)
        .await;
    node.metric_reaches("conclave_handshakes_total", &[("result", "per_address_limit")], 3.0)
        .await;
}

#[tokio::test]
async fn a_storm_gets_in_and_nobody_who_is_there_gets_out() {
    const STORM: usize = 500;
    const CHATS: u64 = 50;
    // So short a wait that some find the line full, and come again.
    let node = harness::node()
        .set("limits.handshake_wait", "10ms")
        .set("limits.handshake_cpu_share", "0.5")
        .start()
        .await;
    let mut inside = clients(&node, 100).await;
    for client in &mut inside {
        client.join("lobby").await;
    }
    let gusts = join_all((0..STORM).map(|number| gust(&node, number)));
    let (says, hears) = inside.split_first_mut().expect("a hundred");
    let chatting = async {
        for number in 0..CHATS {
            says.chat("lobby", number).await;
        }
        for client in hears {
            for number in 0..CHATS {
                assert_eq!(client.until("chat").await["content"], number);
            }
        }
    };
    let (mut storm, ()) = tokio::join!(gusts, chatting);
    let dropped: usize = storm.iter().map(|(_, dropped)| *dropped).sum();
    let metrics = node.metrics().await;
    assert_eq!(
        metrics.sum("conclave_admission_refused_total", &[("stage", "tls")]),
        dropped as f64
    );
    assert_eq!(
        metrics.sum("conclave_refused_total", &[("limit", "handshake_wait")]),
        dropped as f64
    );
    assert_eq!(metrics.sum("conclave_connections", &[]), 100.0 + STORM as f64);
    assert_eq!(metrics.sum("conclave_resumed_sockets_total", &[]), STORM as f64 / 2.0);
    assert_eq!(metrics.sum("conclave_disconnects_total", &[]), 0.0, "nobody was closed");
    assert!(metrics.sum("conclave_admission_rate", &[]) > 0.0);
    assert!(metrics.sum("conclave_handshake_cpu_seconds_total", &[]) > 0.0);
    // And when all of them leave at once, those who stay hear of it and go on.
    for (client, _) in &mut storm {
        client.send_bytes(&harness::frames::close(1000, "")).await;
    }
    drop(storm);
    for client in &mut inside {
        assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    }
    node.metric_reaches("conclave_disconnects_total", &[("initiator", "client")], STORM as f64)
        .await;
}

#[tokio::test]
async fn of_messages_that_are_never_whole_the_largest_goes_first() {
    let node = harness::node()
        .set("server.threads", "3")
        .set("limits.message_bytes", "192KiB")
        .set("limits.node_inbound_bytes", "1MiB")
        .start()
        .await;
    let mut small = Vec::new();
    for number in 0..3 {
        let mut client = node.client(&format!("small{number}")).await;
        client.send_bytes(&half_ping(150)).await;
        small.push(client);
    }
    let mut large = node.client("large").await;
    large.send_bytes(&half_ping(700)).await;
    assert_eq!(large.expect("closing").await["reason"], "overloaded");
    large.expect_close(1013, "overloaded").await;
    for client in &mut small {
        client.send_bytes(&rest_of_ping()).await;
        client.expect("pong").await;
    }
    node.metric_reaches("conclave_refused_total", &[("limit", "node_inbound_bytes")], 1.0)
        .await;
    let evicted = node.metrics().await.sum("conclave_evicted_bytes_total", &[]);
    assert!(evicted >= 700.0 * 1024.0, "{evicted}");
    drop((large, small));
    while node.metrics().await.sum("conclave_receive_queue_bytes", &[]) > 0.0 {
        tokio::task::yield_now().await;
    }
}

/// A ping of so many KiB, but for its last fragment: the heartbeat's pings can be answered in between.
fn half_ping(kib: usize) -> Vec<u8> {
    let ping = json!({"type": "ping", "ref": "x", "padding": "x".repeat(kib * 1024)}).to_string();
    frame(TEXT, &ping.as_bytes()[..ping.len() - 1])
}

fn rest_of_ping() -> Vec<u8> {
    frame(FIN | CONTINUATION, b"}")
}

/// One client of a storm: comes again until it is in. With it, how often it was dropped.
async fn gust(node: &Node, number: usize) -> (Client, usize) {
    let token = node.token(&format!("storm{number}"));
    let ask = if number.is_multiple_of(2) {
        resuming(node)
    } else {
        node.socket()
    }
    .bearer(&token);
    let mut dropped = 0;
    loop {
        let Ok(stream) = node.tls().try_connect().await else {
            dropped += 1;
            assert!(dropped < 10_000, "never let in");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let (answer, stream, early) = ask.send_on(Box::new(stream)).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        return (Client::over(stream, early, answer).welcomed().await, dropped);
    }
}

/// A first flight as any client sends it.
fn hello_of(node: &Node) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(node.tls().config(), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("into memory");
    hello
}

async fn clients(node: &Node, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(node.client(&format!("u{number}")).await);
    }
    clients
}

fn resuming(node: &Node) -> Ask {
    node.ask("GET", "/ws?resume=1").upgrade()
}
