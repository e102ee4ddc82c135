//! What the scripts of Redis leave behind when something goes wrong, by the names of what once went wrong.

use std::collections::BTreeSet;

use conclave::backplane::contract::{Found, Outcome, Position, Refusal, RoomKey};
use conclave::backplane::url::BackplaneUrl;
use conclave::config::Config;
use redis::Value;

use super::engines::{Engine, Kind, Servers, node};
use super::peer::{Peer, draft, keyed, neighbour, room, said};
use crate::harness::Redis;

/// One node on one server; the configuration too.
async fn alone() -> (Engine, Config, Peer) {
    let engine = Engine::start(Kind::Redis).await;
    let config = engine.config();
    let peer = Peer::start(node(&config)).await;
    (engine, config, peer)
}

fn server(engine: &Engine) -> &Redis {
    let Servers::Redis(server) = &engine.servers else {
        panic!("one server");
    };
    server
}

fn key(config: &Config, kind: &str, room: &RoomKey) -> String {
    format!(
        "{}:1:0:{{{}}}{kind}:{}",
        config.backplane.prefix, room.partition, room.name
    )
}

async fn say_many(peer: &Peer, room: &RoomKey, count: usize) -> Position {
    let mut last = None;
    for at in 0..count {
        last = Some(peer.say(room, &at.to_string()).await);
    }
    last.expect("something was said")
}

async fn found(peer: &Peer, room: &RoomKey, after: &Position) -> Found {
    peer.range(room, after, 128).await.expect("an answer").found
}

fn at(position: &Position, seq: u64) -> Position {
    Position {
        seq,
        ..position.clone()
    }
}

/// A server without an append-only file, which can be put back.
async fn rewindable() -> (Redis, Config) {
    let engine = Engine::start(Kind::Memory).await;
    let server = Redis::start().await;
    let mut config = engine.config();
    config.backplane.kind = conclave::config::BackplaneKind::Redis;
    config.backplane.kept = conclave::config::Kept::Async;
    config.backplane.url = BackplaneUrl::parse(&server.url()).expect("a URL of ours");
    (server, config)
}

#[tokio::test]
async fn a_lost_tail_whose_numbers_are_used_again_is_told_as_forked() {
    let (mut server, config) = rewindable().await;
    let peer = Peer::start(node(&config)).await;
    let lobby = room("lobby");
    let kept = say_many(&peer, &lobby, 95).await;
    let snapshot = server.snapshot().await;
    let lost = say_many(&peer, &lobby, 5).await;
    assert_eq!((kept.seq, lost.seq), (95, 100));
    server.put_back(&snapshot).await;

    let back = Peer::start(node(&config)).await;
    let newest = say_many(&back, &lobby, 7).await;
    assert_eq!(newest.seq, 102, "numbers go on where the log ends");
    assert_ne!(newest.epoch, lost.epoch);
    assert_eq!(found(&back, &lobby, &at(&lost, 98)).await, Found::Forked(95));
    assert_eq!(found(&back, &lobby, &lost).await, Found::Forked(95));
    let Found::Entries(entries) = found(&back, &lobby, &kept).await else {
        panic!("what was kept is good");
    };
    assert_eq!(entries.len(), 7);
    assert!(entries.iter().all(|entry| entry.position.epoch == newest.epoch));
}

#[tokio::test]
async fn a_restart_that_lost_nothing_is_not_noticed() {
    let (engine, config, peer) = alone().await;
    let lobby = room("lobby");
    let before = say_many(&peer, &lobby, 3).await;
    drop(peer);
    let Servers::Redis(mut server) = engine.servers else {
        panic!("one server")
    };
    server.kill();
    server.restart().await;
    let back = Peer::start(node(&config)).await;
    assert_eq!(found(&back, &lobby, &before).await, Found::Entries(vec![]));
    let after = back.say(&lobby, "on").await;
    assert_eq!(after.seq, 4);
    assert!(matches!(found(&back, &lobby, &before).await, Found::Entries(entries) if entries.len() == 1));
}

#[tokio::test]
async fn an_older_snapshot_put_back_is_told() {
    let (mut server, config) = rewindable().await;
    let peer = Peer::start(node(&config)).await;
    let lobby = room("lobby");
    say_many(&peer, &lobby, 30).await;
    let snapshot = server.snapshot().await;
    let later = say_many(&peer, &lobby, 10).await;
    server.put_back(&snapshot).await;
    let back = Peer::start(node(&config)).await;
    assert_eq!(found(&back, &lobby, &later).await, Found::Forked(30));
    let heads = back.heads(std::slice::from_ref(&lobby)).await.expect("an answer");
    assert_eq!(heads[0].as_ref().map(|head| head.position.seq), Some(30));
}

#[tokio::test]
async fn a_room_called_brace_x_has_a_slot_like_any_other() {
    let (_engine, _, peer) = alone().await;
    for name in ["}x", "{a}b", "{}", "a}c:b"] {
        let room = room(name);
        peer.attach(&room).await.expect("attached");
        let place = peer.say(&room, name).await;
        assert_eq!(said(&peer.heard.message_at(&room, &place).await), name);
    }
}

