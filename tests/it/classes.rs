//! Classes of rooms: who may do what in them, how much they keep, how fast they are. On the memory backplane, and where
//! nodes share what is asked, on two nodes with Redis.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::node::ORIGIN;
use crate::harness::records::Records;
use crate::harness::{self, Builder, Client, Node, Redis, frames, token};

/// One node that keeps rooms itself, or two that share them.
struct Place {
    nodes: Vec<Node>,
    redis: Option<Redis>,
}

impl Place {
    async fn each(builder: impl Fn() -> Builder) -> [Self; 2] {
        // However busy the machine is: what is asked here is not how long a call may take.
        let patient = |builder: Builder| {
            builder
                .set("backplane.call_timeout", "5s")
                .set("backplane.publish_timeout", "20s")
                .set("backplane.lease", "30s")
        };
        Self::each_of(|| patient(builder())).await
    }

    async fn each_of(builder: impl Fn() -> Builder) -> [Self; 2] {
        let redis = harness::redis().start().await;
        let shared = || {
            builder()
                .set("backplane.kind", "redis")
                .set("backplane.url", &redis.url())
        };
        let nodes = vec![shared().start().await, shared().start().await];
        [
            Self {
                nodes: vec![builder().start().await],
                redis: None,
            },
            Self {
                nodes,
                redis: Some(redis),
            },
        ]
    }

    fn kind(&self) -> &'static str {
        if self.redis.is_some() { "redis" } else { "memory" }
    }

    fn first(&self) -> &Node {
        &self.nodes[0]
    }

    /// The other node, if there are two.
    fn last(&self) -> &Node {
        self.nodes.last().expect("a node")
    }
}

/// A user whose token has a `rooms` claim.
async fn with_claim(node: &Node, sub: &str, rooms: Value) -> Client {
    let mut claims = token::claims(sub);
    claims["rooms"] = rooms;
    node.client_with(&claims).await
}

/// `type` of the answer, or `code` of an error.
async fn outcome(client: &mut Client, message: Value) -> String {
    let answer = client.ask(message).await;
    let word = if answer["type"] == "error" { "code" } else { "type" };
    answer[word].as_str().expect("a word").to_owned()
}

fn ids(list: &Value) -> Vec<&str> {
    let users = list["users"].as_array().expect("users");
    users.iter().map(|user| user["id"].as_str().expect("an id")).collect()
}

/// What a member says to find out whether it may.
fn trial(verb: &str, room: &str) -> (Value, &'static str) {
    match verb {
        "join" => (json!({"type": "join", "room": room}), "list"),
        "chat" => (json!({"type": "chat", "room": room, "content": 1}), "ok"),
        "list" => (json!({"type": "list", "room": room}), "list"),
        _ => (json!({"type": "history", "room": room}), "history"),
    }
}

const VERBS: [&str; 4] = ["join", "chat", "list", "history"];

