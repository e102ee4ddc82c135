//! One master and the links to it. The task in [`super::keep`] owns them; everybody else borrows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::canary::Canary;
use super::clock::Clock;
use super::kept::Publisher;
use super::link::Link;
use super::settings::Host;
use super::subscriptions::{LinkId, Queue};
use super::topology::Partitions;

pub(super) use crate::telemetry::metrics::Reason;

/// Whether the server itself is still the right one: its command link serves until the new one is there.
const fn spares_commands(reason: Reason) -> bool {
    matches!(reason, Reason::Canary | Reason::Unsubscribed | Reason::Moved)
}

/// A master, its command link and its subscriber link.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Its address; none: whatever the resolver says.
    pub(super) host: Option<Host>,
    command: ArcSwapOption<Link>,
    /// With `kept = "replica"`.
    publisher: ArcSwapOption<Publisher>,
    /// Of the subscriber link that takes new rooms; 0: none.
    subscriber: AtomicU64,
    pub(super) queue: Queue,
    /// Partitions that came to it while its links were up: told as suspect once their rooms are subscribed.
    moved: Mutex<Partitions>,
    pub(super) clock: Clock,
    pub(super) canary: Canary,
    is_up: AtomicBool,
    doubt: Mutex<Option<Reason>>,
    doubted: Notify,
    /// It holds nothing any more.
    pub(super) retired: CancellationToken,
}

impl Shard {
    pub(super) fn at(host: Option<Host>) -> Arc<Self> {
        Arc::new(Self {
            host,
            ..Self::default()
        })
    }

    /// The link for commands, while there is one.
    pub(super) fn command(&self) -> Option<Arc<Link>> {
        self.command.load_full().filter(|link| !link.is_closed())
    }

    /// Takes batches that a replica must have.
    pub(super) fn publisher(&self) -> Option<Arc<Publisher>> {
        self.publisher.load_full()
    }

    /// The new links serve.
    pub(super) fn set_links(&self, command: Arc<Link>, publisher: Option<Publisher>) {
        self.command.store(Some(command));
        self.publisher.store(publisher.map(Arc::new));
        self.is_up.store(true, Ordering::Release);
    }

    /// The links do not serve any more, but for commands where `reason` spares them.
    pub(super) fn take_down(&self, reason: Reason) {
        self.is_up.store(false, Ordering::Release);
        self.set_subscriber(0);
        self.queue.clear();
        if !spares_commands(reason) {
            if let Some(link) = self.command.swap(None) {
                link.close();
            }
            self.publisher.store(None);
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    pub(super) fn subscriber(&self) -> LinkId {
        self.subscriber.load(Ordering::SeqCst)
    }

    pub(super) fn set_subscriber(&self, link: LinkId) {
        self.subscriber.store(link, Ordering::SeqCst);
    }

    /// Asks the task that keeps the links to make them anew.
    pub(super) fn doubt(&self, reason: Reason) {
        *self.doubt.lock() = Some(reason);
        self.doubted.notify_one();
    }

    /// Somebody doubts the links. Cancel safe.
    pub(super) async fn doubted(&self) -> Reason {
        loop {
            if let Some(reason) = self.doubt.lock().take() {
                return reason;
            }
            self.doubted.notified().await;
        }
    }

    /// New links: doubts of the old ones do not count.
    pub(super) fn trust(&self) {
        *self.doubt.lock() = None;
        *self.moved.lock() = Partitions::default();
    }

    pub(super) fn add_moved(&self, partitions: &Partitions) {
        let mut moved = self.moved.lock();
        for partition in partitions.iter() {
            moved.insert(partition);
        }
    }

    pub(super) fn take_moved(&self) -> Option<Partitions> {
        let moved = std::mem::take(&mut *self.moved.lock());
        moved.first().map(|_| moved)
    }
}
