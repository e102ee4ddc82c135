//! What time it is, for the engine.

use std::time::Instant;

use crate::runtime::now_ms;

/// Two clocks: a person may set the first one, and nobody the second.
pub trait Clock: Send + Sync {
    /// Since the Unix epoch: for what clients see, and for windows and ages.
    fn unix_ms(&self) -> u64;

    /// Since the engine began: for leases and lifetimes.
    fn elapsed_ms(&self) -> u64;
}

/// The machine's clocks.
pub struct System {
    began: Instant,
}

impl Default for System {
    fn default() -> Self {
        Self { began: Instant::now() }
    }
}

impl Clock for System {
    fn unix_ms(&self) -> u64 {
        now_ms()
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
