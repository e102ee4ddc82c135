//! What systemd is told of this service (sd_notify(3)); without systemd, nobody hears it.
//!
//! `READY=1` once clients are served, `RELOADING=1` and `READY=1` around a reload, `STOPPING=1` with the drain,
//! `STATUS=` for `systemctl status`, and `WATCHDOG=1` for as long as every shard does its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::runtime::{Node, Tasks};

/// Beats within the time that the watchdog allows.
const BEATS: u32 = 4;

/// How often `STATUS=` says how many clients there are.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What a drain may take beyond its times, for the last ones to be cut and the last spans to leave.
const SPARE: Duration = Duration::from_secs(10);

/// Clients are served: says so, and goes on saying how many.
pub fn start(node: &Arc<Node>, beats: Option<&Beats>) {
    tell(&[NotifyState::Ready]);
    if let Some(beats) = beats {
        beats.watch(&node.tasks);
    }
    let served = Arc::clone(node);
    node.tasks.spawn("status", async move {
        let mut ticks = interval(STATUS_EVERY);
        while !served.health.is_draining() {
            status(&format!("serving {} clients", served.connections()));
            ticks.tick().await;
        }
    });
}

/// The certificate is read again; [`reloaded`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no clock for the service manager"),
    }
}

/// What [`reloading`] began is over, whatever came of it.
pub fn reloaded() {
    tell(&[NotifyState::Ready]);
}

/// The drain has begun and takes at most `time`, which may be longer than the service manager would wait.
pub fn stopping(time: Duration, status: &str) {
    let micros = u32::try_from((time + SPARE).as_micros()).unwrap_or(u32::MAX);
    tell(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(micros),
        NotifyState::Status(status),
    ]);
}

/// Where things stand, in words.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// The time within which the service manager wants to hear of us, if it does.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|time| !time.is_zero())
}

/// The last time at which each shard's runtime got around to a task of ours.
#[derive(Debug, Clone)]
pub struct Beats {
    started: Instant,
    every: Duration,
    /// Milliseconds since `started`, one per shard.
    last: Arc<[AtomicU64]>,
}

impl Beats {
    #[must_use]
    pub fn new(watchdog: Duration, shards: usize) -> Self {
        Self {
            started: Instant::now(),
            every: (watchdog / BEATS).max(Duration::from_millis(1)),
            last: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Lets the runtime of the calling thread, which serves this shard, show that it works.
    pub fn beat(&self, shard: usize, tasks: &Tasks) {
        let beats = self.clone();
        tasks.spawn("beat", async move {
            let mut ticks = interval(beats.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                beats.last[shard].store(beats.now_ms(), Ordering::Relaxed);
            }
        });
    }

    /// Tells the service manager for as long as every shard beats.
    pub fn watch(&self, tasks: &Tasks) {
        let beats = self.clone();
        tasks.spawn("watchdog", async move {
            let mut ticks = interval(beats.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if beats.are_fresh() {
                    tell(&[NotifyState::Watchdog]);
                }
            }
        });
    }

    /// Whether every shard did something within two beats.
    fn are_fresh(&self) -> bool {
        let oldest = u64::try_from(self.every.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(2);
        let since = self.now_ms().saturating_sub(oldest);
        self.last.iter().all(|last| last.load(Ordering::Relaxed) >= since)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_stands_still_is_noticed() {
        let beats = Beats::new(Duration::from_secs(4), 2);
        let tasks = Tasks::default();
        beats.beat(0, &tasks);
        // The second one begins late, and its first beat counts from the start.
        tokio::time::sleep(Duration::from_millis(1_900)).await;
        assert!(beats.are_fresh());
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(!beats.are_fresh());
        beats.beat(1, &tasks);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(beats.are_fresh());
        tasks.stop_services();
    }
}
