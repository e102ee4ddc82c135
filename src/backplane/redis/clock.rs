//! What time it is at the server.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a good sample goes before a worse one. A server whose clock was set is followed after it.
const TRUSTED: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
struct Sample {
    server_ms: u64,
    heard: Instant,
    round_trip: Duration,
}

/// Learned from answers that carry the server's time. Never ahead of it: what is due "at the latest" is never late.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<Sample>>);

impl Clock {
    /// An answer with the server's time, to a question asked at `asked`, was heard at `heard`.
    pub(super) fn learn(&self, server_ms: u64, asked: Instant, heard: Instant) {
        let sample = Sample {
            server_ms,
            heard,
            round_trip: heard.saturating_duration_since(asked),
        };
        let mut known = self.0.lock();
        let is_better = known.is_none_or(|known| {
            sample.round_trip <= known.round_trip || heard.saturating_duration_since(known.heard) > TRUSTED
        });
        if is_better {
            *known = Some(sample);
        }
    }

    /// Another server: what was known is about another clock.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }

    /// The server's time `within` from `now`, in ms; none before the first sample.
    pub(super) fn in_ms(&self, within: Duration, now: Instant) -> Option<u64> {
        let sample = (*self.0.lock())?;
        let ahead = now.saturating_duration_since(sample.heard) + within;
        Some(sample.server_ms + u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_later_than_the_servers_own() {
        let clock = Clock::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.in_ms(Duration::ZERO, start), None);
        // The server said 1000 at some moment between 0 and 10.
        clock.learn(1_000, at(0), at(10));
        assert_eq!(clock.in_ms(Duration::from_secs(2), at(15)), Some(3_005));
        // A slower answer says less than the one before.
        clock.learn(1_100, at(100), at(900));
        assert_eq!(clock.in_ms(Duration::ZERO, at(900)), Some(1_890));
        clock.learn(12_000, at(11_000), at(11_900));
        assert_eq!(clock.in_ms(Duration::ZERO, at(11_900)), Some(12_000));
    }
}
