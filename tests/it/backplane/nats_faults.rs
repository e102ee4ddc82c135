//! What NATS does to rooms when it stops, forgets, or says nothing.

use std::sync::Arc;
use std::time::Duration;

use conclave::backplane::contract::{Found, Outcome, Position, Refusal, Renewal};
use conclave::backplane::nats::Nats;
use conclave::backplane::url::BackplaneUrl;
use conclave::config::{Config, Kept, default_config};
use conclave::runtime::Tasks;
use conclave::telemetry::metrics::{BuildInfo, Metrics};

use super::peer::{Heard, LONG, Peer, draft, enters, eventually, keyed, life, room, said};
use crate::harness::{NatsServer, within};

fn config(server: &NatsServer) -> Config {
    let mut config = default_config();
    config.backplane.url = BackplaneUrl::parse(&server.url()).expect("a URL");
    config
}

fn engine(config: &Config) -> Arc<Nats> {
    let build = BuildInfo {
        version: "0",
        revision: "test",
        rustc: "test",
        backplane: "nats",
    };
    Nats::new(config, Metrics::install(build)).expect("a prefix that NATS has")
}

async fn pair(server: &NatsServer) -> [Peer; 2] {
    let config = config(server);
    [Peer::start(engine(&config)).await, Peer::start(engine(&config)).await]
}

/// Says something until it is taken.
async fn say(peer: &Peer, name: &str, content: &str) -> Position {
    let room = room(name);
    eventually("a message to be taken", async || {
        match peer.publish_one(&room, keyed("ann", content, content)).await {
            Outcome::New(place) | Outcome::Again(place) => Some(place),
            Outcome::Refused(_) | Outcome::Unknown => None,
        }
    })
    .await
}

async fn found(peer: &Peer, name: &str, after: &Position) -> Found {
    let room = room(name);
    eventually("an answer", async || peer.range(&room, after, 100).await.ok())
        .await
        .found
}

fn contents(found: &Found) -> Vec<String> {
    match found {
        Found::Entries(entries) => entries.iter().map(said).collect(),
        other => panic!("{other:?}"),
    }
}

/// How often all rooms were doubted: after each new link.
fn doubts(peer: &Peer) -> usize {
    peer.heard.read(|log| log.suspects.len())
}

async fn doubted(heard: &Heard, before: usize) {
    heard
        .until("doubt", |log| (log.up && log.suspects.len() > before).then_some(()))
        .await;
}

/// Whatever a restart did not lose goes on: the numbers, every position, and what is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_lost_nothing_is_not_noticed() {
    let mut server = NatsServer::start().await;
    let [a, b] = pair(&server).await;
    let lobby = room("lobby");
    b.attach(&lobby).await.unwrap();
    let mut places = Vec::new();
    for at in 0..5 {
        places.push(a.say(&lobby, &at.to_string()).await);
    }
    let before = doubts(&b);
    server.kill();
    for node in [&a, &b] {
        node.heard
            .until("the end of the link", |log| (!log.up).then_some(()))
            .await;
    }
    assert_eq!(
        a.publish_one(&lobby, draft("ann", "lost")).await,
        Outcome::Refused(Refusal::Away)
    );
    server.restart().await;
    doubted(&b.heard, before).await;
    let heads = b.heads(std::slice::from_ref(&lobby)).await.unwrap();
    assert_eq!(heads[0].as_ref().map(|head| &head.position), places.last());
    let next = say(&a, "lobby", "next").await;
    assert_ne!(next.epoch, places[4].epoch, "another start of the server");
    assert_eq!(contents(&found(&b, "lobby", &places[1]).await), ["2", "3", "4", "next"]);
    assert_eq!(b.heard.message_at(&lobby, &next).await.follows, places[4].seq);
}

/// A lost tail whose numbers are used again: the position of one who has the tail is forked, not good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_told_though_its_numbers_are_used_again() {
    let mut server = NatsServer::start().await;
    let [a, b] = pair(&server).await;
    let lobby = room("lobby");
    b.attach(&lobby).await.unwrap();
    let mut kept = Vec::new();
    for at in 0..5 {
        kept.push(a.say(&lobby, &at.to_string()).await);
    }
    let copy = server.snapshot().await;
    let mut lost = Vec::new();
    for at in 5..8 {
        lost.push(say(&a, "lobby", &at.to_string()).await);
    }
    let before = doubts(&b);
    server.put_back(&copy).await;
    let mut new = Vec::new();
    for at in 0..6 {
        new.push(say(&a, "lobby", &format!("new {at}")).await);
    }
    assert!(
        new.iter().any(|place| place.seq == lost[2].seq),
        "{new:?} after {lost:?}"
    );
    doubted(&b.heard, before).await;
    assert_eq!(
        found(&b, "lobby", &lost[2]).await,
        Found::Unknown,
        "its epoch is lost with it"
    );
    let all: Vec<_> = ["3", "4"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..6).map(|at| format!("new {at}")))
        .collect();
    assert_eq!(contents(&found(&b, "lobby", &kept[2]).await), all);
}

