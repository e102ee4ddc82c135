//! What was said in rooms: one hash and one list per room, and the scripts that keep them in step.

use std::sync::Arc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::Value;

use super::super::contract::{
    Draft, Entry, Failed, Found, Head, Opened, Outcome, PAGE_ENTRIES_MAX, Page, Position, Range, Refusal, RoomKey,
};
use super::super::lineage::{Lineage, Verdict};
use super::super::outbox::Event;
use super::super::outbox::record::key_text;
use super::calls::Invocation;
use super::keys::CANARY;
use super::outbox::{Boxes, telling};
use super::payload::{log_entry, number};
use super::reply::{self, array, bytes, integer, text};
use super::script::{Script, digest, script};
use super::topology::Place;
use super::{Redis, counted};
use crate::limits::{POST_AGE, POST_HISTORY_BYTES, POST_HISTORY_MESSAGES};
use crate::limits::{SHADOW_HISTORY_AGE, SHADOW_HISTORY_BYTES, SHADOW_HISTORY_MESSAGES};
use crate::telemetry::metrics::CallKind;

/// Life of a room that was written in, since somebody last asked after it; at least as long as its history.
const ROOM_LIFE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The same of a room that was only joined.
const EMPTY_ROOM_LIFE: Duration = Duration::from_secs(3_600);

/// Bytes of entries in one answer, unless a single one is larger.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Rooms in one call of `heads`: what others wait for behind it.
const HEADS_MAX: usize = 256;

/// Restart-only epochs, for the fault lab: its checker must find what they lose.
const PUBLISH_TEXT: &str = if cfg!(feature = "planted-naive-epoch") {
    concat!("local naive = true\n", telling!("publish"))
} else {
    concat!("local naive = false\n", telling!("publish"))
};

pub(super) static PUBLISH: Script = Script::new(PUBLISH_TEXT, LazyLock::new(|| digest(PUBLISH_TEXT)));
pub(super) static OPEN: Script = script!("open");
static RANGE: Script = script!("range");
static BEFORE: Script = script!("before");
static HEADS: Script = script!("heads");

const BROKEN: Failed = Failed::Refused(Refusal::Broken);

/// Limits of one log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

impl Redis {
    /// [`super::Backplane::publish`]
    pub(super) async fn append(&self, room: &RoomKey, drafts: &[Draft], within: Duration) -> Vec<Outcome> {
        let call = self.try_append(room, drafts, within, self.limits_of(room));
        match counted(self, CallKind::Publish, call).await {
            Ok(outcomes) => outcomes,
            Err(Failed::Refused(refusal)) => vec![Outcome::Refused(refusal); drafts.len()],
            Err(Failed::Unknown) => vec![Outcome::Unknown; drafts.len()],
        }
    }

    pub(super) async fn try_append(
        &self,
        room: &RoomKey,
        drafts: &[Draft],
        within: Duration,
        limits: Limits,
    ) -> Result<Vec<Outcome>, Failed> {
        let asked = Instant::now();
        let shard = self.map.load().shard(Place::Partition(room.partition)).cloned();
        let shard = shard.ok_or(Refusal::Away)?;
        // Another clock after a redirection; clocks of one Cluster are near each other.
        let not_after = shard.clock.in_ms(within, asked).ok_or(Refusal::Away)?;
        let (keys, args) = self.publish_call(room, drafts, not_after, limits);
        let mut answer = array(self.call_kept(room.partition, &PUBLISH, &keys, &args).await?)?;
        if let Some(telling) = self.telling.get() {
            telling.outboxes.written.note(room.partition);
        }
        shard.clock.learn(integer(answer.next())?, asked, Instant::now());
        let outcomes: Vec<_> = answer.map(outcome).collect::<Result<_, _>>()?;
        if outcomes.len() == drafts.len() {
            Ok(outcomes)
        } else {
            Err(Failed::Unknown)
        }
    }

