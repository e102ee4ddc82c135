//! A Redis Cluster of three masters, put together by its own commands.

use std::time::Duration;

use redis::{RedisResult, Value};

use super::ports::Port;
use super::redis::{Builder, Redis, redis};
use super::sentinel::words;
use super::within;

/// First and last slot of each master, as `redis-cli --cluster create` divides them.
const SLOTS: [(u16, u16); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

pub struct RedisCluster {
    pub masters: Vec<Redis>,
    _buses: Vec<Port>,
}

impl RedisCluster {
    pub async fn start() -> Self {
        Self::with(|server| server).await
    }

    /// As [`RedisCluster::start`], with more options for every master.
    pub async fn with(options: impl Fn(Builder) -> Builder) -> Self {
        let (mut masters, mut buses) = (Vec::new(), Vec::new());
        for _ in SLOTS {
            let bus = Port::free();
            let server = redis()
                .option("cluster-enabled", "yes")
                .option("cluster-port", &bus.number.to_string())
                .option("cluster-node-timeout", "2000");
            masters.push(options(server).start().await);
            buses.push(bus);
        }
        for (at, (master, (first, last))) in masters.iter().zip(SLOTS).enumerate() {
            master
                .cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()])
                .await;
            let (first, last) = (first.to_string(), last.to_string());
            master.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        }
        for (other, bus) in masters.iter().zip(&buses).skip(1) {
            let (port, bus) = (other.port().to_string(), bus.number.to_string());
            masters[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
        }
        let cluster = Self { masters, _buses: buses };
        cluster.whole().await;
        cluster
    }

    /// For `backplane.url`.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = (self.masters.iter())
            .map(|master| format!("127.0.0.1:{}", master.port()))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Waits until every master knows all slots to be served.
    pub async fn whole(&self) {
        for master in &self.masters {
            master
                .until(&["CLUSTER", "INFO"], |info| {
                    let info = words(info).concat();
                    ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3"]
                        .iter()
                        .all(|line| info.contains(line))
                })
                .await;
        }
    }

    /// Which master serves `slot`, in its own eyes.
    pub async fn owner(&self, slot: u16) -> usize {
        for (at, master) in self.masters.iter().enumerate() {
            // One of another slot's master is refused with MOVED before anything else is looked at.
            let mine = master.text(&["CLUSTER", "NODES"]).await;
            let line = mine
                .lines()
                .find(|line| line.contains("myself"))
                .expect("it knows itself");
            if line.split(' ').skip(8).any(|range| covers(range, slot)) {
                return at;
            }
        }
        panic!("nobody serves slot {slot}");
    }

    pub async fn slot_of(&self, key: &str) -> u16 {
        let Value::Int(slot) = self.masters[0].cli(&["CLUSTER", "KEYSLOT", key]).await else {
            panic!("not a number");
        };
        u16::try_from(slot).expect("below 16,384")
    }

    /// Begins to move a slot: from now on keys that are not at its old master are asked for at the new one.
    pub async fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let (ids, slot) = (self.ids().await, slot.to_string());
        let [from, to] = [from, to].map(|at| (&self.masters[at], ids[at].as_str()));
        to.0.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", from.1]).await;
        from.0.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", to.1]).await;
    }

    /// Moves the keys of a slot, at most `count` of them; how many there were.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize, count: usize) -> usize {
        let (slot, count) = (slot.to_string(), count.to_string());
        let keys = words(
            &self.masters[from]
                .cli(&["CLUSTER", "GETKEYSINSLOT", &slot, &count])
                .await,
        );
        let port = self.masters[to].port().to_string();
        for key in &keys {
            let moved = self.masters[from]
                .cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"])
                .await;
            assert!(matches!(moved, Value::Okay | Value::SimpleString(_)), "{moved:?}");
        }
        keys.len()
    }

    /// The slot belongs to its new master. Every key must have been moved.
    pub async fn end_move(&self, slot: u16, to: usize) {
        let (ids, slot) = (self.ids().await, slot.to_string());
        // The new master first, or a slot might be nobody's for a moment.
        let order = std::iter::once(to).chain((0..self.masters.len()).filter(|at| *at != to));
        for at in order {
            self.masters[at]
                .cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]])
                .await;
        }
    }

    /// All of it at once.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_to_move(slot, from, to).await;
        while self.move_keys(slot, from, to, 100).await > 0 {}
        self.end_move(slot, to).await;
    }

    /// A command about a key, asked of whoever has it.
    pub async fn ask(&self, words: &[&str], key: &str) -> RedisResult<Value> {
        let owner = self.owner(self.slot_of(key).await).await;
        self.masters[owner].ask(words).await
    }

    async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for master in &self.masters {
            ids.push(master.text(&["CLUSTER", "MYID"]).await);
        }
        ids
    }

    /// Waits until all masters agree on the owner of a slot.
    pub async fn agreed(&self, slot: u16, owner: usize) {
        let id = self.ids().await[owner].clone();
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        within("all masters to know the slot's owner", async {
            for master in &self.masters {
                loop {
                    pace.tick().await;
                    let nodes = master.text(&["CLUSTER", "NODES"]).await;
                    let line = nodes.lines().find(|line| line.starts_with(&id)).unwrap_or("");
                    if line.split(' ').skip(8).any(|range| covers(range, slot)) {
                        break;
                    }
                }
            }
        })
        .await;
    }
}

/// `5461-10922` or `7`; slots on the move, `[7->-…]`, belong to nobody here.
fn covers(range: &str, slot: u16) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&slot),
        _ => false,
    }
}
