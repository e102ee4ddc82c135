use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{ask, audited, node};
use crate::harness::{Client, Node, Redis, within};

/// Waits until the overview is as `is_it` says.
async fn overview(node: &Node, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    within(what, async {
        loop {
            let overview = ask(node, "GET", "/api/overview").good().await;
            if is_it(&overview) {
                return overview;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Fetches from a tap until a line is as `is_it` says; every line so far, and how many were left out.
async fn lines(node: &Node, id: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> (Vec<Value>, u64) {
    let path = format!("/api/tap/{id}");
    let (mut lines, mut left_out) = (Vec::new(), 0);
    within(what, async {
        while !lines.iter().any(&is_it) {
            let piece = ask(node, "GET", &path).good().await;
            lines.extend(piece["lines"].as_array().unwrap().iter().cloned());
            left_out += piece["left_out"].as_u64().unwrap();
        }
    })
    .await;
    (lines, left_out)
}

async fn tap(node: &Node, of: Value) -> String {
    let begun = ask(node, "POST", "/api/tap").json(of).good().await;
    begun["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_overview_tells_what_happens() {
    let node = node().set("server.name", "node-1").start().await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for room in ["lobby", "team/1"] {
        ann.join(room).await;
    }
    bob.join("lobby").await;
    let first = overview(&node, "two connections", |o| o["now"]["connections"] == 2).await;
    assert_eq!(first["nodes"], json!([first["nodes"][0]]));
    assert_eq!(first["nodes"][0]["name"], "node-1");
    assert_eq!(
        (&first["node"]["is_ready"], &first["node"]["drain_phase"]),
        (&json!(true), &json!("serving"))
    );
    assert_eq!(
        first["top"]["by_members"][0],
        json!({"room": "lobby", "members": 2, "users": 2, "chats_per_second": 0.0})
    );
    assert_eq!(first["backplane"]["kind"], "memory");
    assert_eq!(first["backplane"]["is_up"], Value::Null);
    assert!(first["certificate"]["expires"].as_u64().unwrap() > 1_700_000_000);
    for word in 0..20 {
        bob.chat("lobby", word).await;
    }
    let busy = overview(&node, "a busy room", |o| o["top"]["by_rate"][0]["room"] == "lobby").await;
    assert_eq!(busy["total"]["chats"], 20);
    assert!(busy["top"]["by_rate"][0]["chats_per_second"].as_f64().unwrap() > 0.0);
    let refused = node.socket().query_token("x.y.z").open().await;
    drop(refused);
    bob.close(1000).await;
    let ended = overview(&node, "a close", |o| {
        o["closes"].as_array().unwrap().iter().any(|c| c["code"] == "1000")
    })
    .await;
    assert_eq!(ended["now"]["connections"], 1);
    let why = ended["refused"].as_array().unwrap();
    assert!(
        why.iter()
            .any(|r| r["what"] == "token" && r["why"] == "token_malformed"),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_tap_of_a_room_shows_who_and_not_what() {
    let node = node().start().await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    ann.join("lobby").await;
    let id = tap(&node, json!({"room": "lobby"})).await;
    assert_eq!(node.metrics().await.sum("conclave_taps", &[]), 1.0);
    bob.join("elsewhere").await;
    bob.chat("elsewhere", "x").await;
    bob.join("lobby").await;
    bob.chat("lobby", "private words").await;
    let (seen, _) = lines(&node, &id, "the chat", |line| line["type"] == "chat").await;
    let join = seen.iter().find(|line| line["type"] == "join").expect("the join");
    assert_eq!((&join["user"], &join["way"]), (&json!("bob"), &json!("room")));
    let chat = seen.last().unwrap();
    assert_eq!(
        (&chat["user"], &chat["seq"], &chat["room"]),
        (&json!("bob"), &json!(1), &json!("lobby"))
    );
    assert!(!format!("{seen:?}").contains("private"), "{seen:?}");
    let gone = ask(&node, "DELETE", &format!("/api/tap/{id}")).status().await;
    assert_eq!(gone, 204);
    assert_eq!(ask(&node, "GET", &format!("/api/tap/{id}")).status().await, 404);
    assert_eq!(node.metrics().await.sum("conclave_taps", &[]), 0.0);
    let begun = audited(&node, "tap", "begun").await;
    assert_eq!(
        (&begun["subject"], &begun["who"]),
        (&json!("room lobby"), &json!("ann"))
    );
    let ended = audited(&node, "tap_end", "ended").await;
    assert!(ended["result"].as_str().unwrap().contains("2 lines shown"), "{ended}");
}

#[tokio::test]
async fn a_tap_of_a_user_shows_both_ways_and_content_only_where_it_may() {
    let node = node().set("admin.tap_content", "true").start().await;
    let mut eve = node.client("eve").await;
    let mut ann = node.client("ann").await;
    let id = tap(&node, json!({"user": "ann"})).await;
    ann.join("lobby").await;
    eve.join("lobby").await;
    let token = node.token("ann");
    ann.ask(json!({"type": "auth", "token": token})).await;
    ann.chat("lobby", format!("my token is {token}")).await;
    eve.chat("lobby", "of somebody else").await;
    ann.close(1000).await;
    let (seen, _) = lines(&node, &id, "the end", |line| line["way"] == "end").await;
    let of = |way: &str, kind: &str| {
        let found = seen.iter().find(|line| line["way"] == way && line["type"] == kind);
        found.unwrap_or_else(|| panic!("no {way} {kind}: {seen:?}")).clone()
    };
    assert_eq!(of("in", "join")["room"], "lobby");
    assert_eq!(of("out", "list")["room"], "lobby");
    assert_eq!(of("in", "chat")["content"], "\"my token is ***\"");
    assert!(of("in", "auth").get("content").is_none());
    assert_eq!(of("out", "ok")["way"], "out");
    assert_eq!(of("end", "closed")["code"], 1000);
    let all = format!("{seen:?}");
    assert!(!all.contains(&token[..20]) && !all.contains("somebody else"), "{all}");
}

#[tokio::test]
async fn taps_are_bounded_in_lines_number_and_time() {
    let node = node()
        .set("admin.taps", "2")
        .set("admin.tap_lines_per_second", "5")
        .set("admin.tap_time", "10s")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let id = tap(&node, json!({"room": "lobby"})).await;
    let other = tap(&node, json!({"user": "nobody"})).await;
    assert_eq!(
        ask(&node, "POST", "/api/tap").json(json!({"room": "x"})).status().await,
        409
    );
    for body in [
        json!({}),
        json!({"room": ""}),
        json!({"room": "a", "user": "b"}),
        json!({"all": true}),
        json!([]),
    ] {
        assert_eq!(ask(&node, "POST", "/api/tap").json(body).status().await, 400);
    }
    for word in 0..100 {
        ann.chat("lobby", word).await;
    }
    let mut counted = 0;
    within("every chat, shown or left out", async {
        while counted < 100 {
            let piece = ask(&node, "GET", &format!("/api/tap/{id}")).good().await;
            let shown = piece["lines"].as_array().unwrap().len() as u64;
            assert!(shown <= 50, "{shown} lines at once");
            counted += shown + piece["left_out"].as_u64().unwrap();
        }
    })
    .await;
    assert_eq!(counted, 100);
    let over = audited(&node, "tap_end", "its time was over").await;
    assert!(over["result"].as_str().unwrap().contains("left out"), "{over}");
    within("both to be gone", async {
        while node.metrics().await.sum("conclave_taps", &[]) > 0.0 {}
    })
    .await;
    assert_eq!(ask(&node, "GET", &format!("/api/tap/{other}")).status().await, 404);
}

#[tokio::test]
async fn a_kick_ends_a_user_or_a_session_and_a_ban_keeps_out() {
    let node = node().start().await;
    let (mut ann, mut tab, mut bob) = (
        node.client("ann").await,
        node.client("ann").await,
        node.client("bob").await,
    );
    let kick = |body: Value| ask(&node, "POST", "/api/kick").json(body);
    for body in [
        json!({}),
        json!({"user": ""}),
        json!({"user": "a", "session": "b"}),
        json!({"user": "a\u{7}"}),
        json!("ann"),
        json!({"session": "s-1", "ban_seconds": 5}),
        json!({"user": "ann", "ban_seconds": -1}),
        json!({"user": "ann", "ban_seconds": 99_999_999}),
        json!({"user": "x".repeat(257)}),
    ] {
        let answer = kick(body.clone()).answer().await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let told = kick(json!({"user": "ann", "ban_seconds": 60})).good().await;
    assert!(told["banned_until"].as_u64().unwrap() > 1_700_000_000);
    ann.expect_close(1008, "kicked").await;
    tab.expect_close(1008, "kicked").await;
    let mut again = node.socket().query_token(&node.token("ann")).open().await;
    again.expect_close(1008, "token_revoked").await;
    let session = bob.welcome["session"].as_str().unwrap().to_owned();
    let told = kick(json!({"session": session})).good().await;
    assert_eq!(
        (&told["kicked"], &told["banned_until"]),
        (&json!(format!("session {session}")), &Value::Null)
    );
    bob.expect_close(1008, "kicked").await;
    // A session is no user: he may come back at once.
    drop(node.client("bob").await);
    let line = audited(&node, "kick", "ok").await;
    assert_eq!((&line["who"], &line["address"]), (&json!("ann"), &json!("127.0.0.1")));
    node.logged("the ban", |line| line["subject"] == "user ann, banned for 60 s")
        .await;
}

#[tokio::test]
async fn the_audit_is_said_whatever_the_level_is() {
    let quiet = node().set("log.level", "error,conclave::runtime=info").start().await;
    ask(&quiet, "POST", "/api/kick")
        .json(json!({"user": "nobody"}))
        .good()
        .await;
    audited(&quiet, "kick", "ok").await;
}

#[tokio::test]
async fn the_page_answers_while_the_shards_are_flooded() {
    let node = node().set("server.threads", "1").start().await;
    let mut readers = Vec::new();
    for n in 0..30 {
        let mut client = node.client(&format!("u{n}")).await;
        client.join("flood").await;
        readers.push(client);
    }
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let flood: Vec<_> = readers
        .into_iter()
        .map(|client| tokio::spawn(shout(client, stopped.clone())))
        .collect();
    let begun = overview(&node, "the flood", |o| {
        o["total"]["deliveries"].as_u64().unwrap() > 10_000
    })
    .await;
    for _ in 0..20 {
        ask(&node, "GET", "/api/overview").good().await;
    }
    let id = tap(&node, json!({"room": "flood"})).await;
    let (_, left_out) = lines(&node, &id, "a chat of the flood", |line| line["type"] == "chat").await;
    let still = overview(&node, "more of the flood", |o| {
        o["total"]["deliveries"] != begun["total"]["deliveries"]
    })
    .await;
    assert!(
        still["node"]["is_ready"].as_bool().unwrap(),
        "{still}, {left_out} lines left out"
    );
    stop.send_replace(true);
    stopped.changed().await.ok();
    for shouter in flood {
        within("the end of the flood", shouter).await.unwrap();
    }
}

/// Says as much as the server takes, and reads what comes.
async fn shout(mut client: Client, stop: tokio::sync::watch::Receiver<bool>) {
    let chat = json!({"type": "chat", "room": "flood", "content": "x".repeat(200)}).to_string();
    while !*stop.borrow() {
        for _ in 0..10 {
            client.send_text(&chat).await;
        }
        if client.next().await.is_none() {
            return;
        }
    }
}

#[tokio::test]
async fn a_kick_reaches_the_other_node_and_each_knows_the_other() {
    let redis = Redis::start().await;
    let on = |name: &str| {
        let builder = node().set("server.name", name);
        builder
            .set("backplane.kind", "redis")
            .set("backplane.url", &redis.url())
    };
    let (a, b) = tokio::join!(on("a").start(), on("b").start());
    let mut ann = b.client("ann").await;
    ann.join("lobby").await;
    let both = |o: &Value| o["nodes"].as_array().unwrap().len() == 2;
    let seen = overview(&a, "the other node", both).await;
    assert_eq!(
        (&seen["nodes"][0]["name"], &seen["nodes"][1]["name"]),
        (&json!("a"), &json!("b"))
    );
    assert_eq!(seen["backplane"]["is_up"], true);
    let up = |o: &Value| {
        o["backplane"]["links"]
            .as_array()
            .unwrap()
            .iter()
            .all(|link| link["is_up"] == true)
    };
    overview(&a, "every link that there is", up).await;
    let id = tap(&b, json!({"user": "ann"})).await;
    ann.chat("lobby", "hello").await;
    let (seen, _) = lines(&b, &id, "the answer", |line| {
        line["way"] == "out" && line["type"] == "ok"
    })
    .await;
    assert!(
        seen.iter().any(|line| line["way"] == "in" && line["type"] == "chat"),
        "{seen:?}"
    );
    let told = ask(&a, "POST", "/api/kick").json(json!({"user": "ann"})).good().await;
    assert_eq!(told["kicked"], "user ann");
    // Her own chat may come before the `ok` of it or after.
    assert_eq!(ann.closed().await, (1008, "kicked".to_owned()));
    drop(redis);
    // A kick that is under way while the server dies has no known end; one after that was told to nobody.
    let down = overview(&a, "the backplane to be down", |o| o["backplane"]["is_up"] == false).await;
    assert_eq!(down["backplane"]["kind"], "redis");
    let answer = ask(&a, "POST", "/api/kick").json(json!({"user": "ann"})).answer().await;
    assert_eq!(answer.status, 503, "{answer:?}");
    audited(&a, "kick", "refused").await;
}
