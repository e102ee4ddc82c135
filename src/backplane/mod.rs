//! Rooms across nodes: one contract, three engines, and what is the same for all of them.

pub mod contract;
pub mod cursor;
pub mod directory;
pub mod driver;
pub mod envelope;
pub mod lineage;
pub mod memory;
pub mod nats;
pub mod outbox;
pub mod partition;
pub mod redis;
pub mod url;

use std::sync::Arc;

use crate::config::{BackplaneKind, Config};
use crate::telemetry::metrics::Metrics;

/// The engine that the configuration names; none for the memory backplane, whose rooms need nobody.
///
/// # Errors
/// The engine could not be set up: a certificate, an address.
pub fn connect(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Arc<dyn contract::Backplane>>> {
    match config.backplane.kind {
        BackplaneKind::Memory => Ok(None),
        BackplaneKind::Redis => Ok(Some(redis::Redis::new(config, Arc::clone(metrics))?)),
        BackplaneKind::Nats => Ok(Some(nats::Nats::new(config, Arc::clone(metrics))?)),
    }
}
