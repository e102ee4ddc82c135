//! Several nodes over one engine with bad luck: random schedules of chats, comings and goings, lost and doubled wake-ups,
//! calls without an answer, and an engine that is put back to an earlier state. What each client was told is checked
//! against the engine's log at the end. The same schedules with an engine that numbers naively must be found out.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::backplane::contract::{Backplane, RoomKey};
use crate::backplane::driver::{Driver, Ear, Seats};
use crate::backplane::memory::faulty::{Dice, Faulty, Rates};
use crate::backplane::memory::rewind::{Epoch, Snapshot};
use crate::backplane::memory::{Memory, Node};
use crate::config;
use crate::http::health::Health;
use crate::hub::errands::Errands;
use crate::hub::room::{Joining, Saying};
use crate::hub::tests::shards::{PieceSize, Shards};
use crate::hub::{Hub, Joined, Position, Room, User};
use crate::protocol::client::Ref;
use crate::runtime::{Tasks, now_ms};
use crate::shard::inbox::{Inbox, Settled};
use crate::telemetry::metrics::{BuildInfo, Metrics};
use crate::telemetry::traces::Traces;

const NODES: usize = 3;
const CLIENTS: usize = 6;
const STEPS: usize = 100;
const ROOM: &str = "lobby";

/// History of every third schedule, in messages.
const SHORT: usize = 8;

struct OneNode {
    hub: Arc<Hub>,
    shards: Shards,
    engine: Arc<Faulty>,
    tasks: Tasks,
}

/// What one client was told.
#[derive(Default)]
struct Client {
    user: String,
    node: usize,
    slot: u32,
    room: Option<Arc<Room>>,
    entering: bool,
    /// Epoch and seq.
    at: Option<(String, u64)>,
    /// Where the replay that runs will end.
    replay_to: Option<u64>,
    /// By seq; everything above `base` up to `at`.
    view: BTreeMap<u64, Value>,
    base: u64,
    asked_since: bool,
}

struct World {
    memory: Arc<Memory>,
    log: Arc<Node>,
    nodes: Vec<OneNode>,
    clients: Vec<Client>,
    dice: Dice,
    /// Content of chats that were answered `ok`, with their seq.
    acked: BTreeMap<u64, Vec<u64>>,
    pending: BTreeMap<String, u64>,
    said: u64,
    short: bool,
    rewinds: usize,
    wrong: Vec<String>,
}

fn user(id: &str) -> User {
    User {
        id: id.into(),
        json: json!({ "id": id }).to_string().into(),
    }
}

