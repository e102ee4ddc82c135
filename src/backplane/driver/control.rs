//! Who may no longer be here: revocations and kicks, from whichever node, carried out on this one.
//!
//! What is heard counts at once for everybody who comes, and ends whoever is here in a batch with what came meanwhile. So
//! that nothing depends on having heard everything, all revocations are read again at every suspicion and now and then,
//! and written back where they are missing: a failover or a FLUSHALL un-revokes nobody while one node lives. A node that
//! could not read them for `max_staleness` knows too little to let anybody in.
//!
//! With the memory backplane the same, without anybody to hear of.

mod load;
mod pending;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::auth;
use crate::auth::revocations::{Full, Revocations};
use crate::backplane::contract::{Backplane, Control, Failed, Revocation, Subject};
use crate::backplane::driver::News;
use crate::config::{self, OnStale};
use crate::runtime::{Tasks, now_ms};
use crate::shard::ending::Ending;
use crate::shard::inbox::{Command, Inbox};
use crate::telemetry::metrics::Metrics;
use pending::{Kicked, Pending};

/// Between two looks over all connections: a storm of revocations costs a share of each core, not all of it.
const LOOKS_APART: Duration = Duration::from_millis(50);

/// A shard that takes longer must not keep the others from what came since.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// How often old entries are dropped and metrics set.
const TICK: Duration = Duration::from_secs(1);

/// Keeps those out who are revoked, and ends their connections.
pub struct Warden {
    backplane: Option<Arc<dyn Backplane>>,
    /// Asked at every sign-in.
    revoked: Arc<RwLock<Revocations>>,
    inboxes: Arc<[Arc<Inbox>]>,
    metrics: Arc<Metrics>,
    pending: Mutex<Pending>,
    /// Something is pending.
    noticed: Notify,
    /// Something may have been missed.
    suspected: Notify,
    /// The engine follows its control log: it has said for the first time that something may have been missed.
    listens: watch::Sender<bool>,
    started: Instant,
    /// When the last reading began after which everything was known; none before the first.
    fresh: Mutex<Option<Instant>>,
    max_staleness: Duration,
    on_stale: OnStale,
    /// Whether the last tick found too little known.
    was_stale: AtomicBool,
}

