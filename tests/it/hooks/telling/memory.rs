//! A node alone: out of a bounded queue in its memory.

use serde_json::{Value, json};

use super::{App, EVERYTHING, Manner, chats, count, lost, of_room, once};

#[tokio::test]
async fn what_happens_is_told_in_order() {
    let app = App::start().await;
    let node = app.node(EVERYTHING, "").set("server.name", "a").start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let ok = ann.chat("lobby", json!({"text": "hi"})).await;
    ann.ask(json!({"type": "chat", "room": "lobby", "content": 2, "key": "k1"}))
        .await;
    ann.ask(json!({"type": "chat", "room": "lobby", "content": 2, "key": "k1"}))
        .await;
    ann.ask(json!({"type": "leave", "room": "lobby"})).await;
    let session = ann.welcome["session"].clone();
    ann.close(1000).await;

    let events = app
        .told("the ends", |events| {
            count(events, "close") == 1 && count(events, "left") == 1
        })
        .await;
    assert_eq!(
        of_room(&events, "lobby"),
        ["join ann", "chat {\"text\":\"hi\"}", "chat 2", "left ann"]
    );
    let find = |name: &str| events.iter().find(|event| event["event"] == name).expect(name).clone();
    let chat = find("chat");
    assert_eq!(
        (&chat["node"], &chat["epoch"], &chat["seq"], &chat["user"]["id"]),
        (&json!("a"), &ok["epoch"], &ok["seq"], &json!("ann"))
    );
    assert!(events.iter().any(|event| event["key"] == "k1"));
    for event in &events {
        assert!(event["id"].as_str().unwrap().starts_with("e-"), "{event}");
        assert!(event["time"].as_u64().unwrap() > 1_700_000_000_000, "{event}");
    }
    assert_eq!(
        (&find("open")["session"], &find("open")["user"]["id"]),
        (&session, &json!("ann"))
    );
    let close = find("close");
    assert_eq!(
        (&close["session"], &close["code"], &close["node"]),
        (&session, &json!(1000), &json!("a"))
    );
    assert!(close["duration_ms"].is_u64() && close["reason"].is_string(), "{close}");
    assert_eq!(once(&events).len(), events.len(), "each once");
    node.metric_reaches("conclave_hook_delivered_events_total", &[], 6.0)
        .await;
}

