//! Outboxes on Redis: per hook and partition a list and a hash of its state, written by the scripts that make events true
//! (`lua/outbox.lua` says how), read under a lease whose word the script that moves the cursor checks.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{Pipeline, Value, cmd};

use super::super::contract::{
    Failed, Incarnation, OutboxAnswer, OutboxAsk, OutboxDone, OutboxPage, OutboxPiece, OutboxReport, Presented,
    Refusal, SessionChange, SessionTurn,
};
use super::super::outbox::{Backlog, Event, HookSet, Outboxes, Place, record};
use super::Redis;
use super::calls::Invocation;
use super::keys::Keys;
use super::presence::ADVERTISE;
use super::reply;
use super::script::{Script, digest, script};
use super::shard::Shard;
use super::topology;

/// A script of this folder that writes outboxes.
macro_rules! telling {
    ($name:literal) => {
        concat!(
            include_str!("lua/outbox.lua"),
            include_str!(concat!("lua/", $name, ".lua"))
        )
    };
}
pub(super) use telling;

static SESSIONS: Script = Script::new(
    telling!("sessions"),
    std::sync::LazyLock::new(|| digest(telling!("sessions"))),
);
static ENDED: Script = Script::new(
    telling!("ended"),
    std::sync::LazyLock::new(|| digest(telling!("ended"))),
);
static TELL: Script = script!("tell");
static TOLD: Script = script!("told");
static BACKLOG: Script = script!("backlog");

/// Changes of sessions in one call.
const SESSIONS_MAX: usize = 256;

/// Sessions of a dead node in one call, so that Redis does something else in between.
const ENDED_MAX: usize = 256;

/// Calls in a row for one partition of a dead node.
const ENDED_PIECES_MAX: usize = 64;

/// What this engine knows of hooks that are told of things; nothing if there are none.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) outboxes: Arc<Outboxes>,
    /// Hooks for which more waits, in all partitions together, than may: they take nothing.
    full: AtomicU32,
}

/// The outboxes that one call of a script may write to, in one partition.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    hooks: Vec<usize>,
    pub(super) keys: Vec<Vec<u8>>,
    /// Most records and most bytes of each.
    pub(super) bounds: Vec<Vec<u8>>,
}

impl Boxes {
    pub(super) fn count(&self) -> usize {
        self.hooks.len()
    }

    /// These hooks as scripts name them: bits by their place among the outboxes of the call.
    pub(super) fn mask(&self, hooks: HookSet) -> u32 {
        let places = self.hooks.iter().enumerate();
        places
            .filter(|(_, hook)| hooks.contains(**hook))
            .fold(0, |mask, (at, _)| mask | 1 << at)
    }
}

impl Telling {
    pub(super) fn new(outboxes: Arc<Outboxes>) -> Self {
        Self {
            outboxes,
            full: AtomicU32::new(0),
        }
    }

    /// The outboxes of these hooks.
    pub(super) fn boxes(&self, keys: &Keys, partition: u16, hooks: HookSet) -> Boxes {
        let full = self.full.load(Ordering::Relaxed);
        let mut boxes = Boxes::default();
        for at in hooks.iter() {
            let hook = &self.outboxes.hooks[at];
            let events_max = if full & (1 << at) == 0 { hook.events_max } else { 0 };
            boxes.hooks.push(at);
            boxes.keys.extend([
                keys.outbox(partition, &hook.name),
                keys.outbox_state(partition, &hook.name),
            ]);
            boxes
                .bounds
                .extend([events_max, hook.bytes_max].map(|bound| bound.to_string().into_bytes()));
        }
        boxes
    }

    /// Node and room, as records have them.
    pub(super) fn scene(&self, room: &str) -> Vec<u8> {
        (record::sized(&self.outboxes.node) + &record::sized(room)).into_bytes()
    }

    /// Whether ends of sessions must be told for nodes that die.
    pub(super) fn keeps_sessions(&self) -> bool {
        !self.outboxes.wanting(Event::Close, "").is_empty()
    }

    fn keys_of(&self, keys: &Keys, place: Place) -> Option<[Vec<u8>; 2]> {
        let name = &self.outboxes.hooks.get(place.hook)?.name;
        Some([
            keys.outbox(place.partition, name),
            keys.outbox_state(place.partition, name),
        ])
    }
}

