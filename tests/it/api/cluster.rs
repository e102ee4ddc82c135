//! The same on two nodes: whatever is asked of one is done on both.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Backend, ask, delete, get, node, post};
use crate::harness::{NatsServer, Node, Redis, redis, within};

async fn on_redis(redis: &Redis, name: &str) -> Node {
    node()
        .set("backplane.kind", "redis")
        .set("backplane.url", &redis.url())
        .set("server.name", name)
        .start()
        .await
}

async fn on_nats(nats: &NatsServer, name: &str) -> Node {
    node()
        .set("backplane.kind", "nats")
        .set("backplane.url", &nats.url())
        .set("server.name", name)
        .start()
        .await
}

#[tokio::test]
async fn whatever_is_asked_of_one_node_is_done_on_both_with_redis() {
    let redis = Redis::start().await;
    let (one, other) = tokio::join!(on_redis(&redis, "one"), on_redis(&redis, "other"));
    everything(&one, &other).await;
}

#[tokio::test]
async fn whatever_is_asked_of_one_node_is_done_on_both_with_nats() {
    let nats = NatsServer::start().await;
    let (one, other) = tokio::join!(on_nats(&nats, "one"), on_nats(&nats, "other"));
    everything(&one, &other).await;
}

async fn everything(one: &Node, other: &Node) {
    chats(one, other).await;
    messages(one, other).await;
    removals(one, other).await;
    lists(one, other).await;
    kicks(one, other).await;
}

/// `ann` is on the other node; nobody on this one is in the room.
async fn chats(one: &Node, other: &Node) {
    // A room that nobody is in, on any node.
    let said = post(one, "/rooms/attic/chat", json!({"content": "first", "key": "k"})).await;
    let again = post(other, "/rooms/attic/chat", json!({"content": "second", "key": "k"})).await;
    assert_eq!(said, again, "a key is taken once, on all nodes");
    let history = get(other, "/rooms/attic/history").await;
    assert_eq!(history["messages"][0]["content"], "first");
    assert_eq!(history["epoch"], said["epoch"]);
    let (status, _) = ask(other, "GET", "/rooms/nowhere/history", None).await;
    assert_eq!(status, 404);

    let mut ann = other.client("ann").await;
    ann.join("team/42").await;
    let mut seqs = Vec::new();
    for n in 0..10 {
        seqs.push(post(one, "/rooms/team%2F42/chat", json!({"content": n})).await["seq"].clone());
        seqs.push(ann.chat("team/42", n + 100).await["seq"].clone());
    }
    let history = get(one, "/rooms/team%2F42/history").await;
    let messages = history["messages"].as_array().unwrap();
    let told: Vec<&Value> = messages.iter().map(|chat| &chat["seq"]).collect();
    assert_eq!(told, seqs.iter().collect::<Vec<_>>());
    let contents: Vec<&Value> = messages.iter().map(|chat| &chat["content"]).collect();
    assert_eq!(contents[..4], [0, 100, 1, 101]);
    let users = get(one, "/rooms/team%2F42/users").await;
    assert_eq!((&users["count"], &users["users"][0]["id"]), (&json!(1), &json!("ann")));
}

async fn messages(one: &Node, other: &Node) {
    let mut tabs = [
        one.client("mia").await,
        other.client("mia").await,
        other.client("mia").await,
    ];
    let mut bob = other.client("bob").await;
    for n in 0..20 {
        post(
            one,
            "/users/mia/message",
            json!({"content": n, "from": "shop", "key": format!("k{n}")}),
        )
        .await;
        if n % 5 == 0 {
            post(
                other,
                "/users/mia/message",
                json!({"content": "twice", "from": "shop", "key": format!("k{n}")}),
            )
            .await;
        }
    }
    for tab in &mut tabs {
        for n in 0..20 {
            assert_eq!(
                tab.until("message").await["content"],
                n,
                "in the order of its sender, each once"
            );
        }
    }
    assert_eq!(bob.pending().await, [Value::Null; 0]);
}

async fn removals(one: &Node, other: &Node) {
    let mut tabs = [one.client("rod").await, other.client("rod").await];
    let (mut near, mut far) = (one.client("near").await, other.client("far").await);
    for client in tabs.iter_mut().chain([&mut near, &mut far]) {
        client.join("hall").await;
    }
    delete(one, "/rooms/hall/users/rod").await;
    for tab in &mut tabs {
        let told = tab.until("removed").await;
        assert_eq!((&told["room"], &told["reason"]), (&json!("hall"), &json!("kicked")));
    }
    for witness in [&mut near, &mut far] {
        let left = witness.find("rod to leave", |message| {
            message["type"] == "left" && message["user"]["id"] == "rod"
        });
        left.await;
    }
    delete(other, "/rooms/hall/users/rod").await;
    tabs[1].join("hall").await;
}

