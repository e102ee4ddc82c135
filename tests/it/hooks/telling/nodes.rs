//! Several nodes over Redis: out of the outboxes that its scripts write.

use serde_json::json;

use super::{App, EVERYTHING, Manner, brief, chats, count, of_room, once};
use crate::harness::{Builder, Client, Node, Redis, within};

/// How long a node must be silent to be taken for dead, where one dies.
const LEASE: &str = "8s";

/// Patient with a busy machine: who is slow is not taken for dead, and no answer is given up.
pub fn on(builder: Builder, redis: &Redis, name: &str) -> Builder {
    builder
        .set("server.name", name)
        .set("backplane.kind", "redis")
        .set("backplane.url", &redis.url())
        .set("backplane.publish_timeout", "30s")
        .set("backplane.call_timeout", "10s")
        .set("backplane.lease", "40s")
        .set("backplane.leave_grace", "0s")
}

/// Two nodes of which one is to be taken for dead.
async fn mortal(app: &App, redis: &Redis, events: &str, lines: &str) -> [Node; 2] {
    let [a, b] = ["a", "b"].map(|name| {
        on(app.node(events, lines), redis, name)
            .set("backplane.call_timeout", "2s")
            .set("backplane.lease", LEASE)
    });
    shared_out([a.start().await, b.start().await]).await
}

/// Waits until each of the two knows that the other tells, too.
async fn shared_out(nodes: [Node; 2]) -> [Node; 2] {
    for node in &nodes {
        node.logged("outboxes to be shared out", |line| line["tellers"] == 2)
            .await;
    }
    nodes
}

async fn pair(app: &App, redis: &Redis, events: &str, lines: &str) -> [Node; 2] {
    let [a, b] = ["a", "b"].map(|name| on(app.node(events, lines), redis, name));
    shared_out([a.start().await, b.start().await]).await
}

/// Waits until `watcher` has seen `user` leave.
async fn saw_leave(watcher: &mut Client, user: &str) {
    watcher
        .find(&format!("{user} to leave"), |message| {
            message["type"] == "left" && message["user"]["id"] == user
        })
        .await;
}

#[tokio::test]
async fn two_nodes_tell_everything_once_and_in_order() {
    let (app, redis) = (App::start().await, Redis::start().await);
    let [a, b] = pair(&app, &redis, EVERYTHING, "").await;
    let (mut ann, mut bob) = (a.client("ann").await, b.client("bob").await);
    // Of one user on both nodes only the first coming and the last going are told.
    let mut again = b.client("ann").await;
    for room in ["r1", "r2", "r3"] {
        ann.join(room).await;
        bob.join(room).await;
        again.join(room).await;
    }
    for number in 1..=30 {
        for room in ["r1", "r2", "r3"] {
            let who = if number % 2 == 0 { &mut ann } else { &mut bob };
            who.chat(room, number).await;
        }
    }
    for room in ["r1", "r2", "r3"] {
        for who in [&mut ann, &mut again] {
            let left = who.ask(json!({"type": "leave", "room": room})).await;
            assert_eq!(left["type"], "ok", "{left}");
        }
        saw_leave(&mut bob, "ann").await;
        bob.ask(json!({"type": "leave", "room": room})).await;
    }
    for client in [ann, bob, again] {
        client.close(1000).await;
    }
    let events = app
        .told("all of it", |events| {
            count(events, "left") >= 6 && count(events, "close") >= 3
        })
        .await;
    assert_eq!(once(&events).len(), events.len(), "each once");
    for room in ["r1", "r2", "r3"] {
        let told = of_room(&events, room);
        // They came over different nodes.
        let came: std::collections::BTreeSet<_> = told[..2].iter().map(String::as_str).collect();
        assert_eq!(came, ["join ann", "join bob"].into(), "{told:?}");
        assert_eq!(told[2..32], chats(1..=30)[..]);
        assert_eq!(told[32..], ["left ann", "left bob"]);
    }
    assert_eq!((count(&events, "open"), count(&events, "close")), (3, 3));
    let nodes: std::collections::BTreeSet<_> = events.iter().map(|event| event["node"].to_string()).collect();
    assert_eq!(nodes.len(), 2, "each event names the node that it came from");
    let asked = app.backend.asked();
    assert!(asked.len() < events.len(), "in {} batches", asked.len());
}

