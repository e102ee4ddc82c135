//! What is too much, and what it is answered with.

use futures_util::future::join_all;
use rlimit::{Resource, prlimit};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::frames::{self, CONTINUATION, FIN, TEXT, frame};
use crate::harness::http2::Http2;
use crate::harness::node::read_to_end;
use crate::harness::{self, Client, Node, token};

#[tokio::test]
async fn a_message_over_the_rate_is_refused_with_a_time() {
    let node = harness::node().set("limits.messages_per_second", "1").start().await;
    let mut client = node.client("ann").await;
    client.send_bytes(&[ping("first"), ping("second")].concat()).await;
    assert_eq!(client.expect("pong").await["ref"], "first");
    let error = client.expect_error("rate_limited").await;
    assert_eq!(error["ref"], "second");
    assert!(
        error["retry_after_ms"]
            .as_u64()
            .is_some_and(|ms| (1..=1000).contains(&ms)),
        "{error}"
    );
    node.metric_reaches("conclave_rate_limited_total", &[("limit", "messages_per_second")], 1.0)
        .await;
}

#[tokio::test]
async fn who_goes_on_after_twenty_refusals_is_closed_for_abuse() {
    let node = harness::node().set("limits.messages_per_second", "1").start().await;
    let mut client = node.client("ann").await;
    client.send_bytes(&ping("flood").repeat(200)).await;
    assert_eq!(client.expect("pong").await["ref"], "flood");
    for _ in 0..20 {
        client.expect_error("rate_limited").await;
    }
    client.expect_close(1008, "abuse").await;
    client.gone().await;
    node.metric_reaches("conclave_disconnects_total", &[("reason", "abuse")], 1.0)
        .await;
}

#[tokio::test]
async fn rates_of_a_user_and_of_an_address_count_all_connections() {
    for limit in ["user_messages_per_second", "address_messages_per_second"] {
        let node = harness::node().set(&format!("limits.{limit}"), "1").start().await;
        let (mut one, mut two) = (node.client("ann").await, node.client("ann").await);
        let mut refused = None;
        // A slow machine may have earned another message in between: a few more then.
        for _ in 0..100 {
            for client in [&mut one, &mut two] {
                let answer = client.ask(json!({"type": "ping"})).await;
                refused = refused.or((answer["type"] == "error").then_some(answer));
            }
            if refused.is_some() {
                break;
            }
        }
        assert_eq!(
            refused.expect("one too many at last")["code"],
            "rate_limited",
            "{limit}"
        );
        node.metric_reaches("conclave_rate_limited_total", &[("limit", limit)], 1.0)
            .await;
        let mut bob = node.client("bob").await;
        let answer = bob.ask(json!({"type": "ping"})).await;
        let other_user_is_free = limit.starts_with("user");
        assert!(!other_user_is_free || answer["type"] == "pong", "{limit}: {answer}");
    }
}