    pub(super) fn publish_call(
        &self,
        room: &RoomKey,
        drafts: &[Draft],
        not_after: u64,
        limits: Limits,
    ) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut keys = vec![self.keys.meta(room), self.keys.log(room)];
        let mut args = vec![
            self.keys.channel(room),
            fresh_epoch(),
            decimal(limits.messages),
            decimal(limits.bytes),
            millis(limits.age),
            millis(self.settings.classes.of(room.called()).key_window),
            decimal(not_after),
            millis(self.room_life(room)),
        ];
        let boxes = self.boxes_of(room);
        args.push(decimal(boxes.as_ref().map_or(0, |(boxes, _)| boxes.count())));
        if let Some((boxes, scene)) = &boxes {
            args.extend(boxes.bounds.iter().cloned());
            args.push(scene.clone());
        }
        for draft in drafts {
            let place = draft.key.as_ref().map_or(0, |key| {
                let key = self.keys.dedupe(room, &draft.user, key);
                // Twice in one batch it must have one place: the script notes there that it is taken.
                keys.iter().position(|known| *known == key).unwrap_or_else(|| {
                    keys.push(key);
                    keys.len() - 1
                }) + 1
            });
            args.push(decimal(place));
            args.push(draft.envelope.to_vec());
            if boxes.is_some() {
                args.push(key_text(draft.key.as_deref()).into_bytes());
            }
        }
        keys.extend(boxes.into_iter().flat_map(|(boxes, _)| boxes.keys));
        (keys, args)
    }

    /// The outboxes of hooks that are told what is said in a room, and node and room as they read them; none: nobody is told.
    fn boxes_of(&self, room: &RoomKey) -> Option<(Boxes, Vec<u8>)> {
        let telling = self.telling.get()?;
        let hooks = telling.outboxes.wanting(Event::Chat, &room.name);
        let is_told = !hooks.is_empty() && *room.name != *CANARY;
        is_told.then(|| {
            (
                telling.boxes(&self.keys, room.partition, hooks),
                telling.scene(&room.name),
            )
        })
    }

    /// Reads where a room stands, and makes it if there is none. The subscription is confirmed by then.
    pub(super) async fn open(&self, room: &RoomKey) -> Result<Opened, Failed> {
        let (meta, log) = (self.keys.meta(room), self.keys.log(room));
        let lives = [fresh_epoch(), millis(self.room_life(room)), millis(EMPTY_ROOM_LIFE)];
        let args = lives.each_ref().map(Vec::as_slice);
        let keys: [&[u8]; 2] = [&meta, &log];
        let (opened, users) = tokio::join!(self.call(room.partition, &OPEN, &keys, &args), self.read_users(room),);
        let mut opened = array(opened?)?;
        Ok(Opened {
            lineage: lineage(opened.next())?,
            head: integer(opened.next())?,
            users: users?,
        })
    }

    /// [`super::Backplane::range`]
    pub(super) async fn read_after(&self, room: &RoomKey, after: &Position, limit: usize) -> Result<Range, Failed> {
        let mut answer = array(self.read(&RANGE, room, after.seq, limit).await?)?;
        if answer.len() == 0 {
            return Ok(Range {
                found: Found::None,
                head: 0,
                lineage: Lineage::default(),
            });
        }
        let lineage = lineage(answer.next())?;
        let (head, first) = (integer(answer.next())?, integer(answer.next())?);
        let found = match lineage.judge(&after.epoch, after.seq, head) {
            Verdict::Unknown => Found::Unknown,
            Verdict::Forked(last) => Found::Forked(last),
            Verdict::Good if after.seq < head && after.seq + 1 < first => Found::Trimmed(Position {
                epoch: lineage.epoch_of(first - 1),
                seq: first - 1,
            }),
            Verdict::Good => Found::Entries(successors(answer, after.seq, head)?),
        };
        Ok(Range { found, head, lineage })
    }

    /// [`super::Backplane::before`]
    pub(super) async fn read_before(&self, room: &RoomKey, seq: u64, limit: usize) -> Result<Page, Failed> {
        let mut answer = array(self.read(&BEFORE, room, seq, limit).await?)?;
        if answer.len() == 0 {
            return Ok(Page::default());
        }
        let more = integer(answer.next())? == 1;
        let mut entries: Vec<_> = answer.map(entry).collect::<Result<_, _>>()?;
        entries.reverse();
        if is_dense(&entries) {
            Ok(Page { entries, more })
        } else {
            Err(BROKEN)
        }
    }

    async fn read(&self, script: &'static Script, room: &RoomKey, seq: u64, limit: usize) -> Result<Value, Failed> {
        let (meta, log) = (self.keys.meta(room), self.keys.log(room));
        let args = [
            decimal(seq),
            decimal(limit.clamp(1, PAGE_ENTRIES_MAX)),
            millis(self.settings.classes.of(room.called()).history_age),
            decimal(PAGE_BYTES_MAX),
        ];
        self.call(
            room.partition,
            script,
            &[&meta, &log],
            &args.each_ref().map(Vec::as_slice),
        )
        .await
    }

    /// [`super::Backplane::heads`]
    pub(super) async fn read_heads(&self, rooms: &[RoomKey]) -> Result<Vec<Option<Head>>, Failed> {
        let mut order: Vec<usize> = (0..rooms.len()).collect();
        let kind = |at: usize| (rooms[at].partition, self.room_life(&rooms[at]));
        order.sort_by_cached_key(|at| kind(*at));
        let pieces: Vec<&[usize]> = order
            .chunk_by(|a, b| kind(*a) == kind(*b))
            .flat_map(|partition| partition.chunks(HEADS_MAX))
            .collect();
        let calls: Vec<Invocation> = pieces
            .iter()
            .map(|piece| Invocation {
                partition: rooms[piece[0]].partition,
                keys: piece.iter().map(|at| self.keys.meta(&rooms[*at])).collect(),
                args: vec![millis(self.room_life(&rooms[piece[0]])), millis(EMPTY_ROOM_LIFE)],
            })
            .collect();
        let mut heads = vec![None; rooms.len()];
        for (piece, answer) in pieces.iter().zip(self.call_many(&HEADS, &calls).await) {
            let answer = array(answer?)?;
            if answer.len() != piece.len() {
                return Err(BROKEN);
            }
            for (at, found) in piece.iter().zip(answer) {
                heads[*at] = head(found)?;
            }
        }
        Ok(heads)
    }

    fn limits_of(&self, room: &RoomKey) -> Limits {
        let class = self.settings.classes.of(room.called());
        let limits = Limits {
            messages: class.history_messages,
            bytes: class.history_bytes,
            age: class.history_age,
        };
        if room.is_post() {
            Limits {
                messages: POST_HISTORY_MESSAGES,
                bytes: POST_HISTORY_BYTES,
                age: POST_AGE,
            }
        } else if room.is_shadow() {
            Limits {
                messages: limits.messages.min(SHADOW_HISTORY_MESSAGES),
                bytes: limits.bytes.min(SHADOW_HISTORY_BYTES),
                age: limits.age.min(SHADOW_HISTORY_AGE),
            }
        } else {
            limits
        }
    }

    fn room_life(&self, room: &RoomKey) -> Duration {
        if room.is_shadow() {
            EMPTY_ROOM_LIFE
        } else {
            ROOM_LIFE.max(self.settings.classes.of(room.called()).history_age)
        }
    }
}

