//! Back after a break: what was missed, in order, before anything new, and the truth where that is not possible.

use std::ops::RangeInclusive;

use futures_util::future::join;
use serde_json::{Value, json};

use crate::harness::frames;
use crate::harness::{self, Builder, Client, Node};

/// Both ways to run shards.
const RUNTIMES: [&str; 2] = ["per-core", "shared"];

/// A node that keeps much, and whose readers may lag behind by little.
fn node(runtime: &str) -> Builder {
    harness::node()
        .runtime(runtime)
        .set("history.messages", "10000")
        .set("history.bytes", "64MiB")
        .set("limits.message_bytes", "16KiB")
        .set("limits.outbox_bytes", "24KiB")
        .set("limits.outbox_frames", "32")
        .set("limits.send_buffer", "8KiB")
        .set("limits.unsent_low_water", "4KiB")
}

/// A client in `lobby` that has said the numbers from 1 to `last`, with padding; and the room's epoch.
async fn told(node: &Node, last: u64, bytes: usize) -> (Client, Value) {
    let mut ann = node.client("ann").await;
    let epoch = ann.join("lobby").await["epoch"].clone();
    say(&mut ann, 1..=last, bytes).await;
    (ann, epoch)
}

async fn say(client: &mut Client, numbers: RangeInclusive<u64>, bytes: usize) {
    let padding = "x".repeat(bytes);
    for number in numbers {
        let ok = client.chat("lobby", json!([number, padding])).await;
        assert_eq!(ok["seq"], number);
    }
}

fn message(message: Value) -> Vec<u8> {
    frames::text(&message.to_string())
}

fn join_since(epoch: &Value, seq: u64, reference: &str) -> Vec<u8> {
    message(json!({"type": "join", "room": "lobby", "since": {"epoch": epoch, "seq": seq}, "ref": reference}))
}

/// The next message that is neither `join` nor `left`: those have no order against chats.
async fn next(client: &mut Client) -> Value {
    let is_it = |message: &Value| !matches!(message["type"].as_str(), Some("join" | "left"));
    client.find("a chat or an answer", is_it).await
}

/// The next messages are these chats and nothing else.
async fn hear(client: &mut Client, seqs: RangeInclusive<u64>) {
    for seq in seqs {
        let chat = next(client).await;
        assert_eq!((&chat["type"], &chat["seq"]), (&json!("chat"), &json!(seq)), "{chat}");
        assert_eq!(chat["content"][0], seq);
    }
}

#[tokio::test]
async fn a_list_asked_for_during_a_replay_comes_behind_it() {
    for runtime in RUNTIMES {
        let node = node(runtime).start().await;
        let (mut ann, epoch) = told(&node, 200, 500).await;
        let mut bob = node.client("bob").await;
        let list = message(json!({"type": "list", "room": "lobby", "ref": "list"}));
        let again = message(json!({"type": "join", "room": "lobby", "ref": "again"}));
        bob.send_bytes(&[join_since(&epoch, 20, "join"), list, again].concat())
            .await;
        let first = bob.expect("list").await;
        assert_eq!(
            (&first["ref"], &first["recovered"], &first["seq"]),
            (&json!("join"), &json!(true), &json!(200))
        );
        hear(&mut bob, 21..=200).await;
        for reference in ["list", "again"] {
            let list = bob.expect("list").await;
            assert_eq!((&list["ref"], &list["seq"]), (&json!(reference), &json!(200)));
            assert_eq!(list.get("recovered"), None, "{list}");
        }
        say(&mut ann, 201..=201, 1).await;
        hear(&mut bob, 201..=201).await;
        assert_eq!(bob.pending().await, Vec::<Value>::new());
    }
}