impl World {
    async fn new(seed: u64, rates: Rates) -> Self {
        let mut config = config::default_config();
        if seed.is_multiple_of(3) {
            config.history.messages = SHORT;
        }
        config.backplane.audit_interval = Duration::from_secs(2);
        config.backplane.leave_grace = Duration::from_millis(100);
        let memory = Memory::new(&config);
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let inboxes: Arc<[Arc<Inbox>]> = Arc::new([Arc::default()]);
            let metrics = Metrics::install(BuildInfo {
                version: "0",
                revision: "0",
                rustc: "0",
                backplane: "memory",
            });
            let errands = Arc::new(Errands::new(&config.backplane, metrics, Traces::off()));
            let hub = Arc::new(Hub::new(&config, Arc::clone(&inboxes), Some(errands)));
            let engine = Faulty::new(memory.node(), seed + number as u64, rates);
            let driver = Driver::new(
                &config.backplane,
                Arc::clone(&engine) as Arc<dyn Backplane>,
                Arc::clone(&hub),
                Arc::new(Seats::new(0, true)),
            );
            let ear = Ear::new(Arc::clone(&driver), Box::new(drop), Health::new(), false);
            let tasks = Tasks::default();
            Arc::clone(&engine).start(ear, &tasks).await.expect("started");
            driver.start(&tasks);
            let piece = PieceSize {
                bytes: 10_000,
                frames: 4,
            };
            nodes.push(OneNode {
                hub,
                shards: Shards::new(inboxes, piece),
                engine,
                tasks,
            });
        }
        let mut dice = Dice::new(seed);
        let clients = (0..CLIENTS)
            .map(|number| Client {
                user: format!("u{}", number % (CLIENTS / 2)),
                node: usize::try_from(dice.below(NODES as u64)).expect("small"),
                ..Client::default()
            })
            .collect();
        let mut world = Self {
            log: memory.node(),
            memory,
            nodes,
            clients,
            dice,
            acked: BTreeMap::new(),
            pending: BTreeMap::new(),
            said: 0,
            short: seed.is_multiple_of(3),
            rewinds: 0,
            wrong: Vec::new(),
        };
        for number in 0..CLIENTS {
            world.connect(number);
        }
        world
    }

    fn connect(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.slot = self.nodes[client.node].shards.register(0, number);
    }

    fn join(&mut self, number: usize, with_since: bool) {
        let client = &mut self.clients[number];
        if client.room.is_some() {
            return;
        }
        let node = &self.nodes[client.node];
        let since = client.at.clone().filter(|_| with_since);
        if since.is_none() {
            client.at = None;
        }
        client.asked_since = since.is_some();
        let user = user(&client.user);
        let joining = Joining {
            member: Shards::member(0, client.slot),
            user: &user,
            since: since.as_ref().map(|(epoch, seq)| Position { epoch, seq: *seq }),
            reference: None,
            again: false,
            sees: crate::hub::room::Sees::ALL,
            now_ms: now_ms(),
        };
        let (room, joined) = node.hub.join(ROOM, &joining).expect("no limit");
        match joined {
            Joined::In { .. } => client.room = Some(room),
            Joined::Later => {
                client.room = Some(room);
                client.entering = true;
            }
            Joined::Unavailable => {}
            other => panic!("{other:?}"),
        }
    }

    /// The connection is cut; the client comes back on some node.
    fn cut(&mut self, number: usize) {
        let node = usize::try_from(self.dice.below(NODES as u64)).expect("small");
        let client = &mut self.clients[number];
        if let Some(room) = client.room.take() {
            let user = user(&client.user).id;
            room.leave(Shards::member(0, client.slot), &user, true, now_ms());
        }
        client.entering = false;
        client.replay_to = None;
        self.nodes[client.node].shards.end(0, client.slot);
        client.node = node;
        self.connect(number);
    }

    fn say(&mut self, number: usize) {
        let client = &self.clients[number];
        let Some(room) = client.room.clone().filter(|_| !client.entering) else {
            return;
        };
        self.said += 1;
        let reference = self.said.to_string();
        self.pending.insert(reference.clone(), self.said);
        let key = format!("k{}", self.said);
        room.say(&Saying {
            member: Shards::member(0, client.slot),
            user: &user(&client.user),
            content: &reference,
            key: Some(&key),
            reference: Ref::from_json(&reference),
            trace: None,
            now_ms: now_ms(),
        });
    }

    async fn pump(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        for node in 0..NODES {
            self.nodes[node].shards.drain(0);
            for (slot, settled) in std::mem::take(&mut self.nodes[node].shards.settled) {
                if let Some(client) =
                    (self.clients.iter_mut()).find(|client| client.node == node && client.slot == slot)
                {
                    client.entering = false;
                    if let Settled::Refused(_) = settled
                        && let Some(room) = client.room.take()
                    {
                        let user = user(&client.user).id;
                        room.leave(Shards::member(0, slot), &user, false, now_ms());
                    }
                }
            }
            let slots: Vec<u32> = self
                .clients
                .iter()
                .filter(|client| client.node == node)
                .map(|client| client.slot)
                .collect();
            for slot in slots {
                self.nodes[node].shards.refill(0, slot);
            }
            for (number, frame, _) in self.nodes[node].shards.delivered() {
                let frame: Value = serde_json::from_slice(frame.payload()).expect("json");
                self.told(number, &frame);
            }
        }
    }

    fn told(&mut self, number: usize, frame: &Value) {
        let text = |name: &str| frame[name].as_str().map(str::to_owned);
        let client = &mut self.clients[number];
        let mut wrong = |what: String| self.wrong.push(format!("client {number}: {what}: {frame}"));
        match frame["type"].as_str().expect("type") {
            "list" => {
                let head = frame["seq"].as_u64().expect("seq");
                if frame["recovered"] == json!(true) {
                    client.replay_to = Some(head);
                } else {
                    if client.asked_since && self.rewinds == 0 && !self.short {
                        wrong("nothing was lost".into());
                    }
                    client.view.clear();
                    client.base = head;
                    client.at = Some((text("epoch").expect("epoch"), head));
                }
            }
            "chat" => {
                let seq = frame["seq"].as_u64().expect("seq");
                let Some(at) = &mut client.at else {
                    return wrong("a chat before the list".into());
                };
                if seq != at.1 + 1 {
                    wrong(format!("after {at:?}"));
                }
                *at = (text("epoch").unwrap_or_else(|| at.0.clone()), seq);
                client.view.insert(seq, frame["content"].clone());
            }
            "reset" => {
                let seq = frame["seq"].as_u64().expect("seq");
                client.at = Some((text("epoch").expect("epoch"), seq));
                if text("reason").as_deref() == Some("rewound") && seq >= client.base {
                    client.view.split_off(&(seq + 1));
                } else {
                    client.view.clear();
                    client.base = seq;
                }
            }
            "ok" => {
                let said = self.pending.remove(&frame["ref"].to_string()).expect("asked");
                self.acked
                    .entry(frame["seq"].as_u64().expect("seq"))
                    .or_default()
                    .push(said);
            }
            "error" | "join" | "left" | "count" => {}
            other => panic!("{other}"),
        }
    }

    async fn step(&mut self, snapshot: &mut Option<Snapshot>, epoch: Epoch) {
        let number = usize::try_from(self.dice.below(CLIENTS as u64)).expect("small");
        match self.dice.below(100) {
            0..60 => (0..=self.dice.below(3)).for_each(|_| self.say(number)),
            60..80 => {
                let with_since = self.dice.hits(800);
                self.join(number, with_since);
            }
            80..90 => self.cut(number),
            90..95 => *snapshot = Some(self.memory.snapshot()),
            _ => {
                if let Some(to) = snapshot.take() {
                    self.memory.rewind(&to, epoch);
                    self.rewinds += 1;
                    for node in &self.nodes {
                        node.engine.suspect();
                    }
                }
            }
        }
        let pause = self.dice.below(30);
        self.pump(Duration::from_millis(pause)).await;
    }

    /// Luck turns, everybody comes back and hears the end of it; then everybody's view is compared with the log.
    async fn end(&mut self) -> Vec<String> {
        for node in &self.nodes {
            node.engine.set(Rates::default());
            node.engine.suspect();
        }
        for _ in 0..400 {
            for number in 0..CLIENTS {
                self.join(number, true);
            }
            self.pump(Duration::from_millis(50)).await;
        }
        let key = RoomKey::new(ROOM.into());
        let mut log = BTreeMap::new();
        let mut before = u64::MAX;
        loop {
            let page = self.log.before(&key, before, 128).await.expect("answered");
            for entry in &page.entries {
                let envelope: Value = serde_json::from_slice(&entry.envelope).expect("json");
                log.insert(entry.position.seq, envelope["content"].clone());
            }
            match page.entries.first() {
                Some(first) if page.more => before = first.position.seq,
                _ => break,
            }
        }
        let head = log.keys().next_back().copied().unwrap_or(0);
        for (number, client) in self.clients.iter().enumerate() {
            let missed = log
                .range(client.base + 1..)
                .filter(|(seq, content)| client.view.get(seq) != Some(content));
            let missed: Vec<_> = missed.collect();
            if client.room.is_none() || client.at.as_ref().is_none_or(|at| at.1 != head) || !missed.is_empty() {
                self.wrong.push(format!(
                    "client {number} ended at {:?} of {head}, with {missed:?} amiss; in the room: {}",
                    client.at,
                    client.room.is_some()
                ));
            }
        }
        self.check_acks(&log);
        for node in &self.nodes {
            node.tasks.stop_services();
        }
        std::mem::take(&mut self.wrong)
    }

    fn check_acks(&mut self, log: &BTreeMap<u64, Value>) {
        let mut times = BTreeMap::new();
        for content in log.values() {
            *times.entry(content.as_u64().expect("number")).or_insert(0) += 1;
        }
        for (content, times) in &times {
            if *times > 1 {
                self.wrong.push(format!("{content} is in the log {times} times"));
            }
        }
        let lost = self
            .acked
            .values()
            .flatten()
            .filter(|said| !times.contains_key(said))
            .count();
        if lost > 0 && self.rewinds == 0 && !self.short {
            self.wrong.push(format!("{lost} acknowledged messages are lost"));
        }
    }
}

