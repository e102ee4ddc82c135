//! How often a backend that does not take what it is told is tried again: by one lane at a time, after pauses that grow.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The pause after the first failure.
const FIRST: Duration = Duration::from_millis(500);

/// One hook's pace.
pub(super) struct Pace {
    longest: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Nothing is tried before.
    until: Option<Instant>,
    /// Somebody tries whether it is well again.
    trying: bool,
}

/// Leave to try; given back by dropping it, if nothing came of it.
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    is_trial: bool,
}

impl Pace {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits for leave to try.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn turn(&self) -> Turn<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let until = {
                let mut state = self.state.lock();
                if state.failures == 0 {
                    return Turn {
                        pace: self,
                        is_trial: false,
                    };
                }
                let is_due = state.until.is_none_or(|until| until <= Instant::now());
                if is_due && !state.trying {
                    state.trying = true;
                    return Turn {
                        pace: self,
                        is_trial: true,
                    };
                }
                state.until.filter(|_| !is_due)
            };
            match until {
                Some(until) => tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Tries that failed, since the last that did not.
    #[cfg(test)]
    fn failures(&self) -> u32 {
        self.state.lock().failures
    }
}

impl Turn<'_> {
    /// The last try failed.
    pub(super) const fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// It takes what it is told.
    pub(super) fn succeeded(self) {
        let mut state = self.pace.state.lock();
        state.failures = 0;
        state.until = None;
    }

    /// It does not; `asked` is the pause that it asked for. `share` in `0.0..1.0` spreads those who pause at the same time.
    pub(super) fn failed(self, asked: Option<Duration>, share: f64) {
        let longest = self.pace.longest;
        let mut state = self.pace.state.lock();
        let now = Instant::now();
        let is_known = !self.is_trial && state.until.is_some_and(|until| until > now);
        if !is_known {
            // Several lanes that fail at the same moment are one failure.
            state.failures = state.failures.saturating_add(1);
            let pause = FIRST.saturating_mul(1 << (state.failures - 1).min(16)).min(longest);
            let spread = pause.mul_f64(share.mul_add(0.5, 0.5));
            state.until = Some(now + spread.max(asked.unwrap_or_default().min(longest)));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.pace.state.lock().trying = false;
        }
        self.pace.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(pace: &Pace) -> Duration {
        let since = Instant::now();
        drop(pace.turn().await);
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_the_longest_and_end_with_a_success() {
        let pace = Pace::new(Duration::from_secs(3));
        assert_eq!(waits(&pace).await, Duration::ZERO);
        for pause in [500, 1_000, 2_000, 3_000, 3_000] {
            pace.turn().await.failed(None, 1.0);
            let waited = waits(&pace).await.as_millis();
            assert!((pause..=pause + 1).contains(&waited), "{waited} for {pause}");
        }
        pace.turn().await.succeeded();
        assert_eq!(waits(&pace).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn several_lanes_that_fail_at_once_are_one_failure_and_one_tries_again() {
        let pace = Pace::new(Duration::from_secs(60));
        let turns = [pace.turn().await, pace.turn().await, pace.turn().await];
        for turn in turns {
            turn.failed(None, 0.0);
        }
        assert_eq!(pace.failures(), 1);
        let trial = pace.turn().await;
        let other = tokio::time::timeout(Duration::from_secs(600), pace.turn()).await;
        assert!(other.is_err(), "the others wait for what comes of it");
        trial.succeeded();
        assert_eq!(waits(&pace).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_asked_for_is_kept_within_bounds() {
        let pace = Pace::new(Duration::from_secs(60));
        pace.turn().await.failed(Some(Duration::from_secs(20)), 0.0);
        let waited = waits(&pace).await;
        assert!(
            waited >= Duration::from_secs(20) && waited < Duration::from_secs(21),
            "{waited:?}"
        );
        pace.turn().await.failed(Some(Duration::from_secs(3_600)), 0.0);
        let waited = waits(&pace).await;
        assert!(waited < Duration::from_secs(61), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_leaves_its_turn_to_the_next() {
        let pace = Pace::new(Duration::from_secs(60));
        pace.turn().await.failed(None, 0.0);
        drop(pace.turn().await);
        drop(pace.turn().await);
        assert_eq!(pace.failures(), 1);
    }
}
