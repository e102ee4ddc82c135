//! What hooks are still to be told, in the memory of this process: with the memory backplane, and with those that cannot
//! keep it in the step that makes it true. Bounded, in order per room, gone with the process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::LANES;
use crate::backplane::outbox::record::{Record, What};
use crate::backplane::outbox::{Backlog, HookSet, Outboxes};
use crate::hooks::event::fresh_id;
use crate::telemetry::metrics::TellMetrics;

/// The queues of all hooks.
pub struct Queues {
    pub outboxes: Arc<Outboxes>,
    hooks: Box<[Queue]>,
}

/// What waits for one hook, spread over lanes by partition: each lane is told by itself, in its order.
struct Queue {
    lanes: [Mutex<Lane>; LANES],
    filled: [Notify; LANES],
    events: AtomicUsize,
    bytes: AtomicUsize,
    metrics: Arc<TellMetrics>,
}

#[derive(Default)]
struct Lane {
    /// As they lie in outboxes.
    records: VecDeque<Box<str>>,
    /// Since the last record that found room.
    lost: Lost,
}

/// What found no room.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) count: u64,
    since_ms: u64,
    until_ms: u64,
}

impl Lost {
    pub(super) fn add(&mut self, now_ms: u64) {
        if self.count == 0 {
            self.since_ms = now_ms;
        }
        self.count += 1;
        self.until_ms = now_ms;
    }

    /// The record that says so; then it is said.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<String> {
        let lost = std::mem::take(self);
        let what = What::Lost {
            count: lost.count,
            since_ms: lost.since_ms,
            until_ms: lost.until_ms,
        };
        let id = fresh_id();
        let record = Record {
            id: &id,
            time_ms: now_ms,
            what,
        };
        (lost.count > 0).then(|| record.to_text())
    }
}

/// Something of a room, or of a user, whose partition decides the lane.
const fn lane_of(partition: u16) -> usize {
    partition as usize % LANES
}

impl Queues {
    /// One for each hook, and its metrics.
    #[must_use]
    pub fn new(outboxes: Arc<Outboxes>, metrics: &[Arc<TellMetrics>]) -> Self {
        let hooks = metrics.iter().map(|metrics| Queue {
            lanes: std::array::from_fn(|_| Mutex::default()),
            filled: std::array::from_fn(|_| Notify::new()),
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            metrics: Arc::clone(metrics),
        });
        Self {
            hooks: hooks.collect(),
            outboxes,
        }
    }

    /// Puts a record down for these hooks.
    pub fn push(&self, hooks: HookSet, partition: u16, record: &Record<'_>) {
        let text = record.to_text();
        for at in hooks.iter() {
            let bounds = &self.outboxes.hooks[at];
            self.hooks[at].push(
                lane_of(partition),
                &text,
                record.time_ms,
                (bounds.events_max, bounds.bytes_max),
            );
        }
    }

    /// The oldest of one lane, up to so many events and bytes; one at least, if there is one.
    pub(super) fn peek(&self, hook: usize, lane: usize, events: usize, bytes: usize) -> Vec<Box<str>> {
        let mut lane = self.hooks[hook].lanes[lane].lock();
        if lane.records.len() < events
            && let Some(record) = lane.lost.take(crate::runtime::now_ms())
        {
            // Nothing follows that would say so.
            self.hooks[hook].count(1, record.len());
            lane.records.push_back(record.into());
        }
        let mut sum = 0;
        let mut first = true;
        let taken = lane.records.iter().take(events).take_while(|record| {
            sum += record.len();
            std::mem::take(&mut first) || sum <= bytes
        });
        taken.cloned().collect()
    }

