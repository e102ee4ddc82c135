//! What rooms want of the backplane. Rooms put it down here under their locks; the driver fetches it.
//!
//! Bounded by the number of rooms: a room is in each queue at most once, which the room itself sees to.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::backplane::contract::Change;
use crate::backplane::outbox::Outboxes;
use crate::config;
use crate::hub::Room;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;

/// Changes of presence that may wait; beyond it they are forgotten, and everything held is asserted instead.
pub const CHANGES_MAX: usize = 16_384;

/// Rooms that want something.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: Mutex<Vec<Arc<Room>>>,
    filled: Notify,
}

impl Rooms {
    /// Only if the room is not in it.
    pub fn push(&self, room: Arc<Room>) {
        self.rooms.lock().push(room);
        self.filled.notify_one();
    }

    /// Waits until there are some, and takes them all.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn take(&self) -> Vec<Arc<Room>> {
        loop {
            let rooms = std::mem::take(&mut *self.rooms.lock());
            if !rooms.is_empty() {
                return rooms;
            }
            self.filled.notified().await;
        }
    }
}

/// How much may wait for the backplane, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub room_messages: usize,
    pub room_bytes: usize,
    pub node_bytes: usize,
    pub publish_timeout: Duration,
    pub call_timeout: Duration,
    pub leave_grace: Duration,
}

/// Between the rooms of this node and the driver.
pub struct Errands {
    /// Have chats to publish.
    pub publish: Rooms,
    /// Have something to ask the log.
    pub ask: Rooms,
    pub bounds: Bounds,
    pub metrics: Arc<Metrics>,
    pub traces: Traces,
    changes: Mutex<Changes>,
    changed: Notify,
    /// Bytes of chats that wait in all rooms.
    pub queued_bytes: AtomicUsize,
    pub queued_messages: AtomicUsize,
    /// Some who left were not noted: every room must be looked at.
    crowded: AtomicBool,
    up: AtomicBool,
    /// When presence was last known to be right; 0 while it is.
    stale_since_ms: AtomicU64,
    /// Whether letters to users reach this node.
    post_is_open: watch::Sender<bool>,
    /// Changes that the backplane knows of.
    presented: watch::Sender<u64>,
    /// Hooks that hear of joins and chats in their order, if there are any.
    joins_go_first: OnceLock<Arc<Outboxes>>,
    /// The last change that was waited for in vain.
    overdue: AtomicU64,
}

impl std::fmt::Debug for Errands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Errands")
    }
}

#[derive(Debug, Default)]
struct Changes {
    changes: Vec<Change>,
    /// How many there ever were.
    count: u64,
    /// Some were forgotten.
    overflowed: bool,
    /// Users whose last connection closed, with the time at which they leave.
    leaving: std::collections::VecDeque<(u64, Arc<Room>, Arc<str>)>,
}

impl Errands {
    #[must_use]
    pub fn new(config: &config::Backplane, metrics: Arc<Metrics>, traces: Traces) -> Self {
        Self {
            publish: Rooms::default(),
            ask: Rooms::default(),
            bounds: Bounds {
                room_messages: config.room_queue_messages,
                room_bytes: config.room_queue_bytes,
                node_bytes: config.node_queue_bytes,
                publish_timeout: config.publish_timeout,
                call_timeout: config.call_timeout,
                leave_grace: config.leave_grace,
            },
            metrics,
            traces,
            changes: Mutex::default(),
            changed: Notify::new(),
            queued_bytes: AtomicUsize::new(0),
            queued_messages: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            up: AtomicBool::new(false),
            stale_since_ms: AtomicU64::new(1),
            post_is_open: watch::Sender::default(),
            presented: watch::Sender::default(),
            joins_go_first: OnceLock::new(),
            overdue: AtomicU64::new(0),
        }
    }

    /// The post follows its log from now on.
    pub fn open_post(&self) {
        self.post_is_open.send_replace(true);
    }

