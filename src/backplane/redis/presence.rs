//! Who is where, on Redis. A room's users are a hash, user to the incarnations that hold it and its JSON; what an
//! incarnation holds in a partition is another, so that its users can be moved out when it dies. One script changes
//! both, and it alone tells the room of who thereby comes or goes.

mod batch;
mod lease;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

use futures_util::{StreamExt as _, stream};
use redis::Value;

use super::super::contract::{Change, Failed, Incarnation, PARTITIONS, Presented, Refusal, RoomKey, Users};
use super::Redis;
use super::calls::Invocation;
use super::outbox::telling;
use super::reply;
use super::script::{Script, digest, script};
use batch::{Batch, Move, Moved};

static PRESENT: Script = Script::new(telling!("present"), LazyLock::new(|| digest(telling!("present"))));
static HELD: Script = script!("held");
static USERS: Script = script!("users");
static RENEW: Script = script!("renew");
pub(super) static ADVERTISE: Script = script!("advertise");
static LAPSE: Script = script!("lapse");
static BURY: Script = script!("bury");
static LOOK: Script = script!("look");
static REAPED: Script = script!("reaped");

/// Calls to partitions that are on their way at once.
const CALLS_AT_ONCE: usize = 64;

/// Numbers of presence calls. Each is larger than the one before, and Redis does none that is smaller than one it has
/// done: what was given up cannot come true later, behind what was decided since.
#[derive(Debug, Default)]
pub(super) struct Order(tokio::sync::Mutex<u64>);

impl Redis {
    /// [`super::Backplane::users`]
    pub(super) async fn read_users(&self, room: &RoomKey) -> Result<Users, Failed> {
        let keys = [self.keys.meta(room), self.keys.users(room)];
        let answer = self
            .call(room.partition, &USERS, &keys.each_ref().map(Vec::as_slice), &[])
            .await?;
        users_of(answer)
    }

    /// [`super::Backplane::present`]. Calls come true in the order in which they are made; the next one waits for the one
    /// before.
    pub(super) async fn move_users(&self, incarnation: &Incarnation, changes: &[Change]) -> Result<Presented, Failed> {
        let mut order = self.order.0.lock().await;
        *order += 1;
        let number = *order;
        let mut parts: BTreeMap<u16, Vec<Move<'_>>> = BTreeMap::new();
        for change in changes {
            parts.entry(change.room.partition).or_default().push(change.into());
        }
        let calls: Vec<_> = parts
            .into_iter()
            .map(|(partition, moves)| async move { self.move_in(incarnation, number, partition, &moves).await })
            .collect();
        together(stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect().await)
    }

    /// [`super::Backplane::assert_held`]. Also looks for incarnations that hold something though nobody knows of a lease of theirs (a server lost the
    /// one and not the other), and lists them as ended.
    pub(super) async fn move_users_to(&self, incarnation: &Incarnation, held: &[Change]) -> Result<Presented, Failed> {
        let mut order = self.order.0.lock().await;
        *order += 1;
        let number = *order;
        let mut parts: BTreeMap<u16, Vec<Move<'_>>> = BTreeMap::new();
        for change in held {
            parts.entry(change.room.partition).or_default().push(change.into());
        }
        let asked: Vec<_> = (0..PARTITIONS)
            .map(|partition| self.ask_held(incarnation, partition, "0"))
            .collect();
        let (mut strangers, mut calls) = (HashSet::new(), Vec::new());
        for (partition, answer) in (0..PARTITIONS).zip(self.call_many(&HELD, &asked).await) {
            let mut page = Held::read(answer?)?;
            strangers.extend(page.others.drain(..).map(Arc::from));
            let held = parts.remove(&partition).unwrap_or_default();
            if !(held.is_empty() && page.is_empty()) {
                calls.push(self.assert_partition(incarnation, number, partition, page, held));
            }
        }
        let results = stream::iter(calls).buffer_unordered(CALLS_AT_ONCE).collect().await;
        drop(order);
        strangers.remove(incarnation);
        let strangers: Vec<_> = strangers.into_iter().collect();
        self.lapse(false, &strangers).await.map_err(|_| Failed::Unknown)?;
        together(results)
    }

    /// `page` is the first of what Redis has the incarnation hold in a partition.
    async fn assert_partition(
        &self,
        incarnation: &Incarnation,
        number: u64,
        partition: u16,
        mut page: Held,
        held: Vec<Move<'_>>,
    ) -> Result<Presented, Failed> {
        let mut recorded = std::mem::take(&mut page.places);
        while page.cursor != "0" {
            let asked = [self.ask_held(incarnation, partition, &page.cursor)];
            let answer = self.call_many(&HELD, &asked).await.pop();
            page = Held::read(answer.unwrap_or(Err(Failed::Unknown))?)?;
            recorded.append(&mut page.places);
        }
        let meant: HashSet<(&str, &str)> = held.iter().map(|enter| (enter.room, enter.user)).collect();
        let mut moves: Vec<_> = recorded
            .iter()
            .filter_map(|place| Move::leave(place))
            .filter(|leave| !meant.contains(&(leave.room, leave.user)))
            .collect();
        moves.extend(held);
        self.move_in(incarnation, number, partition, &moves).await
    }

