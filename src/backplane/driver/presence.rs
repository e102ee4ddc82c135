//! Who of this node is in which room, told to the backplane; and the lease that vouches for them.
//!
//! Changes of a moment go as one call. Whatever may have been lost (a call without an answer, a new server, an ended
//! lease) is healed by asserting everything that this node holds.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use crate::backplane::contract::{Change, Incarnation, Presented, Renewal};
use crate::backplane::driver::Driver;
use crate::hub::Room;
use crate::runtime::now_ms;

/// How long changes gather before they go.
const GATHER: Duration = Duration::from_millis(5);

/// How often users whose last connection closed are looked at.
const LEAVE_TICK: Duration = Duration::from_millis(200);

/// Renewals per lease.
const RENEWALS: u32 = 5;

/// After a call that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Pieces of one dead node in a row, before the living have their turn.
const PIECES_PER_TURN: usize = 64;

/// The node's life in the backplane's eyes.
pub(super) struct Presence {
    lease: Duration,
    incarnation: Mutex<Option<Incarnation>>,
    /// Everything held must be asserted.
    assert: Notify,
}

impl Presence {
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            incarnation: Mutex::default(),
            assert: Notify::new(),
        }
    }

    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation.lock().clone()
    }

    /// The record may lack something: have everything asserted.
    pub fn suspect(&self) {
        self.assert.notify_one();
    }
}

/// What only the task knows.
#[derive(Default)]
struct Life {
    /// Whether the lease was ever taken.
    begun: bool,
    /// Since when it was renewed without a break at the same server; only then may others be declared dead.
    unbroken: Option<(Arc<str>, Instant)>,
    assert: bool,
}

/// Runs until the task is dropped.
pub(super) async fn run(driver: Arc<Driver>) {
    let mut renewals = tokio::time::interval(driver.presence.lease / RENEWALS);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leaves = tokio::time::interval(LEAVE_TICK);
    leaves.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut life = Life::default();
    driver.begin_life(&mut life);
    loop {
        // Nothing is lost: changes wait in the errands, and a lost suspicion is one that has just been acted on.
        tokio::select! {
            _ = renewals.tick() => driver.renew(&mut life).await,
            _ = leaves.tick() => driver.let_leave(),
            () = driver.presence.assert.notified() => life.assert = true,
            () = driver.errands.changed() => tokio::time::sleep(GATHER).await,
        }
        driver.present(&mut life).await;
    }
}

impl Driver {
    /// Takes a name that nobody has had.
    fn begin_life(&self, life: &mut Life) {
        *self.presence.incarnation.lock() = Some(uuid::Uuid::new_v4().simple().to_string().into());
        self.errands.metrics.presence().incarnation();
        *life = Life {
            assert: true,
            ..Life::default()
        };
    }

    fn let_leave(&self) {
        self.errands.let_leave(now_ms());
        if self.errands.take_crowded() {
            self.hub.visit(Room::leave_all_gone);
        }
    }

    async fn renew(&self, life: &mut Life) {
        let Some(incarnation) = self.presence.incarnation() else {
            return;
        };
        let renewed = self
            .backplane
            .renew(&incarnation, !life.begun, self.presence.lease)
            .await;
        self.renewed(renewed.as_ref().ok());
        match renewed {
            Ok(Renewal::Alive { server, nodes, expired }) => {
                self.errands.metrics.nodes(nodes.len());
                let first = !std::mem::replace(&mut life.begun, true);
                let unbroken = life.unbroken.as_ref().filter(|(known, _)| *known == server);
                let since = unbroken.map_or_else(Instant::now, |(_, since)| *since);
                life.assert |= first || unbroken.is_none();
                life.unbroken = Some((server, since));
                if since.elapsed() >= self.presence.lease {
                    self.reap(&expired).await;
                }
            }
            Ok(Renewal::Expired) => {
                tracing::warn!("the lease had ended: this node enters its users again");
                self.begin_life(life);
            }
            Err(error) => {
                tracing::debug!(%error, "the lease was not renewed");
                life.unbroken = None;
            }
        }
    }

    /// Lets the users of nodes leave whose lease has ended.
    async fn reap(&self, expired: &[Incarnation]) {
        for dead in expired {
            for _ in 0..PIECES_PER_TURN {
                match self.backplane.reap(dead).await {
                    Ok(true) => {
                        tracing::info!(%dead, "the users of a node that is gone have left");
                        break;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::debug!(%error, "reaping is tried again with the next renewal");
                        return;
                    }
                }
            }
        }
    }

    /// Tells what has changed, or everything.
    async fn present(&self, life: &mut Life) {
        if !life.begun || !self.errands.is_up() {
            return;
        }
        let Some(incarnation) = self.presence.incarnation() else {
            return;
        };
        let presented = match self.errands.take_changes() {
            Some(changes) if !life.assert => {
                if changes.is_empty() {
                    return;
                }
                self.backplane.present(&incarnation, &changes).await
            }
            // What is held now is what all changes together came to.
            _ => {
                let held = self.held();
                life.assert = false;
                self.backplane.assert_held(&incarnation, &held).await
            }
        };
        match presented {
            Ok(Presented::Done) => {}
            Ok(Presented::Fenced) => {
                tracing::warn!("this node was taken for dead: it enters its users again");
                self.begin_life(life);
            }
            Err(error) => {
                tracing::debug!(%error, "presence is asserted again");
                tokio::time::sleep(RETRY_PAUSE).await;
                life.assert = true;
                self.presence.suspect();
            }
        }
    }

    fn held(&self) -> Vec<Change> {
        let mut held = Vec::new();
        self.hub.visit(|room| room.held(&mut held));
        held
    }
}
