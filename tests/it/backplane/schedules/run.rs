//! One schedule: two nodes, two rooms, followers on both nodes, and what befalls the server.

use std::time::Duration;

use conclave::backplane::contract::{Draft, Outcome, RoomKey};
use conclave::config::{BackplaneKind, Kept, default_config};

use super::super::engines::node;
use super::super::peer::{Peer, draft, keyed, room, said};
use super::checker::{Evidence, Said, violations};
use super::dice::Dice;
use super::follower::{Follower, PACE};
use crate::harness::{Redis, redis, within};

/// What the server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All that it took: an append-only file, written before it answers.
    Safe,
    /// What it held at some moment, and not even that.
    Lossy,
}

const STEPS: usize = 24;

/// Messages that a room keeps: few enough that laggards meet the end of history.
const KEPT: usize = 40;

/// Longest pause of the server, ms: calls outlive it.
const FROZEN_MS: usize = 60;

struct Room {
    key: RoomKey,
    followers: Vec<Follower>,
    acknowledged: Vec<Said>,
}

struct Schedule {
    dice: Dice,
    form: Form,
    server: Redis,
    nodes: Vec<Peer>,
    rooms: Vec<Room>,
    /// Older states, for a lossy server.
    snapshots: Vec<Vec<u8>>,
    /// Makes every message another one.
    said: u64,
}

/// Everything that was wrong at the end.
pub async fn run(form: Form, seed: u64) -> Vec<String> {
    let mut schedule = Schedule::begin(form, seed).await;
    for _ in 0..STEPS {
        schedule.step().await;
    }
    schedule.settle().await;
    schedule.judge().await
}

/// Contents are `sender:number`; those that may be tried again have no place among the sender's others.
#[derive(Clone)]
struct Saying {
    room: usize,
    drafts: Vec<(String, Draft)>,
}

impl Schedule {
    async fn begin(form: Form, seed: u64) -> Self {
        let server = match form {
            Form::Safe => redis().aof("always").start().await,
            Form::Lossy => Redis::start().await,
        };
        let mut config = default_config();
        config.history.messages = KEPT;
        config.backplane.kind = BackplaneKind::Redis;
        config.backplane.kept = Kept::Async;
        config.backplane.url = conclave::backplane::url::BackplaneUrl::parse(&server.url()).expect("a URL of ours");
        let nodes = vec![Peer::start(node(&config)).await, Peer::start(node(&config)).await];
        let mut rooms = Vec::new();
        for name in ["lobby", "}x {a}"] {
            let key = room(name);
            let mut followers = Vec::new();
            for node in 0..nodes.len() {
                followers.push(Follower::join(&nodes, node, &key).await);
            }
            rooms.push(Room {
                key,
                followers,
                acknowledged: Vec::new(),
            });
        }
        Self {
            dice: Dice::new(seed),
            form,
            server,
            nodes,
            rooms,
            snapshots: Vec::new(),
            said: 0,
        }
    }

    async fn step(&mut self) {
        let (one, other) = (self.saying(0), self.saying(1));
        // While both nodes publish, something happens to the server; or nothing does.
        let (nodes, rooms) = (&self.nodes, &self.rooms);
        let publishing = async {
            tokio::join!(
                publish(&nodes[0], &rooms[one.room].key, one.clone()),
                publish(&nodes[1], &rooms[other.room].key, other.clone()),
            )
        };
        let befalling = befall(&mut self.dice, self.form, &mut self.server, &mut self.snapshots);
        let ((first, second), ()) = tokio::join!(publishing, befalling);
        self.rooms[one.room].acknowledged.extend(first);
        self.rooms[other.room].acknowledged.extend(second);
        for room in &mut self.rooms {
            for follower in &mut room.followers {
                if self.dice.hits(70) {
                    follower.follow(&self.nodes, &mut self.dice).await;
                }
            }
            if room.followers.len() < 6 && self.dice.hits(8) {
                let whom = self.dice.below(room.followers.len());
                let node = self.dice.below(self.nodes.len());
                let back = room.followers[whom].resume(&mut self.dice, node);
                room.followers.push(back);
            }
        }
    }

    /// What a node says next: a few messages in some room, some with a key.
    fn saying(&mut self, node: usize) -> Saying {
        let room = self.dice.below(self.rooms.len());
        let count = self.dice.below(5);
        let drafts = (0..count)
            .map(|_| {
                self.said += 1;
                if self.dice.hits(50) {
                    let content = format!("keyed {}", self.said);
                    (content.clone(), keyed("ann", &format!("k{}", self.said), &content))
                } else {
                    let content = format!("node{node}:{}", self.said);
                    (content.clone(), draft("ann", &content))
                }
            })
            .collect();
        Saying { room, drafts }
    }

