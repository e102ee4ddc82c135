//! The engine of a single process: nothing outlives it, and nothing is lost while it lives. It keeps the whole contract,
//! so what is above the trait can be tried on it with as many nodes as one likes.
//!
//! Locks are held for a lookup and an append, and no lock that a call of the log takes is held while a sink is told. Who
//! needs two takes `lives` before a map of rooms, and `telling` before `register`.

mod clock;
mod control;
#[cfg(test)]
pub mod faulty;
pub mod keys;
mod node;
mod people;
mod presence;
#[cfg(test)]
pub mod rewind;
mod ring;
mod room;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use self::clock::{Clock, System};
use self::control::Register;
pub use self::node::Node;
use self::presence::Lives;
use self::ring::Kept;
use self::room::{Room, Rules};
use super::contract::{Control, Draft, Failed, Opened, Outcome, Revocation, RoomKey, Sink};
use crate::config::Config;
use crate::config::classes::Classes;
use crate::protocol;

/// Maps over which rooms are spread by partition, so that threads seldom meet.
const MAPS: usize = 64;

/// A room tells the engine what it keeps when that has changed by so many bytes: a number that all cores share is not
/// touched for every message.
const REPORT_BYTES: usize = 64 * 1024;

/// How often old things are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Where a node hears. It hears nothing before it is started.
#[derive(Default)]
pub struct Ear {
    sink: OnceLock<Arc<dyn Sink>>,
}

impl Ear {
    fn tell(&self, tell: impl FnOnce(&dyn Sink)) {
        if let Some(sink) = self.sink.get() {
            tell(&**sink);
        }
    }
}

type Rooms = HashMap<Arc<str>, Box<Room>>;

