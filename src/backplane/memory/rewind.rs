//! What a failover does to an engine that lost its tail: for tests of what is above.

use std::sync::Arc;

use super::control::Register;
use super::presence::Lives;
use super::room::Room;
use super::{Memory, Rooms, random_word};

/// The state of an engine at some moment.
pub struct Snapshot {
    maps: Vec<Rooms>,
    lives: Lives,
    register: Register,
}

/// Whether an engine notices that it was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epoch {
    /// Each room goes on in a new epoch at the next seq.
    New,
    /// The naive way: numbers are used again in the same epoch. What is above cannot be right on such an engine.
    Same,
}

impl Memory {
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            maps: self.maps.iter().map(|map| map.lock().clone()).collect(),
            lives: self.lives.lock().clone(),
            register: self.register.lock().clone(),
        }
    }

    /// Goes back to an earlier state. Nodes stay attached; they are to be told by the test.
    pub fn rewind(&self, to: &Snapshot, epoch: Epoch) {
        for (map, old) in self.maps.iter().zip(&to.maps) {
            let mut map = map.lock();
            let now = std::mem::replace(&mut *map, old.clone());
            for (name, room) in &mut *map {
                // Subscriptions are the links', not the data's.
                room.ears = now.get(name).map_or_else(Arc::default, |now| Arc::clone(&now.ears));
                if epoch == Epoch::New {
                    let first = room.ring.head() + 1;
                    room.lineage.extend(&random_word(), first);
                }
            }
            for (name, gone) in now {
                if !gone.ears.is_empty() && !map.contains_key(&name) {
                    let mut room = Room::new(random_word(), self.next_version());
                    room.ears = Arc::clone(&gone.ears);
                    map.insert(name, Box::new(room));
                }
            }
        }
        *self.lives.lock() = to.lives.clone();
        self.lives.lock().server = random_word();
        *self.register.lock() = to.register.clone();
    }
}