    /// Waits until the server serves both nodes again, and everybody stands at the heads.
    async fn settle(&mut self) {
        for room in 0..self.rooms.len() {
            for node in 0..self.nodes.len() {
                within("a publish after all is well", async {
                    loop {
                        self.said += 1;
                        let content = format!("settled {}", self.said);
                        let key = self.rooms[room].key.clone();
                        let outcome = self.nodes[node].publish_one(&key, draft("ann", &content)).await;
                        if let Outcome::New(at) = outcome {
                            self.rooms[room].acknowledged.push(Said { at, content });
                            return;
                        }
                        tokio::time::sleep(PACE).await;
                    }
                })
                .await;
            }
        }
        for room in &mut self.rooms {
            for follower in &mut room.followers {
                within("all to stand at the head", async {
                    while !follower.audit(&self.nodes, &mut self.dice).await {
                        tokio::time::sleep(PACE).await;
                    }
                })
                .await;
            }
        }
    }

    async fn judge(self) -> Vec<String> {
        let mut wrong = Vec::new();
        for room in self.rooms {
            for follower in &room.followers {
                eprintln!("{}", super::checker::summary(&follower.transcript));
            }
            let page = self.nodes[0]
                .before(&room.key, u64::MAX, 128)
                .await
                .expect("all is well");
            let log = page.entries.iter().map(|entry| Said {
                at: entry.position.clone(),
                content: said(entry),
            });
            let evidence = Evidence {
                transcripts: room.followers.into_iter().map(|follower| follower.transcript).collect(),
                acknowledged: room.acknowledged,
                log: log.collect(),
                safe: self.form == Form::Safe,
                kept: KEPT as u64,
            };
            let found = violations(&evidence);
            wrong.extend(found.into_iter().map(|what| format!("{}: {what}", room.key.name)));
        }
        wrong
    }
}

/// Publishes a batch, and what may be tried again until somebody knows; what was acknowledged.
async fn publish(node: &Peer, room: &RoomKey, saying: Saying) -> Vec<Said> {
    const TRIES: usize = 3;
    let mut acknowledged = Vec::new();
    let mut waiting = saying.drafts;
    for attempt in 0..TRIES {
        if waiting.is_empty() {
            break;
        }
        let drafts: Vec<_> = waiting.iter().map(|(_, draft)| draft.clone()).collect();
        let outcomes = node.publish(room, &drafts, Duration::from_secs(2)).await;
        assert_eq!(outcomes.len(), drafts.len());
        let mut again = Vec::new();
        for ((content, draft), outcome) in waiting.into_iter().zip(outcomes) {
            match outcome {
                Outcome::New(at) => acknowledged.push(Said { at, content }),
                Outcome::Again(at) if attempt > 0 => acknowledged.push(Said { at, content }),
                Outcome::Again(at) => panic!("{content} was never said before, and is at {at:?}"),
                Outcome::Unknown | Outcome::Refused(_) if draft.key.is_some() => again.push((content, draft)),
                Outcome::Unknown | Outcome::Refused(_) => {}
            }
        }
        waiting = again;
        tokio::time::sleep(PACE).await;
    }
    acknowledged
}

/// Something happens to the server, or nothing.
async fn befall(dice: &mut Dice, form: Form, server: &mut Redis, snapshots: &mut Vec<Vec<u8>>) {
    match dice.below(20) {
        0..=1 => drop(server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await),
        2 => drop(server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await),
        3 => {
            server.freeze();
            tokio::time::sleep(Duration::from_millis(dice.below(FROZEN_MS) as u64)).await;
            server.thaw();
        }
        4..=6 if form == Form::Safe => {
            tokio::time::sleep(Duration::from_millis(dice.below(4) as u64)).await;
            server.kill();
            server.restart().await;
        }
        4..=9 if form == Form::Lossy => lose(dice, server, snapshots).await,
        _ => {}
    }
}

/// Forgets something.
async fn lose(dice: &mut Dice, server: &mut Redis, snapshots: &mut Vec<Vec<u8>>) {
    match dice.below(10) {
        0..=2 => snapshots.push(server.snapshot().await),
        3..=7 if !snapshots.is_empty() => {
            let at = dice.below(snapshots.len());
            // What came after it never happened.
            snapshots.truncate(at + 1);
            server.put_back(&snapshots[at]).await;
        }
        8 if dice.hits(50) => drop(server.cli(&["FLUSHALL"]).await),
        8 => evict(server, "m:").await,
        9 => evict(server, "l:").await,
        _ => {}
    }
}

/// As an eviction policy would: one key of some room is gone.
async fn evict(server: &Redis, kind: &str) {
    for name in ["lobby", "}x {a}"] {
        let partition = room(name).partition;
        server
            .cli(&["DEL", &format!("conclave:1:0:{{{partition}}}{kind}{name}")])
            .await;
    }
}
