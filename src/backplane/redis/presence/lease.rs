//! Which incarnations live, and moving the users of the dead out. Leases are a sorted set, incarnation to the end of its
//! lease in ms of server time; an ended one stays in it until nothing of it is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use redis::Value;

use super::super::super::contract::{Advertised, Failed, Incarnation, PARTITIONS, Renewal};
use super::super::Redis;
use super::super::calls::Invocation;
use super::super::outbox::Telling;
use super::super::reply;
use super::batch::{self, Move, Moved};
use super::{ADVERTISE, BURY, LAPSE, LOOK, REAPED, RENEW, texts};

/// How long a buried incarnation is known by its tombstone. One that wakes up later is refused its lease, listed as
/// ended by that, and reaped once more.
const TOMBSTONE: Duration = Duration::from_mins(10);

/// Pieces of one partition in one call of [`Redis::bury`].
const PIECES_MAX: usize = 16;

/// Partitions that are emptied at once: Redis shall do something else in between.
const PARTITIONS_AT_ONCE: usize = 4;

impl Redis {
    /// [`super::super::Backplane::renew`]. An incarnation whose lease is not known, though it is none that begins, counts as ended.
    pub(in super::super) async fn renew_lease(
        &self,
        incarnation: &Incarnation,
        begin: bool,
        lease: Duration,
    ) -> Result<Renewal, Failed> {
        let millis = lease.as_millis().to_string();
        let begin: &[u8] = if begin { b"1" } else { b"0" };
        let args = [incarnation.as_bytes(), begin, millis.as_bytes()];
        let answer = self.call_ctl(&RENEW, &[&self.keys.control("lease")], &args).await?;
        renewal(answer)
    }

    /// [`super::super::Backplane::advertise`].
    pub(in super::super) async fn advertise_facts(
        &self,
        incarnation: &Incarnation,
        facts: &[u8],
    ) -> Result<Vec<Advertised>, Failed> {
        let keys = [self.keys.control("lease"), self.keys.control("nodes")];
        let args = [incarnation.as_bytes(), facts];
        let answer = self.call_ctl(&ADVERTISE, &[&keys[0], &keys[1]], &args).await?;
        let mut words = reply::array(answer)?;
        let mut advertised = Vec::with_capacity(words.len() / 2);
        while let Some(incarnation) = words.next() {
            let incarnation = reply::text(Some(incarnation))?;
            advertised.push((incarnation.into(), reply::bytes(words.next())?));
        }
        Ok(advertised)
    }

    /// [`super::super::Backplane::reap`]. False also for an incarnation that is alive; nothing is done to it.
    pub(in super::super) async fn bury(&self, dead: &Incarnation) -> Result<bool, Failed> {
        if self.lapse(false, std::slice::from_ref(dead)).await? != [false] {
            return Ok(false);
        }
        let done = self.move_out(dead).await.map_err(|_| Failed::Unknown)?;
        if done {
            let keys = [self.keys.control("lease"), self.keys.control("nodes")];
            self.call_ctl(&REAPED, &[&keys[0], &keys[1]], &[dead.as_bytes()])
                .await
                .map_err(|_| Failed::Unknown)?;
        }
        Ok(done)
    }

    /// Moves users of an incarnation out that has ended; false if some are left.
    async fn move_out(&self, dead: &Incarnation) -> Result<bool, Failed> {
        let holding = self.entomb(dead).await?;
        let went = AtomicU64::new(0);
        let calls: Vec<_> = holding
            .into_iter()
            .map(|partition| self.empty(dead, partition, &went))
            .collect();
        let emptied: Result<Vec<bool>, Failed> = stream::iter(calls)
            .buffer_unordered(PARTITIONS_AT_ONCE)
            .try_collect()
            .await;
        self.telemetry.reaped(went.into_inner());
        Ok(emptied?.into_iter().all(|emptied| emptied))
    }

    /// [`super::super::Backplane::resign`]. What is not moved out before an error is left to the other nodes: the lease has ended in any case.
    pub(in super::super) async fn give_back(&self, incarnation: &Incarnation) -> Result<(), Failed> {
        self.lapse(true, std::slice::from_ref(incarnation)).await?;
        // Each round moves users out or finds none, and nobody can come in any more.
        while !self.bury(incarnation).await? {}
        Ok(())
    }

    /// Whether each has a lease; those without are listed as ended. `now`: theirs end.
    pub(in super::super) async fn lapse(&self, now: bool, incarnations: &[Incarnation]) -> Result<Vec<bool>, Failed> {
        if incarnations.is_empty() {
            return Ok(vec![]);
        }
        let now: &[u8] = if now { b"1" } else { b"0" };
        let args: Vec<_> = std::iter::once(now)
            .chain(incarnations.iter().map(|word| word.as_bytes()))
            .collect();
        let answer = self.call_ctl(&LAPSE, &[&self.keys.control("lease")], &args).await?;
        reply::array(answer)?
            .map(|alive| Ok(reply::integer(Some(alive))? == 1))
            .collect()
    }

    /// Puts a tombstone into every partition, so that nothing comes in any more; those that hold something.
    async fn entomb(&self, dead: &Incarnation) -> Result<Vec<u16>, Failed> {
        let life = TOMBSTONE.as_millis().to_string();
        let calls: Vec<_> = (0..PARTITIONS)
            .map(|partition| Invocation {
                partition,
                keys: self.burial_keys(dead, partition),
                args: vec![life.clone().into_bytes(), dead.as_bytes().to_vec()],
            })
            .collect();
        let mut holding = vec![];
        for (call, answer) in calls.iter().zip(self.call_many(&BURY, &calls).await) {
            if reply::integer(Some(answer?))? == 1 {
                holding.push(call.partition);
            }
        }
        Ok(holding)
    }

    fn burial_keys(&self, dead: &Incarnation, partition: u16) -> Vec<Vec<u8>> {
        let mut keys = vec![
            self.keys.tomb(partition, dead),
            self.keys.held(partition, dead),
            self.keys.stem(partition, batch::REGISTRY),
        ];
        if self.telling.get().is_some_and(Telling::keeps_sessions) {
            keys.push(self.keys.sessions(partition, dead));
        }
        keys
    }

    /// Moves users out of one partition, and tells of its sessions' ends; false if there are more.
    async fn empty(&self, dead: &Incarnation, partition: u16, went: &AtomicU64) -> Result<bool, Failed> {
        let held = self.keys.held(partition, dead);
        let most = batch::MOVES_MAX.to_string();
        for _ in 0..PIECES_MAX {
            let answer = self.call(partition, &LOOK, &[&held], &[most.as_bytes()]).await?;
            let places = texts(Some(answer))?;
            let moves: Vec<_> = places.iter().filter_map(|place| Move::leave(place)).collect();
            // With nothing to move it clears the record away.
            match self.move_piece(&self.batch(dead, 0, partition, &moves)).await? {
                Moved::Done { left, .. } => went.fetch_add(left, Ordering::Relaxed),
                Moved::Fenced | Moved::Stale | Moved::Unburied => return Ok(false),
            };
            if moves.is_empty() {
                return self.end_sessions(dead, partition).await;
            }
        }
        Ok(false)
    }
}

fn renewal(answer: Value) -> Result<Renewal, Failed> {
    let mut answer = reply::array(answer)?;
    let server = reply::text(answer.next())?.into();
    if reply::integer(answer.next())? == 0 {
        return Ok(Renewal::Expired);
    }
    let mut words = || texts(answer.next()).map(|words| words.into_iter().map(Arc::from).collect());
    Ok(Renewal::Alive {
        server,
        nodes: words()?,
        expired: words()?,
    })
}