/// A word that was never used before, for ids and leases.
pub(super) fn word() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Redis {
    fn told(&self) -> Result<&Telling, Failed> {
        self.telling.get().ok_or(Failed::Refused(Refusal::Forbidden))
    }

    /// [`super::Backplane::outbox_sessions`]
    pub(super) async fn change_sessions(
        &self,
        incarnation: &Incarnation,
        before: &[Incarnation],
        changes: &[SessionChange],
    ) -> Result<Vec<Result<Presented, Failed>>, Failed> {
        let telling = self.told()?;
        let mut parts: BTreeMap<u16, Vec<&SessionChange>> = BTreeMap::new();
        for change in changes {
            let partition = super::super::partition::of(&change.user);
            parts.entry(partition).or_default().push(change);
        }
        let calls: Vec<_> = parts
            .iter()
            .flat_map(|(partition, changes)| changes.chunks(SESSIONS_MAX).map(|piece| (*partition, piece)))
            .map(|(partition, changes)| self.sessions_call(telling, incarnation, before, partition, changes))
            .collect();
        let mut presented: BTreeMap<u16, Result<Presented, Failed>> = BTreeMap::new();
        for (call, answer) in calls.iter().zip(self.call_many(&SESSIONS, &calls).await) {
            let word = answer.and_then(|answer| reply::text(Some(answer)));
            let now = word.map(|word| match &*word {
                "FENCED" => Presented::Fenced,
                _ => Presented::Done,
            });
            // One piece that failed has the whole partition tried again, in order.
            let all = presented.entry(call.partition).or_insert(Ok(Presented::Done));
            if *all == Ok(Presented::Done) {
                *all = now;
            }
        }
        for partition in parts.keys() {
            telling.outboxes.written.note(*partition);
        }
        let of = |change: &SessionChange| presented.get(&super::super::partition::of(&change.user)).copied();
        Ok(changes
            .iter()
            .map(|change| of(change).unwrap_or(Err(Failed::Unknown)))
            .collect())
    }

    fn sessions_call(
        &self,
        telling: &Telling,
        incarnation: &Incarnation,
        before: &[Incarnation],
        partition: u16,
        changes: &[&SessionChange],
    ) -> Invocation {
        let hooks = changes
            .iter()
            .fold(HookSet::default(), |hooks, change| hooks.and(change.hooks));
        let boxes = telling.boxes(&self.keys, partition, hooks);
        let mut keys = vec![
            self.keys.tomb(partition, incarnation),
            self.keys.sessions(partition, incarnation),
        ];
        let keep: &[u8] = if telling.keeps_sessions() { b"1" } else { b"0" };
        let mut args = vec![
            word().into_bytes(),
            keep.to_vec(),
            boxes.count().to_string().into_bytes(),
        ];
        args.extend(boxes.bounds.iter().cloned());
        for change in changes {
            let (kind, since_ms, end): (&[u8], u64, &[u8]) = match &change.turn {
                SessionTurn::Begins { end, since_ms } => (b"+", *since_ms, end),
                SessionTurn::Ends => (b"-", 0, b""),
                SessionTurn::Lost => (b"x", 0, b""),
            };
            args.extend([
                kind.to_vec(),
                change.session.as_bytes().to_vec(),
                boxes.mask(change.hooks).to_string().into_bytes(),
                change.record.to_vec(),
                since_ms.to_string().into_bytes(),
                end.to_vec(),
            ]);
        }
        keys.extend(boxes.keys);
        keys.extend(before.iter().map(|before| self.keys.sessions(partition, before)));
        Invocation { partition, keys, args }
    }

    /// Tells of the ends of a buried incarnation's sessions; false if some are left.
    pub(super) async fn end_sessions(&self, dead: &Incarnation, partition: u16) -> Result<bool, Failed> {
        let Some(telling) = self.telling.get().filter(|telling| telling.keeps_sessions()) else {
            return Ok(true);
        };
        let hooks = telling.outboxes.wanting(Event::Close, "");
        for _ in 0..ENDED_PIECES_MAX {
            let boxes = telling.boxes(&self.keys, partition, hooks);
            let mut keys = vec![self.keys.tomb(partition, dead), self.keys.sessions(partition, dead)];
            keys.extend(boxes.keys);
            let mut args = vec![word().into_bytes(), ENDED_MAX.to_string().into_bytes()];
            args.extend(boxes.bounds);
            let answer = self.call_kept(partition, &ENDED, &keys, &args).await?;
            // Unburied: its tombstone ran out meanwhile, and it is buried anew.
            let Ok(left) = reply::integer(Some(answer)) else {
                return Ok(false);
            };
            if left == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// [`super::Backplane::outbox_report`]
    pub(super) async fn report_backlogs(
        &self,
        incarnation: &Incarnation,
        own: &[Backlog],
    ) -> Result<Vec<OutboxReport>, Failed> {
        let telling = self.told()?;
        let hooks = &telling.outboxes.hooks;
        let said = hooks.iter().zip(own).fold(String::new(), |said, (hook, backlog)| {
            said + &format!("{} {} {}\n", backlog.events, backlog.bytes, hook.name)
        });
        let keys = [self.keys.control("lease"), self.keys.control("tell")];
        let answer = self
            .call_ctl(
                &ADVERTISE,
                &[&keys[0], &keys[1]],
                &[incarnation.as_bytes(), said.as_bytes()],
            )
            .await?;
        let mut words = reply::array(answer)?;
        let mut reports = Vec::with_capacity(words.len() / 2);
        while let Some(incarnation) = words.next() {
            let incarnation = reply::text(Some(incarnation))?;
            let said = reply::text(words.next())?;
            reports.push((incarnation.into(), backlogs(&said, &telling.outboxes)));
        }
        telling.full.store(full(&reports, &telling.outboxes), Ordering::Relaxed);
        Ok(reports)
    }

    /// [`super::Backplane::outbox_waiting`]
    pub(super) async fn waiting_outboxes(&self, partitions: &[u16]) -> Result<Vec<(Place, Backlog)>, Failed> {
        let telling = self.told()?;
        let hooks = telling.outboxes.hooks.len();
        let filled = self.filled(telling, partitions).await;
        let keys_of = |partition| {
            (0..hooks)
                .filter_map(|hook| telling.keys_of(&self.keys, Place { partition, hook }))
                .flatten()
                .collect()
        };
        let calls: Vec<_> = filled
            .iter()
            .map(|partition| Invocation {
                partition: *partition,
                keys: keys_of(*partition),
                args: vec![],
            })
            .collect();
        let mut waiting = Vec::new();
        for (partition, answer) in filled.iter().zip(self.call_many(&BACKLOG, &calls).await) {
            match answer.and_then(|answer| waiting_there(answer, *partition, hooks)) {
                Ok(there) => waiting.extend(there),
                Err(error) => tracing::debug!(%error, partition, "outboxes of a partition are looked at again"),
            }
        }
        Ok(waiting)
    }

    /// Which partitions have something in an outbox: one `EXISTS` each, in one pipeline per shard, of which Redis does more
    /// than a million a second. A shard that does not answer holds up no other; what it has is found with a later look.
    async fn filled(&self, telling: &Telling, partitions: &[u16]) -> Vec<u16> {
        let map = &self.map.load_full();
        let looks = map.shards().iter().map(|shard| async move {
            let is_there = |partition: &u16| {
                let owner = map.shard(topology::Place::Partition(*partition));
                owner.is_some_and(|owner| Arc::ptr_eq(owner, shard))
            };
            let mine: Vec<u16> = partitions.iter().copied().filter(is_there).collect();
            self.filled_there(telling, shard, &mine).await.unwrap_or_else(|error| {
                tracing::debug!(%error, partitions = mine.len(), "outboxes of a shard are looked at again");
                vec![]
            })
        });
        futures_util::future::join_all(looks).await.concat()
    }

    async fn filled_there(&self, telling: &Telling, shard: &Shard, partitions: &[u16]) -> Result<Vec<u16>, Failed> {
        let mut filled = Vec::new();
        for piece in partitions.chunks(super::calls::PIPELINE_CALLS_MAX) {
            let Some(link) = shard.command() else {
                return Ok(filled);
            };
            let mut pipeline = Pipeline::with_capacity(piece.len());
            for partition in piece {
                let mut exists = cmd("EXISTS");
                for hook in &*telling.outboxes.hooks {
                    exists.arg(self.keys.outbox_state(*partition, &hook.name));
                }
                pipeline.add_command(exists);
            }
            for (partition, answer) in piece.iter().zip(link.send_all(&pipeline).await?) {
                // A slot that has just moved is found there with the next map.
                if matches!(answer, Value::Int(1..)) {
                    filled.push(*partition);
                }
            }
        }
        Ok(filled)
    }

    /// [`super::Backplane::outbox_read`]
    pub(super) async fn read_outboxes(
        &self,
        incarnation: &Incarnation,
        asks: &[OutboxAsk],
        piece: OutboxPiece,
    ) -> Result<Vec<Result<OutboxAnswer, Failed>>, Failed> {
        let telling = self.told()?;
        let calls = asks
            .iter()
            .map(|ask| {
                let from = ask.instead_of.as_deref().unwrap_or_default();
                let [events, bytes] = [piece.events, piece.bytes].map(|bound| bound.to_string().into_bytes());
                Ok(Invocation {
                    partition: ask.place.partition,
                    keys: telling.keys_of(&self.keys, ask.place).ok_or(Refusal::Broken)?.to_vec(),
                    args: vec![
                        incarnation.as_bytes().to_vec(),
                        word().into_bytes(),
                        millis(piece.hold),
                        events,
                        bytes,
                        from.as_bytes().to_vec(),
                    ],
                })
            })
            .collect::<Result<Vec<_>, Failed>>()?;
        let answers = self.call_many(&TELL, &calls).await;
        Ok(answers.into_iter().map(|answer| page(answer?)).collect())
    }

    /// [`super::Backplane::outbox_done`]
    pub(super) async fn finish_outboxes(&self, done: &[OutboxDone]) -> Result<Vec<Result<bool, Failed>>, Failed> {
        let telling = self.told()?;
        let calls = done
            .iter()
            .map(|done| {
                let release: &[u8] = if done.release { b"1" } else { b"0" };
                Ok(Invocation {
                    partition: done.place.partition,
                    keys: telling.keys_of(&self.keys, done.place).ok_or(Refusal::Broken)?.to_vec(),
                    args: vec![
                        done.lease.as_bytes().to_vec(),
                        done.upto.to_string().into_bytes(),
                        release.to_vec(),
                    ],
                })
            })
            .collect::<Result<Vec<_>, Failed>>()?;
        let answers = self.call_many(&TOLD, &calls).await;
        Ok(answers
            .into_iter()
            .map(|answer| Ok(reply::integer(Some(answer?))? == 1))
            .collect())
    }
}

/// Reads the answer of [`BACKLOG`].
fn waiting_there(answer: Value, partition: u16, hooks: usize) -> Result<Vec<(Place, Backlog)>, Failed> {
    let mut answer = reply::array(answer)?;
    let mut waiting = Vec::new();
    for hook in 0..hooks {
        let backlog = Backlog {
            events: reply::integer(answer.next())?,
            bytes: reply::integer(answer.next())?,
        };
        if backlog.events > 0 {
            waiting.push((Place { partition, hook }, backlog));
        }
    }
    Ok(waiting)
}

fn millis(duration: Duration) -> Vec<u8> {
    duration.as_millis().max(1).to_string().into_bytes()
}

/// Reads what a node said of its outboxes; of a hook that it did not name nothing waits there.
fn backlogs(said: &str, outboxes: &Outboxes) -> Vec<Backlog> {
    let of = |name: &str| {
        said.lines().find_map(|line| {
            let mut words = line.splitn(3, ' ');
            let backlog = Backlog {
                events: words.next()?.parse().ok()?,
                bytes: words.next()?.parse().ok()?,
            };
            (words.next()? == name).then_some(backlog)
        })
    };
    let hooks = outboxes.hooks.iter();
    hooks.map(|hook| of(&hook.name).unwrap_or_default()).collect()
}

/// Hooks for which more waits, in all partitions together, than may. An eighth more than that, so that one partition which
/// alone is full is bounded by its script, exactly and at once, and never by this, which is known later.
fn full(reports: &[OutboxReport], outboxes: &Outboxes) -> u32 {
    let is_full = |at: usize| {
        let of = reports.iter().filter_map(|(_, backlogs)| backlogs.get(at));
        let (events, bytes) = of.fold((0_u64, 0_u64), |(events, bytes), backlog| {
            (
                events.saturating_add(backlog.events),
                bytes.saturating_add(backlog.bytes),
            )
        });
        let [events_max, bytes_max] =
            [outboxes.hooks[at].events_max, outboxes.hooks[at].bytes_max].map(|max| max as u64 + max as u64 / 8);
        events > events_max || bytes > bytes_max
    };
    (0..outboxes.hooks.len())
        .filter(|at| is_full(*at))
        .fold(0, |full, at| full | 1 << at)
}

/// Reads the answer of [`TELL`].
fn page(answer: Value) -> Result<OutboxAnswer, Failed> {
    let mut words = reply::array(answer)?;
    let Some(first) = words.next() else {
        return Ok(OutboxAnswer::Page(OutboxPage {
            lease: "".into(),
            first: 0,
            records: vec![],
        }));
    };
    let first = reply::text(Some(first))?;
    if first == "busy" {
        return Ok(OutboxAnswer::Busy(reply::text(words.next())?.into()));
    }
    Ok(OutboxAnswer::Page(OutboxPage {
        lease: first.into(),
        first: reply::integer(words.next())?,
        records: words
            .map(|record| reply::bytes(Some(record)))
            .collect::<Result<_, _>>()?,
    }))
}
