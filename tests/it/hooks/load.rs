//! Who is asked about much, or answers slowly, delays only what is asked about.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use super::{asking, signing};
use crate::harness::backend::{self, Backend, json_answer};
use crate::harness::{self, Client, Node};

const CHATS: u64 = 60;

/// Each of four clients says so much at once, the backend answers after a while of its own each time, and everybody
/// hears all of it in one order, each sender's own kept.
async fn orderly(nodes: &[&Node]) {
    let mut listener = nodes[0].client("listener").await;
    listener.join("lobby").await;
    let mut senders = Vec::new();
    for number in 0..4 {
        let mut sender = nodes[number % nodes.len()].client(&format!("u{number}")).await;
        sender.join("lobby").await;
        senders.push(sender);
    }
    let speak = |mut sender: Client| async move {
        for number in 0..CHATS {
            let message = json!({"type": "chat", "room": "lobby", "content": number, "ref": number});
            sender.send(message).await;
        }
        // What is denied may be answered before an `ok` that the backplane still owes.
        let mut answered = BTreeSet::new();
        while answered.len() < CHATS as usize {
            let answer = sender.find("its answers", |answer| answer.get("ref").is_some()).await;
            let number = answer["ref"].as_u64().unwrap();
            let denied = number % 10 == 9;
            assert_eq!(answer["type"], if denied { "error" } else { "ok" }, "{answer}");
            assert!(answered.insert(number), "{answer}");
        }
    };
    let speaking: Vec<_> = senders.into_iter().map(|sender| tokio::spawn(speak(sender))).collect();
    let mut next: HashMap<String, u64> = HashMap::new();
    let expected = 4 * CHATS * 9 / 10;
    for seq in 1..=expected {
        let chat = listener.until("chat").await;
        assert_eq!(chat["seq"], seq);
        let own = next.entry(chat["from"]["id"].as_str().unwrap().to_owned()).or_default();
        assert_eq!(chat["content"], json!({"number": *own}), "{chat}");
        *own += if *own % 10 == 8 { 2 } else { 1 };
    }
    for done in speaking {
        done.await.unwrap();
    }
}

/// Lets everybody in, denies every tenth chat, rewrites the others, and takes longer for some than for others.
fn moderates(backend: &Backend) {
    backend.answers(|asked| async move {
        let Some(number) = asked.event["content"].as_u64() else {
            return backend::allow();
        };
        tokio::time::sleep(Duration::from_millis(number % 3)).await;
        let denied = json!({"allow": false});
        let rewritten = json!({"allow": true, "content": {"number": number}});
        json_answer(if number % 10 == 9 { &denied } else { &rewritten })
    });
}

#[tokio::test]
async fn under_load_chats_keep_their_order() {
    let backend = Backend::start().await;
    moderates(&backend);
    let node = asking(&backend, "events = [\"chat\"]\ntimeout = \"5m\"").start().await;
    orderly(&[&node]).await;
}

#[tokio::test]
async fn under_load_chats_keep_their_order_on_two_nodes() {
    let (backend, redis) = (Backend::start().await, harness::redis().start().await);
    moderates(&backend);
    let start = || {
        asking(
            &backend,
            "events = [\"chat\", \"join\"]\nrooms = [\"lobby\"]\ntimeout = \"5m\"",
        )
        .set("backplane.kind", "redis")
        .set("backplane.url", &redis.url())
        .start()
    };
    let (a, b) = (start().await, start().await);
    orderly(&[&a, &b]).await;
}

#[tokio::test]
async fn a_backend_that_hangs_delays_only_what_it_is_asked_about() {
    let (hanging, quick) = (Backend::start().await, Backend::start().await);
    hanging.hangs();
    quick.answers(|asked| {
        std::future::ready(json_answer(
            &json!({"allow": true, "content": {"was": asked.event["content"]}}),
        ))
    });
    let hook = |backend: &Backend, name: &str| {
        format!(
            "url = \"{}\"\nname = \"{name}\"\nevents = [\"join\", \"chat\", \"call\"]\nrooms = [\"{name}/*\"]\ncalls = [\"{name}.*\"]\ntimeout = \"5m\"",
            backend.url
        )
    };
    let node = signing(harness::node())
        .entry("hooks.ask", &hook(&hanging, "hanging"))
        .entry("hooks.ask", &hook(&quick, "quick"))
        .start()
        .await;
    // Thirty connections wait for the one that hangs, and some of them with calls beside it.
    let mut waiting = Vec::new();
    for number in 0..30 {
        let mut client = node.client(&format!("w{number}")).await;
        client.join("free").await;
        client.send(json!({"type": "call", "name": "hanging.x"})).await;
        client.send(json!({"type": "join", "room": "hanging/a"})).await;
        // Nothing of this one is taken in before the answer, and it waits in vain for that.
        client
            .send(json!({"type": "chat", "room": "free", "content": "held up"}))
            .await;
        waiting.push(client);
    }
    hanging.asked_times(60).await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for client in [&mut ann, &mut bob] {
        client.join("free").await;
        client.join("quick/a").await;
        client.send(json!({"type": "call", "name": "hanging.y"})).await;
    }
    for number in 0..50 {
        ann.chat("free", number).await;
        assert_eq!(heard(&mut bob, "free").await, json!(number));
        ann.chat("quick/a", number).await;
        assert_eq!(heard(&mut bob, "quick/a").await, json!({"was": number}));
        assert_eq!(
            ann.ask(json!({"type": "call", "name": "quick.z"})).await["type"],
            "reply"
        );
    }
    // All of that while every one of the others still waits.
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("conclave_hook_waiting", &[("hook", "hanging")]), 62.0);
    let waiting = [("hook", "hanging"), ("result", "timeout")];
    assert_eq!(metrics.sum("conclave_hook_requests_total", &waiting), 0.0);
}

async fn heard(client: &mut Client, room: &str) -> Value {
    let chat = client
        .find("its chat", |frame| frame["type"] == "chat" && frame["room"] == room)
        .await;
    chat["content"].clone()
}