    /// Waits until it does.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn post_opened(&self) {
        let mut is_open = self.post_is_open.subscribe();
        // The sender lives as long as we do.
        let _ = is_open.wait_for(|is_open| *is_open).await;
    }

    /// Whether the backplane can be reached.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    pub fn set_up(&self, up: bool, now_ms: u64) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            self.stale_since_ms
                .store(if up { 0 } else { now_ms }, Ordering::Relaxed);
        }
    }

    /// When what is known of presence was last right.
    #[must_use]
    pub fn as_of_ms(&self, now_ms: u64) -> u64 {
        match self.stale_since_ms.load(Ordering::Relaxed) {
            0 => now_ms,
            since_ms => since_ms.min(now_ms),
        }
    }

    /// A user came to a room on this node as its first connection, or left as its last. Which of all changes that is.
    pub fn change(&self, change: Change) -> u64 {
        let mut changes = self.changes.lock();
        changes.count += 1;
        let number = changes.count;
        if changes.changes.len() >= CHANGES_MAX {
            changes.changes.clear();
            changes.overflowed = true;
        }
        if !changes.overflowed {
            changes.changes.push(change);
        }
        drop(changes);
        self.changed.notify_one();
        number
    }

    /// The number of the last change.
    #[must_use]
    pub fn last_change(&self) -> u64 {
        self.changes.lock().count
    }

    /// The backplane knows of this change and all before it.
    pub fn presented(&self, number: u64) {
        self.presented.send_if_modified(|presented| {
            let is_later = number > *presented;
            *presented = number.max(*presented);
            is_later
        });
    }

    /// Waits until it does.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn presented_by(&self, number: u64) {
        let mut presented = self.presented.subscribe();
        // The sender lives as long as we do.
        let _ = presented.wait_for(|presented| *presented >= number).await;
    }

    /// From now on what is said in a room goes behind those who entered it, where a hook is told of both: in that order.
    pub fn let_joins_go_first(&self, outboxes: Arc<Outboxes>) {
        // Called once.
        let _ = self.joins_go_first.set(outboxes);
    }

    /// Whether it does in any room.
    #[must_use]
    pub fn do_joins_go_first(&self) -> bool {
        self.joins_go_first.get().is_some()
    }

    /// Waits until the backplane knows who entered a room, before what is said there; `entered`: the last change of it. Not
    /// for long, and for no change that came too late once: presence that is slow must not keep anybody from speaking.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn joined_first(&self, room: &str, entered: u64) {
        let hears = |outboxes: &Arc<Outboxes>| outboxes.hears_joins_and_chats(room);
        if entered <= self.overdue.load(Ordering::Relaxed) || !self.joins_go_first.get().is_some_and(hears) {
            return;
        }
        let patience = self.bounds.publish_timeout / 2;
        if timeout(patience, self.presented_by(entered)).await.is_err() {
            self.overdue.fetch_max(entered, Ordering::Relaxed);
        }
    }

    /// A user's last connection closed: it leaves unless it comes back in time.
    pub fn leave_later(&self, at_ms: u64, room: Arc<Room>, user: Arc<str>) {
        let mut changes = self.changes.lock();
        if changes.leaving.len() < CHANGES_MAX {
            changes.leaving.push_back((at_ms, room, user));
            return;
        }
        drop(changes);
        // A node that loses so many at once has no grace to give; the room is locked here, so others ask it later.
        self.crowded.store(true, Ordering::Relaxed);
    }

    /// Whether users left whom [`Errands::let_leave`] does not know of; once.
    pub fn take_crowded(&self) -> bool {
        self.crowded.swap(false, Ordering::Relaxed)
    }

    /// Lets those leave whose time has come.
    pub fn let_leave(&self, now_ms: u64) {
        loop {
            let due = {
                let mut changes = self.changes.lock();
                match changes.leaving.front() {
                    Some((at_ms, ..)) if *at_ms <= now_ms => changes.leaving.pop_front(),
                    _ => None,
                }
            };
            match due {
                Some((_, room, user)) => room.leave_if_gone(&user, now_ms),
                None => return,
            }
        }
    }

    /// Changes of presence that wait.
    #[must_use]
    pub fn changes_waiting(&self) -> usize {
        self.changes.lock().changes.len()
    }

    /// Waits for changes.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the changes; `None` if some were forgotten and everything must be asserted.
    pub fn take_changes(&self) -> Option<Vec<Change>> {
        let mut changes = self.changes.lock();
        let taken = std::mem::take(&mut changes.changes);
        (!std::mem::take(&mut changes.overflowed)).then_some(taken)
    }
}
