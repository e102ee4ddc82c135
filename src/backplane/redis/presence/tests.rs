//! Against a real server.

mod schedules;

use std::time::Duration;

use redis::Value;

use super::super::super::contract::{Change, Failed, Incarnation, Presented, Refusal, Renewal, RoomKey};
use super::super::Redis;
use super::super::child::Server;
use super::batch::{Batch, Move, Moved};

const LEASE: Duration = Duration::from_secs(600);

fn room(name: &str) -> RoomKey {
    RoomKey::new(name.into())
}

fn change(room_name: &str, user: &str, enters: bool) -> Change {
    Change {
        room: room(room_name),
        user: user.into(),
        json: format!("{{\"id\":\"{user}\"}}").into(),
        enters,
    }
}

fn enter(room: &str, user: &str) -> Change {
    change(room, user, true)
}

fn leave(room: &str, user: &str) -> Change {
    change(room, user, false)
}

/// Takes a lease under a word.
async fn begin(engine: &Redis, word: &str) -> Incarnation {
    let incarnation: Incarnation = word.into();
    let renewal = engine.renew_lease(&incarnation, true, LEASE).await;
    assert!(matches!(renewal, Ok(Renewal::Alive { .. })), "{renewal:?}");
    incarnation
}

async fn users(engine: &Redis, name: &str) -> Vec<String> {
    let found = engine.read_users(&room(name)).await.expect("users");
    let mut users: Vec<_> = found.users.iter().map(|(user, _)| user.to_string()).collect();
    users.sort();
    users
}

#[tokio::test]
async fn a_user_on_two_nodes_comes_and_goes_once() {
    let server = Server::start();
    let (a, b) = (server.engine().await, server.engine().await);
    let (one, two) = (begin(&a, "one").await, begin(&b, "two").await);
    let mut listener = server.listen(&a, &[room("lobby")]).await;

    let done = Ok(Presented::Done);
    assert_eq!(a.move_users(&one, &[enter("lobby", "ann")]).await, done);
    assert_eq!(a.move_users(&one, &[enter("lobby", "ann")]).await, done, "again");
    assert_eq!(b.move_users(&two, &[enter("lobby", "ann")]).await, done);
    assert_eq!(a.move_users(&one, &[leave("lobby", "ann")]).await, done);
    assert_eq!(users(&b, "lobby").await, ["ann"]);
    assert_eq!(
        b.move_users(&two, &[leave("lobby", "ann"), leave("lobby", "bob")])
            .await,
        done
    );
    assert_eq!(users(&a, "lobby").await, [""; 0]);

    let heard = listener.heard().await;
    let said: Vec<_> = heard
        .iter()
        .map(|(_, event)| (event.joined, &*event.user, &*event.json))
        .collect();
    assert_eq!(
        said,
        [(true, "ann", "{\"id\":\"ann\"}"), (false, "ann", "{\"id\":\"ann\"}")]
    );
    assert_eq!(heard[0].1.follows, 0);
    assert_eq!(heard[1].1.follows, heard[0].1.version);
    assert!(heard[1].1.version > heard[0].1.version && heard[0].1.version > 1_700_000_000_000_000);
    assert_eq!(
        a.read_users(&room("lobby")).await.expect("users").version,
        heard[1].1.version
    );
}

#[tokio::test]
async fn rooms_and_users_are_called_whatever_they_are_called() {
    let server = Server::start();
    let node = server.engine().await;
    let one = begin(&node, "one").await;
    let names = ["}x", "{a}b", "a b", "ü", ",", "-1"];
    let changes: Vec<_> = names
        .iter()
        .flat_map(|room| names.map(|user| enter(room, user)))
        .collect();
    assert_eq!(node.move_users(&one, &changes).await, Ok(Presented::Done));
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    for name in names {
        assert_eq!(users(&node, name).await, sorted, "{name}");
    }
    node.give_back(&one).await.expect("resigned");
    for name in names {
        assert_eq!(users(&node, name).await, [""; 0], "{name}");
    }
    let left = server.ask("KEYS conclave:1:0:{*}[nui]*").await;
    assert_eq!(left, Value::Array(vec![]), "nothing is left of it");
}

