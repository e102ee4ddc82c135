//! Links to Redis that look alive and are not, and what a node does about them.

use std::time::Duration;

use conclave::backplane::contract::{Found, Outcome, Position, RoomKey};
use conclave::backplane::url::BackplaneUrl;
use conclave::config::{BackplaneKind, Config, Kept, default_config};
use conclave::runtime::Tasks;
use std::sync::Arc;

use super::engines::{Engine, Kind, Servers, node};
use super::peer::{Heard, LONG, Peer, draft, eventually, keyed, neighbour, room, said};
use crate::harness::{Redis, RedisCluster, Sentinels, Tamper, Wire, redis};

/// Quick to notice, as in production.
fn config(url: &str) -> Config {
    let mut config = default_config();
    config.backplane.kind = BackplaneKind::Redis;
    config.backplane.kept = Kept::Async;
    config.backplane.url = BackplaneUrl::parse(url).expect("a URL of ours");
    config
}

/// Waits until a peer was told to compare its rooms once more than before.
async fn suspected_again(peer: &Peer, before: usize) {
    peer.heard
        .until("a suspicion", |log| {
            (log.suspects.len() > before && log.up).then_some(())
        })
        .await;
}

fn suspicions(peer: &Peer) -> usize {
    peer.heard.read(|log| log.suspects.len())
}

/// A message of `from` reaches `to` by its wake-up.
async fn flows(from: &Peer, to: &Peer, room: &RoomKey) -> Position {
    let place = eventually("a message taken", async || {
        match from.publish(room, &[draft("ann", "on")], LONG).await.remove(0) {
            Outcome::New(place) => Some(place),
            _ => None,
        }
    })
    .await;
    to.heard.message_at(room, &place).await;
    place
}

#[tokio::test]
async fn a_killed_subscriber_link_takes_up_every_room_and_says_so() {
    let server = Redis::start().await;
    let config = config(&server.url());
    let (peer, other) = (Peer::start(node(&config)).await, Peer::start(node(&config)).await);
    let rooms: Vec<_> = (0..1_200).map(|at| room(&format!("room {at}"))).collect();
    let plane = &peer;
    let attached = rooms.chunks(100).map(|some| async move {
        for room in some {
            plane.attach(room).await.expect("attached");
        }
    });
    futures_util::future::join_all(attached).await;
    peer.detach(&rooms[7]).await;
    let before = suspicions(&peer);
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    suspected_again(&peer, before).await;
    for room in [&rooms[0], &rooms[600], &rooms[1_199]] {
        flows(&other, &peer, room).await;
    }
    other.say(&rooms[7], "unheard").await;
    let beside = neighbour(&rooms[7]);
    peer.attach(&beside).await.expect("attached");
    flows(&other, &peer, &beside).await;
    assert_eq!(
        peer.heard.read(|log| log.distinct(&rooms[7]).len()),
        0,
        "it was left before"
    );
}

#[tokio::test]
async fn a_killed_command_link_is_made_anew() {
    let server = Redis::start().await;
    let config = config(&server.url());
    let peer = Peer::start(node(&config)).await;
    let lobby = room("lobby");
    peer.attach(&lobby).await.expect("attached");
    let before = suspicions(&peer);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    suspected_again(&peer, before).await;
    flows(&peer, &peer, &lobby).await;
}

#[tokio::test]
async fn a_subscriber_link_does_not_stay_on_a_demoted_master() {
    let (server, other) = (Redis::start().await, Redis::start().await);
    let config = config(&server.url());
    let peer = Peer::start(node(&config)).await;
    let lobby = room("lobby");
    peer.attach(&lobby).await.expect("attached");
    let before = suspicions(&peer);
    server.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    peer.heard.until("its loss", |log| (!log.up).then_some(())).await;
    let outcomes = peer.publish(&lobby, &[draft("ann", "x")], LONG).await;
    assert!(matches!(outcomes[0], Outcome::Refused(_)), "{outcomes:?}");
    server.cli(&["REPLICAOF", "NO", "ONE"]).await;
    suspected_again(&peer, before).await;
    flows(&peer, &peer, &lobby).await;
}