#[tokio::test]
async fn two_databases_do_not_hear_each_other() {
    let (engine, config, zero) = alone().await;
    let mut other = config.clone();
    other.backplane.url = BackplaneUrl::parse(&format!("{}/5", server(&engine).url())).expect("a URL of ours");
    let five = Peer::start(node(&other)).await;
    let lobby = room("lobby");
    for peer in [&zero, &five] {
        peer.attach(&lobby).await.expect("attached");
    }
    zero.say(&lobby, "in zero").await;
    let own = five.say(&lobby, "in five").await;
    assert_eq!(own.seq, 1);
    five.heard.message_at(&lobby, &own).await;
    assert_eq!(five.heard.read(|log| log.distinct(&lobby).len()), 1);
}

#[tokio::test]
async fn noscript_in_mid_stream_keeps_the_senders_order() {
    let (engine, _, peer) = alone().await;
    let server = server(&engine);
    let (lobby, busy) = (room("lobby"), room("busy"));
    peer.attach(&lobby).await.expect("attached");
    let mut wanted = Vec::new();
    for round in 0..40 {
        let batch: Vec<_> = (0..3).map(|at| format!("{round}.{at}")).collect();
        let drafts: Vec<_> = batch.iter().map(|text| draft("ann", text)).collect();
        wanted.extend(batch);
        // Another room's calls on the same link, and scripts forgotten between any two of them.
        let (outcomes, _, _) = tokio::join!(
            peer.publish_all(&lobby, &drafts),
            server.cli(&["SCRIPT", "FLUSH"]),
            peer.say(&busy, "x"),
        );
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Outcome::New(_))),
            "{outcomes:?}"
        );
    }
    let opened = peer.attach(&lobby).await.expect("attached");
    let start = Position {
        epoch: opened.lineage.epoch(),
        seq: 0,
    };
    let said: Vec<_> = peer.all_after(&lobby, &start).await.iter().map(said).collect();
    assert_eq!(said, wanted);
}

async fn refused(peer: &Peer, room: &RoomKey, why: Refusal) {
    let drafts = [draft("ann", "a"), keyed("ann", "k", "b")];
    let outcomes = peer.publish_all(room, &drafts).await;
    assert_eq!(outcomes, vec![Outcome::Refused(why); 2]);
}

#[tokio::test]
async fn oom_misconf_noreplicas_and_wrongtype_leave_no_hole() {
    let (engine, config, peer) = alone().await;
    let (server, lobby) = (server(&engine), room("lobby"));
    let before = say_many(&peer, &lobby, 3).await;

    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    refused(&peer, &lobby, Refusal::Full).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;

    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    refused(&peer, &lobby, Refusal::Unsafe).await;
    server.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;

    // A snapshot that cannot be written: its name is that of a folder.
    std::fs::create_dir(server.folder().join("dump.rdb")).expect("a folder");
    server.cli(&["CONFIG", "SET", "save", "3600 1000000"]).await;
    let _ = server.ask(&["SAVE"]).await;
    let _ = server.ask(&["BGSAVE"]).await;
    server
        .until(&["INFO", "persistence"], |info| {
            let Value::BulkString(text) = info else { return false };
            String::from_utf8_lossy(text).contains("rdb_last_bgsave_status:err")
        })
        .await;
    refused(&peer, &lobby, Refusal::Unsafe).await;
    server
        .cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"])
        .await;

    let log = key(&config, "l", &lobby);
    server.cli(&["RENAME", &log, "aside"]).await;
    server.cli(&["SET", &log, "of somebody else"]).await;
    refused(&peer, &lobby, Refusal::Broken).await;
    server.cli(&["RENAME", "aside", &log]).await;

    let after = peer.publish_one(&lobby, keyed("ann", "k", "b")).await;
    assert_eq!(
        after,
        Outcome::New(at(&before, 4)),
        "no number was used up, no key taken"
    );
}

#[tokio::test]
async fn flushall_begins_another_epoch() {
    let (engine, _, peer) = alone().await;
    let lobby = room("lobby");
    let before = say_many(&peer, &lobby, 3).await;
    server(&engine).cli(&["FLUSHALL"]).await;
    assert_eq!(found(&peer, &lobby, &before).await, Found::None);
    assert_eq!(peer.heads(std::slice::from_ref(&lobby)).await, Ok(vec![None]));
    let after = peer.say(&lobby, "first").await;
    assert_eq!(after.seq, 1);
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(found(&peer, &lobby, &before).await, Found::Unknown);
}