/// A join with `since` while the replay of an earlier one runs.
async fn join_twice(node: &Node, epoch: &Value, second: &Value, seq: u64, recovered: bool) {
    let mut bob = node.client("bob").await;
    let list = message(json!({"type": "list", "room": "lobby", "ref": "list"}));
    let joins = [join_since(epoch, 0, "first"), list, join_since(second, seq, "second")];
    bob.send_bytes(&joins.concat()).await;
    let (mut answered, mut at) = (Vec::new(), None);
    while answered.len() < 3 || at != Some(200) {
        let message = next(&mut bob).await;
        if message["type"] == "chat" {
            assert_eq!(message["seq"].as_u64(), at.map(|at: u64| at + 1), "a hole or a double");
            at = message["seq"].as_u64();
            continue;
        }
        assert_eq!(message["type"], "list", "{message}");
        let reference = message["ref"].as_str().expect("a ref").to_owned();
        match &*reference {
            "first" => {
                assert_eq!(message["recovered"], true, "{message}");
                at = Some(0);
            }
            "second" if recovered => {
                assert_eq!(message["recovered"], true, "{message}");
                at = Some(seq);
            }
            _ => {
                let said = (reference == "second").then_some(false);
                assert_eq!(message["recovered"].as_bool(), said, "{message}");
                assert_eq!(
                    message["seq"].as_u64(),
                    at,
                    "without a replay a list says where one stands"
                );
            }
        }
        answered.push(reference);
    }
    answered.sort();
    assert_eq!(answered, ["first", "list", "second"], "each ref once");
    assert_eq!(bob.pending().await, Vec::<Value>::new());
    bob.close(1000).await;
}

#[tokio::test]
async fn joining_again_during_a_replay_begins_anew_and_answers_every_ref_once() {
    for runtime in RUNTIMES {
        let node = node(runtime).start().await;
        let (_ann, epoch) = told(&node, 200, 500).await;
        join_twice(&node, &epoch, &epoch, 190, true).await;
        join_twice(&node, &epoch, &epoch, 200, true).await;
        join_twice(&node, &epoch, &epoch, 201, false).await;
        join_twice(&node, &epoch, &json!("foreign"), 100, false).await;
    }
}

#[tokio::test]
async fn leaving_ends_a_replay_and_answers_what_waited_for_its_end() {
    for runtime in RUNTIMES {
        let node = node(runtime).start().await;
        let (mut ann, epoch) = told(&node, 200, 500).await;
        let mut bob = node.client("bob").await;
        let list = message(json!({"type": "list", "room": "lobby", "ref": "list"}));
        let leave = message(json!({"type": "leave", "room": "lobby", "ref": "leave"}));
        bob.send_bytes(&[join_since(&epoch, 0, "join"), list, leave].concat())
            .await;
        let mut answers = Vec::new();
        while answers.last().is_none_or(|answer: &Value| answer["ref"] != "leave") {
            let message = next(&mut bob).await;
            if message["type"] != "chat" {
                answers.push(message);
            }
        }
        let refs: Vec<_> = answers.iter().map(|answer| answer["ref"].as_str()).collect();
        assert_eq!(refs, [Some("join"), Some("list"), Some("leave")], "{answers:?}");
        say(&mut ann, 201..=201, 1).await;
        assert_eq!(
            bob.pending().await,
            Vec::<Value>::new(),
            "nothing more of a room that was left"
        );
        // In again: from the beginning, as if nothing had been.
        bob.send_bytes(&join_since(&epoch, 0, "back")).await;
        assert_eq!(next(&mut bob).await["recovered"], true);
        hear(&mut bob, 1..=201).await;
    }
}

#[tokio::test]
async fn a_reader_gets_more_than_its_backlog_limit_while_others_go_on() {
    for runtime in RUNTIMES {
        // Once it has caught up it is a reader like others, and a busy machine may let it lag a little.
        let node = node(runtime)
            .set("limits.outbox_bytes", "128KiB")
            .set("limits.outbox_frames", "512")
            .start()
            .await;
        let (mut ann, epoch) = told(&node, 1_000, 2_000).await;
        // 2 MB through an outbox of 128 KiB and 512 frames, and a receive buffer of little.
        let slow = node.tls().receive_buffer(8 * 1024);
        let ask = node.socket().tls(slow).query_token(&node.token("bob"));
        let mut bob = ask.open().await.welcomed().await;
        bob.send_bytes(&join_since(&epoch, 0, "join")).await;
        let list = bob.expect("list").await;
        assert_eq!((&list["recovered"], &list["seq"]), (&json!(true), &json!(1_000)));
        join(say(&mut ann, 1_001..=1_300, 200), hear(&mut bob, 1..=1_300)).await;
        let metrics = node.metrics().await;
        assert_eq!(metrics.sum("conclave_slow_consumers_total", &[]), 0.0);
        assert!(metrics.sum("conclave_replayed_messages_total", &[]) >= 1_000.0);
    }
}

#[tokio::test]
async fn many_small_messages_are_replayed_through_a_small_outbox() {
    let node = node("per-core")
        .set("limits.message_bytes", "1KiB")
        .set("limits.outbox_bytes", "9KiB")
        .set("limits.outbox_frames", "16")
        .start()
        .await;
    let (_ann, epoch) = told(&node, 1_500, 0).await;
    let mut bob = node.client("bob").await;
    bob.send_bytes(&join_since(&epoch, 100, "join")).await;
    assert_eq!(bob.expect("list").await["recovered"], true);
    hear(&mut bob, 101..=1_500).await;
}