fn run(seed: u64, rates: Rates, rewinds: Option<Epoch>) -> Vec<String> {
    block_on(async {
        let mut world = World::new(seed, rates).await;
        let mut snapshot = None;
        for _ in 0..STEPS {
            world.step(&mut snapshot, rewinds.unwrap_or(Epoch::New)).await;
            if rewinds.is_none() {
                snapshot = None;
            }
        }
        world.end().await
    })
}

const UNLUCKY: Rates = Rates {
    dropped: 100,
    doubled: 100,
    held: 100,
    refused: 30,
    unanswered: 30,
};

/// `SCHEDULES=1000 cargo test --lib driver` tries more.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no configuration of the server"
)]
fn seeds(from: u64) -> std::ops::Range<u64> {
    let count = std::env::var("SCHEDULES").ok().and_then(|count| count.parse().ok());
    from..from + count.unwrap_or(40)
}

fn check(seeds: std::ops::Range<u64>, rates: Rates, rewinds: Option<Epoch>) {
    for seed in seeds {
        let wrong = run(seed, rates, rewinds);
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    }
}

#[test]
fn with_a_whole_engine_everybody_hears_everything_once() {
    check(seeds(0), Rates::default(), None);
}

#[test]
fn lost_and_doubled_wake_ups_and_calls_without_an_answer_lose_nothing() {
    check(seeds(100_000), UNLUCKY, None);
}

