//! What one client thread has seen; summed at the end of a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::link::Lost;

/// Latency is kept from 1 µs to 60 s with three digits.
const LATENCY_MICROSECONDS_MAX: u64 = 60_000_000;
/// Distinct reasons worth telling; a bench of a broken server has one or two.
const REASONS_MAX: usize = 16;

/// One thread's counters. Written by that thread, read by the coordinator.
pub struct Meter {
    /// Deliveries of any time, warm-up included; for progress and rates.
    pub received: AtomicU64,
    /// Deliveries of messages that were sent in the measured window.
    pub measured: AtomicU64,
    /// Deliveries that messages sent in the measured window should lead to.
    pub expected: AtomicU64,
    /// Messages sent in the measured window.
    pub published: AtomicU64,
    /// `error` messages from the server.
    pub errors: AtomicU64,
    /// Messages that did not follow the one before them in their room.
    pub holes: AtomicU64,
    /// Connections that left and came back.
    pub returned: AtomicU64,
    /// How late the latest message left, against its schedule.
    pub lag_nanoseconds: AtomicU64,
    seen: Mutex<Seen>,
}

struct Seen {
    latency: Histogram<u64>,
    reasons: BTreeMap<String, u64>,
}

impl Meter {
    /// All zero.
    pub fn new() -> Self {
        let seen = Seen {
            latency: histogram(),
            reasons: BTreeMap::new(),
        };
        Self {
            received: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            published: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            holes: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            lag_nanoseconds: AtomicU64::new(0),
            seen: Mutex::new(seen),
        }
    }

    /// A delivery; with its latency when its message belongs to the measured window.
    pub fn delivered(&self, latency_nanoseconds: Option<u64>) {
        self.received.fetch_add(1, Relaxed);
        if let Some(nanoseconds) = latency_nanoseconds {
            self.measured.fetch_add(1, Relaxed);
            self.seen.lock().latency.saturating_record((nanoseconds / 1_000).max(1));
        }
    }

    /// A message of the measured window went out, to so many members.
    pub fn published(&self, members: u64) {
        self.published.fetch_add(1, Relaxed);
        self.expected.fetch_add(members, Relaxed);
    }

    /// The server answered with an `error`.
    pub fn refused(&self, code: &str) {
        self.errors.fetch_add(1, Relaxed);
        self.tell(format!("server said: {code}"));
    }

    /// A connection did not open, or ended.
    pub fn lost(&self, lost: &Lost) {
        self.tell(match lost.remedy() {
            Some(remedy) => format!("{lost}\n  help: {remedy}"),
            None => lost.to_string(),
        });
    }

    fn tell(&self, reason: String) {
        let reasons = &mut self.seen.lock().reasons;
        if reasons.len() < REASONS_MAX || reasons.contains_key(&reason) {
            *reasons.entry(reason).or_default() += 1;
        }
    }
}

/// The counters of all threads.
pub struct Total<'m>(pub &'m [std::sync::Arc<Meter>]);

impl Total<'_> {
    /// The sum of one counter.
    pub fn sum(&self, counter: impl Fn(&Meter) -> &AtomicU64) -> u64 {
        self.0.iter().map(|meter| counter(meter).load(Relaxed)).sum()
    }

    /// The largest of one counter.
    pub fn max(&self, counter: impl Fn(&Meter) -> &AtomicU64) -> u64 {
        self.0
            .iter()
            .map(|meter| counter(meter).load(Relaxed))
            .max()
            .unwrap_or(0)
    }

    /// Latencies of all threads.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = histogram();
        for meter in self.0 {
            // Same bounds by construction.
            let _ = all.add(&meter.seen.lock().latency);
        }
        all
    }

    /// What went wrong, and how often.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for meter in self.0 {
            for (reason, count) in &meter.seen.lock().reasons {
                *all.entry(reason.clone()).or_default() += count;
            }
        }
        all
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MICROSECONDS_MAX, 3).expect("1 µs to 60 s with three digits is a valid range")
}
