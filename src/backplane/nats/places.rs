//! Who is in one room, as one node puts it together. Every incarnation writes its own places and nobody else's, so there
//! is nothing to agree on: a user is in the room while any place has them. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backplane::contract::{Incarnation, PresenceEvent, Users};

/// Left places that are remembered, in case older word of them comes later.
const LEFT_MAX: usize = 1_024;

/// Where a user is: through which incarnation, and under which digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub incarnation: Incarnation,
    pub user: Box<str>,
}

impl Place {
    /// The last two words of a subject.
    pub fn of_subject(subject: &str) -> Option<Self> {
        let mut words = subject.rsplit('.');
        let user = words.next()?.into();
        let incarnation = words.next()?.into();
        Some(Self { incarnation, user })
    }
}

/// Who holds a place, as it is stored: `{"user":"u7","json":"{\"id\":\"u7\"}"}`. Nothing is stored when they left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pub user: Arc<str>,
    pub json: Arc<str>,
}

/// A place as a stream has it.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub place: Place,
    pub seq: u64,
    /// `None`: they left.
    pub holder: Option<Holder>,
    pub time_ms: u64,
}

/// The places of a room.
#[derive(Debug, Default)]
pub(super) struct Places {
    version: u64,
    /// Whether all places were read since the room was attached. Until then nothing is told of.
    read: bool,
    held: HashMap<Place, (u64, Holder)>,
    /// Left, at this seq.
    left: HashMap<Place, u64>,
    /// Each user with the number of places.
    users: HashMap<Arc<str>, (Arc<str>, usize)>,
}

impl Places {
    /// One place changed. An event if that changes who is in the room, and somebody may be told.
    pub fn hear(&mut self, heard: Heard) -> Option<PresenceEvent> {
        let known = self.held.get(&heard.place).map(|(seq, _)| *seq);
        let known = known.max(self.left.get(&heard.place).copied());
        if known.is_some_and(|seq| seq >= heard.seq) {
            return None;
        }
        let time_ms = heard.time_ms;
        match heard.holder {
            Some(holder) => {
                self.left.remove(&heard.place);
                let before = self.held.insert(heard.place, (heard.seq, holder.clone()));
                match before {
                    Some((_, before)) if before.user == holder.user => {
                        if let Some((json, _)) = self.users.get_mut(&holder.user) {
                            *json = holder.json;
                        }
                        None
                    }
                    _ => self.enters(holder, time_ms),
                }
            }
            None => {
                if self.left.len() >= LEFT_MAX {
                    self.left.clear();
                }
                self.left.insert(heard.place.clone(), heard.seq);
                let (_, holder) = self.held.remove(&heard.place)?;
                self.leaves(&holder, time_ms)
            }
        }
    }

    /// All places were read when the stream's newest seq was `up_to`: what is not among them and not newer has gone.
    pub fn read(&mut self, all: Vec<Heard>, up_to: u64, time_ms: u64) -> Vec<PresenceEvent> {
        let gone: Vec<Place> = {
            let there: std::collections::HashSet<&Place> = all.iter().map(|heard| &heard.place).collect();
            let is_gone = |(place, (seq, _)): &(&Place, &(u64, Holder))| *seq <= up_to && !there.contains(place);
            self.held
                .iter()
                .filter(is_gone)
                .map(|(place, _)| place.clone())
                .collect()
        };
        let mut events: Vec<PresenceEvent> = all.into_iter().filter_map(|heard| self.hear(heard)).collect();
        for place in gone {
            let held = self.held.remove(&place);
            events.extend(held.and_then(|(_, holder)| self.leaves(&holder, time_ms)));
        }
        let first = !std::mem::replace(&mut self.read, true);
        if first { Vec::new() } else { events }
    }

    /// The stream may number anew: what is read next counts, whatever its seq.
    pub fn renumber(&mut self) {
        self.left.clear();
        self.held.values_mut().for_each(|(seq, _)| *seq = 0);
    }

    /// An incarnation is buried: its places count no more.
    pub fn bury(&mut self, incarnation: &str, time_ms: u64) -> Vec<PresenceEvent> {
        let its = |place: &&Place| &*place.incarnation == incarnation;
        let gone: Vec<Place> = self.held.keys().filter(its).cloned().collect();
        let mut events = Vec::new();
        for place in gone {
            let held = self.held.remove(&place);
            events.extend(held.and_then(|(_, holder)| self.leaves(&holder, time_ms)));
        }
        if self.read { events } else { Vec::new() }
    }