/// The same server goes on without what it had: as a leader does that was voted in without the tail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_its_newest_messages_is_found_by_the_canary() {
    let server = NatsServer::start().await;
    let [a, b] = pair(&server).await;
    let lobby = room("lobby");
    b.attach(&lobby).await.unwrap();
    let first = a.say(&lobby, "first").await;
    let client = async_nats::connect(server.url()).await.expect("it listens");
    let stream = format!("conclave-1-rooms-{}", lobby.partition % 8);
    // Canaries of the nodes go with everything else.
    eventually("another epoch", async || {
        let purge = format!("$JS.API.STREAM.PURGE.{stream}");
        client.request(purge, "".into()).await.expect("an answer");
        let place = a.say(&lobby, "more").await;
        (place.epoch != first.epoch).then_some(())
    })
    .await;
    b.heard
        .until("doubt", |log| {
            log.suspects.iter().any(|what| what == "partitions").then_some(())
        })
        .await;
    assert!(!matches!(found(&b, "lobby", &first).await, Found::Entries(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_everything_is_another_one() {
    let mut server = NatsServer::start().await;
    let [a, b] = pair(&server).await;
    let (lobby, one) = (room("lobby"), life());
    assert!(matches!(a.renew(&one, true, LONG).await, Ok(Renewal::Alive { .. })));
    b.attach(&lobby).await.unwrap();
    a.moves(&one, &[enters(&lobby, "ann")]).await;
    b.heard.presence_is(&lobby, &["+ann"]).await;
    let old = a.say(&lobby, "old").await;
    let before = (doubts(&a), doubts(&b));
    server.wipe().await;
    doubted(&a.heard, before.0).await;
    doubted(&b.heard, before.1).await;
    let new = say(&a, "lobby", "new").await;
    assert_ne!(new.epoch, old.epoch);
    assert_eq!(found(&b, "lobby", &old).await, Found::Unknown);
    assert_eq!(b.heard.message_at(&lobby, &new).await.position, new);
    // The lease went with the rest; whoever is still there is entered again.
    assert!(matches!(a.renew(&one, false, LONG).await, Ok(Renewal::Expired)));
    b.heads(std::slice::from_ref(&lobby)).await.unwrap();
    b.heard.presence_is(&lobby, &["+ann", "-ann"]).await;
    let two = life();
    assert!(matches!(a.renew(&two, true, LONG).await, Ok(Renewal::Alive { .. })));
    a.assert_held(&two, &[enters(&lobby, "ann")]).await.unwrap();
    b.heard.presence_is(&lobby, &["+ann", "-ann", "+ann"]).await;
}

/// Connections stay and nothing comes: the node finds out by itself, and is back when the server is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_noticed_and_its_return_too() {
    let server = NatsServer::start().await;
    let mut config = config(&server);
    config.backplane.call_timeout = Duration::from_millis(300);
    config.backplane.connect_timeout = Duration::from_millis(500);
    let [a, b] = [Peer::start(engine(&config)).await, Peer::start(engine(&config)).await];
    let lobby = room("lobby");
    b.attach(&lobby).await.unwrap();
    let first = a.say(&lobby, "first").await;
    server.freeze();
    assert_eq!(
        a.publish_one(&lobby, keyed("ann", "k", "second")).await,
        Outcome::Unknown
    );
    for peer in [&a, &b] {
        peer.heard
            .until("the end of the link", |log| (!log.up).then_some(()))
            .await;
    }
    let before = doubts(&b);
    server.thaw();
    doubted(&b.heard, before).await;
    let second = eventually("the second", async || {
        match a.publish_one(&lobby, keyed("ann", "k", "second")).await {
            Outcome::New(place) | Outcome::Again(place) => Some(place),
            _ => None,
        }
    })
    .await;
    assert_eq!(contents(&found(&b, "lobby", &first).await), ["second"], "once");
    assert_eq!(second.epoch, first.epoch, "the server is the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_while_its_server_is_away() {
    let mut server = NatsServer::start().await;
    server.kill();
    let peer = Peer::begin(engine(&config(&server))).await;
    let lobby = room("lobby");
    assert!(peer.attach(&lobby).await.is_err());
    server.restart().await;
    peer.heard.until("a link", |log| log.up.then_some(())).await;
    peer.attach(&lobby).await.unwrap();
    peer.say(&lobby, "at last").await;
}

/// What can never work is said at the start, with what to do about it.
#[tokio::test]
async fn what_can_never_work_is_refused_with_a_remedy() {
    let server = NatsServer::start().await;
    let mut disk = config(&server);
    disk.backplane.kept = Kept::Disk;
    let client = async_nats::connect(server.url()).await.expect("it listens");
    let taken = r#"{"name":"other","subjects":["taken.1.>"],"retention":"limits","storage":"file"}"#;
    client
        .request("$JS.API.STREAM.CREATE.other", taken.into())
        .await
        .expect("an answer");
    let mut prefix = config(&server);
    prefix.backplane.prefix = "taken".to_owned();
    for (config, wanted) in [(disk, "sync_interval"), (prefix, "backplane.prefix")] {
        let (heard, tasks) = (Arc::new(Heard::default()), Tasks::default());
        let plane: Arc<dyn conclave::backplane::contract::Backplane> = engine(&config);
        let started = within("the start", plane.start(heard, &tasks)).await;
        let error = format!("{:#}", started.expect_err("it can never work"));
        assert!(error.contains(wanted), "{error}");
        tasks.stop_services();
    }
}

/// A name that no subject can begin with.
#[test]
fn a_prefix_without_a_part_is_refused() {
    for prefix in ["a..b", ".a", "a."] {
        let mut config = default_config();
        config.backplane.prefix = prefix.to_owned();
        let build = BuildInfo {
            version: "0",
            revision: "test",
            rustc: "test",
            backplane: "nats",
        };
        assert!(Nats::new(&config, Metrics::install(build)).is_err(), "{prefix}");
    }
}
