//! Reads all revocations from the backplane, and writes back what it lacks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Warden;
use crate::auth::{self, Revocations};
use crate::backplane::contract::{Backplane, Failed};

/// Everything is read so often within the staleness that is put up with, so that two failures do not matter.
const READS_PER_STALENESS: u32 = 3;

/// Everything is read at least so often: what a link has lost that looks alive is found by then.
const INTERVAL_MAX: Duration = Duration::from_secs(20);

/// How long a node waits at its start until its engine listens.
const LISTENING_PATIENCE: Duration = Duration::from_secs(2);

/// After a reading that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

impl Warden {
    /// Reads everything at every suspicion, and now and then.
    ///
    /// # Cancel safety
    /// Cancel safe: what is read counts as it is learned, and is written back next time.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        let Some(backplane) = self.backplane.clone() else {
            return;
        };
        let interval = (self.max_staleness / READS_PER_STALENESS).min(INTERVAL_MAX);
        let mut pause = interval;
        loop {
            tokio::select! {
                () = self.suspected.notified() => {}
                () = sleep(pause) => {}
            }
            pause = match self.exchange(&*backplane).await {
                Ok(()) => interval,
                Err(error) => {
                    tracing::debug!(%error, "revocations are read again in a moment");
                    sleep(RETRY_PAUSE).await;
                    Duration::ZERO
                }
            };
        }
    }

    /// Reads everything once, for the start of a node: when it is ready it knows what was told before, and hears what is
    /// told from then on. If that cannot be had soon, [`Warden::turns_away`] says so.
    ///
    /// # Cancel safety
    /// Cancel safe, as [`Warden::keep_fresh`].
    pub async fn load(&self) {
        let Some(backplane) = &self.backplane else { return };
        // Kicks are not kept: whoever does not listen misses them.
        let mut listens = self.listens.subscribe();
        let _ = timeout(LISTENING_PATIENCE, listens.wait_for(|listens| *listens)).await;
        if let Err(error) = self.exchange(&**backplane).await {
            tracing::debug!(%error, "revocations could not be read yet");
            self.suspected.notify_one();
        }
        self.say_if_stale();
    }

    /// Afterwards this node and the backplane know what either knew.
    async fn exchange(&self, backplane: &dyn Backplane) -> Result<(), Failed> {
        let began = Instant::now();
        let there = backplane.revocations().await?;
        self.metrics.revocation().reload();
        let (mut is_new, mut left_out) = (false, 0_usize);
        for revocation in &there {
            match self.learn(revocation) {
                Ok(learned) => is_new |= learned,
                Err(_) => left_out += 1,
            }
        }
        if is_new {
            self.end_later(|pending| pending.revoke(None));
        }
        if left_out == 0 {
            *self.fresh.lock() = Some(began);
        } else {
            tracing::error!(
                left_out,
                "more revocations than a node can keep: let them be forgotten sooner"
            );
        }
        let there = Revocations::of(&there, auth::now());
        let lacking = self.revoked.read().lacking_in(there, auth::now());
        if !lacking.is_empty() {
            tracing::info!(
                revocations = lacking.len(),
                "the backplane had lost revocations that this node knows"
            );
            backplane.merge_revocations(&lacking).await?;
        }
        Ok(())
    }
}
