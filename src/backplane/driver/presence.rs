//! Who of this node is in which room, told to the backplane; and the lease that vouches for them.
//!
//! Changes of a moment go as one call. Whatever may have been lost (a call without an answer, a new server, an ended
//! lease) is healed by asserting everything that this node holds.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::backplane::contract::{Change, Failed, Incarnation, Presented, Renewal};
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
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Pieces of one dead node in a row, before the living have their turn.
const PIECES_PER_TURN: usize = 64;

/// Changes in one call, so that a lease is renewed in between however many there are.
const CHANGES_PER_CALL: usize = 512;

/// The node's life in the backplane's eyes.
pub(super) struct Presence {
    lease: Duration,
    life: Mutex<Life>,
    /// Everything held must be asserted.
    assert: Notify,
    /// This life is over: a new one must begin.
    buried: Notify,
    /// The backplane can be reached again: the lease need not wait for its turn.
    pub(super) reachable: Notify,
    /// As the last renewal found them: whose lease has ended.
    dead: Mutex<Vec<Incarnation>>,
    found_dead: Notify,
    living: watch::Sender<Option<Living>>,
}

/// This node, as long as it has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    pub incarnation: Incarnation,
    /// Which server has the lease: another one may lack what was written lately.
    pub server: Arc<str>,
}

#[derive(Default)]
struct Life {
    /// None before the first and after the last.
    incarnation: Option<Incarnation>,
    /// Whether its lease was taken.
    begun: bool,
    /// The node ends: no other life follows.
    resigned: bool,
}

impl Presence {
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            life: Mutex::default(),
            assert: Notify::new(),
            buried: Notify::new(),
            reachable: Notify::new(),
            dead: Mutex::default(),
            found_dead: Notify::new(),
            living: watch::Sender::default(),
        }
    }

    /// Who this node is now, and whenever that changes.
    pub(super) fn living(&self) -> watch::Receiver<Option<Living>> {
        self.living.subscribe()
    }

    fn lives(&self, now: Option<Living>) {
        self.living.send_if_modified(|living| {
            let is_new = *living != now;
            *living = now;
            is_new
        });
    }

    /// Ends this life, after which no other begins.
    pub fn resign(&self) -> Option<Incarnation> {
        let mut life = self.life.lock();
        life.resigned = true;
        life.incarnation.take()
    }

    /// The backplane can be reached again.
    pub fn on_up(&self) {
        self.reachable.notify_one();
        self.suspect();
    }

    /// The record may lack something: have everything asserted.
    pub fn suspect(&self) {
        self.assert.notify_one();
    }

    fn leave_to_reap(&self, dead: Vec<Incarnation>) {
        if !dead.is_empty() {
            *self.dead.lock() = dead;
            self.found_dead.notify_one();
        }
    }

    /// A name that nobody has had; false if the node ends.
    fn begin(&self) -> bool {
        let mut life = self.life.lock();
        if !life.resigned {
            life.incarnation = Some(uuid::Uuid::new_v4().simple().to_string().into());
            life.begun = false;
        }
        !life.resigned
    }

    /// The life whose lease was taken.
    pub(super) fn begun(&self) -> Option<Incarnation> {
        let life = self.life.lock();
        life.incarnation.clone().filter(|_| life.begun)
    }
}

/// Tells what changes, until the task is dropped.
pub(super) async fn run(driver: Arc<Driver>) {
    let mut leaves = tokio::time::interval(LEAVE_TICK);
    leaves.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut assert = false;
    loop {
        // Nothing is lost: changes wait in the errands, and what was suspected is noted in `assert`.
        tokio::select! {
            _ = leaves.tick() => {
                driver.let_leave();
                driver.count_waiting();
            }
            () = driver.presence.assert.notified() => assert = true,
            () = driver.errands.changed() => tokio::time::sleep(GATHER).await,
        }
        driver.present(&mut assert).await;
    }
}

/// Renews the lease, until the task is dropped. Apart from the changes: those may take long.
pub(super) async fn keep_lease(driver: Arc<Driver>) {
    let mut renewals = tokio::time::interval(driver.presence.lease / RENEWALS);
    renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unbroken = None;
    driver.begin_life();
    loop {
        // Nothing is lost: a burial that is not heard of here is with the next renewal.
        tokio::select! {
            _ = renewals.tick() => {}
            () = driver.presence.reachable.notified() => {}
            () = driver.presence.buried.notified() => {
                unbroken = None;
                driver.begin_life();
            }
        }
        let expired = driver.renew(&mut unbroken).await;
        driver.presence.leave_to_reap(expired);
    }
}

