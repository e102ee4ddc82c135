//! A slow reader harms only itself, and who reads is no slow reader, however much is said at once.

use futures_util::future::{join, join_all};
use serde_json::{Value, json};

use crate::harness::frames;
use crate::harness::{self, Client, Frame, Node, within};

const KIB: u64 = 1024;

/// A client that can hold back little in its own kernel buffer, in `room`.
async fn stalled(node: &Node, name: &str, room: &str) -> Client {
    let tls = node.tls().receive_buffer(4 * KIB as u32);
    let ask = node.socket().tls(tls).query_token(&node.token(name));
    let mut client = ask.open().await.welcomed().await;
    client.join(room).await;
    client
}

/// Says `count` chats of `bytes`, one after the other.
async fn say(client: &mut Client, room: &str, count: usize, bytes: usize) {
    let padding = "x".repeat(bytes);
    for _ in 0..count {
        client.chat(room, padding.as_str()).await;
    }
}

async fn slow_consumers(node: &Node, limit: &str) -> f64 {
    node.metrics()
        .await
        .sum("conclave_slow_consumers_total", &[("limit", limit)])
}

/// Bytes of the node's memory that are in RAM.
fn resident(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process.pid())).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .expect("a number")
        .parse::<u64>()
        .expect("a number")
        * KIB
}

#[tokio::test]
async fn fifty_readers_that_stop_harm_nobody_else() {
    for runtime in ["per-core", "shared"] {
        let node = harness::node()
            .runtime(runtime)
            .set("limits.message_bytes", "8KiB")
            .set("limits.outbox_bytes", "64KiB")
            .set("limits.send_buffer", "8KiB")
            .set("limits.unsent_low_water", "4KiB")
            .start()
            .await;
        let mut ann = node.client("ann").await;
        ann.join("lobby").await;
        let mut quick = Vec::new();
        for number in 0..4 {
            let mut client = node.client(&format!("quick{number}")).await;
            client.join("lobby").await;
            quick.push(client);
        }
        let slow = join_all((0..50).map(|number| {
            let node = &node;
            async move { stalled(node, &format!("slow{number}"), "lobby").await }
        }))
        .await;
        let before = resident(&node);
        let (count, mut most) = (400, before);
        let padding = "x".repeat(2_000);
        for number in 1..=count {
            let ok = ann.chat("lobby", padding.as_str()).await;
            assert_eq!(ok["seq"], number);
            for client in &mut quick {
                let chat = client.until("chat").await;
                assert_eq!(chat["seq"], number, "{runtime}: everything, in order");
            }
            if number % 20 == 0 {
                most = most.max(resident(&node));
            }
        }
        node.metric_reaches("conclave_disconnects_total", &[("reason", "slow_reader")], 50.0)
            .await;
        let metrics = node.metrics().await;
        assert_eq!(metrics.sum("conclave_slow_consumers_total", &[]), 50.0);
        assert_eq!(metrics.sum("conclave_disconnects_total", &[]), 50.0, "and nobody else");
        assert!(metrics.sum("conclave_dropped_messages_total", &[("reason", "slow_reader")]) > 0.0);
        let grown = most - before;
        assert!(grown < 20 * KIB * KIB, "{runtime}: {grown} bytes more");
        let list = ann.ask(json!({"type": "list", "room": "lobby"})).await;
        assert_eq!(list["count"], 5, "{list}");
        drop(slow);
    }
}

/// Reads chats, which must follow `at`, up to the end of the connection; where it stands then, and how it ended.
async fn read_to_the_end(client: &mut Client, mut at: u64) -> (u64, Option<Value>, Option<Frame>) {
    let mut closing = None;
    loop {
        match client.next().await {
            Some(Frame::Text(text)) => {
                assert_eq!(closing, None, "nothing comes between `closing` and the close");
                let message: Value = serde_json::from_str(&text).expect("JSON");
                match message["type"].as_str() {
                    Some("chat") => {
                        assert_eq!(message["seq"], at + 1, "no hole before the end");
                        at += 1;
                    }
                    Some("closing") => closing = Some(message),
                    _ => {}
                }
            }
            Some(Frame::Ping(_) | Frame::Pong(_)) => {}
            end => return (at, closing, end),
        }
    }
}

