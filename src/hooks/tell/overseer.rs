//! Which outboxes are this node's to see to, and which of them have something: every partition belongs to one of the nodes
//! that tell hooks, by a hash that each works out alone. While nodes come and go two may think it theirs; the lease of
//! each outbox settles that.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::LANES;
use crate::backplane::contract::{Backplane, Failed, Incarnation, OutboxReport, PARTITIONS};
use crate::backplane::driver::Living;
use crate::backplane::outbox::{Backlog, Outboxes, Place};

/// How often all that is ours is looked at; what this node wrote itself it knows at once.
const LOOK: Duration = Duration::from_millis(250);

/// What this node writes within so long is looked at together.
const GATHER: Duration = Duration::from_millis(5);

/// How often nodes say that they tell hooks.
const REPORT: Duration = Duration::from_secs(1);

/// Sees to outboxes for as long as it runs.
pub(super) struct Overseer {
    pub(super) backplane: Arc<dyn Backplane>,
    outboxes: Arc<Outboxes>,
    living: watch::Receiver<Option<Living>>,
    share: Mutex<Share>,
    /// By hook and lane.
    work: Box<[[Work; LANES]]>,
}

/// What is this node's.
#[derive(Debug, Default, Clone)]
struct Share {
    me: Option<Incarnation>,
    /// Every node that tells hooks, this one among them, in an order that all know.
    tellers: Vec<Incarnation>,
    partitions: Arc<[u16]>,
    /// What waits in them, by hook.
    backlogs: Vec<Backlog>,
}

/// What waits in one lane: partitions with about so many events.
#[derive(Default)]
struct Work {
    waiting: Mutex<BTreeMap<u16, u64>>,
    /// The partition that was told last: it is the turn of those after it.
    last: AtomicU16,
    filled: Notify,
}

impl Overseer {
    pub(super) fn new(
        backplane: Arc<dyn Backplane>,
        outboxes: Arc<Outboxes>,
        living: watch::Receiver<Option<Living>>,
    ) -> Arc<Self> {
        let lanes = outboxes.hooks.iter().map(|_| std::array::from_fn(|_| Work::default()));
        Arc::new(Self {
            work: lanes.collect(),
            backplane,
            outboxes,
            living,
            share: Mutex::default(),
        })
    }

    /// Looks for work, until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported: Option<Instant> = None;
        loop {
            // Nothing is lost: what is not looked at now is with the next look.
            let everything = tokio::select! {
                _ = looks.tick() => true,
                () = self.outboxes.written.noted() => {
                    tokio::time::sleep(GATHER).await;
                    false
                }
            };
            if reported.is_none_or(|at| at.elapsed() >= REPORT) {
                reported = self.report().await.then(Instant::now);
            }
            let written = self.outboxes.written.take();
            if let Err(error) = self.look(everything, &written).await {
                tracing::debug!(%error, "outboxes are looked at again");
            }
        }
    }

    /// Says that this node tells hooks, and finds out who else does; false if that must be tried again.
    async fn report(&self) -> bool {
        let me = self
            .living
            .borrow()
            .as_ref()
            .map(|living| Arc::clone(&living.incarnation));
        let Some(me) = me else {
            // Whoever has no lease has nothing in hand.
            *self.share.lock() = Share::default();
            return false;
        };
        let own = self.share.lock().backlogs.clone();
        match self.backplane.outbox_report(&me, &own).await {
            Ok(reports) => {
                self.divide(me, &reports);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "who else tells hooks is not known");
                false
            }
        }
    }

    fn divide(&self, me: Incarnation, reports: &[OutboxReport]) {
        let mut tellers: Vec<_> = reports.iter().map(|(teller, _)| Arc::clone(teller)).collect();
        tellers.sort();
        let mut share = self.share.lock();
        if share.me.as_ref() == Some(&me) && share.tellers == tellers {
            return;
        }
        let mine = (0..PARTITIONS).filter(|partition| owner(*partition, &tellers) == Some(&me));
        share.partitions = mine.collect();
        tracing::debug!(
            tellers = tellers.len(),
            partitions = share.partitions.len(),
            "outboxes are shared out"
        );
        share.tellers = tellers;
        share.me = Some(me);
    }

    /// Hands what waits to the lanes. `written`: where this node has just put something.
    async fn look(&self, everything: bool, written: &[u16]) -> Result<(), Failed> {
        let share = self.share.lock().clone();
        let mine = |partition: &u16| share.partitions.binary_search(partition).is_ok();
        let partitions: Vec<u16> = if everything {
            share.partitions.to_vec()
        } else {
            written.iter().copied().filter(mine).collect()
        };
        if partitions.is_empty() {
            return Ok(());
        }
        let waiting = self.backplane.outbox_waiting(&partitions).await?;
        if everything {
            let mut backlogs = vec![Backlog::default(); self.outboxes.hooks.len()];
            for (place, backlog) in &waiting {
                backlogs[place.hook].events += backlog.events;
                backlogs[place.hook].bytes += backlog.bytes;
            }
            self.share.lock().backlogs = backlogs;
        }
        for (place, backlog) in waiting {
            self.add(place, backlog.events);
        }
        Ok(())
    }

    /// So many events wait there.
    pub(super) fn add(&self, place: Place, events: u64) {
        let work = &self.work[place.hook][usize::from(place.partition) % LANES];
        work.waiting.lock().insert(place.partition, events);
        work.filled.notify_one();
    }

    /// This is the last partition of its lane that was told something: the others come before it again.
    pub(super) fn pass_on_after(&self, place: Place) {
        let work = &self.work[place.hook][usize::from(place.partition) % LANES];
        work.last.store(place.partition, Ordering::Relaxed);
    }

    /// Takes partitions of a lane with so many events together, as far as is known, in turn; waits until there is one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn take(&self, hook: usize, lane: usize, events: usize, wait: Duration) -> Vec<Place> {
        let work = &self.work[hook][lane];
        loop {
            if !work.waiting.lock().is_empty() {
                break;
            }
            work.filled.notified().await;
        }
        let known = || work.waiting.lock().values().sum::<u64>();
        if known() < events as u64 {
            // More may come in a moment.
            tokio::time::sleep(wait).await;
        }
        let partitions = in_turn(
            &mut work.waiting.lock(),
            work.last.load(Ordering::Relaxed),
            events as u64,
        );
        partitions
            .into_iter()
            .map(|partition| Place { partition, hook })
            .collect()
    }

    /// This node, while it has a lease.
    pub(super) fn me(&self) -> Option<Incarnation> {
        self.share.lock().me.clone()
    }

    /// Whether a partition is this node's, as far as is known.
    pub(super) fn is_mine(&self, partition: u16) -> bool {
        self.share.lock().partitions.binary_search(&partition).is_ok()
    }

    /// Whether somebody who has an outbox in hand is no longer there. Whom this node does not know may have come a moment
    /// ago, so it looks again.
    pub(super) async fn is_gone(&self, holder: &Incarnation) -> bool {
        let is_known = || self.share.lock().tellers.contains(holder);
        !is_known() && self.report().await && !is_known()
    }

    /// What waits for a hook in what is this node's.
    pub(super) fn backlog(&self, hook: usize) -> Backlog {
        self.share.lock().backlogs.get(hook).copied().unwrap_or_default()
    }
}