/// What connections share in bytes, and what a room and the node may be told at all.
#[tokio::test]
async fn shared_rates_count_all_connections_and_spare_others() {
    const CONTENT: usize = 900;
    for (limit, value, spares) in [
        ("user_bytes_per_second", "1KiB", "a user"),
        ("address_bytes_per_second", "1KiB", "nobody"),
        ("room_messages_per_second", "1", "a room"),
        ("room_bytes_per_second", "1KiB", "a room"),
        ("node_messages_per_second", "1", "nobody"),
        ("node_bytes_per_second", "1KiB", "nobody"),
    ] {
        let node = harness::node()
            .set("limits.message_bytes", "1KiB")
            .set(&format!("limits.{limit}"), value)
            .start()
            .await;
        let (mut one, mut two) = (node.client("ann").await, node.client("ann").await);
        for client in [&mut one, &mut two] {
            until_taken(client, json!({"type": "join", "room": "lobby"})).await;
        }
        let chat = |room: &str| json!({"type": "chat", "room": room, "content": "x".repeat(CONTENT)});
        let mut refused = None;
        // A slow machine may have earned another message in between: a few more then.
        for _ in 0..100 {
            for client in [&mut one, &mut two] {
                let answer = client.ask(chat("lobby")).await;
                refused = refused.or((answer["type"] == "error").then_some(answer));
            }
            if refused.is_some() {
                break;
            }
        }
        let refused = refused.expect("one too many at last");
        assert_eq!(refused["code"], "rate_limited", "{limit}");
        assert!(
            refused["retry_after_ms"]
                .as_u64()
                .is_some_and(|ms| (1..=1000).contains(&ms)),
            "{limit}: {refused}"
        );
        node.metric_reaches("conclave_rate_limited_total", &[("limit", limit)], 1.0)
            .await;
        match spares {
            "a user" => {
                let mut bob = node.client("bob").await;
                bob.join("lobby").await;
                bob.chat("lobby", "x".repeat(CONTENT)).await;
            }
            "a room" => {
                one.join("hall").await;
                one.chat("hall", "x".repeat(CONTENT)).await;
                assert_eq!(
                    one.pending()
                        .await
                        .iter()
                        .filter(|message| message["type"] == "error")
                        .count(),
                    0
                );
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn who_floods_a_full_room_is_closed_for_abuse() {
    let node = harness::node()
        .set("limits.room_messages_per_second", "1")
        .start()
        .await;
    let mut client = node.client("ann").await;
    client.join("lobby").await;
    let chat = frames::text(&json!({"type": "chat", "room": "lobby", "content": "x", "ref": "x"}).to_string());
    client.send_bytes(&chat.repeat(200)).await;
    let mut refusals = 0;
    while refusals < 20 {
        refusals += usize::from(client.message().await["code"] == "rate_limited");
    }
    client.expect_close(1008, "abuse").await;
}

/// Asks again for as long as the rate does not allow it.
async fn until_taken(client: &mut Client, message: Value) {
    harness::within("its turn", async {
        while client.ask(message.clone()).await["type"] == "error" {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_of_a_user_are_limited() {
    let node = harness::node().set("limits.connections_per_user", "2").start().await;
    let (first, mut second) = (node.client("ann").await, node.client("ann").await);
    let again = async || node.socket().query_token(&node.token("ann")).open().await;
    let mut third = again().await;
    let closing = third.expect("closing").await;
    assert_eq!(closing["reason"], "overloaded");
    assert!(
        closing["reconnect_after_ms"].as_u64().is_some_and(|ms| ms > 0),
        "{closing}"
    );
    third.expect_close(1013, "overloaded").await;
    node.metric_reaches("conclave_refused_total", &[("limit", "connections_per_user")], 1.0)
        .await;
    let http2 = Http2::connect(&node).await;
    let mut fourth = http2.socket(&node.token("ann")).await;
    fourth.expect("closing").await;
    fourth.expect_close(1013, "overloaded").await;
    let mut probe = token::claims("ann");
    probe["probe"] = json!(true);
    node.client_with(&probe).await.close(1000).await;
    node.client("bob").await.close(1000).await;
    assert_eq!(second.pending().await, Vec::<Value>::new(), "the others go on");
    first.close(1000).await;
    harness::within("a free place", async {
        while again().await.message().await["type"] != "connected" {}
    })
    .await;
}

/// Two nodes count together; a node that dies counts no more once its lease has ended, and while the backplane is away each
/// counts for itself.
#[tokio::test]
async fn connections_of_a_user_are_limited_on_all_nodes_together() {
    let redis = harness::redis().start().await;
    let node = async || {
        let node = harness::node()
            .set("backplane.kind", "redis")
            .set("backplane.url", &redis.url());
        let node = node.set("backplane.lease", "4s").set("backplane.on_stale", "pass");
        node.set("limits.connections_per_user", "3").start().await
    };
    let (one, other) = (node().await, node().await);
    let first_word = async |node: &Node| {
        let mut client = node.socket().query_token(&node.token("ann")).open().await;
        let word = client.message().await["type"].as_str().unwrap_or_default().to_owned();
        (client, word)
    };
    let mut inside = Vec::new();
    for node in [&one, &one, &other] {
        let (client, word) = first_word(node).await;
        assert_eq!(word, "connected");
        inside.push(client);
    }
    for node in [&one, &other] {
        let (mut client, word) = first_word(node).await;
        assert_eq!(word, "closing");
        client.expect_close(1013, "overloaded").await;
        node.metric_reaches("conclave_refused_total", &[("limit", "connections_per_user")], 1.0)
            .await;
    }
    other.client("bob").await.close(1000).await;
    // One leaves there, one comes here.
    inside.pop().expect("three").close(1000).await;
    let here = harness::within("a free place", async {
        loop {
            if let (client, "connected") = map_word(first_word(&one).await) {
                return client;
            }
        }
    })
    .await;
    one.terminate("KILL");
    drop(here);
    let mut there = Vec::new();
    harness::within("the end of a dead node's lease", async {
        while there.len() < 3 {
            if let (client, "connected") = map_word(first_word(&other).await) {
                there.push(client);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    redis.freeze();
    let (_client, word) = first_word(&other).await;
    assert_eq!(word, "closing", "this node's own");
    there.pop().expect("three").close(1000).await;
    harness::within("a free place", async {
        while first_word(&other).await.1 != "connected" {}
    })
    .await;
    redis.thaw();
}

fn map_word((client, word): (Client, String)) -> (Client, &'static str) {
    (client, if word == "connected" { "connected" } else { "closing" })
}

#[tokio::test]
async fn a_request_head_that_is_too_long_is_counted() {
    let node = harness::node().set("server.header_bytes", "16KiB").start().await;
    let long = node.ask("GET", "/livez").header("X-Long", &"x".repeat(40_000));
    assert_eq!(long.send().await.0.status, 431);
    node.metric_reaches("conclave_refused_total", &[("limit", "header_bytes")], 1.0)
        .await;
}

#[tokio::test]
async fn sign_ins_over_the_rate_are_counted() {
    let node = harness::node()
        .set("session.enabled", "true")
        .set("session.per_minute", "1")
        .start()
        .await;
    let sign_in = node
        .ask("POST", "/session")
        .replace("Host", Some("localhost"))
        .origin("https://localhost")
        .header("Content-Type", "application/json")
        .body(r#"{"name":"Ann"}"#);
    assert_eq!(sign_in.answer().await.status, 200);
    assert_eq!(sign_in.answer().await.status, 429);
    node.metric_reaches("conclave_rate_limited_total", &[("limit", "sign_ins_per_minute")], 1.0)
        .await;
}

#[tokio::test]
async fn bytes_over_the_rate_are_read_later_and_none_is_lost() {
    let node = harness::node()
        .set("limits.bytes_per_second", "16KiB")
        .set("limits.message_bytes", "8KiB")
        .start()
        .await;
    let mut client = node.client("ann").await;
    let padding = "x".repeat(4096);
    for number in 0..10 {
        client
            .send(json!({"type": "ping", "ref": number, "padding": padding}))
            .await;
    }
    for number in 0..10 {
        assert_eq!(client.expect("pong").await["ref"], number);
    }
    node.metric_reaches("conclave_rate_limited_total", &[("limit", "bytes_per_second")], 1.0)
        .await;
}

#[tokio::test]
async fn a_large_message_is_refused_and_a_huge_one_ends_the_socket() {
    let node = harness::node().set("limits.message_bytes", "1KiB").start().await;
    let sized = |bytes: usize| {
        let empty = json!({"type": "ping", "ref": "x", "padding": ""}).to_string();
        json!({"type": "ping", "ref": "x", "padding": "p".repeat(bytes - empty.len())}).to_string()
    };
    let mut client = node.client("ann").await;
    assert_eq!(client.welcome["limits"]["message_bytes"], 1024);
    client.send_text(&sized(1024)).await;
    client.expect("pong").await;
    for over in [1025, 4096] {
        client.send_text(&sized(over)).await;
        assert_eq!(client.expect_error("too_large").await["ref"], "x");
    }
    let cut = sized(4096).into_bytes();
    let (first, second) = cut.split_at(2000);
    client
        .send_bytes(&[frame(TEXT, first), frame(FIN | CONTINUATION, second)].concat())
        .await;
    client.expect_error("too_large").await;
    let huge = [
        // The head alone decides: nobody waits for what it announces.
        frames::head(FIN | TEXT, 4097),
        frames::head(FIN | TEXT, 1 << 20),
        frames::head(FIN | TEXT, i64::MAX as u64),
        [frame(TEXT, &[b'x'; 4000]), frames::head(FIN | CONTINUATION, 97)].concat(),
    ];
    join_all(huge.iter().map(|bytes| async {
        let mut client = node.client("ann").await;
        client.send_bytes(bytes).await;
        client.expect_close(1009, "too_large").await;
        client.gone().await;
    }))
    .await;
    node.metric_reaches("conclave_disconnects_total", &[("reason", "too_large")], 4.0)
        .await;
    assert_eq!(client.pending().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_flood_of_fragments_ends_the_socket() {
    let node = harness::node().set("limits.fragments", "1024").start().await;
    let flood = |fragments: usize, payload: &[u8]| {
        let mut bytes = frame(TEXT, payload);
        bytes.extend(frame(CONTINUATION, payload).repeat(fragments - 2));
        bytes.extend(frame(FIN | CONTINUATION, payload));
        bytes
    };
    let mut client = node.client("ann").await;
    client.send_bytes(&flood(1024, &[b' '; 64])).await;
    client.expect_error("bad_json").await;
    for payload in [&[b' '; 64][..], b""] {
        let mut client = node.client("ann").await;
        client.send_bytes(&flood(1025, payload)).await;
        client.expect_close(1009, "too_large").await;
        client.gone().await;
    }
    node.metric_reaches("conclave_refused_total", &[("limit", "fragments")], 2.0)
        .await;
}

#[tokio::test]
async fn joins_are_limited_by_connection_by_room_and_by_node() {
    let node = harness::node()
        .set("limits.rooms_per_connection", "2")
        .set("limits.room_members", "1")
        .set("limits.rooms", "3")
        .start()
        .await;
    let refused = async |client: &mut Client, room: &str| {
        let error = client.ask(json!({"type": "join", "room": room})).await;
        error["code"]
            .as_str()
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("{room}: {error}"))
    };
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.join("a").await;
    ann.join("b").await;
    assert_eq!(refused(&mut ann, "c").await, "too_many_rooms");
    ann.join("a").await;
    assert_eq!(refused(&mut bob, "a").await, "room_full");
    bob.join("c").await;
    assert_eq!(refused(&mut bob, "d").await, "unavailable");
    assert_eq!(ann.ask(json!({"type": "leave", "room": "a"})).await["type"], "ok");
    bob.join("a").await;
    for (limit, count) in [("rooms_per_connection", 1.0), ("room_members", 1.0), ("rooms", 1.0)] {
        node.metric_reaches("conclave_refused_total", &[("limit", limit)], count)
            .await;
    }
}

#[tokio::test]
async fn a_flood_of_joins_is_answered_one_by_one() {
    let node = harness::node().start().await;
    let mut client = node.client("ann").await;
    let rooms = client.welcome["limits"]["rooms"].as_u64().expect("a limit");
    let flood: Vec<u8> = (0..1000)
        .flat_map(|n| frames::text(&json!({"type": "join", "room": format!("r{n}"), "ref": n}).to_string()))
        .collect();
    client.send_bytes(&flood).await;
    for n in 0..1000 {
        let answer = client.message().await;
        assert_eq!(answer["ref"], n);
        let due = if n < rooms { json!("list") } else { json!("error") };
        assert_eq!(answer["type"], due, "{answer}");
    }
    client.close(1000).await;
    // Rooms that nobody said anything in are not kept.
    gone_to_nought(&node, "conclave_members").await;
}

#[tokio::test]
async fn connections_are_limited_on_the_node_and_by_address() {
    for (key, result) in [
        ("connections", "over_limit"),
        ("connections_per_address", "per_address_limit"),
    ] {
        let node = harness::node().set(&format!("limits.{key}"), "2").start().await;
        let (first, mut second) = (node.client("ann").await, node.client("bob").await);
        let mut refused = node.tcp().await;
        assert_eq!(read_to_end(&mut refused).await, b"", "{key}: closed without a word");
        assert!(node.tls().try_connect().await.is_err(), "{key}");
        node.metric_reaches("conclave_handshakes_total", &[("result", result)], 2.0)
            .await;
        assert_eq!(second.pending().await, Vec::<Value>::new(), "{key}: the others go on");
        first.close(1000).await;
        // The place is free a moment after the goodbye.
        let third = until_admitted(&node).await;
        third.close(1000).await;
    }
}

#[tokio::test]
async fn a_handshake_waits_for_its_turn() {
    let node = harness::node().set("limits.handshakes_in_flight", "1").start().await;
    // The only place, held by a client that stops in the middle of its hello.
    let mut holder = node.tcp().await;
    holder.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    let waiting = async {
        let mut client = node.client("ann").await;
        assert_eq!(client.pending().await, Vec::<Value>::new());
    };
    let leaving = async {
        holder.shutdown().await.unwrap();
        read_to_end(&mut holder).await;
    };
    tokio::join!(waiting, leaving);
    node.metric_reaches("conclave_handshakes_total", &[("result", "client_gone")], 1.0)
        .await;
}

#[tokio::test]
async fn without_descriptors_those_inside_are_served_and_later_others_too() {
    let node = harness::node().set("server.handshake_timeout", "5m").start().await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.join("lobby").await;
    bob.join("lobby").await;
    let process = i32::try_from(node.process.pid()).unwrap();
    let (mut soft, mut hard) = (0, 0);
    prlimit(process, Resource::NOFILE, None, Some((&mut soft, &mut hard))).expect("the limit can be read");
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).expect("Linux").count() as u64;
    prlimit(process, Resource::NOFILE, Some((open + 2, hard)), None).expect("the limit can be lowered");
    let (mut silent, mut refused) = (Vec::new(), 0);
    // Two or a few more fit: the node opens and closes files of its own. From then on whoever comes is told at
    // once by a close instead of hanging.
    while refused < 10 {
        match node.tls().try_connect().await {
            Ok(stream) => silent.push(stream),
            Err(_) => refused += 1,
        }
        assert!(silent.len() < 30, "descriptors never ran out");
        ann.chat("lobby", "still here").await;
        assert_eq!(bob.until("chat").await["content"], "still here");
    }
    prlimit(process, Resource::NOFILE, Some((soft, hard)), None).expect("the limit can be raised again");
    drop(silent);
    until_admitted(&node).await.close(1000).await;
    node.metric_reaches("conclave_accept_errors_total", &[("kind", "fd_limit")], 1.0)
        .await;
}

#[tokio::test]
async fn the_limit_on_connections_comes_from_the_limit_on_files() {
    let node = harness::node()
        .set("limits.returning_share", "0")
        .open_files(200)
        .start()
        .await;
    assert_eq!(node.metrics().await.sum("conclave_connections_limit", &[]), 72.0);
    let mut inside = Vec::new();
    for number in 0..72 {
        inside.push(node.client(&format!("u{number}")).await);
    }
    assert_eq!(read_to_end(&mut node.tcp().await).await, b"");
    assert_eq!(inside[0].pending().await, Vec::<Value>::new());
    drop(inside);
    until_admitted(&node).await.close(1000).await;
    let (exit, seen) = harness::node()
        .open_files(200)
        .set("limits.connections", "1000")
        .fail()
        .await;
    assert_eq!(exit.code(), Some(1), "{seen:?}");
    assert!(
        seen.stderr.contains("limits.connections is 1000") && seen.stderr.contains("ulimit -n"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_second_instance_on_the_same_port_says_so_and_ends() {
    for threads in ["1", "2"] {
        let node = harness::node().set("server.threads", threads).start().await;
        for (key, address) in [("server.listen", node.listen), ("server.admin_listen", node.admin)] {
            let second = harness::node()
                .set("server.threads", threads)
                .set(key, &address.to_string());
            let (exit, seen) = second.fail().await;
            assert_eq!(exit.code(), Some(1), "{key} {seen:?}");
            let said = format!("{address} is in use by another process");
            assert!(seen.stderr.contains(&said), "{key} {seen:?}");
        }
        node.client("ann").await.close(1000).await;
    }
}

fn ping(reference: &str) -> Vec<u8> {
    frames::text(&json!({"type": "ping", "ref": reference}).to_string())
}

/// Tries until there is a place: the server learns a moment later that one is free.
async fn until_admitted(node: &Node) -> Client {
    harness::within("a free place", async {
        loop {
            if let Ok(stream) = node.tls().try_connect().await {
                let ask = node.socket().query_token(&node.token("late"));
                let (answer, stream, early) = ask.send_on(Box::new(stream)).await;
                assert_eq!(answer.status, 101);
                return Client::over(stream, early, answer).welcomed().await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
}

async fn gone_to_nought(node: &Node, gauge: &str) {
    harness::within(gauge, async {
        while node.metrics().await.sum(gauge, &[]) > 0.0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}