    /// Whether exactly these places are held.
    pub fn are<'a>(&self, places: impl Iterator<Item = &'a Place>) -> bool {
        let mut count = 0;
        let mut all = true;
        for place in places {
            count += 1;
            all &= self.held.contains_key(place);
        }
        all && count == self.held.len()
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn users(&self) -> Users {
        let users = self
            .users
            .iter()
            .map(|(user, (json, _))| (Arc::clone(user), Arc::clone(json)));
        Users {
            version: self.version,
            users: users.collect(),
        }
    }

    fn enters(&mut self, holder: Holder, time_ms: u64) -> Option<PresenceEvent> {
        let entry = self
            .users
            .entry(Arc::clone(&holder.user))
            .or_insert_with(|| (Arc::clone(&holder.json), 0));
        entry.0 = Arc::clone(&holder.json);
        entry.1 += 1;
        (entry.1 == 1).then(|| self.event(true, &holder, time_ms)).flatten()
    }

    fn leaves(&mut self, holder: &Holder, time_ms: u64) -> Option<PresenceEvent> {
        let (_, places) = self.users.get_mut(&holder.user)?;
        *places -= 1;
        if *places > 0 {
            return None;
        }
        self.users.remove(&holder.user);
        self.event(false, holder, time_ms)
    }

    fn event(&mut self, joined: bool, holder: &Holder, time_ms: u64) -> Option<PresenceEvent> {
        let follows = self.version;
        self.version += 1;
        self.read.then(|| PresenceEvent {
            follows,
            version: self.version,
            joined,
            user: Arc::clone(&holder.user),
            json: Arc::clone(&holder.json),
            time_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(incarnation: &str, user: &str, seq: u64, enters: bool) -> Heard {
        Heard {
            place: Place {
                incarnation: incarnation.into(),
                user: user.into(),
            },
            seq,
            holder: enters.then(|| Holder {
                user: user.into(),
                json: format!(r#"{{"id":"{user}"}}"#).into(),
            }),
            time_ms: 7,
        }
    }

    /// The users who were told of, with whether they joined, and that versions follow each other.
    fn told(events: impl IntoIterator<Item = PresenceEvent>) -> Vec<(String, bool)> {
        let told = events.into_iter().map(|event| {
            assert_eq!(event.version, event.follows + 1);
            (event.user.to_string(), event.joined)
        });
        told.collect()
    }

    #[test]
    fn many_places_are_one_user() {
        let mut places = Places::default();
        assert!(places.read(Vec::new(), 0, 0).is_empty());
        assert_eq!(told(places.hear(heard("a", "u", 1, true))), [("u".to_owned(), true)]);
        assert!(places.hear(heard("b", "u", 2, true)).is_none());
        assert!(places.hear(heard("a", "u", 3, true)).is_none(), "again");
        assert!(places.hear(heard("a", "u", 4, false)).is_none());
        assert_eq!(told(places.hear(heard("b", "u", 5, false))), [("u".to_owned(), false)]);
        assert!(
            places.hear(heard("b", "u", 2, true)).is_none(),
            "older word of a left place"
        );
        assert!(places.users().users.is_empty());
    }

    #[test]
    fn what_is_read_corrects_what_was_heard() {
        let mut places = Places::default();
        // Heard while the first reading is under way.
        assert!(places.hear(heard("a", "gone", 9, false)).is_none());
        let first = vec![heard("a", "gone", 8, true), heard("a", "u", 3, true)];
        assert!(places.read(first, 8, 0).is_empty());
        assert_eq!(places.users().users.len(), 1);
        // `u` left and `v` came unheard; `w` came after the reading began.
        assert_eq!(told(places.hear(heard("b", "w", 12, true))), [("w".to_owned(), true)]);
        let events = places.read(vec![heard("a", "v", 10, true)], 11, 0);
        assert_eq!(told(events), [("v".to_owned(), true), ("u".to_owned(), false)]);
        assert!(places.are([heard("a", "v", 0, true).place, heard("b", "w", 0, true).place].iter()));
    }

    #[test]
    fn a_stream_that_numbers_anew_is_believed() {
        let mut places = Places::default();
        places.read(vec![heard("a", "u", 90, true), heard("a", "v", 91, true)], 91, 0);
        places.renumber();
        let events = places.read(vec![heard("a", "u", 4, true)], 4, 0);
        assert_eq!(told(events), [("v".to_owned(), false)]);
        assert_eq!(told(places.hear(heard("a", "u", 5, false))), [("u".to_owned(), false)]);
    }

    #[test]
    fn the_buried_leave_unless_they_are_elsewhere() {
        let mut places = Places::default();
        places.read(
            vec![
                heard("a", "u", 1, true),
                heard("a", "v", 2, true),
                heard("b", "v", 3, true),
            ],
            3,
            0,
        );
        assert_eq!(told(places.bury("a", 5)), [("u".to_owned(), false)]);
        assert!(places.bury("a", 5).is_empty());
    }
}