/// Takes partitions with so many events together, beginning after `last`.
fn in_turn(waiting: &mut BTreeMap<u16, u64>, last: u16, events: u64) -> Vec<u16> {
    let (mut sum, mut taken, mut last) = (0, Vec::new(), last);
    while sum < events {
        let next = waiting.range((Excluded(last), Unbounded)).next();
        let Some((partition, waits)) = next.or_else(|| waiting.first_key_value()) else {
            break;
        };
        (last, sum) = (*partition, sum + (*waits).max(1));
        waiting.remove(&last);
        taken.push(last);
    }
    taken
}

/// Who sees to a partition: the one with the highest hash of both, so that one node more or less moves only its own.
fn owner(partition: u16, tellers: &[Incarnation]) -> Option<&Incarnation> {
    tellers.iter().max_by_key(|teller| score(partition, teller))
}

fn score(partition: u16, teller: &str) -> u64 {
    // FNV-1a, then the end of SplitMix64: the same on every node, whatever version it is.
    let seed = teller.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut bits = seed ^ u64::from(partition).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tellers(names: &[&str]) -> Vec<Incarnation> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn partitions_are_shared_out_evenly_and_stay_where_they_are() {
        let three = tellers(&["one", "two", "three"]);
        let two = tellers(&["one", "two"]);
        let mut counts = [0; 3];
        for partition in 0..PARTITIONS {
            let now = owner(partition, &three).expect("somebody");
            let at = three.iter().position(|teller| teller == now).expect("one of them");
            counts[at] += 1;
            let before = owner(partition, &two).expect("somebody");
            assert!(now == before || &**now == "three", "only what the third takes moves");
        }
        assert!(counts.iter().all(|count| (270..=420).contains(count)), "{counts:?}");
        assert_eq!(owner(7, &[]), None);
    }

    #[test]
    fn a_busy_partition_waits_until_it_is_its_turn_again() {
        let waiting = || BTreeMap::from([(0, 500), (16, 1), (32, 1)]);
        assert_eq!(in_turn(&mut waiting(), 0, 100), [16, 32, 0]);
        assert_eq!(in_turn(&mut waiting(), 16, 100), [32, 0]);
        assert_eq!(in_turn(&mut waiting(), 40, 100), [0]);
        assert_eq!(in_turn(&mut waiting(), 40, 9_999), [0, 16, 32]);
        assert!(in_turn(&mut BTreeMap::new(), 7, 100).is_empty());
    }

    /// Nodes of different versions must agree, or each would leave an outbox to the other.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!([score(0, "one"), score(503, "one")], EXPECTED);
    }

    const EXPECTED: [u64; 2] = [0x8f5b_eae9_4a0a_2c61, 0xc0bc_7160_c8cc_5617];
}