/// A word that was never used before.
fn fresh_epoch() -> Vec<u8> {
    uuid::Uuid::new_v4().simple().to_string().split_off(16).into_bytes()
}

fn decimal(number: impl std::fmt::Display) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn millis(duration: Duration) -> Vec<u8> {
    decimal(duration.as_millis().max(1))
}

fn lineage(value: Option<Value>) -> Result<Lineage, Failed> {
    Lineage::parse(&text(value)?).map_err(|_| BROKEN)
}

/// `new E1 7` or `again E1 7`.
fn outcome(value: Value) -> Result<Outcome, Failed> {
    // It was done: what cannot be read may be asked for again.
    let read = || {
        let line = bytes(Some(value)).ok()?;
        let mut words = line.split(|byte| *byte == b' ');
        let kind = words.next()?;
        let epoch: Arc<str> = std::str::from_utf8(words.next()?).ok()?.into();
        let position = Position {
            epoch,
            seq: number(words.next()?)?,
        };
        match kind {
            b"new" => Some(Outcome::New(position)),
            b"again" => Some(Outcome::Again(position)),
            _ => None,
        }
    };
    read().ok_or(Failed::Unknown)
}

fn entry(value: Value) -> Result<Entry, Failed> {
    log_entry(reply::bytes(Some(value))?).map_err(|_| BROKEN)
}

fn successors(answer: std::vec::IntoIter<Value>, after: u64, head: u64) -> Result<Vec<Entry>, Failed> {
    let entries: Vec<_> = answer.map(entry).collect::<Result<_, _>>()?;
    let is_whole = match entries.first() {
        Some(first) => first.position.seq == after + 1 && is_dense(&entries),
        None => after == head,
    };
    if is_whole { Ok(entries) } else { Err(BROKEN) }
}

fn is_dense(entries: &[Entry]) -> bool {
    entries.windows(2).all(|pair| pair[1].follows == pair[0].position.seq)
}

/// `{epoch, head, version}`, or false.
fn head(value: Value) -> Result<Option<Head>, Failed> {
    if matches!(value, Value::Nil | Value::Boolean(false)) {
        return Ok(None);
    }
    let mut fields = array(value)?;
    let epoch = text(fields.next())?.into();
    let position = Position {
        epoch,
        seq: integer(fields.next())?,
    };
    Ok(Some(Head {
        position,
        presence: integer(fields.next())?,
    }))
}