/// Lets the users of dead nodes leave, until the task is dropped. Apart from the lease: it may take long.
pub(super) async fn reap(driver: Arc<Driver>) {
    loop {
        // Nothing is lost: whoever is dead is found with every renewal.
        driver.presence.found_dead.notified().await;
        let dead = std::mem::take(&mut *driver.presence.dead.lock());
        driver.reap(&dead).await;
    }
}

/// Since when the lease was renewed without a break at one server: only then may others be declared dead, or one pause of
/// the server would be the death of everybody.
type Unbroken = Option<(Arc<str>, Instant)>;

impl Driver {
    fn begin_life(&self) {
        if self.presence.begin() {
            self.errands.metrics.presence().incarnation();
        }
    }

    fn let_leave(&self) {
        self.errands.let_leave(now_ms());
        if self.errands.take_crowded() {
            self.hub.visit_all(Room::leave_all_gone);
        }
    }

    /// Says whom to reap.
    async fn renew(&self, unbroken: &mut Unbroken) -> Vec<Incarnation> {
        let (incarnation, begun) = {
            let life = self.presence.life.lock();
            (life.incarnation.clone(), life.begun)
        };
        let Some(incarnation) = incarnation else {
            return Vec::new();
        };
        let renewed = self.backplane.renew(&incarnation, !begun, self.presence.lease).await;
        self.renewed(renewed.as_ref().ok());
        match renewed {
            Ok(Renewal::Alive { server, nodes, expired }) => {
                self.errands.metrics.nodes(nodes.len());
                self.presence.life.lock().begun = true;
                self.presence.lives(Some(Living {
                    incarnation: Arc::clone(&incarnation),
                    server: Arc::clone(&server),
                }));
                self.advertise(&incarnation, &nodes).await;
                let same = unbroken.as_ref().filter(|(known, _)| *known == server);
                if !begun || same.is_none() {
                    self.presence.suspect();
                    self.seats.suspect(!begun);
                }
                let since = same.map_or_else(Instant::now, |(_, since)| *since);
                *unbroken = Some((server, since));
                if since.elapsed() >= self.presence.lease {
                    return expired;
                }
            }
            Ok(Renewal::Expired) => {
                tracing::warn!("the lease had ended: this node enters its users again");
                *unbroken = None;
                self.presence.lives(None);
                self.presence.buried.notify_one();
            }
            Err(error) => {
                tracing::debug!(%error, "the lease was not renewed");
                *unbroken = None;
            }
        }
        Vec::new()
    }

    /// Says what this node is like, and reads who the others are. What fails here is done again with the next renewal.
    async fn advertise(&self, incarnation: &Incarnation, living: &[Incarnation]) {
        let Some(facts) = self.directory.own() else {
            return;
        };
        match self.backplane.advertise(incarnation, &facts).await {
            Ok(advertised) => self.directory.heard(incarnation, living, &advertised),
            Err(error) => tracing::debug!(%error, "the directory of nodes was not read"),
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
    async fn present(&self, assert: &mut bool) {
        if !self.errands.is_up() {
            return;
        }
        let Some(incarnation) = self.presence.begun() else {
            return;
        };
        let last = self.errands.last_change();
        let presented = match self.errands.take_changes() {
            Some(changes) if !*assert => self.tell(&incarnation, &changes).await,
            // What is held now is what all changes together came to.
            _ => {
                *assert = false;
                let held = self.held();
                self.backplane.assert_held(&incarnation, &held).await
            }
        };
        match presented {
            Ok(Presented::Done) => self.errands.presented(last),
            Ok(Presented::Fenced) => {
                tracing::warn!("this node was taken for dead: it enters its users again");
                *assert = true;
                self.presence.life.lock().begun = false;
                self.presence.buried.notify_one();
            }
            Err(error) => {
                tracing::debug!(%error, "presence is asserted again");
                tokio::time::sleep(RETRY_PAUSE).await;
                self.presence.suspect();
            }
        }
    }

    async fn tell(&self, incarnation: &Incarnation, changes: &[Change]) -> Result<Presented, Failed> {
        for changes in changes.chunks(CHANGES_PER_CALL) {
            for change in changes {
                self.errands.metrics.presence().change(change.enters);
            }
            if self.backplane.present(incarnation, changes).await? == Presented::Fenced {
                return Ok(Presented::Fenced);
            }
        }
        Ok(Presented::Done)
    }

    fn held(&self) -> Vec<Change> {
        let mut held = Vec::new();
        self.hub.visit(|room| room.held(&mut held));
        held
    }
}