/// The engine. Each node of the process has a handle to it: [`Memory::node`].
pub struct Memory {
    classes: Classes,
    maps: Box<[Mutex<Rooms>]>,
    lives: Mutex<Lives>,
    register: Mutex<Register>,
    /// Held while nodes are told of a control, which keeps these in one order.
    telling: Mutex<()>,
    /// Every node that was started.
    ears: Mutex<Vec<Arc<Ear>>>,
    /// Bytes that all rooms may keep together.
    bytes_max: usize,
    /// Bytes that they do keep, to within [`REPORT_BYTES`] per room.
    bytes: AtomicI64,
    /// The latest presence version of any room: a room that is made anew never repeats one.
    version: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Memory {
    /// An empty engine.
    #[must_use]
    pub fn new(config: &Config) -> Arc<Self> {
        Self::with_clock(config, Arc::new(System::default()))
    }

    fn with_clock(config: &Config, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            classes: Classes::new(config),
            maps: (0..MAPS).map(|_| Mutex::default()).collect(),
            lives: Mutex::new(Lives::new(random_word())),
            register: Mutex::default(),
            telling: Mutex::new(()),
            ears: Mutex::default(),
            bytes_max: config.history.node_bytes,
            bytes: AtomicI64::new(0),
            version: AtomicU64::new(clock.unix_ms() * 1_000),
            clock,
        })
    }

    /// One more node.
    #[must_use]
    pub fn node(self: &Arc<Self>) -> Arc<Node> {
        Arc::new(Node::new(Arc::clone(self)))
    }

    fn map(&self, room: &RoomKey) -> &Mutex<Rooms> {
        &self.maps[usize::from(room.partition) % MAPS]
    }

    /// The room of that name, which begins to exist if it must.
    fn open<'a>(&self, rooms: &'a mut Rooms, name: &Arc<str>) -> &'a mut Room {
        rooms
            .entry(Arc::clone(name))
            .or_insert_with(|| Box::new(Room::new(random_word(), self.next_version())))
    }

    fn rules_of(&self, room: &RoomKey) -> Rules {
        self.rules_of_name(&room.name)
    }

    fn rules_of_name(&self, name: &str) -> Rules {
        Rules::of(self.classes.of(protocol::room::called(name)))
    }

    fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::Relaxed) + 1
    }

    // The log

    fn publish(&self, key: &RoomKey, drafts: &[Draft]) -> Vec<Outcome> {
        let now_ms = self.clock.unix_ms();
        let mut told = Vec::with_capacity(drafts.len());
        let (outcomes, ears) = {
            let mut rooms = self.map(key).lock();
            let room = self.open(&mut rooms, &key.name);
            let rules = self.rules_of(key);
            let outcomes = room.publish(drafts, now_ms, &rules, &mut told);
            self.report(room, now_ms, &rules);
            (outcomes, Arc::clone(&room.ears))
        };
        for entry in told {
            for ear in &*ears {
                ear.tell(|sink| sink.message(&key.name, entry.clone()));
            }
        }
        outcomes
    }

    fn attach(&self, key: &RoomKey, ear: &Arc<Ear>) -> Opened {
        let mut rooms = self.map(key).lock();
        let room = self.open(&mut rooms, &key.name);
        if !room.ears.iter().any(|known| Arc::ptr_eq(known, ear)) {
            room.ears = room.ears.iter().chain([ear]).cloned().collect();
        }
        room.ring.trim(self.clock.unix_ms(), &self.rules_of(key).kept);
        room.opened()
    }

    fn detach(&self, room: &RoomKey, ear: &Arc<Ear>) {
        if let Some(room) = self.map(room).lock().get_mut(&room.name) {
            room.ears = room
                .ears
                .iter()
                .filter(|known| !Arc::ptr_eq(known, ear))
                .cloned()
                .collect();
        }
    }

    /// Reads a room as it is by now; `None` if there is no such room.
    fn read<T>(&self, key: &RoomKey, read: impl FnOnce(&Room) -> T) -> Option<T> {
        let mut rooms = self.map(key).lock();
        let room = rooms.get_mut(&key.name)?;
        room.ring.trim(self.clock.unix_ms(), &self.rules_of(key).kept);
        Some(read(room))
    }

    // What is kept

    /// Learns what this room keeps, if that has changed by much. An engine that keeps too much lets the room in which
    /// something is said keep a quarter of what it otherwise might.
    fn report(&self, room: &mut Room, now_ms: u64, rules: &Rules) {
        if self.bytes_over() > 0 {
            let quarter = Kept {
                bytes: rules.kept.bytes / 4,
                ..rules.kept
            };
            room.ring.trim(now_ms, &quarter);
        }
        let bytes = room.ring.bytes();
        if bytes.abs_diff(room.reported_bytes) >= REPORT_BYTES || bytes == 0 {
            let change = signed(bytes) - signed(room.reported_bytes);
            self.bytes.fetch_add(change, Ordering::Relaxed);
            room.reported_bytes = bytes;
        }
    }

    /// Bytes that all rooms keep beyond what they may.
    fn bytes_over(&self) -> usize {
        let bytes = usize::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(0);
        bytes.saturating_sub(self.bytes_max)
    }

    /// Forgets old messages, and rooms that nobody can come back for; and while too much is kept, what was said in
    /// deserted rooms, the longest silent first. Takes one map at a time and lets others run in between.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not visited is visited next time.
    async fn sweep(&self) {
        let now_ms = self.clock.unix_ms();
        let mut deserted = Vec::new();
        for map in &self.maps {
            map.lock().retain(|name, room| {
                let rules = self.rules_of_name(name);
                let is_over = room.sweep(now_ms, &rules);
                self.report(room, now_ms, &rules);
                if room.is_deserted() && self.bytes_over() > 0 {
                    deserted.push((room.ring.said_ms(), RoomKey::new(Arc::clone(name))));
                }
                !is_over
            });
            tokio::task::yield_now().await;
        }
        self.register.lock().sweep(self.clock.elapsed_ms());
        deserted.sort_unstable_by_key(|(said_ms, _)| *said_ms);
        for (_, room) in deserted {
            if self.bytes_over() == 0 {
                return;
            }
            self.silence(&room, now_ms);
        }
    }

    /// Forgets what was said in a deserted room; who comes back is told that it was trimmed.
    fn silence(&self, key: &RoomKey, now_ms: u64) {
        if let Some(room) = self.map(key).lock().get_mut(&key.name)
            && room.is_deserted()
        {
            let rules = self.rules_of(key);
            let nothing = Kept {
                messages: 0,
                ..rules.kept
            };
            room.ring.trim(now_ms, &nothing);
            self.report(room, now_ms, &rules);
        }
    }

    // Control

    /// Keeps a revocation and tells all nodes; unless `always`, only of what is new.
    fn revoke(&self, told: &Revocation, always: bool) -> Result<(), Failed> {
        let _order = self.telling.lock();
        let (kept, is_new) = self.register.lock().add(told, self.clock.unix_ms() / 1_000)?;
        if is_new || always {
            self.tell(&Control::Revoke(kept));
        }
        Ok(())
    }

    /// The caller holds `telling`.
    fn tell(&self, control: &Control) {
        let ears = self.ears.lock().clone();
        for ear in ears {
            ear.tell(|sink| sink.control(control.clone()));
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// 80 random bits: two that were ever drawn are the same with a chance of 2^-80.
fn random_word() -> Arc<str> {
    let bits = uuid::Uuid::new_v4().as_u128();
    format!("{:020x}", bits >> 48).into()
}
