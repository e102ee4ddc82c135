//! How much CPU time handshakes (or departures) may take now. Pure.

use std::time::Duration;

/// What may be spent at once after a pause. A round of the flusher is held up by no more than that, and the timers
/// that end a wait are good to a millisecond: less would leave some of the share unused.
const BURST_NS: i64 = 2_000_000;

/// Debt beyond this is forgotten: one handshake that was measured wrongly must not stop the next for seconds.
const DEBT_MAX_NS: i64 = 100_000_000;

/// CPU time that is earned at a share of the clock's, and spent by handshakes.
#[derive(Debug)]
pub struct Pace {
    /// Of one core.
    share: f64,
    /// Negative: spent in advance.
    left_ns: i64,
    /// When `left_ns` was true.
    at_ns: u64,
}

impl Pace {
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self {
            share,
            left_ns: BURST_NS,
            at_ns: 0,
        }
    }

    /// From now on so much is earned.
    pub fn set_share(&mut self, share: f64) {
        self.share = share;
    }

    /// How long until there is something to spend; zero when there is.
    pub fn wait(&mut self, now_ns: u64) -> Duration {
        self.earn(now_ns);
        if self.left_ns > 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(self.left_ns.unsigned_abs().max(1)).div_f64(self.share)
    }

    /// Takes CPU time that was spent, or will be; less than nothing gives back what was taken for nothing.
    pub fn spend(&mut self, cpu_ns: i64, now_ns: u64) {
        self.earn(now_ns);
        self.left_ns = self.left_ns.saturating_sub(cpu_ns).clamp(-DEBT_MAX_NS, BURST_NS);
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "nanoseconds of one pause; what is earned is capped in any case"
    )]
    fn earn(&mut self, now_ns: u64) {
        let earned = (now_ns.saturating_sub(self.at_ns) as f64 * self.share) as i64;
        self.at_ns = self.at_ns.max(now_ns);
        self.left_ns = self.left_ns.saturating_add(earned).min(BURST_NS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn handshakes_take_their_share_and_no_more() {
        let mut pace = Pace::new(0.25);
        let (mut now_ns, mut spent_ms) = (0, 0);
        while now_ns < 1_000_000_000 {
            let wait = pace.wait(now_ns);
            if wait.is_zero() {
                pace.spend(MS, now_ns);
                spent_ms += 1;
                now_ns += 1_000_000;
            } else {
                now_ns += u64::try_from(wait.as_nanos()).expect("short");
            }
        }
        assert!((250..=255).contains(&spent_ms), "{spent_ms} ms of a second");
    }

    #[test]
    fn a_pause_earns_a_burst_and_no_more_and_debt_ends() {
        let mut pace = Pace::new(0.5);
        assert!(pace.wait(60_000_000_000).is_zero());
        pace.spend(BURST_NS, 60_000_000_000);
        assert!(!pace.wait(60_000_000_000).is_zero());
        pace.spend(3_600_000 * MS, 60_000_000_000);
        assert!(pace.wait(60_000_000_000) <= Duration::from_millis(201));
        pace.spend(-3_600_000 * MS, 60_000_000_000);
        pace.spend(BURST_NS, 60_000_000_000);
        assert!(
            !pace.wait(60_000_000_000).is_zero(),
            "what is given back is no more than a burst"
        );
    }
}
