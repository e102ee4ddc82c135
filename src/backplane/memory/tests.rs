//! What only the memory engine does; the rest is the contract's suite, `tests/it/backplane`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::clock::Clock;
use super::faulty::{Faulty, Rates};
use super::rewind::Epoch;
use super::{Memory, Node};
use crate::backplane::contract::{
    Backplane, Change, Control, Draft, Entry, Failed, Found, Outcome, Position, PresenceEvent, Presented, Refusal,
    Renewal, RoomKey, Scope, Sink,
};
use crate::config::{Config, default_config};
use crate::runtime::Tasks;

const SOON: Duration = Duration::from_secs(2);

/// Both clocks, set by the test.
struct Manual(AtomicU64);

impl Clock for Manual {
    fn unix_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Bench {
    memory: Arc<Memory>,
    node: Arc<Node>,
    clock: Arc<Manual>,
}

fn bench(change: impl FnOnce(&mut Config)) -> Bench {
    let mut config = default_config();
    change(&mut config);
    let clock = Arc::new(Manual(AtomicU64::new(1_000_000)));
    let memory = Memory::with_clock(&config, Arc::clone(&clock) as _);
    let node = memory.node();
    Bench { memory, node, clock }
}

impl Bench {
    fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    async fn say(&self, room: &RoomKey, bytes: usize) -> Position {
        match self.node.publish(room, &[draft(bytes)], SOON).await.remove(0) {
            Outcome::New(position) => position,
            other => panic!("{other:?}"),
        }
    }
}

fn draft(bytes: usize) -> Draft {
    Draft {
        user: "ann".into(),
        key: None,
        envelope: vec![b'x'; bytes].into(),
    }
}

fn enters(room: &RoomKey, user: &str) -> Change {
    Change {
        room: room.clone(),
        user: user.into(),
        json: format!(r#"{{"id":"{user}"}}"#).into(),
        enters: true,
    }
}

fn room(name: &str) -> RoomKey {
    RoomKey::new(name.into())
}

/// Seqs, in the order in which they came.
#[derive(Default)]
struct Heard(Mutex<Vec<u64>>);

impl Sink for Heard {
    fn message(&self, _: &str, entry: Entry) {
        self.0.lock().push(entry.position.seq);
    }

    fn presence(&self, _: &str, _: PresenceEvent) {}

    fn control(&self, _: Control) {}

    fn control_suspect(&self) {}

    fn suspect(&self, _: Scope<'_>) {}

    fn up(&self, _: bool) {}

    fn unready(&self, _: bool) {}
}

#[tokio::test]
async fn a_room_is_forgotten_when_nobody_can_come_back_for_anything() {
    let bench = bench(|config| {
        config.history.age = Duration::from_secs(60);
        config.room.key_window = Duration::from_secs(120);
    });
    let (quiet, held) = (room("quiet"), room("held"));
    let first = bench.say(&quiet, 10).await;
    let node = "node".into();
    bench.node.present(&node, &[enters(&held, "ann")]).await.unwrap();
    bench.pass(Duration::from_secs(59));
    bench.memory.sweep().await;
    assert!(bench.node.heads(std::slice::from_ref(&quiet)).await.unwrap()[0].is_some());
    bench.pass(Duration::from_secs(2));
    bench.memory.sweep().await;
    let heads = bench.node.heads(&[quiet.clone(), held]).await.unwrap();
    assert!(heads[0].is_none() && heads[1].is_some(), "{heads:?}");
    assert_eq!(bench.node.range(&quiet, &first, 9).await.unwrap().found, Found::None);
    assert_ne!(bench.say(&quiet, 10).await.epoch, first.epoch);
}

#[tokio::test]
async fn deserted_rooms_give_way_when_all_keep_too_much() {
    let bench = bench(|config| config.history.node_bytes = 200_000);
    let (old, new, lived_in) = (room("old"), room("new"), room("lived in"));
    bench.node.attach(&lived_in).await.unwrap();
    for room in [&old, &lived_in, &new] {
        bench.say(room, 80_000).await;
        bench.pass(Duration::from_millis(1));
    }
    assert!(bench.memory.bytes_over() > 0);
    bench.memory.sweep().await;
    assert_eq!(bench.memory.bytes_over(), 0);
    let mut kept = Vec::new();
    for room in [&old, &new, &lived_in] {
        kept.push(bench.node.before(room, u64::MAX, 9).await.unwrap().entries.len());
    }
    assert_eq!(kept, [0, 1, 1]);
}

#[tokio::test]
async fn who_comes_too_late_publishes_nothing() {
    let bench = bench(|_| {});
    let (room, drafts) = (room("lobby"), [draft(1), draft(2)]);
    let publishing = bench.node.publish(&room, &drafts, SOON);
    bench.pass(SOON + Duration::from_millis(1));
    assert_eq!(publishing.await, vec![Outcome::Refused(Refusal::Late); 2]);
    assert_eq!(bench.node.heads(&[room]).await.unwrap(), [None]);
}

#[tokio::test]
async fn the_users_of_a_lease_that_ended_are_reaped_in_pieces() {
    let bench = bench(|_| {});
    let (lobby, dead) = (room("lobby"), "dead".into());
    let lease = Duration::from_secs(10);
    bench.node.renew(&dead, true, lease).await.unwrap();
    let users: Vec<_> = (0..600).map(|i| enters(&lobby, &format!("u{i}"))).collect();
    bench.node.present(&dead, &users).await.unwrap();
    assert!(!bench.node.reap(&dead).await.unwrap(), "it lives");
    bench.pass(lease);
    let Renewal::Alive { expired, .. } = bench.node.renew(&"other".into(), true, lease).await.unwrap() else {
        panic!("it is new");
    };
    assert_eq!(expired, std::slice::from_ref(&dead));
    let mut pieces = 1;
    while !bench.node.reap(&dead).await.unwrap() {
        pieces += 1;
    }
    assert_eq!(pieces, 3);
    assert!(bench.node.users(&lobby).await.unwrap().users.is_empty());
    assert_eq!(bench.node.present(&dead, &users[..1]).await.unwrap(), Presented::Fenced);
}

#[tokio::test]
async fn an_engine_that_was_put_back_says_how_far_the_epoch_went() {
    let bench = bench(|_| {});
    let room = room("lobby");
    let first = bench.say(&room, 1).await;
    let old = bench.memory.snapshot();
    let second = bench.say(&room, 1).await;
    let found = |after: Position| {
        let (node, room) = (Arc::clone(&bench.node), room.clone());
        async move { node.range(&room, &after, 9).await.unwrap().found }
    };
    bench.memory.rewind(&old, Epoch::New);
    assert_eq!(found(second.clone()).await, Found::Forked(1));
    assert_eq!(bench.say(&room, 1).await.seq, 2);
    let Found::Entries(entries) = found(first).await else {
        panic!("the first epoch goes as far as 1");
    };
    assert_ne!(entries[0].position.epoch, second.epoch);

    bench.memory.rewind(&old, Epoch::Same);
    assert_eq!(bench.say(&room, 1).await, second, "as a naive engine would have it");
}

#[tokio::test]
async fn bad_luck_loses_doubles_and_turns_round_wakeups_and_answers() {
    let bench = bench(|_| {});
    let half = Rates {
        dropped: 200,
        doubled: 200,
        held: 200,
        refused: 200,
        unanswered: 200,
    };
    let faulty = Faulty::new(bench.memory.node(), 7, half);
    let heard = Arc::new(Heard::default());
    let tasks = Tasks::default();
    Arc::clone(&faulty)
        .start(Arc::clone(&heard) as _, &tasks)
        .await
        .unwrap();
    let room = room("lobby");
    while faulty.attach(&room).await.is_err() {}
    let (mut refused, mut unknown) = (0, 0);
    for _ in 0..200 {
        match faulty.publish(&room, &[draft(1)], SOON).await.remove(0) {
            Outcome::Refused(Refusal::Away) => refused += 1,
            Outcome::Unknown => unknown += 1,
            _ => {}
        }
    }
    faulty.set(Rates::default());
    let head = faulty.heads(std::slice::from_ref(&room)).await.unwrap()[0]
        .clone()
        .unwrap()
        .position
        .seq;
    assert_eq!(head, 200 - refused);
    assert!(refused > 0 && unknown > 0);
    let came = heard.0.lock().clone();
    let once: std::collections::BTreeSet<_> = came.iter().collect();
    assert!(once.len() < usize::try_from(head).unwrap(), "some never came");
    assert!(came.len() > once.len(), "some came twice");
    assert!(!came.is_sorted(), "some came late");
    faulty.set(Rates {
        refused: 1_000,
        ..Rates::default()
    });
    assert_eq!(faulty.users(&room).await.err(), Some(Failed::Refused(Refusal::Away)));
    tasks.stop_services();
}
