//! One call of the script that moves users: at most so many changes, all in one partition.

use std::collections::HashMap;

use redis::Value;

use super::super::super::contract::{Change, Failed, Refusal, RoomKey};
use super::super::super::outbox::{Event, HookSet};
use super::super::keys::Keys;
use super::super::outbox::{Telling, word};
use super::super::reply;

/// Changes in one call: 256 take Redis about two milliseconds.
pub(super) const MOVES_MAX: usize = 256;

/// Kind of the set of incarnations that hold something in a partition.
pub(super) const REGISTRY: &str = "i";

/// Kind of channels.
const CHANNEL: &str = "c:";

/// A user comes under an incarnation, or no longer is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move<'a> {
    pub(super) room: &'a str,
    pub(super) user: &'a str,
    /// None: leaves.
    json: Option<&'a str>,
}

impl<'a> Move<'a> {
    /// Out of a place as Redis keeps it, `room\0user`: no room's name has a NUL.
    pub(super) fn leave(place: &'a str) -> Option<Self> {
        let (room, user) = place.split_once('\0')?;
        Some(Self { room, user, json: None })
    }
}

impl<'a> From<&'a Change> for Move<'a> {
    fn from(change: &'a Change) -> Self {
        Self {
            room: &change.room.name,
            user: &change.user,
            json: change.enters.then_some(&*change.json),
        }
    }
}

/// The keys and arguments of one call.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    pub(super) partition: u16,
    keys: Vec<Vec<u8>>,
    /// Incarnation, number, stem of channels, how many rooms, how many outboxes.
    head: [Vec<u8>; 5],
    rooms: Vec<&'a str>,
    /// What hooks are told, as the script wants it; empty: nobody is.
    told: Vec<Vec<u8>>,
    /// The index of its room, from 1, with each.
    moves: Vec<(String, Move<'a>)>,
}

impl<'a> Batch<'a> {
    /// `number` 0: the incarnation is being reaped.
    pub(super) fn new(keys: &Keys, incarnation: &str, number: u64, partition: u16, moves: &[Move<'a>]) -> Self {
        let mut names = vec![
            keys.tomb(partition, incarnation),
            keys.held(partition, incarnation),
            keys.stem(partition, REGISTRY),
        ];
        let mut rooms = vec![];
        let mut indexes: HashMap<&str, usize> = HashMap::new();
        let moves = moves
            .iter()
            .map(|change| {
                let index = *indexes.entry(change.room).or_insert_with(|| {
                    let room = RoomKey {
                        name: change.room.into(),
                        partition,
                    };
                    names.extend([keys.meta(&room), keys.users(&room)]);
                    rooms.push(change.room);
                    rooms.len()
                });
                (index.to_string(), *change)
            })
            .collect();
        let head = [
            incarnation.as_bytes().to_vec(),
            number.to_string().into_bytes(),
            keys.stem(partition, CHANNEL),
            rooms.len().to_string().into_bytes(),
            b"0".to_vec(),
        ];
        Self {
            partition,
            keys: names,
            head,
            rooms,
            told: vec![],
            moves,
        }
    }

    /// Has hooks told who comes and goes, where there are some that want it.
    pub(super) fn tell(mut self, keys: &Keys, telling: &Telling) -> Self {
        let wishes: Vec<_> = self
            .rooms
            .iter()
            .map(|room| [Event::Join, Event::Left].map(|event| telling.outboxes.wanting(event, room)))
            .collect();
        let all = wishes
            .iter()
            .flatten()
            .fold(HookSet::default(), |all, some| all.and(*some));
        if all.is_empty() {
            return self;
        }
        let boxes = telling.boxes(keys, self.partition, all);
        self.head[4] = boxes.count().to_string().into_bytes();
        self.told = vec![word().into_bytes()];
        self.told.extend(boxes.bounds.iter().cloned());
        for (room, wishes) in self.rooms.iter().zip(wishes) {
            self.told
                .extend(wishes.map(|hooks| boxes.mask(hooks).to_string().into_bytes()));
            self.told.push(telling.scene(room));
        }
        self.keys.extend(boxes.keys);
        self
    }

    pub(super) fn keys(&self) -> Vec<&[u8]> {
        self.keys.iter().map(Vec::as_slice).collect()
    }

    pub(super) fn args(&self) -> Vec<&[u8]> {
        let mut args: Vec<&[u8]> = self.head.iter().map(Vec::as_slice).collect();
        args.extend(self.rooms.iter().map(|room| room.as_bytes()));
        args.extend(self.told.iter().map(Vec::as_slice));
        for (index, change) in &self.moves {
            let (sign, json) = change.json.map_or(("-", ""), |json| ("+", json));
            args.extend([index, sign, change.user, json].map(str::as_bytes));
        }
        args
    }
}

/// What one call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// So many users left their rooms as a whole, and so many changes were left out: the records of their rooms are
    /// none of ours.
    Done { left: u64, skipped: u64 },
    /// The incarnation is buried.
    Fenced,
    /// A call with a larger number was done before.
    Stale,
    /// It was to be reaped, and its tombstone is not there.
    Unburied,
}

impl Moved {
    pub(super) fn read(answer: Value) -> Result<Self, Failed> {
        if let Value::Array(counts) = answer {
            let mut counts = counts.into_iter().skip(1);
            let left = reply::integer(counts.next())?;
            let skipped = reply::integer(counts.next())?;
            return Ok(Self::Done { left, skipped });
        }
        match reply::text(Some(answer))?.as_str() {
            "FENCED" => Ok(Self::Fenced),
            "STALE" => Ok(Self::Stale),
            "UNBURIED" => Ok(Self::Unburied),
            _ => Err(Failed::Refused(Refusal::Broken)),
        }
    }
}