#[tokio::test]
async fn the_class_decides_for_tokens_without_a_claim_the_claim_for_others_and_none_for_all() {
    let builder = || {
        let mut builder = harness::node();
        for verb in VERBS {
            for word in ["all", "granted", "none"] {
                builder = builder.class(&format!("{verb}-{word}/*"), &format!("{verb} = \"{word}\""));
            }
        }
        builder
    };
    for place in Place::each(builder).await {
        for node in &place.nodes {
            for verb in VERBS {
                let others: Vec<_> = VERBS.iter().filter(|other| **other != verb).collect();
                let mut silent = node.client("silent").await;
                let mut named = with_claim(node, "named", json!({"*": ["*"]})).await;
                let mut unnamed = with_claim(node, "unnamed", json!({"*": others})).await;
                for (word, expected) in [
                    ("all", [true, true, false]),
                    ("granted", [false, true, false]),
                    ("none", [false, false, false]),
                ] {
                    let room = format!("{verb}-{word}/a");
                    let (message, good) = trial(verb, &room);
                    for (client, may) in [&mut silent, &mut named, &mut unnamed].into_iter().zip(expected) {
                        if verb != "join" {
                            client.join(&room).await;
                        }
                        let expected = if may { good } else { "forbidden" };
                        let what = format!("{} {verb} = {word}: {}", place.kind(), client.welcome["user"]["id"]);
                        assert_eq!(outcome(client, message.clone()).await, expected, "{what}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn the_most_specific_pattern_decides_alone() {
    let node = harness::node()
        .class("*", "join = \"none\"\nhistory_messages = 0")
        .class("team/*", "")
        .class("team/secret", "")
        .class("team/secret*", "join = \"granted\"")
        .start()
        .await;
    let mut ann = node.client("ann").await;
    for (room, expected) in [
        ("lobby", "forbidden"),
        ("team", "forbidden"),
        ("team/", "list"),
        ("team/a", "list"),
        ("team/secret", "list"),
        ("team/secrets", "forbidden"),
        ("team/secret/a", "forbidden"),
    ] {
        assert_eq!(outcome(&mut ann, trial("join", room).0).await, expected, "{room}");
    }
    ann.chat("team/a", 1).await;
    let history = ann.ask(trial("history", "team/a").0).await;
    assert_eq!(
        history["messages"].as_array().map(Vec::len),
        Some(1),
        "nothing comes from `*`"
    );
}

#[tokio::test]
async fn who_may_not_see_who_is_here_is_told_of_nobody() {
    let builder = || {
        harness::node()
            .class("some/*", "list = \"granted\"\nusers_shown = 3")
            .class("nobody/*", "list = \"none\"")
    };
    for place in Place::each(builder).await {
        let all = json!({"*": ["*"]});
        for (room, seers_see) in [("some/a", true), ("nobody/a", false)] {
            let mut seer = with_claim(place.first(), "seer", all.clone()).await;
            let mut blind = place.last().client("blind").await;
            seer.join(room).await;
            let list = blind.join(room).await;
            assert_eq!((ids(&list), &list["count"]), (vec!["blind"], &json!(1)), "{room}");
            if seers_see {
                assert_eq!(seer.until("join").await["user"]["id"], "blind");
                assert_eq!(seer.ask(trial("list", room).0).await["count"], 2);
            }
            // Few enough to be named, then too many.
            let mut others = Vec::new();
            for name in ["x", "y", "z"] {
                let mut other = place.first().client(name).await;
                other.join(room).await;
                others.push(other);
            }
            if seers_see {
                assert_eq!(seer.until("count").await["type"], "count");
            }
            for other in others {
                other.close(1000).await;
            }
            if seers_see {
                seer.find("a small room", |line| line["type"] == "left" || line["count"] == 2)
                    .await;
            }
            seer.chat(room, "end").await;
            let mut heard = vec![blind.message().await];
            while heard.last().is_some_and(|last| last["content"] != "end") {
                heard.push(blind.message().await);
            }
            heard.extend(blind.pending().await);
            assert_eq!(heard.len(), 1, "{} {room}: {heard:?}", place.kind());
            if !seers_see {
                let told: Vec<Value> = seer.pending().await;
                assert!(told.iter().all(|line| line["type"] == "chat"), "{told:?}");
            }
            let again = blind.join(room).await;
            assert_eq!((ids(&again), &again["count"]), (vec!["blind"], &json!(1)), "{room}");
        }
    }
}

#[tokio::test]
async fn who_may_not_read_what_was_said_before_gets_no_replay_either() {
    let builder = || {
        harness::node()
            .class("some/*", "history = \"granted\"")
            .class("nobody/*", "history = \"none\"")
    };
    for place in Place::each(builder).await {
        for (room, readers_read) in [("some/a", true), ("nobody/a", false)] {
            let mut ann = place.first().client("ann").await;
            let list = ann.join(room).await;
            for content in 0..3 {
                ann.chat(room, content).await;
            }
            for (name, claim, reads) in [
                ("bob", None, false),
                ("cem", Some(json!({"*": ["join"]})), false),
                ("dot", Some(json!({"*": ["join", "history"]})), readers_read),
            ] {
                for node in [place.first(), place.last()] {
                    let mut client = match &claim {
                        None => node.client(name).await,
                        Some(claim) => with_claim(node, name, claim.clone()).await,
                    };
                    let since = json!({"epoch": list["epoch"], "seq": list["seq"]});
                    let back = client.ask(json!({"type": "join", "room": room, "since": since})).await;
                    assert_eq!(back["recovered"], reads, "{} {room} {name}: {back}", place.kind());
                    assert_eq!(back["seq"].as_u64(), list["seq"].as_u64().map(|seq| seq + 3));
                    if reads {
                        assert_eq!(client.until("chat").await["content"], 0);
                    } else {
                        let told = client.pending().await;
                        assert!(told.iter().all(|line| line["type"] != "chat"), "{told:?}");
                    }
                    client.close(1000).await;
                }
            }
        }
    }
}

/// How many messages `history` shows, and whether there are more.
async fn kept(client: &mut Client, room: &str) -> usize {
    let history = client
        .ask(json!({"type": "history", "room": room, "limit": 1000}))
        .await;
    assert_eq!(history["type"], "history", "{history}");
    assert_eq!(history["more"], false, "{history}");
    history["messages"].as_array().expect("messages").len()
}

#[tokio::test]
async fn each_class_keeps_as_many_messages_for_as_long_as_it_says() {
    let builder = || {
        harness::node()
            .class("short/*", "history_messages = 3")
            .class("none/*", "history_messages = 0")
            .class("brief/*", "history_age = \"1s\"")
    };
    for place in Place::each(builder).await {
        let mut ann = place.first().client("ann").await;
        let mut bob = place.last().client("bob").await;
        let rooms = [("short/a", 3), ("none/a", 0), ("lobby", 10)];
        for (room, expected) in rooms {
            let list = ann.join(room).await;
            for content in 0..10 {
                ann.chat(room, content).await;
            }
            assert_eq!(kept(&mut ann, room).await, expected, "{} {room}", place.kind());
            // Who comes later reads the same, on the other node from the backplane.
            bob.join(room).await;
            assert_eq!(kept(&mut bob, room).await, expected, "{} {room}, there", place.kind());
            for (seq, recovered) in [(0, expected == 10), (10, true)] {
                let since = json!({"epoch": list["epoch"], "seq": seq});
                let back = bob.ask(json!({"type": "join", "room": room, "since": since})).await;
                assert_eq!(
                    back["recovered"],
                    recovered,
                    "{} {room} after {seq}: {back}",
                    place.kind()
                );
            }
        }
        for room in ["brief/a", "lobby"] {
            ann.join(room).await;
            ann.chat(room, "x").await;
        }
        for client in [&mut ann, &mut bob] {
            client.join("brief/a").await;
            harness::within("the end of its age", async {
                while kept(client, "brief/a").await > 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            })
            .await;
            assert_eq!(kept(client, "lobby").await, 11, "{}", place.kind());
        }
    }
}

/// Says something with a key until it is accepted, as clients do.
async fn kept_at(client: &mut Client, keyed: Value) -> u64 {
    loop {
        let answer = client.ask(keyed.clone()).await;
        match answer["seq"].as_u64() {
            Some(seq) => return seq,
            None => assert_eq!(answer["code"], "unavailable", "{answer}"),
        }
    }
}

#[tokio::test]
async fn each_class_remembers_keys_for_as_long_as_it_says() {
    // The window must be longer than a publish may take, which is 2 s.
    for place in Place::each_of(|| harness::node().class("quick/*", "key_window = \"3s\"")).await {
        let keyed = |room: &str| json!({"type": "chat", "room": room, "content": 1, "key": "k"});
        let mut ann = place.first().client("ann").await;
        let mut again = place.last().client("ann").await;
        for room in ["quick/a", "lobby"] {
            ann.join(room).await;
            again.join(room).await;
            assert_eq!(kept_at(&mut ann, keyed(room)).await, 1, "{room}");
        }
        harness::within("the end of the short window", async {
            while kept_at(&mut again, keyed("quick/a")).await == 1 {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        let retried = kept_at(&mut again, keyed("lobby")).await;
        assert_eq!(retried, 1, "{}: the other class still knows it", place.kind());
    }
}

/// A member that sees each TLS record by itself.
async fn recorded(node: &Node, room: &str) -> Records {
    let mut records = Records::connect(node).await;
    let upgrade = node.socket().query_token(&node.token("witness")).bytes();
    records.send(&upgrade).await;
    records.hear(r#""type":"connected""#).await;
    let join = json!({"type": "join", "room": room}).to_string();
    records.send(&frames::text(&join)).await;
    records.hear(r#""type":"list""#).await;
    records.hear("}").await;
    records
}

#[tokio::test]
async fn a_flush_window_gathers_the_chats_of_its_class_and_delays_nothing_else() {
    const SAID: usize = 20;
    for runtime in ["per-core", "shared"] {
        let node = harness::node()
            .runtime(runtime)
            .class("slow/*", "flush_window = \"1s\"")
            .start()
            .await;
        let (mut slow, mut lobby) = (recorded(&node, "slow/a").await, recorded(&node, "lobby").await);
        let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
        bob.join("slow/a").await;
        slow.hear(r#""id":"bob""#).await;
        // A join does not wait, nor does a word of it to others.
        ann.join("slow/a").await;
        ann.join("lobby").await;
        slow.hear(r#""id":"ann""#).await;
        lobby.hear(r#""type":"join""#).await;
        let began = Instant::now();
        for content in 0..SAID {
            // The answers do not wait: each chat is said when the one before it is acknowledged.
            ann.chat("slow/a", format!("s{content}")).await;
            ann.chat("lobby", format!("l{content}")).await;
            lobby.hear(&format!("\"l{content}\"")).await;
        }
        let before = slow.with_data;
        slow.hear(&format!("\"s{}\"", SAID - 1)).await;
        let windows = began.elapsed().as_secs() as usize + 1;
        let records = slow.with_data - before;
        assert!(
            records <= windows,
            "{runtime}: {SAID} chats in {records} records, {windows} windows"
        );
        // In their order, each once.
        for seq in 1..=SAID {
            assert_eq!(bob.until("chat").await["seq"], seq);
        }
    }
}

#[tokio::test]
async fn a_list_comes_behind_the_chats_that_it_counts_though_those_were_to_wait() {
    let builder = || harness::node().class("slow/*", "flush_window = \"1s\"");
    for place in Place::each(builder).await {
        let mut ann = place.first().client("ann").await;
        let mut bob = place.last().client("bob").await;
        ann.join("slow/a").await;
        bob.join("slow/a").await;
        let mut at = 0;
        for round in 0..10 {
            ann.send(json!({"type": "chat", "room": "slow/a", "content": round}))
                .await;
            bob.send(json!({"type": "list", "room": "slow/a", "ref": round})).await;
            loop {
                let line = bob.message().await;
                match line["type"].as_str() {
                    Some("chat") => {
                        assert_eq!(line["seq"], at + 1, "{}", place.kind());
                        at += 1;
                    }
                    Some("list") => {
                        assert_eq!(line["seq"], at, "{}: all that it counts has come", place.kind());
                        break;
                    }
                    _ => {}
                }
            }
        }
        // Who leaves has heard what was said before, and hears nothing after it.
        ann.chat("slow/a", "last").await;
        bob.send(json!({"type": "leave", "room": "slow/a", "ref": "leave"}))
            .await;
        bob.until("ok").await;
        ann.chat("slow/a", "later").await;
        ann.find("the later one", |line| line["content"] == "later").await;
        let late: Vec<_> = bob
            .pending()
            .await
            .into_iter()
            .filter(|line| line["type"] == "chat")
            .collect();
        assert!(late.is_empty(), "{late:?}");
    }
}

#[tokio::test]
async fn members_and_rates_are_limited_by_class() {
    let node = harness::node()
        .set("limits.message_bytes", "1KiB")
        .class("small/*", "members = 1")
        .class("calm/*", "messages_per_second = 1")
        .class("thin/*", "bytes_per_second = \"1KiB\"")
        .start()
        .await;
    let (mut ann, mut bob) = (node.client("ann").await, node.client("bob").await);
    for room in ["small/a", "small/b", "lobby"] {
        ann.join(room).await;
    }
    assert_eq!(outcome(&mut bob, trial("join", "small/a").0).await, "room_full");
    bob.join("lobby").await;
    node.metric_reaches("conclave_refused_total", &[("limit", "room_members")], 1.0)
        .await;
    for (room, label, content) in [
        ("calm/a", "room_messages_per_second", json!("x")),
        ("thin/a", "room_bytes_per_second", json!("x".repeat(700))),
    ] {
        ann.join(room).await;
        let chat = |room: &str| frames::text(&json!({"type": "chat", "room": room, "content": content}).to_string());
        // At once, or a slow machine would keep to the rate.
        ann.send_bytes(&chat(room).repeat(5)).await;
        let refused = ann.until("error").await;
        assert_eq!(refused["code"], "rate_limited", "{refused}");
        assert!(refused["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
        node.metric_reaches("conclave_rate_limited_total", &[("limit", label)], 1.0)
            .await;
        // Rooms of other classes are as free as they were.
        ann.pending().await;
        ann.send_bytes(&chat("lobby").repeat(5)).await;
        let told = ann.pending().await;
        assert!(told.iter().all(|line| line["type"] == "chat"), "{told:?}");
    }
}

#[tokio::test]
async fn a_class_may_be_closed_to_guests() {
    let node = harness::node()
        .set("session.enabled", "true")
        .class("staff/*", "guests = false")
        .start()
        .await;
    let signed_in = node
        .ask("POST", "/session")
        .origin(ORIGIN)
        .header("Content-Type", "application/json")
        .body(r#"{"name":"Gus"}"#)
        .answer()
        .await;
    let cookie = signed_in.header("set-cookie").expect("a cookie").to_owned();
    let cookie = cookie.split(';').next().expect("its value").to_owned();
    let mut guest = node
        .socket()
        .origin(ORIGIN)
        .header("Cookie", &cookie)
        .open()
        .await
        .welcomed()
        .await;
    assert_eq!(outcome(&mut guest, trial("join", "staff/a").0).await, "forbidden");
    guest.join("lobby").await;
    node.client("ann").await.join("staff/a").await;
}

#[tokio::test]
async fn a_new_token_that_a_class_does_not_let_in_leaves_its_rooms() {
    let node = harness::node().class("vip/*", "join = \"granted\"").start().await;
    let mut ann = with_claim(&node, "ann", json!({"vip/*": ["*"], "lobby": ["*"]})).await;
    ann.join("vip/a").await;
    ann.join("lobby").await;
    let token = node.token("ann");
    ann.send(json!({"type": "auth", "token": token, "ref": 1})).await;
    let removed = ann.until("removed").await;
    assert_eq!(
        (&removed["room"], &removed["reason"]),
        (&json!("vip/a"), &json!("grant"))
    );
    assert_eq!(ann.chat("lobby", 1).await["type"], "ok");
}

#[tokio::test]
async fn the_old_name_of_the_table_still_holds() {
    let node = harness::node().set("rooms.users_shown", "3").start().await;
    assert_eq!(node.client("ann").await.welcome["limits"]["users_shown"], 3);
    node.logged("a warning", |line| line.to_string().contains("[rooms] is now [room]"))
        .await;
    let node = harness::node()
        .environment("CONCLAVE_ROOMS__USERS_SHOWN", "4")
        .start()
        .await;
    assert_eq!(node.client("ann").await.welcome["limits"]["users_shown"], 4);
    node.logged("a warning", |line| {
        line.to_string().contains("CONCLAVE_ROOM__USERS_SHOWN")
    })
    .await;
}
