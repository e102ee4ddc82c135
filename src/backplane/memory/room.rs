//! One room of the memory engine: its log, who is in it, which nodes hear of it. Pure: no lock, no clock.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::Ear;
use super::keys::Keys;
use super::ring::{Kept, Line, Ring};
use crate::backplane::contract::{
    Draft, Entry, Found, Head, Incarnation, Opened, Outcome, PAGE_ENTRIES_MAX, Page, Position, Range, Refusal, Users,
};
use crate::backplane::lineage::{Lineage, Verdict};
use crate::config::classes::Class;

/// A user in a room.
#[derive(Debug, Clone)]
pub struct Presence {
    pub json: Arc<str>,
    /// Never empty.
    pub held_by: Vec<Incarnation>,
}

/// A room, as long as anybody may come back for something in it.
#[derive(Clone)]
pub struct Room {
    pub lineage: Lineage,
    pub ring: Ring,
    keys: Keys<Position>,
    pub users: IndexMap<Arc<str>, Presence>,
    /// As [`Users::version`].
    pub version: u64,
    /// Nodes that are attached. Replaced as a whole, so that a message is told to a copy without the lock.
    pub ears: Arc<[Arc<Ear>]>,
    /// Bytes of `ring` that the engine knows of.
    pub reported_bytes: usize,
}

/// What one room may keep.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub kept: Kept,
    pub key_window: Duration,
}

impl Rules {
    pub fn of(class: &Class) -> Self {
        Self {
            kept: Kept {
                messages: class.history_messages,
                bytes: class.history_bytes,
                age: class.history_age,
            },
            key_window: class.key_window,
        }
    }
}

impl Room {
    /// `version` must be above any that a room of this name had before.
    pub fn new(epoch: Arc<str>, version: u64) -> Self {
        Self {
            lineage: Lineage::new(epoch, 1),
            ring: Ring::default(),
            keys: Keys::default(),
            users: IndexMap::new(),
            version,
            ears: Arc::default(),
            reported_bytes: 0,
        }
    }

    /// Appends drafts; what is new is also put into `told`.
    pub fn publish(&mut self, drafts: &[Draft], now_ms: u64, rules: &Rules, told: &mut Vec<Entry>) -> Vec<Outcome> {
        self.keys.trim(now_ms, rules.key_window);
        let outcomes = drafts
            .iter()
            .map(|draft| {
                let outcome = self.place(draft, now_ms);
                if let Outcome::New(position) = &outcome {
                    told.push(Entry {
                        position: position.clone(),
                        follows: position.seq - 1,
                        time_ms: now_ms,
                        envelope: draft.envelope.clone(),
                    });
                }
                outcome
            })
            .collect();
        self.ring.trim(now_ms, &rules.kept);
        outcomes
    }

    fn place(&mut self, draft: &Draft, now_ms: u64) -> Outcome {
        if let Some(key) = &draft.key {
            if let Some(first) = self.keys.place_of(&draft.user, key) {
                return Outcome::Again(first);
            }
            if self.keys.is_full() {
                return Outcome::Refused(Refusal::Full);
            }
        }
        self.ring.push(Line {
            time_ms: now_ms,
            envelope: draft.envelope.clone(),
        });
        let position = self.head();
        if let Some(key) = &draft.key {
            self.keys.take(&draft.user, key, position.clone(), now_ms);
        }
        Outcome::New(position)
    }

    /// The position of the newest message.
    pub fn head(&self) -> Position {
        Position {
            epoch: self.lineage.epoch(),
            seq: self.ring.head(),
        }
    }

    pub fn state(&self) -> Head {
        Head {
            position: self.head(),
            presence: self.version,
        }
    }

    pub fn opened(&self) -> Opened {
        Opened {
            head: self.ring.head(),
            lineage: self.lineage.clone(),
            users: self.users(),
        }
    }

    pub fn users(&self) -> Users {
        let users = self.users.iter();
        Users {
            version: self.version,
            users: users
                .map(|(user, presence)| (Arc::clone(user), Arc::clone(&presence.json)))
                .collect(),
        }
    }

    /// What follows a position.
    pub fn range(&self, after: &Position, limit: usize) -> Range {
        Range {
            found: self.find(after, limit),
            head: self.ring.head(),
            lineage: self.lineage.clone(),
        }
    }

    fn find(&self, after: &Position, limit: usize) -> Found {
        match self.lineage.judge(&after.epoch, after.seq, self.ring.head()) {
            Verdict::Unknown => Found::Unknown,
            Verdict::Forked(last) => Found::Forked(last),
            Verdict::Good if after.seq + 1 < self.ring.first() => {
                let seq = self.ring.first() - 1;
                let epoch = self.lineage.epoch_of(seq);
                Found::Trimmed(Position { epoch, seq })
            }
            Verdict::Good => Found::Entries(self.entries(after.seq + 1, limit.min(PAGE_ENTRIES_MAX))),
        }
    }

    /// The newest entries below `seq`.
    pub fn before(&self, seq: u64, limit: usize) -> Page {
        let end = seq.min(self.ring.head() + 1);
        let limit = limit.min(PAGE_ENTRIES_MAX) as u64;
        let start = end.saturating_sub(limit).max(self.ring.first());
        let count = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
        Page {
            entries: self.entries(start, count),
            more: start > self.ring.first() && end > self.ring.first(),
        }
    }

    fn entries(&self, from: u64, limit: usize) -> Vec<Entry> {
        let lines = self.ring.from(from, limit);
        lines
            .map(|(seq, line)| Entry {
                position: Position {
                    epoch: self.lineage.epoch_of(seq),
                    seq,
                },
                follows: seq - 1,
                time_ms: line.time_ms,
                envelope: line.envelope.clone(),
            })
            .collect()
    }

    /// Forgets what is too old; true if nothing is left that anybody could come back for.
    pub fn sweep(&mut self, now_ms: u64, rules: &Rules) -> bool {
        self.ring.trim(now_ms, &rules.kept);
        self.keys.trim(now_ms, rules.key_window);
        self.is_deserted() && self.ring.is_empty() && self.keys.is_empty()
    }

    /// Nobody hears it and nobody is in it.
    pub fn is_deserted(&self) -> bool {
        self.ears.is_empty() && self.users.is_empty()
    }
}
