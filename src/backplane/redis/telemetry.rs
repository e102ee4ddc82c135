//! What the engine tells metrics.

use std::sync::Arc;
use std::time::Duration;

use super::shard::Reason;
use crate::telemetry::metrics::Metrics;

/// Links that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkKind {
    Command,
    Subscriber,
    Publish,
    Sentinel,
}

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

    pub(super) fn link_up(&self, _link: LinkKind, _up: bool) {}
    pub(super) fn link_rebuilt(&self, _link: LinkKind, _reason: Reason) {}
    pub(super) fn lag(&self, _lag: Duration) {}
    pub(super) fn peer_age(&self, _age: Duration) {}
    pub(super) fn unready(&self, _unready: bool) {}
    pub(super) fn permit(&self, _granted: bool) {}
    pub(super) fn unreadable(&self) {}
}