#[test]
fn an_engine_that_was_put_back_is_noticed_by_everybody_whom_it_concerns() {
    check(seeds(200_000), UNLUCKY, Some(Epoch::New));
}

#[test]
fn numbers_that_are_used_again_are_found_out() {
    let found = seeds(300_000).filter(|seed| !run(*seed, UNLUCKY, Some(Epoch::Same)).is_empty());
    assert!(found.count() > 0, "a checker that finds nothing here checks nothing");
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(work)
}

#[test]
fn the_first_chat_of_a_room_names_an_epoch_that_began_before_it() {
    block_on(async {
        let mut world = World::new(1, Rates::default()).await;
        while world.clients[0].at.is_none() || world.clients[5].at.is_none() {
            world.join(0, false);
            world.join(5, false);
            world.pump(Duration::from_millis(100)).await;
        }
        let known = [world.clients[0].node, world.clients[5].node];
        world.cut(5);
        // To a node that has to read the room's past.
        world.clients[5].node = (0..NODES).find(|node| !known.contains(node)).expect("three nodes");
        world.connect(5);
        let now = world.memory.snapshot();
        world.memory.rewind(&now, Epoch::New);
        world.say(0);
        world.pump(Duration::from_millis(100)).await;
        world.join(5, true);
        for _ in 0..10 {
            world.pump(Duration::from_millis(100)).await;
        }
        assert_eq!(
            world.clients[5].view.len(),
            1,
            "it came back with its place before the first chat"
        );
        assert_eq!(world.clients[5].at, world.clients[0].at, "and knows who numbered it");
    });
}