async fn lists(one: &Node, other: &Node) {
    let mut clients = Vec::new();
    for (node, user) in [(one, "a"), (other, "b"), (other, "c"), (one, "c")] {
        let mut client = node.client(user).await;
        client.join("crowd").await;
        clients.push(client);
    }
    within("everybody in the room", async {
        while get(one, "/rooms/crowd/users").await["count"] != 3 {}
    })
    .await;
    let crowd = |answer: &Value| {
        let rooms = answer["rooms"].as_array().unwrap();
        rooms.iter().find(|line| line["room"] == "crowd").cloned()
    };
    within("the room on both nodes", async {
        for node in [one, other] {
            while crowd(&get(node, "/rooms?by=members").await)
                .is_none_or(|line| line["members"] != 4 || line["users"] != 3)
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    })
    .await;
    within("both nodes", async {
        loop {
            let nodes = get(other, "/nodes").await;
            let names: Vec<&str> = (nodes["nodes"].as_array().unwrap().iter())
                .map(|node| node["name"].as_str().unwrap())
                .collect();
            if names == ["other", "one"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn kicks(one: &Node, other: &Node) {
    let mut tabs = [one.client("kit").await, other.client("kit").await];
    let asked = Instant::now();
    post(one, "/users/kit/kick", json!({"ban_s": 600})).await;
    let answered = asked.elapsed();
    for tab in &mut tabs {
        assert_eq!(within("the close", tab.closed()).await, (1008, "kicked".to_owned()));
    }
    println!(
        "kick: answered after {answered:?}, closed on both nodes after {:?}",
        asked.elapsed()
    );
    let mut out = other.client("leo").await;
    post(one, "/revocations", json!({"session": out.welcome["session"]})).await;
    assert_eq!(
        within("the close", out.closed()).await,
        (1008, "token_revoked".to_owned())
    );
}

/// What is said while Redis restarts is kept once, in the order of its sender, or was never acknowledged.
#[tokio::test]
async fn a_thousand_chats_over_two_restarts_of_redis_are_there_once_each() {
    const SENDERS: usize = 4;
    const EACH: usize = 250;
    let mut redis = redis().aof("always").start().await;
    let (one, other) = tokio::join!(on_redis(&redis, "one"), on_redis(&redis, "other"));
    let mut ann = other.client("ann").await;
    ann.join("lobby").await;
    let senders = (0..SENDERS).map(|sender| {
        let node = [&one, &other][sender % 2];
        async move {
            let (mut acked, mut backend) = (HashMap::new(), Backend::new(node));
            for n in 0..EACH {
                let body = json!({"content": [sender, n], "from": format!("s{sender}"), "key": format!("k{n}")});
                loop {
                    let (status, answer) = backend.post("/rooms/lobby/chat", &body).await;
                    if status == 200 {
                        acked.insert((sender as u64, n as u64), answer["seq"].as_u64().unwrap());
                        break;
                    }
                    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
                    // Sooner than it was asked for: the test is over sooner.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            acked
        }
    });
    let restarts = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            redis.kill();
            redis.restart().await;
        }
    };
    let load = futures_util::future::join_all(senders);
    // As a client sees it, which reads all the while: each once, in the order of each sender.
    let listening = async {
        let mut seen: HashMap<(u64, u64), u64> = HashMap::new();
        let mut newest: HashMap<u64, u64> = HashMap::new();
        while seen.len() < SENDERS * EACH {
            let chat = ann.until("chat").await;
            let (sender, n) = (
                chat["content"][0].as_u64().unwrap(),
                chat["content"][1].as_u64().unwrap(),
            );
            assert_eq!(newest.insert(sender, n), n.checked_sub(1), "{chat}");
            let again = seen.insert((sender, n), chat["seq"].as_u64().unwrap());
            assert!(again.is_none(), "twice: {chat}");
        }
        seen
    };
    // Each request, each restart and each chat has its own bound.
    let (acked, (), seen) = tokio::join!(load, restarts, listening);
    let acked: HashMap<(u64, u64), u64> = acked.into_iter().flatten().collect();
    let places: HashSet<u64> = acked.values().copied().collect();
    assert_eq!(places.len(), acked.len(), "one place each");
    assert_eq!(seen, acked, "each where its sender was told");
    let history = within("the history", async {
        loop {
            // What `other` delivered `one` need not have heard yet: its link may still be the one that the restart broke.
            let (status, answer) = ask(&one, "GET", "/rooms/lobby/history?after=0&limit=1000", None).await;
            if status == 200 {
                return answer;
            }
            assert_eq!((status, &answer["code"]), (503, &json!("unavailable")), "{answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(history["first"], 1);
}

/// A user is told nothing twice and nothing is lost that was accepted, while the node it is on cannot hear for a moment.
#[tokio::test]
async fn messages_that_a_node_could_not_hear_come_when_it_can() {
    let mut redis = redis().aof("always").start().await;
    let (one, other) = tokio::join!(on_redis(&redis, "one"), on_redis(&redis, "other"));
    let mut ann = other.client("ann").await;
    let send = async |n: usize| {
        let body = json!({"content": n, "key": format!("k{n}")});
        within("it to be accepted", async {
            while ask(&one, "POST", "/users/ann/message", Some(&body)).await.0 != 200 {}
        })
        .await;
    };
    for n in 0..5 {
        send(n).await;
    }
    redis.kill();
    redis.restart().await;
    for n in 5..10 {
        send(n).await;
    }
    for n in 0..10 {
        assert_eq!(ann.until("message").await["content"], n);
    }
}