#[tokio::test]
async fn a_frozen_server_is_away_and_comes_back() {
    let server = redis().aof("always").start().await;
    let peer = Peer::start(node(&config(&server.url()))).await;
    let lobby = room("lobby");
    peer.attach(&lobby).await.expect("attached");
    let before = suspicions(&peer);
    server.freeze();
    let outcomes = peer.publish(&lobby, &[keyed("ann", "k", "x")], LONG).await;
    assert_eq!(outcomes, [Outcome::Unknown], "nobody knows");
    peer.heard.until("its loss", |log| (!log.up).then_some(())).await;
    server.thaw();
    suspected_again(&peer, before).await;
    let place = eventually("the outcome of a retry", async || {
        match peer.publish(&lobby, &[keyed("ann", "k", "x")], LONG).await.remove(0) {
            Outcome::New(place) | Outcome::Again(place) => Some(place),
            _ => None,
        }
    })
    .await;
    assert_eq!(place.seq, 1, "once");
}

#[tokio::test]
async fn a_node_starts_while_redis_is_away() {
    let mut server = redis().aof("always").start().await;
    let config = config(&server.url());
    server.kill();
    let peer = Peer::begin(node(&config)).await;
    assert!(!peer.heard.read(|log| log.up));
    assert!(peer.attach(&room("lobby")).await.is_err());
    server.restart().await;
    peer.heard.until("a link", |log| log.up.then_some(())).await;
    peer.attach(&room("lobby")).await.expect("attached");
    flows(&peer, &peer, &room("lobby")).await;
}