#[tokio::test]
async fn a_buried_incarnation_brings_nobody_in() {
    let server = Server::start();
    let (a, b) = (server.engine().await, server.engine().await);
    let (one, two) = (begin(&a, "one").await, begin(&b, "two").await);
    a.move_users(&one, &[enter("lobby", "ann")]).await.expect("entered");
    b.move_users(&two, &[enter("lobby", "bob")]).await.expect("entered");

    assert_eq!(b.bury(&one).await, Ok(false), "it is alive");
    assert_eq!(users(&b, "lobby").await, ["ann", "bob"]);
    server.ask("ZADD conclave:1:0:{ctl}lease XX 1 one").await;
    let Ok(Renewal::Alive {
        server: replid,
        nodes,
        expired,
    }) = b.renew_lease(&two, false, LEASE).await
    else {
        panic!("two is alive");
    };
    assert_eq!(replid.len(), 40);
    assert_eq!((nodes, expired), (vec!["two".into()], vec![Incarnation::from("one")]));
    assert!(matches!(a.renew_lease(&one, false, LEASE).await, Ok(Renewal::Expired)));
    assert_eq!(b.bury(&one).await, Ok(true));
    assert_eq!(users(&b, "lobby").await, ["bob"]);
    assert_eq!(
        a.move_users(&one, &[enter("elsewhere", "ann")]).await,
        Ok(Presented::Fenced)
    );
    assert_eq!(
        a.move_users_to(&one, &[enter("lobby", "ann")]).await,
        Ok(Presented::Fenced)
    );
    assert_eq!(users(&b, "elsewhere").await, [""; 0]);

    // It comes back so late that nobody remembers it: that alone gets it reaped once more.
    server.ask("DEL conclave:1:0:{503}x:one").await;
    a.move_users(&one, &[enter("lobby", "ann")]).await.expect("entered");
    assert!(matches!(a.renew_lease(&one, false, LEASE).await, Ok(Renewal::Expired)));
    let Ok(Renewal::Alive { expired, .. }) = b.renew_lease(&two, false, LEASE).await else {
        panic!("two is alive");
    };
    assert_eq!(expired, [Incarnation::from("one")]);
    assert_eq!(b.bury(&one).await, Ok(true));
    assert_eq!(users(&b, "lobby").await, ["bob"]);
}

#[tokio::test]
async fn what_is_held_is_made_so() {
    let server = Server::start();
    let (a, b) = (server.engine().await, server.engine().await);
    let (one, ghost) = (begin(&a, "one").await, begin(&b, "ghost").await);
    let many: Vec<_> = (0..700).map(|i| enter("lobby", &format!("u{i}"))).collect();
    a.move_users(&one, &many).await.expect("entered");
    b.move_users(&ghost, &[enter("lobby", "casper")])
        .await
        .expect("entered");
    server.ask("ZREM conclave:1:0:{ctl}lease ghost").await;

    let held = [enter("lobby", "u1"), enter("lobby", "new"), enter("other", "u2")];
    assert_eq!(a.move_users_to(&one, &held).await, Ok(Presented::Done));
    assert_eq!(users(&a, "lobby").await, ["casper", "new", "u1"]);
    assert_eq!(users(&a, "other").await, ["u2"]);
    let Ok(Renewal::Alive { expired, .. }) = a.renew_lease(&one, false, LEASE).await else {
        panic!("one is alive");
    };
    assert_eq!(
        expired,
        [Incarnation::from("ghost")],
        "who holds something without a lease has ended"
    );
    assert_eq!(a.bury(&ghost).await, Ok(true));
    assert_eq!(users(&a, "lobby").await, ["new", "u1"]);

    // Everything goes: the next lease is refused, and a new life brings everybody back under higher versions.
    let before = a.read_users(&room("lobby")).await.expect("users").version;
    server.ask("FLUSHALL").await;
    assert!(matches!(a.renew_lease(&one, false, LEASE).await, Ok(Renewal::Expired)));
    let next = begin(&a, "next").await;
    assert_eq!(a.move_users_to(&next, &held).await, Ok(Presented::Done));
    assert_eq!(users(&a, "lobby").await, ["new", "u1"]);
    assert!(a.read_users(&room("lobby")).await.expect("users").version > before);
}

#[tokio::test]
async fn a_call_that_was_given_up_does_not_come_true_behind_a_later_one() {
    let server = Server::start();
    let node = server.engine().await;
    let one = begin(&node, "one").await;
    node.move_users(&one, &[enter("lobby", "ann")]).await.expect("entered");
    node.move_users(&one, &[leave("lobby", "ann")]).await.expect("left");
    let ann = enter("lobby", "ann");
    let old = Batch::new(&node.keys, &one, 1, ann.room.partition, &[Move::from(&ann)]);
    assert_eq!(node.move_piece(&old).await, Ok(Moved::Stale));
    assert_eq!(users(&node, "lobby").await, [""; 0]);
}