    /// The oldest of a lane were told.
    pub(super) fn told(&self, hook: usize, lane: usize, count: usize) {
        let queue = &self.hooks[hook];
        let told: Vec<_> = {
            let mut lane = queue.lanes[lane].lock();
            let count = count.min(lane.records.len());
            let told = lane.records.drain(..count).collect();
            if lane.records.is_empty() {
                // A storm must not leave its queue behind.
                lane.records = VecDeque::new();
            }
            told
        };
        let bytes: usize = told.iter().map(|record| record.len()).sum();
        queue.events.fetch_sub(told.len(), Ordering::Relaxed);
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Waits until something was put into a lane.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn filled(&self, hook: usize, lane: usize) {
        self.hooks[hook].filled[lane].notified().await;
    }

    /// What waits for a hook.
    pub(super) fn backlog(&self, hook: usize) -> Backlog {
        let queue = &self.hooks[hook];
        Backlog {
            events: queue.events.load(Ordering::Relaxed) as u64,
            bytes: queue.bytes.load(Ordering::Relaxed) as u64,
        }
    }
}

impl Queue {
    fn push(&self, lane_at: usize, text: &str, now_ms: u64, (events_max, bytes_max): (usize, usize)) {
        let mut lane = self.lanes[lane_at].lock();
        let is_full = self.events.load(Ordering::Relaxed) >= events_max
            || self.bytes.load(Ordering::Relaxed).saturating_add(text.len()) > bytes_max;
        if is_full {
            lane.lost.add(now_ms);
            self.metrics.lost(1);
        } else {
            if let Some(record) = lane.lost.take(now_ms) {
                self.count(1, record.len());
                lane.records.push_back(record.into());
            }
            self.count(1, text.len());
            lane.records.push_back(text.into());
        }
        drop(lane);
        self.filled[lane_at].notify_one();
    }

    fn count(&self, events: usize, bytes: usize) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::outbox::{Event, Hook};

    fn queues(events_max: usize, bytes_max: usize) -> Queues {
        let hook = Hook::new("all", &Event::ALL, &[], events_max, bytes_max);
        let metrics = [Arc::new(TellMetrics::none())];
        Queues::new(Arc::new(Outboxes::new("a", vec![hook])), &metrics)
    }

    fn push(queues: &Queues, partition: u16, number: u64) {
        let members = format!(r#""n":{number}"#);
        let record = Record {
            id: "e-1",
            time_ms: number,
            what: What::Session { members: &members },
        };
        queues.push(queues.outboxes.wanting(Event::Open, ""), partition, &record);
    }

    fn json(records: &[Box<str>]) -> Vec<String> {
        let one = |record: &str| {
            let mut out = String::new();
            let record = Record::parse(record.as_bytes()).expect("a record");
            record.write_json(&mut out).expect("JSON");
            let event: serde_json::Value = serde_json::from_str(&out).expect("JSON");
            match event["n"].as_u64() {
                Some(number) => number.to_string(),
                None => format!("lost {} {}-{}", event["count"], event["since"], event["until"]),
            }
        };
        records.iter().map(|record| one(record)).collect()
    }

    #[test]
    fn what_finds_no_room_is_counted_in_its_place() {
        let queues = queues(3, 10_000);
        for number in 1..=5 {
            push(&queues, 7, number);
        }
        push(&queues, 8, 6);
        assert_eq!(json(&queues.peek(0, 7, 2, 10_000)), ["1", "2"]);
        queues.told(0, 7, 2);
        push(&queues, 7, 7);
        assert_eq!(json(&queues.peek(0, 7, 9, 10_000)), ["3", "lost 2 4-5", "7"]);
        assert_eq!(
            json(&queues.peek(0, 8, 9, 10_000)),
            ["lost 1 6-6"],
            "nothing follows that would say it"
        );
        queues.told(0, 7, 9);
        queues.told(0, 8, 1);
        assert_eq!(queues.backlog(0), Backlog::default());
        assert!(queues.peek(0, 7, 9, 10_000).is_empty());
    }

    #[test]
    fn bytes_bound_a_queue_and_a_piece_of_it() {
        let queues = queues(100, 60);
        for number in 1..=9 {
            push(&queues, 0, number);
        }
        let length = queues.peek(0, 0, 1, 1)[0].len();
        let fit = 60 / length;
        assert_eq!(queues.peek(0, 0, 100, length * 2).len(), 2.min(fit + 1));
        assert_eq!(queues.peek(0, 0, 100, 0).len(), 1, "one at least");
        assert_eq!(queues.peek(0, 0, 100, 10_000).len(), fit + 1, "and what was lost");
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let queues = queues(3, 10_000);
        push(&queues, 16, 1);
        queues.filled(0, 0).await;
        assert_eq!(json(&queues.peek(0, 0, 9, 10_000)), ["1"]);
    }
}