#[tokio::test]
async fn an_evicted_hash_is_another_epoch_and_an_evicted_log_is_trimmed() {
    let (engine, config, peer) = alone().await;
    let (server, lobby) = (server(&engine), room("lobby"));
    let before = say_many(&peer, &lobby, 5).await;
    server.cli(&["DEL", &key(&config, "l", &lobby)]).await;
    assert_eq!(
        found(&peer, &lobby, &at(&before, 2)).await,
        Found::Trimmed(before.clone())
    );
    assert_eq!(found(&peer, &lobby, &before).await, Found::Entries(vec![]));
    let next = peer.say(&lobby, "six").await;
    assert_eq!(next, at(&before, 6));
    assert!(matches!(found(&peer, &lobby, &before).await, Found::Entries(entries) if entries.len() == 1));

    server.cli(&["DEL", &key(&config, "m", &lobby)]).await;
    assert_eq!(found(&peer, &lobby, &before).await, Found::None);
    let fresh = peer.say(&lobby, "one").await;
    assert_eq!(fresh.seq, 1);
    assert_ne!(fresh.epoch, before.epoch);
    assert_eq!(found(&peer, &lobby, &before).await, Found::Unknown);
    let page = peer.before(&lobby, 10, 10).await.expect("a page");
    assert_eq!(
        page.entries.iter().map(said).collect::<Vec<_>>(),
        ["one"],
        "nothing of the old log"
    );
}

#[tokio::test]
async fn a_dropped_wake_up_with_nothing_after_it_is_found_by_heads() {
    let (engine, config, peer) = alone().await;
    let (server, lobby) = (server(&engine), room("lobby"));
    peer.attach(&lobby).await.expect("attached");
    let heard = peer.say(&lobby, "heard").await;
    peer.heard.message_at(&lobby, &heard).await;
    // What a publish leaves behind when its wake-up is lost.
    let entry = format!("{} 2 {} {{}}", heard.epoch, 1_700_000_000_000_u64);
    server.cli(&["RPUSH", &key(&config, "l", &lobby), &entry]).await;
    server.cli(&["HSET", &key(&config, "m", &lobby), "s", "2"]).await;
    let other = neighbour(&lobby);
    peer.attach(&other).await.expect("attached");
    let marker = peer.say(&other, "later").await;
    peer.heard.message_at(&other, &marker).await;
    assert_eq!(peer.heard.read(|log| log.distinct(&lobby).len()), 1, "it was not told");
    let heads = peer.heads(&[lobby.clone(), other]).await.expect("an answer");
    let seqs: Vec<_> = heads.iter().flatten().map(|head| head.position.seq).collect();
    assert_eq!(seqs, [2, 1]);
}

#[tokio::test]
async fn a_key_twice_in_one_batch_is_one_message() {
    let (_engine, _, peer) = alone().await;
    let lobby = room("lobby");
    let drafts = [
        keyed("ann", "k", "first"),
        draft("ann", "between"),
        keyed("ann", "k", "again"),
    ];
    let outcomes = peer.publish_all(&lobby, &drafts).await;
    let [Outcome::New(first), Outcome::New(second), Outcome::Again(again)] = &outcomes[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!((first, second.seq), (again, 2));
}

#[tokio::test]
async fn a_log_holds_no_more_bytes_than_it_may() {
    let engine = Engine::start(Kind::Redis).await;
    let mut config = engine.config();
    config.history.bytes = 4 * 1_024;
    let peer = Peer::start(node(&config)).await;
    let (lobby, text) = (room("lobby"), "x".repeat(500));
    let last = {
        let mut last = None;
        for _ in 0..40 {
            last = Some(peer.say(&lobby, &text).await);
        }
        last.expect("said")
    };
    let log = key(&config, "l", &lobby);
    let Value::Array(entries) = server(&engine).cli(&["LRANGE", &log, "0", "-1"]).await else {
        panic!("a list");
    };
    let sizes = entries.iter().map(|entry| match entry {
        Value::BulkString(bytes) => bytes.len(),
        other => panic!("{other:?}"),
    });
    let bytes: usize = sizes.sum();
    assert!(
        bytes <= 4 * 1_024 && entries.len() >= 6,
        "{bytes} bytes in {}",
        entries.len()
    );
    let counted = server(&engine).text(&["HGET", &key(&config, "m", &lobby), "b"]).await;
    assert_eq!(counted, bytes.to_string());
    let first = last.seq - entries.len() as u64;
    assert_eq!(
        found(&peer, &lobby, &at(&last, 0)).await,
        Found::Trimmed(at(&last, first))
    );
}

#[tokio::test]
async fn positions_of_sixteen_servers_are_known_and_no_more() {
    let (mut server, config) = rewindable().await;
    let lobby = room("lobby");
    let mut places = Vec::new();
    for _ in 0..18 {
        let peer = Peer::start(node(&config)).await;
        places.push(peer.say(&lobby, "one more").await);
        let snapshot = server.snapshot().await;
        drop(peer);
        server.put_back(&snapshot).await;
    }
    let peer = Peer::start(node(&config)).await;
    let epochs: BTreeSet<_> = places.iter().map(|place| place.epoch.clone()).collect();
    assert_eq!(epochs.len(), 18, "each server has numbered one");
    assert_eq!(found(&peer, &lobby, &places[1]).await, Found::Unknown);
    assert!(matches!(found(&peer, &lobby, &places[2]).await, Found::Entries(entries) if entries.len() == 15));
}