#[tokio::test]
async fn who_reads_again_in_time_is_told_and_recovers_everything() {
    let node = harness::node()
        .set("limits.message_bytes", "8KiB")
        .set("limits.outbox_bytes", "32KiB")
        .set("limits.send_buffer", "8KiB")
        .set("limits.unsent_low_water", "4KiB")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    let epoch = ann.join("lobby").await["epoch"].clone();
    let mut said = 0;
    // "In time" is two seconds: on a machine too busy for that it is tried again.
    for attempt in 1..=5 {
        let mut slow = stalled(&node, "slow", "lobby").await;
        let before = said;
        let cut = f64::from(attempt);
        while slow_consumers(&node, "bytes").await < cut {
            say(&mut ann, "lobby", 10, 1_000).await;
            said += 10;
            assert!(said - before < 10_000, "its backlog has no limit");
        }
        let (at, closing, end) = read_to_the_end(&mut slow, before).await;
        drop(slow);
        let mut back = node.client("slow").await;
        back.send(json!({"type": "join", "room": "lobby", "since": {"epoch": epoch, "seq": at}}))
            .await;
        assert_eq!(back.until("list").await["recovered"], true);
        for due in at + 1..=said {
            assert_eq!(back.until("chat").await["seq"], due);
        }
        back.close(1000).await;
        if let Some(Frame::Close(code, reason)) = end {
            assert_eq!((code, &*reason), (1013, "slow_reader"));
            let closing = closing.expect("`closing` comes first");
            assert_eq!(closing["reason"], "slow_reader");
            assert!(closing["reconnect_after_ms"].is_u64(), "{closing}");
            return;
        }
    }
    panic!("never told, five times");
}

#[tokio::test]
async fn a_backlog_that_is_too_old_ends_its_reader() {
    let node = harness::node()
        .set("limits.outbox_age", "1s")
        .set("limits.outbox_bytes", "16MiB")
        .set("limits.outbox_frames", "100000")
        .set("limits.send_buffer", "8KiB")
        .set("limits.unsent_low_water", "4KiB")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let slow = stalled(&node, "slow", "lobby").await;
    // Enough to fill the kernel's buffers on both sides, and far from any other limit.
    say(&mut ann, "lobby", 300, 2_000).await;
    node.metric_reaches("conclave_slow_consumers_total", &[("limit", "age")], 1.0)
        .await;
    node.metric_reaches("conclave_disconnects_total", &[("reason", "slow_reader")], 1.0)
        .await;
    assert_eq!(node.metrics().await.sum("conclave_slow_consumers_total", &[]), 1.0);
    assert_eq!(ann.until("left").await["user"]["id"], "slow");
    drop(slow);
}

