//! One tick per shard, for everything that time does to a connection: pings and silence, the end of its
//! token, the age of its backlog. No timer per connection, so an idle node uses no CPU.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::auth;
use crate::connection::heartbeat::Verdict;
use crate::connection::{Conn, Pushed};
use crate::protocol::close::Close;
use crate::shard::Shard;
use crate::shard::budget::{Budget, LARGEST_MAX};
use crate::shard::members::Local;
use crate::telemetry::metrics::{Limit, PanicPlace, SlowConsumer};

/// Whose unfinished message was given up comes back once others have finished theirs.
const EVICTED_RECONNECT_MS: u64 = 5_000;

/// The heartbeat interval cut into equal ticks of about a second, one bucket of connections each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beat {
    tick: Duration,
    buckets: usize,
}

impl Beat {
    fn of(interval: Duration) -> Self {
        let buckets = usize::try_from(interval.as_secs()).unwrap_or(usize::MAX).max(1);
        let tick = interval / u32::try_from(buckets).unwrap_or(u32::MAX);
        Self { tick, buckets }
    }
}

/// Runs until the task is dropped.
pub(super) async fn run(shard: Arc<Shard>) {
    let beat = Beat::of(shard.heartbeat);
    let mut ticks = tokio::time::interval(beat.tick);
    // After a long pause of the whole process everybody would look silent at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for bucket in (0..beat.buckets).cycle() {
        ticks.tick().await;
        // A panic costs this tick, never the shard.
        if catch_unwind(AssertUnwindSafe(|| shard.tick(bucket, beat.buckets))).is_err() {
            shard.metrics.panic_caught(PanicPlace::Flusher);
        }
    }
}

impl Shard {
    fn tick(&self, bucket: usize, buckets: usize) {
        let mut local = self.local.lock();
        let now_ms = self.now_ms();
        self.beat(&mut local, bucket, buckets, now_ms);
        while let Some(conn) = local.pop_expired(auth::now()) {
            self.close(&mut local, &conn, Close::TOKEN_EXPIRED, 0, now_ms);
        }
        self.look_over_waiting(&mut local, now_ms);
        self.look_over_inbound(&mut local, now_ms);
        let work = !local.dirty.is_empty();
        drop(local);
        if work {
            self.inbox.nudge();
        }
    }

    fn beat(&self, local: &mut Local, bucket: usize, buckets: usize, now_ms: u64) {
        let (mut dirty, mut late, mut worn) = (Vec::new(), Vec::new(), Vec::new());
        for conn in local.bucket(bucket, buckets) {
            if conn.is_worn() {
                worn.push(Arc::clone(conn));
            }
            match conn.visit(&self.outbox_limits, &self.counters, now_ms) {
                (Verdict::Ping, Pushed::Dirty) => dirty.push(Arc::clone(conn)),
                (Verdict::Ping, Pushed::Over(limit)) => late.push((Arc::clone(conn), limit)),
                (Verdict::Ping, Pushed::Queued | Pushed::Dropped) => {}
                (Verdict::Terminate, _) => {
                    self.metrics.sweeper_terminated();
                    conn.terminate(Close::HEARTBEAT);
                }
            }
        }
        for conn in worn {
            self.close(local, &conn, Close::RESTART, 0, now_ms);
        }
        local.dirty.extend(dirty);
        self.cut(local, late, now_ms);
    }

    /// Cuts readers whose backlog is too old, and while the node holds back too much, the largest.
    fn look_over_waiting(&self, local: &mut Local, now_ms: u64) {
        let mut late = Vec::new();
        let mut total = 0;
        let mut backlogs = Vec::new();
        local.waiting.retain(|conn| {
            let Some(backlog) = conn.backlog(now_ms) else {
                return false;
            };
            if backlog.age_ms >= self.outbox_limits.age_ms {
                late.push((Arc::clone(conn), SlowConsumer::Age));
                return false;
            }
            total += backlog.bytes;
            backlogs.push((backlog.bytes, Arc::clone(conn)));
            true
        });
        let evicted = settle(&self.outboxes, self.index, total, &mut backlogs);
        for (bytes, conn) in evicted {
            total -= bytes;
            self.metrics.evicted(bytes as u64);
            late.push((conn, SlowConsumer::Node));
        }
        let before = self.counters.outbox_bytes.value();
        self.counters
            .outbox_bytes
            .add(i64::try_from(total).unwrap_or(i64::MAX) - before);
        self.cut(local, late, now_ms);
    }

    /// While the node holds too many bytes of messages that are not whole, ends those with the most.
    fn look_over_inbound(&self, local: &mut Local, now_ms: u64) {
        // Nearly always there are none, and then nobody is asked.
        let mut held = Vec::new();
        let mut total = 0;
        if self.counters.inbound_kib.value() > 0 {
            held.extend(local.conns().filter_map(|conn| {
                let bytes = conn.inbound_bytes();
                (bytes > 0).then(|| (bytes, Arc::clone(conn)))
            }));
            total = held.iter().map(|(bytes, _)| bytes).sum();
        }
        for (bytes, conn) in settle(&self.inbound, self.index, total, &mut held) {
            self.metrics.evicted(bytes as u64);
            self.metrics.limit_hit(Limit::NodeInboundBytes);
            self.close(local, &conn, Close::OVERLOADED, EVICTED_RECONNECT_MS, now_ms);
        }
    }
}

/// Who has to go for the node to be within its budget.
fn settle<'a>(
    budget: &Budget,
    index: usize,
    total: usize,
    held: &'a mut Vec<(usize, Arc<Conn>)>,
) -> impl Iterator<Item = (usize, Arc<Conn>)> + use<'a> {
    held.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
    let sizes: Vec<usize> = held.iter().take(LARGEST_MAX).map(|(bytes, _)| *bytes).collect();
    let gone = budget.settle(index, total, &sizes);
    held.drain(..gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_cut_into_whole_ticks() {
        let beat = |ms| Beat::of(Duration::from_millis(ms));
        assert_eq!(
            beat(30_000),
            Beat {
                tick: Duration::from_secs(1),
                buckets: 30
            }
        );
        assert_eq!(
            beat(1_500),
            Beat {
                tick: Duration::from_millis(1_500),
                buckets: 1
            }
        );
        assert_eq!(
            beat(500),
            Beat {
                tick: Duration::from_millis(500),
                buckets: 1
            }
        );
        assert_eq!(
            beat(2_500),
            Beat {
                tick: Duration::from_millis(1_250),
                buckets: 2
            }
        );
    }
}
