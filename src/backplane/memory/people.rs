//! Users come to rooms and leave them, in the eyes of all nodes.

use std::collections::HashSet;
use std::sync::Arc;

use super::presence::{Held, Lives};
use super::room::Presence;
use super::{Ear, Memory};
use crate::backplane::contract::{Change, Incarnation, PresenceEvent, Presented, RoomKey};

/// An event and who is to hear it, once no lock is held.
pub struct Due {
    room: Arc<str>,
    event: PresenceEvent,
    ears: Arc<[Arc<Ear>]>,
}

impl Memory {
    /// As [`crate::backplane::contract::Backplane::present`].
    pub(super) fn present(&self, incarnation: &Incarnation, changes: &[Change]) -> Presented {
        let mut due = Vec::new();
        {
            let mut lives = self.lives.lock();
            if lives.is_buried(incarnation) {
                return Presented::Fenced;
            }
            for change in changes {
                if change.enters {
                    self.enter(&mut lives, incarnation, change, &mut due);
                } else {
                    self.leave(&mut lives, incarnation, change, &mut due);
                }
            }
        }
        announce(due);
        Presented::Done
    }

    /// As [`crate::backplane::contract::Backplane::assert_held`].
    pub(super) fn assert_held(&self, incarnation: &Incarnation, held: &[Change]) -> Presented {
        let wanted: HashSet<Held> = held
            .iter()
            .map(|change| (Arc::clone(&change.room.name), Arc::clone(&change.user)))
            .collect();
        let mut due = Vec::new();
        {
            let mut lives = self.lives.lock();
            if lives.is_buried(incarnation) {
                return Presented::Fenced;
            }
            for held in lives.surplus(incarnation, &wanted) {
                lives.release(incarnation, &held);
                self.go(incarnation, &held, &mut due);
            }
            for change in held {
                self.enter(&mut lives, incarnation, change, &mut due);
            }
        }
        announce(due);
        Presented::Done
    }

    /// Buries a life whose lease has ended, or any if `anyway`, and moves a piece of its users out; true when nothing is
    /// left of it.
    pub(super) fn reap(&self, dead: &Incarnation, anyway: bool) -> bool {
        let mut due = Vec::new();
        let is_over = {
            let mut lives = self.lives.lock();
            if !lives.bury(dead, anyway, self.clock.elapsed_ms()) {
                return false;
            }
            let piece = lives.piece(dead);
            for held in &piece {
                self.go(dead, held, &mut due);
            }
            !lives.holds(dead)
        };
        announce(due);
        is_over
    }

    fn enter(&self, lives: &mut Lives, incarnation: &Incarnation, change: &Change, due: &mut Vec<Due>) {
        let held = (Arc::clone(&change.room.name), Arc::clone(&change.user));
        lives.hold(incarnation, held);
        let mut rooms = self.map(&change.room).lock();
        let room = self.open(&mut rooms, &change.room.name);
        if let Some(presence) = room.users.get_mut(&change.user) {
            presence.json = Arc::clone(&change.json);
            if !presence.held_by.contains(incarnation) {
                presence.held_by.push(Arc::clone(incarnation));
            }
            return;
        }
        let presence = Presence {
            json: Arc::clone(&change.json),
            held_by: vec![Arc::clone(incarnation)],
        };
        room.users.insert(Arc::clone(&change.user), presence);
        let follows = std::mem::replace(&mut room.version, self.next_version());
        due.push(Due {
            room: Arc::clone(&change.room.name),
            event: PresenceEvent {
                follows,
                version: room.version,
                joined: true,
                user: Arc::clone(&change.user),
                json: Arc::clone(&change.json),
                time_ms: self.clock.unix_ms(),
            },
            ears: Arc::clone(&room.ears),
        });
    }

    fn leave(&self, lives: &mut Lives, incarnation: &Incarnation, change: &Change, due: &mut Vec<Due>) {
        let held = (Arc::clone(&change.room.name), Arc::clone(&change.user));
        if lives.release(incarnation, &held) {
            self.go(incarnation, &held, due);
        }
    }

    /// A user whom `incarnation` no longer holds.
    fn go(&self, incarnation: &Incarnation, (name, user): &Held, due: &mut Vec<Due>) {
        let mut rooms = self.map(&RoomKey::new(Arc::clone(name))).lock();
        let Some(room) = rooms.get_mut(name) else {
            return;
        };
        let Some(presence) = room.users.get_mut(user) else {
            return;
        };
        presence.held_by.retain(|holder| holder != incarnation);
        if !presence.held_by.is_empty() {
            return;
        }
        let Some(presence) = room.users.swap_remove(user) else {
            return;
        };
        let follows = std::mem::replace(&mut room.version, self.next_version());
        due.push(Due {
            room: Arc::clone(name),
            event: PresenceEvent {
                follows,
                version: room.version,
                joined: false,
                user: Arc::clone(user),
                json: presence.json,
                time_ms: self.clock.unix_ms(),
            },
            ears: Arc::clone(&room.ears),
        });
    }
}

fn announce(due: Vec<Due>) {
    for Due { room, event, ears } in due {
        for ear in &*ears {
            ear.tell(|sink| sink.presence(&room, event.clone()));
        }
    }
}
