//! How fast one connection may speak, and when it has been told often enough. Pure.

use std::collections::VecDeque;

use crate::limits::{ABUSE_REFUSALS, ABUSE_WINDOW};

/// A token bucket as one number: the time at which it will be full again (GCRA).
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// Nanoseconds of the caller's clock.
    full_at_ns: u64,
    /// 0: no limit.
    per_second: u64,
    /// How far `full_at_ns` may lie ahead.
    depth_ns: u64,
}

impl Bucket {
    /// `per_second` units a second, at most `burst` at once; `per_second` of 0 means no limit.
    #[must_use]
    pub fn new(per_second: u64, burst: u64) -> Self {
        let mut bucket = Self {
            full_at_ns: 0,
            per_second,
            depth_ns: 0,
        };
        bucket.depth_ns = bucket.cost_ns(burst.max(1));
        bucket
    }

    /// Takes `units`.
    ///
    /// # Errors
    /// Nanoseconds until there will be enough; nothing is taken then.
    pub fn take(&mut self, units: u64, now_ns: u64) -> Result<(), u64> {
        let after_ns = self.full_at_ns.max(now_ns).saturating_add(self.cost_ns(units));
        let limit_ns = now_ns.saturating_add(self.depth_ns);
        if after_ns > limit_ns {
            return Err(after_ns - limit_ns);
        }
        self.full_at_ns = after_ns;
        Ok(())
    }

    /// Takes `units` even if there are not enough: for what has been received already. Returns the debt in
    /// nanoseconds.
    pub fn charge(&mut self, units: u64, now_ns: u64) -> u64 {
        self.full_at_ns = self.full_at_ns.max(now_ns).saturating_add(self.cost_ns(units));
        self.full_at_ns.saturating_sub(now_ns.saturating_add(self.depth_ns))
    }

    /// Whether nothing is taken.
    #[must_use]
    pub fn is_full(&self, now_ns: u64) -> bool {
        self.full_at_ns <= now_ns
    }

    fn cost_ns(&self, units: u64) -> u64 {
        let cost_ns = (u128::from(units) * 1_000_000_000)
            .checked_div(self.per_second.into())
            .unwrap_or(0);
        u64::try_from(cost_ns).unwrap_or(u64::MAX)
    }
}

/// Counts `rate_limited` answers: twenty within ten seconds are abuse.
#[derive(Debug, Default)]
pub struct Patience {
    refusals_ns: VecDeque<u64>,
}

impl Patience {
    /// One more refusal; true when it was one too many.
    pub fn on_refusal(&mut self, now_ns: u64) -> bool {
        let window_ns = u64::try_from(ABUSE_WINDOW.as_nanos()).unwrap_or(u64::MAX);
        while self
            .refusals_ns
            .front()
            .is_some_and(|at_ns| at_ns + window_ns <= now_ns)
        {
            self.refusals_ns.pop_front();
        }
        self.refusals_ns.push_back(now_ns);
        self.refusals_ns.len() >= ABUSE_REFUSALS as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(10, 5);
        assert!((0..5).all(|_| bucket.take(1, SECOND_NS).is_ok()));
        assert_eq!(bucket.take(1, SECOND_NS), Err(SECOND_NS / 10));
        assert!(bucket.take(1, SECOND_NS + SECOND_NS / 10).is_ok());
        assert!(
            bucket.take(5, 10 * SECOND_NS).is_ok(),
            "it fills again, and no further than its burst"
        );
        assert!(bucket.take(1, 10 * SECOND_NS).is_err());
        assert!(Bucket::new(0, 0).take(u64::MAX, 0).is_ok(), "0 is no limit");
    }

    #[test]
    fn what_was_received_is_charged_as_debt() {
        let mut bucket = Bucket::new(1_000, 1_000);
        assert_eq!(bucket.charge(1_000, SECOND_NS), 0);
        assert_eq!(bucket.charge(500, SECOND_NS), SECOND_NS / 2);
        let mut fast = Bucket::new(600_000_000, 600_000_000);
        assert_eq!(
            fast.charge(900_000_000, SECOND_NS),
            SECOND_NS / 2,
            "no rounding to whole nanoseconds per byte"
        );
    }

    #[test]
    fn the_twentieth_refusal_in_ten_seconds_is_abuse() {
        let mut patience = Patience::default();
        assert!((0..19).all(|_| !patience.on_refusal(SECOND_NS)));
        assert!(patience.on_refusal(2 * SECOND_NS));
        let mut slow = Patience::default();
        assert!((0..100).all(|i| !slow.on_refusal(i * SECOND_NS)));
    }
}