#[tokio::test]
async fn a_node_that_is_killed_in_mid_batch_leaves_the_rest_to_the_others() {
    let (app, redis) = (App::start().await, Redis::start().await);
    let [a, b] = mortal(&app, &redis, EVERYTHING, "").await;
    let (mut ann, mut bob) = (a.client("ann").await, b.client("bob").await);
    let rooms: Vec<_> = (0..8).map(|number| format!("room-{number}")).collect();
    for room in &rooms {
        bob.join(room).await;
        ann.join(room).await;
    }
    app.told("both in every room", |events| count(events, "join") == 16)
        .await;
    // From now on batches are taken, and nobody hears so.
    app.is_now(Manner::TakesInSilence);
    for number in 1..=5 {
        for room in &rooms {
            bob.chat(room, number).await;
        }
    }
    app.told("batches under way", |events| count(events, "chat") > 0).await;
    a.terminate("KILL");
    within("the end of it", a.wait_exit()).await;
    app.is_now(Manner::Takes);
    for number in 6..=10 {
        for room in &rooms {
            bob.chat(room, number).await;
        }
    }
    let events = app
        .told("everything, and who left", |events| {
            let events = once(events);
            let died = events.iter().any(|event| event["reason"] == "node_died");
            died && count(&events, "left") >= 8 && count(&events, "chat") == 80
        })
        .await;
    let events = once(&events);
    for room in &rooms {
        let told: Vec<_> = of_room(&events, room)
            .into_iter()
            .filter(|event| event.starts_with("chat"))
            .collect();
        assert_eq!(told, chats(1..=10), "{room}");
        assert!(of_room(&events, room).contains(&"left ann".to_owned()));
    }
    let died: Vec<_> = events.iter().filter(|event| event["event"] == "close").collect();
    assert_eq!(died.len(), 1, "{died:?}");
    assert_eq!(
        (brief(died[0]), &died[0]["code"]),
        ("close ann".to_owned(), &json!(1006))
    );
    assert_eq!(
        (&died[0]["session"], &died[0]["node"]),
        (&ann.welcome["session"], &json!("a"))
    );
    bob.close(1000).await;
}

#[tokio::test]
async fn a_node_that_wakes_up_too_late_moves_no_cursor() {
    let (app, redis) = (App::start().await, Redis::start().await);
    // A request under way outlives the lease of its node.
    let [a, b] = mortal(&app, &redis, r#""chat""#, "timeout = \"60s\"").await;
    let mut bob = b.client("bob").await;
    let rooms: Vec<_> = (0..16).map(|number| format!("room-{number}")).collect();
    for room in &rooms {
        bob.join(room).await;
    }
    app.is_now(Manner::TakesInSilence);
    for room in &rooms {
        bob.chat(room, 1).await;
    }
    // Both nodes have some in hand.
    a.metric_reaches("conclave_hook_waiting", &[], 1.0).await;
    app.told("some of it", |events| count(&once(events), "chat") >= 6).await;
    a.terminate("STOP");
    app.is_now(Manner::Takes);
    for room in &rooms {
        bob.chat(room, 2).await;
    }
    b.logged("the node that sleeps to be taken for dead", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("a node that is gone"))
    })
    .await;
    app.answers();
    // What the one that sleeps has in hand is told by the other.
    let events = app
        .told("everything", |events| count(&once(events), "chat") == 32)
        .await;
    for room in &rooms {
        assert_eq!(of_room(&once(&events), room), chats(1..=2), "{room}");
    }
    a.terminate("CONT");
    // It finds its requests answered, and may not forget what they told, if it reaches Redis at all.
    a.logged("a cursor that it may not move", |line| {
        let says = |words| line["message"].as_str().is_some_and(|text| text.contains(words));
        says("has taken an outbox over") || says("some events are told again")
    })
    .await;
    // It has come back, and takes its share again.
    for room in &rooms {
        bob.chat(room, 3).await;
    }
    let events = once(&app.told("the rest", |events| count(&once(events), "chat") == 48).await);
    for room in &rooms {
        assert_eq!(of_room(&events, room), chats(1..=3), "{room}");
    }
}

#[tokio::test]
async fn a_node_without_hooks_leaves_its_partitions_to_who_has_some() {
    let (app, redis) = (App::start().await, Redis::start().await);
    let a = on(app.node(r#""chat""#, ""), &redis, "a").start().await;
    let old = on(crate::harness::node(), &redis, "old").start().await;
    let (mut ann, mut bob) = (a.client("ann").await, old.client("bob").await);
    for number in 1..=40 {
        let room = format!("room-{number}");
        ann.join(&room).await;
        bob.join(&room).await;
        bob.chat(&room, "nobody is told").await;
        ann.chat(&room, number).await;
    }
    let events = app.told("what the first node knows", |events| events.len() >= 40).await;
    let mut told: Vec<_> = events
        .iter()
        .map(|event| event["content"].as_u64().expect("a number"))
        .collect();
    told.sort_unstable();
    assert_eq!(told, (1..=40).collect::<Vec<u64>>());
}