    /// Asks for a page of what Redis has an incarnation hold in a partition.
    fn ask_held(&self, incarnation: &Incarnation, partition: u16, cursor: &str) -> Invocation {
        Invocation {
            partition,
            keys: vec![
                self.keys.held(partition, incarnation),
                self.keys.stem(partition, batch::REGISTRY),
            ],
            args: vec![cursor.as_bytes().to_vec()],
        }
    }

    /// Moves users of one partition, in pieces that each take Redis a few milliseconds at most.
    async fn move_in(
        &self,
        incarnation: &Incarnation,
        number: u64,
        partition: u16,
        moves: &[Move<'_>],
    ) -> Result<Presented, Failed> {
        for (at, piece) in moves.chunks(batch::MOVES_MAX).enumerate() {
            let moved = self
                .move_piece(&self.batch(incarnation, number, partition, piece))
                .await;
            match moved {
                Ok(Moved::Done { .. }) => {}
                Ok(Moved::Fenced) => return Ok(Presented::Fenced),
                // Overtaken by a later call: this one no longer counts.
                Ok(Moved::Stale | Moved::Unburied) if at == 0 => return Err(Failed::Refused(Refusal::Late)),
                Err(failed) if at == 0 => return Err(failed),
                Ok(Moved::Stale | Moved::Unburied) | Err(_) => return Err(Failed::Unknown),
            }
        }
        Ok(Presented::Done)
    }

    /// One call's worth of moves; number 0: the incarnation is being reaped.
    fn batch<'a>(&self, incarnation: &str, number: u64, partition: u16, moves: &[Move<'a>]) -> Batch<'a> {
        let batch = Batch::new(&self.keys, incarnation, number, partition, moves);
        match self.telling.get() {
            Some(telling) => batch.tell(&self.keys, telling),
            None => batch,
        }
    }

    async fn move_piece(&self, batch: &Batch<'_>) -> Result<Moved, Failed> {
        let answer = self
            .call(batch.partition, &PRESENT, &batch.keys(), &batch.args())
            .await?;
        let moved = Moved::read(answer)?;
        if let Some(telling) = self.telling.get() {
            telling.outboxes.written.note(batch.partition);
        }
        if let Moved::Done { skipped: 1.., .. } = moved {
            // Asked again it would be no better, and the other rooms are as they should be.
            tracing::warn!(
                partition = batch.partition,
                "presence: a room's record in Redis was written by somebody else"
            );
        }
        Ok(moved)
    }
}

/// What several calls come to as one: refused only when none of them was done.
fn together(results: Vec<Result<Presented, Failed>>) -> Result<Presented, Failed> {
    let any_done = results.iter().any(Result::is_ok);
    let mut presented = Presented::Done;
    let mut failed = None;
    for result in results {
        match result {
            Ok(Presented::Done) => {}
            Ok(Presented::Fenced) => presented = Presented::Fenced,
            Err(Failed::Unknown) => failed = Some(Failed::Unknown),
            Err(refused) => failed = failed.or(Some(refused)),
        }
    }
    match (presented, failed) {
        // Everybody is to enter again in any case.
        (Presented::Fenced, _) => Ok(Presented::Fenced),
        (Presented::Done, None) => Ok(Presented::Done),
        (Presented::Done, Some(_)) if any_done => Err(Failed::Unknown),
        (Presented::Done, Some(failed)) => Err(failed),
    }
}

/// Reads `{version, {user, value, …}}`, where a value is `incarnation,… JSON`.
pub(super) fn users_of(answer: Value) -> Result<Users, Failed> {
    let mut answer = reply::array(answer)?;
    let version = reply::integer(answer.next())?;
    let mut list = reply::array(answer.next().unwrap_or(Value::Nil))?;
    let mut users = Vec::with_capacity(list.len() / 2);
    while let Some(user) = list.next() {
        let (user, value) = (reply::text(Some(user))?, reply::text(list.next())?);
        let (_, json) = value.split_once(' ').ok_or(Failed::Refused(Refusal::Broken))?;
        users.push((user.into(), json.into()));
    }
    Ok(Users { version, users })
}

/// One page of [`HELD`].
struct Held {
    cursor: String,
    places: Vec<String>,
    others: Vec<String>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.cursor == "0"
    }

    fn read(answer: Value) -> Result<Self, Failed> {
        let mut answer = reply::array(answer)?;
        Ok(Self {
            cursor: reply::text(answer.next())?,
            places: texts(answer.next())?,
            others: texts(answer.next())?,
        })
    }
}

/// An array of texts.
fn texts(value: Option<Value>) -> Result<Vec<String>, Failed> {
    reply::array(value.unwrap_or(Value::Nil))?
        .map(|text| reply::text(Some(text)))
        .collect()
}