/// What a node says that cannot start.
async fn refusal(config: &Config) -> String {
    let tasks = Tasks::default();
    let started = node(config).start(Arc::new(Heard::default()), &tasks).await;
    tasks.stop_services();
    started.expect_err("it cannot work like this").to_string()
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_the_remedy() {
    let mut server = Redis::start().await;
    let mut config = config(&server.url());

    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let said = refusal(&config).await;
    assert!(said.contains("allkeys-lru") && said.contains("noeviction"), "{said}");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;

    config.backplane.kept = Kept::Disk;
    let said = refusal(&config).await;
    assert!(said.contains("appendfsync always"), "{said}");
    config.backplane.kept = Kept::Replica;
    let said = refusal(&config).await;
    assert!(said.contains("min-replicas-to-write 1"), "{said}");
    config.backplane.kept = Kept::Async;

    server.cli(&["SET", "conclave:0:{ctl}layout", "9"]).await;
    let said = refusal(&config).await;
    assert!(said.contains("layout 9") && said.contains("backplane.prefix"), "{said}");
    server.cli(&["DEL", "conclave:0:{ctl}layout"]).await;

    let words = [
        "ACL",
        "SETUSER",
        "rooms",
        "reset",
        "on",
        ">secret",
        "~conclave:*",
        "resetchannels",
        "+@all",
    ];
    server.cli(&words).await;
    server.lock("of the operator").await;
    let port = server.port();
    config.backplane.url = BackplaneUrl::parse(&format!("redis://rooms:secret@127.0.0.1:{port}")).expect("a URL");
    let said = refusal(&config).await;
    assert!(said.contains("channels") && said.contains("&conclave:*"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_thawed_master_has_nobody_and_keeps_nothing() {
    let sentinels = Sentinels::with(|server| {
        server
            .option("min-replicas-to-write", "1")
            .option("min-replicas-max-lag", "3")
    })
    .await;
    let mut config = config(&sentinels.url());
    config.backplane.kept = Kept::Replica;
    let peer = Peer::start(node(&config)).await;
    let lobby = room("lobby");
    peer.attach(&lobby).await.expect("attached");
    let mut acknowledged = vec![peer.say(&lobby, "before").await];
    let old = sentinels.master().await;
    sentinels.servers[old].freeze();
    sentinels.promoted(1 - old).await;
    let before = suspicions(&peer);
    sentinels.servers[old].thaw();
    // The only replica was promoted: nothing is acknowledged before the old master follows it.
    let mut number = 0;
    while acknowledged.len() < 20 {
        number += 1;
        let text = number.to_string();
        let place = eventually("an acknowledgement", async || {
            match peer
                .publish(&lobby, &[keyed("ann", &text, &text)], LONG)
                .await
                .remove(0)
            {
                Outcome::New(place) | Outcome::Again(place) => Some(place),
                _ => None,
            }
        })
        .await;
        acknowledged.push(place);
    }
    assert!(suspicions(&peer) > before || !peer.heard.read(|log| log.suspects.is_empty()));
    let start = Position {
        seq: 0,
        ..acknowledged[0].clone()
    };
    let kept = peer.all_after(&lobby, &start).await;
    let places: Vec<_> = kept.iter().map(|entry| entry.position.clone()).collect();
    assert!(
        acknowledged.iter().all(|place| places.contains(place)),
        "{acknowledged:?} in {places:?}"
    );
    let mut texts: Vec<_> = kept.iter().map(said).collect();
    let all = texts.len();
    texts.dedup();
    assert_eq!(texts.len(), all, "each once");
    flows(&peer, &peer, &lobby).await;
}

#[tokio::test]
async fn an_orderly_failover_is_noticed_by_nobody() {
    let sentinels = Sentinels::start().await;
    let peer = Peer::start(node(&config(&sentinels.url()))).await;
    let lobby = room("lobby");
    peer.attach(&lobby).await.expect("attached");
    let before = peer.say(&lobby, "before").await;
    let told = suspicions(&peer);
    sentinels.fail_over().await;
    suspected_again(&peer, told).await;
    let after = flows(&peer, &peer, &lobby).await;
    assert_eq!(after.seq, 2);
    let range = eventually("a range", async || peer.range(&lobby, &before, 10).await.ok()).await;
    assert!(matches!(range.found, Found::Entries(entries) if entries.len() == 1));
}

#[tokio::test]
async fn a_frozen_replica_holds_up_acknowledgements_and_nothing_else() {
    let sentinels = Sentinels::start().await;
    let (master, replica) = (&sentinels.servers[0], &sentinels.servers[1]);
    master.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let mut config = config(&master.url());
    config.backplane.kept = Kept::Replica;
    config.backplane.wait_timeout = Duration::from_millis(200);
    let peer = Peer::start(node(&config)).await;
    let lobby = room("lobby");
    peer.say(&lobby, "acknowledged").await;
    replica.freeze();
    let outcomes = peer.publish(&lobby, &[keyed("ann", "k", "x")], LONG).await;
    assert_eq!(outcomes, [Outcome::Unknown]);
    // The command link has waited for nothing.
    assert!(peer.heard.read(|log| log.up));
    assert!(peer.attach(&lobby).await.is_ok());
    replica.thaw();
    sentinels.follows(1).await;
    let outcome = eventually("an acknowledgement", async || {
        match peer.publish(&lobby, &[keyed("ann", "k", "x")], LONG).await.remove(0) {
            Outcome::Again(place) => Some(place),
            _ => None,
        }
    })
    .await;
    assert_eq!(outcome.seq, 2, "kept once, and now by a replica too");
}

#[tokio::test]
async fn a_slot_that_moves_under_load_loses_and_doubles_nothing() {
    let cluster = RedisCluster::start().await;
    let config = config(&cluster.url());
    let (peer, other) = (Peer::start(node(&config)).await, Peer::start(node(&config)).await);
    let lobby = room("lobby");
    let rooms = [lobby.clone(), neighbour(&lobby), room("elsewhere"), room("far away")];
    for room in &rooms {
        peer.attach(room).await.expect("attached");
    }
    let slot = cluster.slot_of(&format!("{{{}}}", lobby.partition)).await;
    let from = cluster.owner(slot).await;
    let load = async {
        for number in 0..200 {
            let text = number.to_string();
            for room in &rooms {
                eventually("an acknowledgement", async || {
                    match other.publish(room, &[keyed("ann", &text, &text)], LONG).await.remove(0) {
                        Outcome::New(place) | Outcome::Again(place) => Some(place),
                        _ => None,
                    }
                })
                .await;
            }
        }
    };
    let moving = async {
        for to in [(from + 1) % 3, (from + 2) % 3, from] {
            let owner = cluster.owner(slot).await;
            cluster.move_slot(slot, owner, to).await;
            cluster.agreed(slot, to).await;
        }
    };
    tokio::join!(load, moving);
    let wanted: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    for room in &rooms {
        let opened = eventually("a room", async || peer.attach(room).await.ok()).await;
        let epoch = opened.lineage.epoch_of(1);
        let kept = peer.all_after(room, &Position { epoch, seq: 0 }).await;
        assert_eq!(kept.iter().map(said).collect::<Vec<_>>(), wanted, "{}", room.name);
        flows(&other, &peer, room).await;
    }
}

#[tokio::test]
async fn one_url_of_a_cluster_finds_the_others() {
    let engine = Engine::start(Kind::Cluster).await;
    let Servers::Cluster(cluster) = &engine.servers else {
        panic!("a cluster")
    };
    let peer = Peer::start(node(&config(&cluster.masters[1].url()))).await;
    for name in ["a", "b", "c", "d", "e", "f"] {
        peer.attach(&room(name)).await.expect("attached");
        flows(&peer, &peer, &room(name)).await;
    }
    let heads = peer
        .heads(&["a", "b", "c", "d", "e", "f"].map(room))
        .await
        .expect("heads");
    assert!(
        heads
            .iter()
            .all(|head| head.as_ref().is_some_and(|head| head.position.seq == 1))
    );
}

/// A peer whose wires can be tampered with, one that is left alone, and a room that both are in.
async fn wired(server: &Redis) -> (Wire, Peer, Peer, RoomKey) {
    let wire = Wire::to(server.port()).await;
    let peer = Peer::start(node(&config(&wire.url()))).await;
    let other = Peer::start(node(&config(&server.url()))).await;
    let lobby = room("lobby");
    peer.attach(&lobby).await.expect("attached");
    (wire, peer, other, lobby)
}

/// What a tampered link did not bring is said to be suspect, and what comes later comes.
async fn heals(wire: &Wire, tamper: Tamper, peer: &Peer, other: &Peer, lobby: &RoomKey) {
    let before = suspicions(peer);
    wire.tamper(tamper);
    let missed = other.say(lobby, "missed").await;
    suspected_again(peer, before).await;
    let heads = peer.heads(std::slice::from_ref(lobby)).await.expect("heads");
    assert_eq!(heads[0].as_ref().map(|head| &head.position), Some(&missed));
    flows(other, peer, lobby).await;
}

#[tokio::test]
async fn a_subscriber_link_that_hangs_is_made_anew() {
    let server = Redis::start().await;
    let (wire, peer, other, lobby) = wired(&server).await;
    heals(&wire, Tamper::Hold, &peer, &other, &lobby).await;
}

#[tokio::test]
async fn a_subscriber_link_that_answers_and_brings_no_message_is_found_by_the_canary() {
    let server = Redis::start().await;
    let (wire, peer, other, lobby) = wired(&server).await;
    heals(&wire, Tamper::Deaf, &peer, &other, &lobby).await;
    assert!(wire.dropped() >= 3, "canaries and a message");
}

#[tokio::test]
async fn a_subscription_that_ended_unasked_makes_the_link_anew() {
    let server = Redis::start().await;
    let (wire, peer, other, lobby) = wired(&server).await;
    let channel = format!("conclave:1:0:{{{}}}c:lobby", lobby.partition);
    let ended = format!(">3\r\n$12\r\nsunsubscribe\r\n${}\r\n{channel}\r\n:0\r\n", channel.len());
    heals(&wire, Tamper::Inject(ended.into_bytes()), &peer, &other, &lobby).await;
}
