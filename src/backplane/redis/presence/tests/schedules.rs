//! Random schedules of nodes that bring users in and out, lose calls, pause, are reaped by others meanwhile, and come
//! back. Whoever listens must hear each user come and go in turn, and in the end everybody is there whom a node holds.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::super::contract::{Change, Incarnation, PresenceEvent, Presented, Renewal};
use super::super::super::child::{Node, Server};
use super::{LEASE, begin, change, enter, room, users};

const SCHEDULES: u64 = 8;
const STEPS: usize = 100;
const ROOMS: [&str; 3] = ["lobby", "}x", "quiet room"];
const USERS: [&str; 5] = ["ann", "bob", "cid", "dora", "e e"];

/// SplitMix64: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("below end")
    }
}

type Place = (&'static str, &'static str);

/// One node as its driver has it.
struct Driver {
    node: Node,
    name: usize,
    lives: usize,
    incarnation: Incarnation,
    held: BTreeSet<Place>,
}

impl Driver {
    async fn new(server: &Server, name: usize) -> Self {
        let node = server.engine().await;
        let incarnation = begin(&node, &format!("n{name}-0")).await;
        Self {
            node,
            name,
            lives: 0,
            incarnation,
            held: BTreeSet::new(),
        }
    }

    /// Some users come or go here; returns what is to be told.
    fn decide(&mut self, random: &mut Random) -> Vec<Change> {
        let mut changes = vec![];
        for _ in 0..=random.below(4) {
            let place = (ROOMS[random.below(ROOMS.len())], USERS[random.below(USERS.len())]);
            let enters = !self.held.remove(&place);
            if enters {
                self.held.insert(place);
            }
            changes.push(change(place.0, place.1, enters));
        }
        changes
    }

    async fn tell(&mut self, changes: Vec<Change>) {
        if self
            .node
            .move_users(&self.incarnation, &changes)
            .await
            .expect("an answer")
            == Presented::Fenced
        {
            self.begin_anew().await;
        }
    }

    async fn begin_anew(&mut self) {
        self.lives += 1;
        self.incarnation = begin(&self.node, &format!("n{}-{}", self.name, self.lives)).await;
        assert_eq!(self.assert_all().await, Presented::Done);
    }

    async fn assert_all(&self) -> Presented {
        let held: Vec<_> = self.held.iter().map(|(room, user)| enter(room, user)).collect();
        self.node
            .move_users_to(&self.incarnation, &held)
            .await
            .expect("an answer")
    }

    /// Renews, takes a new life if that is refused, and reaps who has ended.
    async fn upkeep(&mut self) {
        match self
            .node
            .renew_lease(&self.incarnation, false, LEASE)
            .await
            .expect("an answer")
        {
            Renewal::Expired => self.begin_anew().await,
            Renewal::Alive { expired, .. } => {
                for dead in expired {
                    while !self.node.bury(&dead).await.expect("an answer") {}
                }
            }
        }
    }

    /// Pauses beyond its lease.
    async fn pause(&self, server: &Server) {
        let end = format!("ZADD conclave:1:0:{{ctl}}lease XX 1 {}", self.incarnation);
        server.ask(&end).await;
    }
}

async fn step(drivers: &mut [Driver], server: &Server, random: &mut Random) {
    let at = random.below(drivers.len());
    match random.below(10) {
        0 => drivers[at].pause(server).await,
        1 => drivers[at].upkeep().await,
        // Lost on the way; whoever asserts next heals it.
        2 => drop(drivers[at].decide(random)),
        3 => {
            if drivers[at].assert_all().await == Presented::Fenced {
                drivers[at].begin_anew().await;
            }
        }
        // Somebody is reaped by two at once, and goes on meanwhile.
        4 => {
            drivers[at].pause(server).await;
            let changes = drivers[at].decide(random);
            let [a, b, c] = drivers else { panic!("three nodes") };
            let (paused, others) = match at {
                0 => (a, [b, c]),
                1 => (b, [a, c]),
                _ => (c, [a, b]),
            };
            let dead = paused.incarnation.clone();
            let reap = |other: usize| others[other].node.bury(&dead);
            let (_, one, two) = tokio::join!(paused.tell(changes), reap(0), reap(1));
            assert!(one.is_ok() && two.is_ok());
        }
        _ => {
            let changes = drivers[at].decide(random);
            drivers[at].tell(changes).await;
        }
    }
}

/// Users come and go in turn, and every event names the one before.
fn check_heard(heard: &[(String, PresenceEvent)], seed: u64) {
    let mut here: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for (room, event) in heard {
        let was = here.insert((room, &event.user), event.joined).unwrap_or(false);
        assert_ne!(was, event.joined, "seed {seed}: {room} {event:?}");
        let version = versions.entry(room).or_default();
        assert_eq!(*version, event.follows, "seed {seed}: {room} {event:?}");
        assert!(*version < event.version, "seed {seed}: {room} {event:?}");
        *version = event.version;
    }
}

async fn schedule(server: &Server, seed: u64) {
    server.ask("FLUSHALL").await;
    let mut random = Random(seed);
    let mut drivers = vec![];
    for name in 0..3 {
        drivers.push(Driver::new(server, name).await);
    }
    let mut listener = server.listen(&drivers[0].node, &ROOMS.map(room)).await;
    for _ in 0..STEPS {
        step(&mut drivers, server, &mut random).await;
    }
    // Everybody comes to know what happened, then heals what was lost, then reaps the rest.
    for driver in &mut drivers {
        driver.upkeep().await;
        assert_eq!(driver.assert_all().await, Presented::Done, "seed {seed}");
    }
    for driver in &mut drivers {
        driver.upkeep().await;
    }
    let heard = listener.heard().await;
    check_heard(&heard, seed);
    for name in ROOMS {
        let held: BTreeSet<_> = drivers.iter().flat_map(|driver| &driver.held).collect();
        let meant: Vec<_> = held
            .iter()
            .filter(|(room, _)| *room == name)
            .map(|(_, user)| *user)
            .collect();
        assert_eq!(users(&drivers[0].node, name).await, meant, "seed {seed}: {name}");
        let mut told: BTreeMap<&str, bool> = BTreeMap::new();
        for (_, event) in heard.iter().filter(|(room, _)| room == name) {
            told.insert(&event.user, event.joined);
        }
        let told: Vec<_> = told
            .into_iter()
            .filter(|(_, here)| *here)
            .map(|(user, _)| user)
            .collect();
        assert_eq!(told, meant, "seed {seed}: {name} as it was told");
    }
}

#[tokio::test]
async fn users_come_and_go_in_turn_whatever_happens_to_nodes() {
    let server = Server::start();
    for seed in 1..=SCHEDULES {
        schedule(&server, seed).await;
    }
}