#[tokio::test]
async fn only_what_a_hook_wants_reaches_it() {
    let app = App::start().await;
    let node = app.node(r#""chat""#, "rooms = [\"team-*\"]").start().await;
    let mut ann = node.client("ann").await;
    for room in ["lobby", "team-7"] {
        ann.join(room).await;
        ann.chat(room, room).await;
    }
    let events = app.told("a chat", |events| !events.is_empty()).await;
    assert_eq!(events.len(), 1);
    assert_eq!(of_room(&events, "team-7"), ["chat \"team-7\""]);
}

#[tokio::test]
async fn a_backend_that_was_down_is_told_afterwards() {
    let app = App::start().await;
    let node = app.node(r#""join", "chat""#, "").start().await;
    app.is_now(Manner::Refuses(503));
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 1..=20 {
        ann.chat("lobby", number).await;
    }
    app.refused(3).await;
    assert!(app.events().is_empty());
    app.is_now(Manner::Takes);
    let events = app.told("everything", |events| events.len() == 21).await;
    let expected: Vec<_> = ["join ann".to_owned()].into_iter().chain(chats(1..=20)).collect();
    assert_eq!(of_room(&events, "lobby"), expected);
    // The same events were offered before, under the same ids.
    let told: std::collections::HashSet<&Value> = events.iter().map(|event| &event["id"]).collect();
    for asked in app.backend.asked() {
        let offered = asked.event["events"].as_array().unwrap();
        assert!(offered.iter().all(|event| told.contains(&event["id"])), "{asked:?}");
    }
    node.metric_reaches("conclave_hook_retries_total", &[], 1.0).await;
}

#[tokio::test]
async fn what_finds_the_queue_full_is_counted() {
    let app = App::start().await;
    let node = app.node(r#""chat""#, "queue_events = 100").start().await;
    app.is_now(Manner::Refuses(500));
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 1..=150 {
        ann.chat("lobby", number).await;
    }
    app.refused(1).await;
    app.is_now(Manner::Takes);
    let events = app
        .told("all that is left", |events| {
            count(events, "chat") as u64 + lost(events) == 150
        })
        .await;
    assert_eq!(lost(&events), 50);
    assert_eq!(of_room(&events, "lobby"), chats(1..=100));
    assert_eq!(events.last().expect("some")["event"], "lost", "in its place");
    ann.chat("lobby", 151).await;
    app.told("what comes after", |events| count(events, "chat") == 101)
        .await;
    node.metric_reaches("conclave_hook_lost_events_total", &[], 50.0).await;
}

#[tokio::test]
async fn a_node_that_ends_tells_the_last_of_it() {
    let app = App::start().await;
    let node = app.node(EVERYTHING, "").set("drain.time", "20s").start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    ann.chat("lobby", 1).await;
    node.terminate("TERM");
    let (code, _) = ann.closed().await;
    assert_eq!(code, 1012);
    assert!(node.wait_exit().await.success());
    let events = app.events();
    assert_eq!(of_room(&events, "lobby"), ["join ann", "chat 1", "left ann"]);
    let close = events.iter().find(|event| event["event"] == "close").expect("a close");
    assert_eq!(close["code"], 1012);
}

#[tokio::test]
async fn a_backend_that_never_answers_slows_nobody() {
    let app = App::start().await;
    let node = app.node(EVERYTHING, "timeout = \"30s\"").start().await;
    app.is_now(Manner::TakesInSilence);
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    app.told("a batch that is not answered", |events| !events.is_empty())
        .await;
    for number in 1..=300 {
        ann.chat("lobby", number).await;
    }
    // All of that while one and the same request was under way.
    let room = of_room(&app.events(), "lobby");
    assert!(room.len() < 300, "{room:?}");
}

#[tokio::test]
async fn batches_that_are_too_large_are_halved() {
    let app = App::start().await;
    let node = app.node(r#""chat""#, "batch_wait = \"500ms\"").start().await;
    app.is_now(Manner::Refuses(413));
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 1..=20 {
        ann.chat("lobby", number).await;
    }
    let sizes = || -> Vec<usize> {
        let asked = app.backend.asked();
        asked
            .iter()
            .map(|asked| asked.event["events"].as_array().unwrap().len())
            .collect()
    };
    app.refused(4).await;
    assert!(sizes().windows(2).all(|pair| pair[1] <= pair[0]), "{:?}", sizes());
    app.is_now(Manner::Takes);
    let events = app.told("everything", |events| events.len() == 20).await;
    assert_eq!(of_room(&events, "lobby"), chats(1..=20));
}

#[tokio::test]
async fn two_hooks_are_told_apart() {
    let (app, other) = (App::start().await, App::start().await);
    other.is_now(Manner::Refuses(500));
    let table = format!(
        "name = \"other\"\nurl = \"{}/told\"\nevents = [\"chat\", \"join\"]\nretry_max = \"300ms\"",
        other.backend.url
    );
    let node = app
        .node(r#""chat""#, "name = \"one\"")
        .entry("hooks.tell", &table)
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    for number in 1..=30 {
        ann.chat("lobby", number).await;
    }
    let events = app.told("everything", |events| events.len() == 30).await;
    assert_eq!(
        of_room(&events, "lobby"),
        chats(1..=30),
        "though the other takes nothing"
    );
    other.is_now(Manner::Takes);
    let events = other.told("everything", |events| events.len() == 31).await;
    assert_eq!(of_room(&events, "lobby")[1..], chats(1..=30));
}
