//! Between the rooms of this node and the backplane: fetches what rooms want ([`Errands`]), asks, and brings the answers
//! back. What an answer means is decided by the room; this only sees to it that every question is asked, one at a time per
//! room, and asked again while it makes sense.

mod ask;
mod audit;
mod control;
mod counts;
mod ear;
mod presence;
mod publish;
mod seats;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::backplane::contract::Backplane;
use crate::backplane::directory::Directory;
use crate::backplane::outbox::Outboxes;
use crate::config;
use crate::hub::errands::Errands;
use crate::hub::{Hub, Room};
use crate::runtime::Tasks;

pub use control::Warden;
pub use ear::{Ear, News};
pub use presence::Living;
use presence::Presence;
pub use seats::{Seats, seat_here};

/// Everything that the tasks share.
pub struct Driver {
    backplane: Arc<dyn Backplane>,
    hub: Arc<Hub>,
    errands: Arc<Errands>,
    audit_interval: Duration,
    suspects: audit::Suspects,
    presence: Presence,
    directory: Directory,
    seats: Arc<Seats>,
}

impl Driver {
    /// For the rooms of `hub`, which must be shared.
    ///
    /// # Panics
    /// The hub's rooms number by themselves.
    #[must_use]
    pub fn new(
        config: &config::Backplane,
        backplane: Arc<dyn Backplane>,
        hub: Arc<Hub>,
        seats: Arc<Seats>,
    ) -> Arc<Self> {
        let errands = Arc::clone(hub.errands().expect("a hub of shared rooms"));
        Arc::new(Self {
            backplane,
            hub,
            errands,
            audit_interval: config.audit_interval,
            suspects: audit::Suspects::default(),
            presence: Presence::new(config.lease),
            directory: Directory::new(config.lease),
            seats,
        })
    }

    /// Spawns the services.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        tasks.spawn("publish", publish::run(Arc::clone(self)));
        tasks.spawn("ask", ask::run(Arc::clone(self)));
        tasks.spawn("audit", audit::run(Arc::clone(self)));
        tasks.spawn("presence", presence::run(Arc::clone(self)));
        tasks.spawn("lease", presence::keep_lease(Arc::clone(self)));
        tasks.spawn("seats", seats::run(Arc::clone(self)));
        tasks.spawn("reap", presence::reap(Arc::clone(self)));
    }

    /// Who this node is in the backplane's eyes, now and whenever that changes; none without a lease.
    #[must_use]
    pub fn living(&self) -> tokio::sync::watch::Receiver<Option<Living>> {
        self.presence.living()
    }

    /// From now on the backplane hears of who enters a room before it hears what they say there, if a hook is told of both.
    pub fn let_joins_go_first(&self, outboxes: Arc<Outboxes>) {
        self.errands.let_joins_go_first(outboxes);
    }

    /// Nobody comes back to this node: those leave whose last connection closed a moment ago.
    pub fn let_all_leave(&self) {
        self.hub.visit_all(Room::leave_all_gone);
    }

    /// Who the other nodes are.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Waits until letters to users reach this node.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn post_opened(&self) {
        self.errands.post_opened().await;
    }

    /// Has the lease renewed now: the others hear at once what this node says of itself.
    pub fn tell_others(&self) {
        self.presence.reachable.notify_one();
    }

    /// At the end of a node: its users leave now, and not when its lease ends.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not said is found out by the others when the lease ends.
    pub async fn resign(&self) {
        if let Some(incarnation) = self.presence.resign()
            && let Err(error) = self.backplane.resign(&incarnation).await
        {
            tracing::warn!(%error, "the backplane was not told that this node ends; its users leave when its lease does");
        }
    }
}