#[tokio::test]
async fn when_the_node_holds_back_too_much_the_largest_goes_first() {
    let node = harness::node()
        // One budget over all of them, wherever the largest is.
        .set("server.threads", "3")
        .set("limits.node_outbox_bytes", "1MiB")
        .set("limits.outbox_bytes", "1MiB")
        .set("limits.outbox_frames", "100000")
        .set("limits.outbox_age", "10m")
        .set("limits.send_buffer", "8KiB")
        .set("limits.unsent_low_water", "4KiB")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("loud").await;
    ann.join("quiet").await;
    let large = stalled(&node, "large", "loud").await;
    let mut small = Vec::new();
    for number in 0..3 {
        small.push(stalled(&node, &format!("small{number}"), "quiet").await);
    }
    // About 700 KiB for one, and 180 for each of three: together too much, whatever the kernel holds of it, and without
    // the one far from it, however late the node looks.
    say(&mut ann, "loud", 90, 8_000).await;
    let said = 90;
    say(&mut ann, "quiet", said, 2_000).await;
    within("the node to end the largest", async {
        while slow_consumers(&node, "node").await < 1.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    node.metric_reaches("conclave_disconnects_total", &[("reason", "slow_reader")], 1.0)
        .await;
    for client in &mut small {
        for due in 1..=said {
            assert_eq!(client.until("chat").await["seq"], due, "the small ones keep theirs");
        }
    }
    assert_eq!(ann.until("left").await["user"]["id"], "large");
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_slow_consumers_total", &[]), 1.0);
    assert!(metrics.sum("conclave_evicted_bytes_total", &[]) > 0.0);
    drop(large);
}

#[tokio::test]
async fn much_said_at_once_makes_nobody_who_reads_slow() {
    for runtime in ["per-core", "shared"] {
        let node = harness::node().runtime(runtime).start().await;
        let mut ann = node.client("ann").await;
        let mut bob = node.client("bob").await;
        bob.join("lobby").await;
        ann.join("lobby").await;
        // 1,000 chats in one write: with their answers twice as many frames as may wait for the one who says them.
        let burst: Vec<u8> = (0..1_000)
            .flat_map(|number| {
                let chat = json!({"type": "chat", "room": "lobby", "content": number, "ref": number});
                frames::text(&chat.to_string())
            })
            .collect();
        let both = async {
            ann.send_bytes(&burst).await;
            let (mut chats, mut oks) = (0, 0);
            while chats < 1_000 || oks < 1_000 {
                let message = ann.message().await;
                match message["type"].as_str() {
                    Some("chat") => {
                        assert_eq!(message["content"], chats);
                        chats += 1;
                    }
                    Some("ok") => {
                        assert_eq!(message["ref"], oks);
                        oks += 1;
                        assert_eq!(message["seq"], oks);
                    }
                    _ => panic!("{message}"),
                }
            }
        };
        let chats = async {
            for due in 0..1_000 {
                assert_eq!(bob.until("chat").await["content"], due, "{runtime}");
            }
        };
        join(both, chats).await;
        // Three pages of history at once are more than one outbox.
        let pages = async {
            for _ in 0..8 {
                bob.until("chat").await;
            }
        };
        join(say(&mut ann, "lobby", 8, 60_000), pages).await;
        let page = frames::text(&json!({"type": "history", "room": "lobby", "ref": "page"}).to_string());
        bob.send_bytes(&page.repeat(3)).await;
        for _ in 0..3 {
            let page = bob.until("history").await;
            assert_eq!(page["more"], true);
            assert!(
                page["messages"].as_array().is_some_and(|messages| messages.len() == 2),
                "two fit"
            );
        }
        assert_eq!(node.metrics().await.sum("conclave_slow_consumers_total", &[]), 0.0);
    }
}

#[tokio::test]
async fn fifty_large_rooms_may_be_joined_at_once() {
    let node = harness::node().start().await;
    // 20 users whose `list` is 6 KiB, so that fifty of them are more than one outbox.
    let info = json!({"padding": "i".repeat(250)});
    let rooms: Vec<String> = (0..50).map(|number| format!("room{number}")).collect();
    let joins: Vec<u8> = rooms
        .iter()
        .flat_map(|room| frames::text(&json!({"type": "join", "room": room}).to_string()))
        .collect();
    let mut users = Vec::new();
    for number in 0..20 {
        let mut claims = harness::token::claims(&format!("u{number}"));
        claims["info"] = info.clone();
        let mut client = node.client_with(&claims).await;
        client.send_bytes(&joins).await;
        for room in &rooms {
            let list = client.until("list").await;
            assert_eq!((&list["room"], &list["count"]), (&json!(room), &json!(number + 1)));
        }
        // They read on, each for itself.
        users.push(tokio::spawn(async move { client.drained().await }));
    }
    let mut last = node.client("last").await;
    last.send_bytes(&joins).await;
    for room in &rooms {
        let list = last.expect("list").await;
        assert_eq!((&list["room"], &list["count"]), (&json!(room), &json!(21)));
    }
    assert_eq!(last.pending().await, Vec::<Value>::new());
    assert_eq!(node.metrics().await.sum("conclave_slow_consumers_total", &[]), 0.0);
    drop(node);
    join_all(users).await;
}