impl Warden {
    /// Writes to `revoked` what it hears; ends connections through `inboxes`.
    #[must_use]
    pub fn new(
        config: &config::Backplane,
        backplane: Option<Arc<dyn Backplane>>,
        revoked: Arc<RwLock<Revocations>>,
        inboxes: Arc<[Arc<Inbox>]>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            backplane,
            revoked,
            inboxes,
            metrics,
            pending: Mutex::default(),
            noticed: Notify::new(),
            suspected: Notify::new(),
            listens: watch::Sender::default(),
            started: Instant::now(),
            fresh: Mutex::default(),
            max_staleness: config.max_staleness,
            on_stale: config.on_stale,
            was_stale: AtomicBool::new(false),
        })
    }

    /// Spawns the services.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        tasks.spawn("endings", Arc::clone(self).end_in_batches());
        tasks.spawn("revocations", Arc::clone(self).keep_fresh());
        tasks.spawn("revocation ticks", Arc::clone(self).tick());
    }

    /// Whether new sign-ins must be turned away, because too little is known about who is revoked.
    #[must_use]
    pub fn turns_away(&self) -> bool {
        self.on_stale == OnStale::Refuse && self.is_stale()
    }

    /// What the backplane tells. Returns at once and holds on to nothing unbounded.
    pub fn hear(&self, news: News) {
        match news {
            News::Told(Control::Revoke(revocation), told_ms) => {
                tracing::debug!(subject = ?revocation.subject, "revoked");
                match self.learn(&revocation) {
                    Ok(false) => {}
                    Ok(true) => self.end_later(|pending| pending.revoke(Some(told_ms))),
                    // Everything is read again, and found to be too much to let anybody in.
                    Err(Full) => self.suspected.notify_one(),
                }
            }
            News::Told(Control::Kick { subject, time_ms }, _) => {
                tracing::debug!(?subject, "kicked");
                match self.pending.lock().kick(subject, time_ms, now_ms()) {
                    Kicked::Waits => {
                        self.metrics.revocation().kick();
                        self.noticed.notify_one();
                    }
                    Kicked::TooLate | Kicked::Again => {}
                    Kicked::TooMany => tracing::error!("so many kicks at once that one was not carried out here"),
                }
            }
            News::Suspect => {
                self.listens.send_replace(true);
                self.suspected.notify_one();
            }
            News::Up => self.suspected.notify_one(),
        }
    }

    /// Tells all nodes, this one included. With the memory backplane that is this one.
    ///
    /// # Errors
    /// As [`Backplane::tell`].
    ///
    /// # Cancel safety
    /// Not cancel safe: once polled, it may be told though nobody hears of it.
    pub async fn tell(&self, control: Control) -> Result<(), Failed> {
        match &self.backplane {
            Some(backplane) => backplane.tell(&control).await,
            None => {
                self.hear(News::Told(control, now_ms()));
                Ok(())
            }
        }
    }

    /// Ends the connections of somebody on all nodes, and with a ban keeps them out until the second that is returned. The
    /// kick first, so that those who are connected hear that they were kicked.
    ///
    /// # Errors
    /// As [`Warden::tell`].
    ///
    /// # Cancel safety
    /// As [`Warden::tell`].
    pub async fn kick(&self, subject: Subject, ban: Option<Duration>) -> Result<Option<u64>, Failed> {
        let ban = ban.map(|ban| Revocation::ban(subject.clone(), ban, auth::now()));
        let kick = Control::Kick {
            subject,
            time_ms: now_ms(),
        };
        self.tell(kick).await?;
        let Some(ban) = ban else { return Ok(None) };
        let until = ban.forget_after;
        self.tell(Control::Revoke(ban)).await?;
        Ok(Some(until))
    }

    /// Counts from now on; whether it says anything new.
    fn learn(&self, revocation: &Revocation) -> Result<bool, Full> {
        let mut revoked = self.revoked.write();
        let learned = revoked.add(revocation, auth::now());
        self.metrics.revocation().entries(revoked.len());
        learned
    }

    fn end_later(&self, note: impl FnOnce(&mut Pending)) {
        note(&mut self.pending.lock());
        self.noticed.notify_one();
    }

    /// Has every shard look over its connections once for all that is pending.
    ///
    /// # Cancel safety
    /// Cancel safe: what was taken is in the inboxes.
    async fn end_in_batches(self: Arc<Self>) {
        loop {
            self.noticed.notified().await;
            let Some(batch) = self.pending.lock().take() else {
                continue;
            };
            let (ending, is_over) = Ending::new(Arc::clone(&self.revoked), batch, Arc::clone(&self.metrics));
            for inbox in &*self.inboxes {
                let ending = Arc::clone(&ending);
                inbox.push(Command::End { ending, from: 0 });
            }
            drop(ending);
            if timeout(LOOK_PATIENCE, is_over).await.is_err() {
                tracing::warn!("a shard takes long to end revoked connections");
            }
            tokio::time::sleep(LOOKS_APART).await;
        }
    }

    async fn tick(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let entries = {
                let mut revoked = self.revoked.write();
                revoked.forget(auth::now());
                revoked.len()
            };
            self.metrics.revocation().entries(entries);
            self.pending.lock().forget(now_ms());
            if self.backplane.is_some() {
                self.note_staleness();
            }
        }
    }

    fn note_staleness(&self) {
        self.metrics.revocation().staleness(self.staleness().as_secs_f64());
        if self.fresh.lock().is_some() {
            self.say_if_stale();
        }
    }

    /// Once when it begins, and once when it is over.
    fn say_if_stale(&self) {
        let is_stale = self.is_stale();
        let was_stale = self.was_stale.swap(is_stale, Ordering::Relaxed);
        if is_stale && !was_stale {
            let sign_ins = if self.on_stale == OnStale::Refuse {
                "refused"
            } else {
                "let in"
            };
            tracing::error!(sign_ins, "who is revoked is not known: the backplane could not be read");
        } else if was_stale && !is_stale {
            tracing::info!("who is revoked is known");
        }
    }

    /// Since when something may be missing here.
    fn staleness(&self) -> Duration {
        self.fresh.lock().unwrap_or(self.started).elapsed()
    }

    /// A node that has never read them knows nothing, however young it is.
    fn is_stale(&self) -> bool {
        self.backplane.is_some()
            && self
                .fresh
                .lock()
                .is_none_or(|fresh| fresh.elapsed() > self.max_staleness)
    }
}