#[tokio::test]
async fn what_is_forgotten_during_a_replay_is_told_by_reset() {
    for runtime in RUNTIMES {
        let node = node(runtime).set("history.messages", "400").start().await;
        let (mut ann, epoch) = told(&node, 400, 8_000).await;
        let ask = node.socket().tls(node.tls().receive_buffer(8 * 1024));
        let mut bob = ask.query_token(&node.token("bob")).open().await.welcomed().await;
        bob.send_bytes(&join_since(&epoch, 0, "join")).await;
        assert_eq!(bob.expect("list").await["recovered"], true);
        // 3 MB do not fit the buffers between: the replay has not passed the middle when that is forgotten.
        say(&mut ann, 401..=700, 0).await;
        let (mut at, mut resets) = (0, 0);
        while at < 700 {
            let message = next(&mut bob).await;
            let seq = message["seq"].as_u64().expect("a seq");
            if message["type"] == "reset" {
                assert_eq!((&message["reason"], &message["epoch"]), (&json!("trimmed"), &epoch));
                assert!(seq > at, "it leads on: {message} at {at}");
                resets += 1;
            } else {
                assert_eq!(seq, at + 1, "{message}");
            }
            at = seq;
        }
        assert!(resets > 0);
        say(&mut ann, 701..=701, 0).await;
        hear(&mut bob, 701..=701).await;
    }
}

#[tokio::test]
async fn replays_of_several_rooms_take_turns() {
    let node = node("per-core").start().await;
    let mut ann = node.client("ann").await;
    let rooms = ["a", "b", "c"];
    let mut joins = Vec::new();
    for room in rooms {
        let epoch = ann.join(room).await["epoch"].clone();
        for number in 1..=100 {
            ann.chat(room, json!([number, "x".repeat(1_000)])).await;
        }
        joins.extend(message(
            json!({"type": "join", "room": room, "since": {"epoch": epoch, "seq": 0}}),
        ));
    }
    let mut bob = node.client("bob").await;
    bob.send_bytes(&joins).await;
    let mut at = [0_u64; 3];
    while at != [100; 3] {
        let message = next(&mut bob).await;
        let room = rooms.iter().position(|room| message["room"] == *room).expect("a room");
        if message["type"] == "chat" {
            at[room] += 1;
            assert_eq!(message["seq"], at[room], "{}", rooms[room]);
        }
    }
}

#[tokio::test]
async fn an_impossible_place_is_not_recovered_and_nothing_is_replayed() {
    let node = harness::node().start().await;
    let (_ann, epoch) = told(&node, 3, 0).await;
    for (epoch, seq) in [
        (epoch.clone(), 4),
        (epoch.clone(), u64::MAX),
        (json!(""), 0),
        (json!("e".repeat(10_000)), 3),
        (json!("\u{0}\u{202e}é"), 1),
    ] {
        let mut bob = node.client("bob").await;
        bob.send_bytes(&join_since(&epoch, seq, "join")).await;
        let list = bob.expect("list").await;
        assert_eq!((&list["recovered"], &list["seq"]), (&json!(false), &json!(3)), "{seq}");
        assert_eq!(bob.pending().await, Vec::<Value>::new());
    }
    let mut bob = node.client("bob").await;
    for since in [
        r#"{"epoch":"e"}"#,
        r#"{"epoch":"e","seq":-1}"#,
        r#"{"epoch":"e","seq":1.5}"#,
        r#"{"epoch":"e","seq":1e3}"#,
        r#"{"epoch":"e","seq":18446744073709551616}"#,
        r#"{"epoch":"e","seq":"1"}"#,
        r#"{"epoch":1,"seq":1}"#,
        r#"{"epoch":"e","seq":1,"seq":2}"#,
        "7",
        "[]",
    ] {
        bob.send_text(&format!(r#"{{"type":"join","room":"lobby","since":{since},"ref":1}}"#))
            .await;
        assert_eq!(bob.expect_error("bad_message").await["ref"], 1, "{since}");
    }
    // `null` is nowhere, as if it were not there.
    bob.send_text(r#"{"type":"join","room":"lobby","since":null,"ref":2}"#)
        .await;
    assert_eq!(bob.expect("list").await.get("recovered"), None);
}