#[tokio::test]
async fn a_full_server_lets_nobody_in_and_everybody_out() {
    let server = Server::start();
    let node = server.engine().await;
    let (one, two) = (begin(&node, "one").await, begin(&node, "two").await);
    node.move_users(&one, &[enter("lobby", "ann"), enter("lobby", "bob")])
        .await
        .expect("entered");
    node.move_users(&two, &[enter("lobby", "bob")]).await.expect("entered");
    server.ask("CONFIG SET maxmemory 1").await;
    let full = Err(Failed::Refused(Refusal::Full));
    assert_eq!(node.move_users(&one, &[enter("lobby", "cid")]).await, full);
    assert_eq!(users(&node, "lobby").await, ["ann", "bob"]);
    let both = [leave("lobby", "bob"), leave("lobby", "ann")];
    assert_eq!(node.move_users(&one, &both).await, Ok(Presented::Done));
    assert_eq!(users(&node, "lobby").await, ["bob"]);
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let server = Server::start();
    let node = server.engine().await;
    let one = begin(&node, "one").await;
    server.ask("SET conclave:1:0:{503}u:lobby x").await;
    let mut listener = server.listen(&node, &[room("lobby")]).await;
    // A room of the same partition as the lobby.
    let neighbour = (0..)
        .map(|i| i.to_string())
        .find(|name| room(name).partition == 503)
        .expect("one in 1,024");
    let both = [enter("lobby", "ann"), enter(&neighbour, "ann")];
    assert_eq!(node.move_users(&one, &both).await, Ok(Presented::Done));
    let broken = Failed::Refused(Refusal::Broken);
    assert_eq!(node.read_users(&room("lobby")).await.err(), Some(broken));
    assert_eq!(users(&node, &neighbour).await, ["ann"]);
    assert!(listener.heard().await.is_empty());

    server.ask("DEL conclave:1:0:{503}u:lobby").await;
    server.ask("HSET conclave:1:0:{503}m:lobby v nan").await;
    assert_eq!(node.move_users_to(&one, &both).await, Ok(Presented::Done));
    assert_eq!(users(&node, "lobby").await, ["ann"]);
    assert_eq!(listener.heard().await.len(), 1);
}

#[tokio::test]
async fn ten_thousand_users_leave_in_pieces() {
    let server = Server::start();
    let (a, b) = (server.engine().await, server.engine().await);
    let dead = begin(&a, "dead").await;
    let changes: Vec<_> = (0..10_000).map(|i| enter("lobby", &format!("user-{i:05}"))).collect();
    server.ask("CONFIG SET slowlog-max-len 100000").await;
    server.ask("CONFIG SET slowlog-log-slower-than 200").await;
    a.move_users(&dead, &changes).await.expect("entered");
    let entering = longest_call_micros(&server).await;
    assert_eq!(users(&b, "lobby").await.len(), 10_000);
    let listing = longest_call_micros(&server).await;
    let mut listener = server.listen(&a, &[room("lobby")]).await;

    server.ask("ZADD conclave:1:0:{ctl}lease XX 1 dead").await;
    let (mut rounds, mut done) = (0, false);
    while !done {
        rounds += 1;
        let (left, right) = tokio::join!(a.bury(&dead), b.bury(&dead));
        done = left.expect("reaped") | right.expect("reaped");
    }
    let reaping = longest_call_micros(&server).await;
    println!("longest call in µs: entering {entering}, listing {listing}, reaping {reaping} ({rounds} rounds)");
    assert_eq!(users(&b, "lobby").await, [""; 0]);
    assert_eq!(listener.heard().await.len(), 10_000, "each left once");
    assert!(rounds > 1, "not in one go");
}

/// Since the last time.
async fn longest_call_micros(server: &Server) -> i64 {
    let Value::Array(calls) = server.ask("SLOWLOG GET -1").await else {
        panic!("a list");
    };
    server.ask("SLOWLOG RESET").await;
    let micros = |call: &Value| match call {
        Value::Array(fields) => match fields[2] {
            Value::Int(micros) => micros,
            _ => panic!("a number"),
        },
        _ => panic!("a call"),
    };
    calls.iter().map(micros).max().unwrap_or(0)
}
