//! A node among others: its backplane, and what works between that and its rooms.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::backplane::contract::{Backplane, Failed, RoomKey};
use crate::backplane::directory::NodeFacts;
use crate::backplane::driver::{Driver, Ear, Seats};
use crate::config::Config;
use crate::hub::Hub;
use crate::runtime::Node;

/// How long the others may take to hear that this node ends; after that its lease tells them.
const RESIGN: Duration = Duration::from_secs(1);

/// How long a node waits at its start until messages to users reach it.
const POST_PATIENCE: Duration = Duration::from_secs(2);

/// What only a node with a shared backplane has.
pub struct Cluster {
    backplane: Arc<dyn Backplane>,
    driver: Arc<Driver>,
}

impl Cluster {
    pub(super) fn new(config: &Config, backplane: Arc<dyn Backplane>, hub: &Arc<Hub>, seats: Arc<Seats>) -> Self {
        Self {
            driver: Driver::new(&config.backplane, Arc::clone(&backplane), Arc::clone(hub), seats),
            backplane,
        }
    }

    /// Makes the links and starts what uses them.
    ///
    /// # Errors
    /// The backplane answered, and can never do what is asked of it; with the remedy.
    pub(super) async fn start(&self, node: &Arc<Node>) -> anyhow::Result<()> {
        let warden = Arc::clone(&node.warden);
        let ear = Ear::new(
            Arc::clone(&self.driver),
            Box::new(move |news| warden.hear(news)),
            node.health.clone(),
            node.config.backplane.unready_when_away,
        );
        Arc::clone(&self.backplane).start(ear, &node.tasks).await?;
        let described = Arc::downgrade(node);
        (self.driver.directory()).describe(Box::new(move || {
            described.upgrade().map(|node| node.facts()).unwrap_or_default()
        }));
        self.driver.start(&node.tasks);
        if let Some(teller) = &node.teller {
            teller.start(&node.tasks, Some(&self.driver));
        }
        node.warden.load().await;
        // Who connects to a node that is ready is reached by what the application tells users.
        if timeout(POST_PATIENCE, self.driver.post_opened()).await.is_err() {
            tracing::warn!("messages to users do not reach this node yet: the backplane has not answered");
        }
        Ok(())
    }

    /// What this node shares with the others.
    #[must_use]
    pub fn backplane(&self) -> &Arc<dyn Backplane> {
        &self.backplane
    }

    /// Counts one more connection of a user, on all nodes; false if it is one too many.
    pub async fn seat(&self, user: &Arc<str>) -> bool {
        self.driver.seat(user).await
    }

    /// Who is in a room, asked of the backplane.
    ///
    /// # Errors
    /// As [`Backplane::users`].
    pub async fn users(&self, room: &RoomKey) -> Result<Vec<(Arc<str>, Arc<str>)>, Failed> {
        self.backplane.users(room).await.map(|users| users.users)
    }

    /// Whether the backplane knows a room.
    ///
    /// # Errors
    /// As [`Backplane::heads`].
    pub async fn knows(&self, room: &RoomKey) -> Result<bool, Failed> {
        let heads = self.backplane.heads(std::slice::from_ref(room)).await?;
        Ok(heads.iter().any(Option::is_some))
    }

    /// The other nodes, as they described themselves at most a lease ago; none while the backplane is away.
    #[must_use]
    pub fn others(&self) -> Arc<[NodeFacts]> {
        self.driver.directory().others()
    }

    /// Has the others hear now, and not with the next renewal of the lease, that this node wants clients or does not.
    pub(super) fn tell_others(&self) {
        self.driver.tell_others();
    }

    /// Nobody comes back to this node: those leave whose last connection closed a moment ago.
    pub(super) fn let_all_leave(&self) {
        self.driver.let_all_leave();
    }

    /// Says goodbye.
    pub(super) async fn stop(&self) {
        if timeout(RESIGN, self.driver.resign()).await.is_err() {
            tracing::warn!("the backplane did not answer at the end; the users here leave when the lease does");
        }
    }
}
