//! Nobody notices a probe: no member of the room, no history, no metric of clients.

use std::collections::BTreeMap;

use serde_json::json;

use super::{claims, probe_node};
use crate::harness::{self, Node, token};

/// What a probe moves: how connections come in (nobody can know whose they are before the token is read), its own
/// counter, and the work that the node does for whatever connection.
const MAY_CHANGE: [&str; 8] = [
    "conclave_handshakes_total",
    "conclave_tls_handshake_duration_seconds",
    "conclave_probe_sessions_total",
    "conclave_flushes_total",
    "conclave_upkeep_timestamp_seconds",
    "conclave_backplane_",
    "conclave_handshake",
    "conclave_admission",
];

/// Every sample of ours but those of [`MAY_CHANGE`].
async fn counted(node: &Node) -> BTreeMap<String, String> {
    let text = node.admin("/metrics").await.body;
    let ours = text.lines().filter(|line| line.starts_with("conclave_"));
    let kept = ours.filter(|line| !MAY_CHANGE.iter().any(|name| line.starts_with(name)));
    kept.filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn a_probe_is_in_no_list_no_history_and_no_metric_of_clients() {
    let node = harness::node().set("heartbeat.interval", "10m").start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    ann.chat("lobby", "before").await;
    assert_eq!(ann.pending().await, Vec::<serde_json::Value>::new(), "all is said");
    let before = counted(&node).await;
    for _ in 0..3 {
        probe_node(&node, &claims(), &["--room", "lobby"]).await.passes();
    }
    node.metric_reaches("conclave_probe_sessions_total", &[], 3.0).await;
    assert_eq!(counted(&node).await, before);
    assert_eq!(
        ann.pending().await,
        Vec::<serde_json::Value>::new(),
        "nothing came to her"
    );
    let list = ann.ask(json!({"type": "list", "room": "lobby"})).await;
    assert_eq!((&list["count"], &list["seq"]), (&json!(1), &json!(1)), "{list}");
    let history = ann.ask(json!({"type": "history", "room": "lobby"})).await;
    assert_eq!(history["messages"].as_array().unwrap().len(), 1, "{history}");
}

#[tokio::test]
async fn an_ordinary_token_is_noticed_and_the_probe_says_so() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    ann.join("lobby").await;
    let probed = probe_node(&node, &token::claims("watch"), &["--room", "lobby"]).await;
    probed.passes();
    assert!(probed.err.contains("note: this token is no probe's"), "{}", probed.err);
    assert_eq!(ann.until("join").await["user"]["id"], "watch");
    assert!(ann.until("chat").await["content"]["probe"].is_string());
    assert_eq!(ann.until("left").await["user"]["id"], "watch");
}

#[tokio::test]
async fn nobody_gets_into_a_probes_room_and_a_probe_gets_nowhere_else() {
    let node = harness::node().start().await;
    let mut ann = node.client("ann").await;
    let mut probe = node.client_with(&claims()).await;
    let list = probe.join("lobby").await;
    assert_eq!((&list["room"], &list["count"]), (&json!("lobby"), &json!(1)), "{list}");
    for name in ["\u{2}lobby", "\u{1}canary", "\u{2}"] {
        let refused = ann.ask(json!({"type": "join", "room": name})).await;
        assert_eq!(refused["code"], "bad_room", "{refused}");
        let refused = probe.ask(json!({"type": "join", "room": name})).await;
        assert_eq!(refused["code"], "bad_room", "{refused}");
    }
    // A token of the other sort changes nothing.
    let (mut to_user, mut to_probe) = (token::claims("probe"), claims());
    to_probe["sub"] = json!("ann");
    to_user["probe"] = json!(false);
    for (client, claims) in [(&mut probe, to_user), (&mut ann, to_probe)] {
        let refused = client.ask(json!({"type": "auth", "token": token::sign(&claims)})).await;
        assert_eq!(
            (&refused["code"], &refused["reason"]),
            (&json!("forbidden"), &json!("token_malformed")),
            "{refused}"
        );
    }
    let ok = probe
        .ask(json!({"type": "auth", "token": token::sign(&claims())}))
        .await;
    assert_eq!(ok["type"], "ok", "{ok}");
    // Its room is one of its own, and so are its history and its way out.
    ann.join("lobby").await;
    probe
        .send(json!({"type": "chat", "room": "lobby", "content": "for nobody"}))
        .await;
    assert_eq!(probe.until("chat").await["room"], "lobby");
    let history = probe.ask(json!({"type": "history", "room": "lobby"})).await;
    assert_eq!(history["messages"][0]["content"], "for nobody");
    ann.send(json!({"type": "chat", "room": "lobby", "content": "for the room"}))
        .await;
    assert_eq!(ann.until("chat").await["content"], "for the room");
    let left = probe.ask(json!({"type": "leave", "room": "lobby"})).await;
    assert_eq!(left["type"], "ok", "{left}");
    assert_eq!(probe.pending().await, Vec::<serde_json::Value>::new());
    assert_eq!(ann.pending().await, Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn limits_and_revocations_are_a_probes_too() {
    let node = harness::node().set("limits.rooms_per_connection", "1").start().await;
    let mut probe = node.client_with(&claims()).await;
    probe.join("lobby").await;
    let refused = probe.ask(json!({"type": "join", "room": "attic"})).await;
    assert_eq!(refused["code"], "too_many_rooms", "{refused}");
    let mut limited = claims();
    limited["rooms"] = json!({"attic": ["*"]});
    let mut probe = node.client_with(&limited).await;
    let refused = probe.ask(json!({"type": "join", "room": "lobby"})).await;
    assert_eq!(
        refused["code"], "forbidden",
        "grants are those of the named room: {refused}"
    );
}
