//! What the engine tells metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::contract::Failed;
use super::shard::Reason;
use crate::telemetry::metrics::{self, CallKind, Link, Metrics, Wakeup};

/// A handle; a clone is a reference count.
#[derive(Clone)]
pub(super) struct Telemetry(Option<Arc<Metrics>>);

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Telemetry {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self(Some(metrics))
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(None)
    }

    fn backplane(&self) -> Option<&metrics::Backplane> {
        self.0.as_deref().map(Metrics::backplane)
    }

    pub(super) fn link_up(&self, link: Link, up: bool) {
        if let Some(backplane) = self.backplane() {
            backplane.link_up(link, up);
        }
    }

    pub(super) fn link_rebuilt(&self, link: Link, reason: Reason) {
        if let Some(backplane) = self.backplane() {
            backplane.link_rebuilt(link, reason);
        }
    }

    pub(super) fn lag(&self, lag: Duration) {
        if let Some(backplane) = self.backplane() {
            backplane.lag(lag.as_secs_f64());
        }
    }

    pub(super) fn peer_age(&self, age: Duration) {
        if let Some(backplane) = self.backplane() {
            backplane.peer_age(age.as_secs_f64());
        }
    }

    pub(super) fn permit(&self, granted: bool) {
        if let Some(backplane) = self.backplane() {
            backplane.permit(granted);
        }
    }

    /// So many users of a dead node were moved out.
    pub(super) fn reaped(&self, users: u64) {
        if let Some(metrics) = &self.0 {
            metrics.presence().reaped(users);
        }
    }

    /// A push that is none of ours, or of a version that this build cannot read.
    pub(super) fn unreadable(&self) {
        if let Some(backplane) = self.backplane() {
            backplane.wakeup(Wakeup::Unreadable);
        }
    }

    /// What a call came to, and how long it took.
    pub(super) fn call(&self, call: CallKind, failed: Option<Failed>, asked: Instant) {
        if let Some(backplane) = self.backplane() {
            let result = match failed {
                None => "ok",
                Some(Failed::Unknown) => "unknown",
                Some(Failed::Refused(refusal)) => refusal.as_str(),
            };
            backplane.call(call, result, asked.elapsed().as_secs_f64());
        }
    }
}
