//! The server's clock, as far as a node knows it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// How far the server's clock is ahead of this node's, learned from messages whose storing was watched.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead_ms: AtomicI64,
}

impl Clock {
    /// Milliseconds since the Unix epoch on the server.
    pub fn now_ms(&self) -> u64 {
        local_ms().saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// A message was sent and acknowledged at these local times, and stored at this one of the server.
    pub fn learn(&self, sent_ms: u64, acknowledged_ms: u64, stored_ms: u64) {
        let local = sent_ms.midpoint(acknowledged_ms);
        self.ahead_ms
            .store(stored_ms.wrapping_sub(local).cast_signed(), Ordering::Relaxed);
    }
}

/// Milliseconds since the Unix epoch on this node.
pub(super) fn local_ms() -> u64 {
    millis(
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// As whole milliseconds; 500 million years at most.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_a_server_that_is_behind_or_ahead() {
        let clock = Clock::default();
        for ahead_ms in [-5_000_i64, 0, 90_000] {
            let sent = local_ms();
            clock.learn(sent, sent + 10, (sent + 5).saturating_add_signed(ahead_ms));
            let off = clock.now_ms().abs_diff(local_ms().saturating_add_signed(ahead_ms));
            assert!(off < 1_000, "{off}");
        }
    }
}
