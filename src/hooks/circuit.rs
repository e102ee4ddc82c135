//! Whether a hook that keeps failing is left alone for a while. Pure: the clock is the caller's.

/// Closed: everything passes. Open: nothing, until a pause has passed; then one call tries, and its end decides.
#[derive(Debug)]
pub struct Circuit {
    /// Failures in a row that open it; 0: never.
    failures_max: u32,
    pause_ms: u64,
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Until then.
    Open(u64),
    /// One call is trying, since then: if it never ends, another one may after the pause.
    Trying(u64),
}

/// A change that somebody should be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    Open,
    Closed,
}

impl Circuit {
    pub fn new(failures_max: u32, pause_ms: u64) -> Self {
        Self {
            failures_max,
            pause_ms,
            failures: 0,
            state: State::Closed,
        }
    }

    /// Whether a call may begin.
    pub fn admits(&mut self, now_ms: u64) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) if now_ms < until => false,
            State::Trying(since) if now_ms < since.saturating_add(self.pause_ms) => false,
            _ => {
                self.state = State::Trying(now_ms);
                true
            }
        }
    }

    /// A call was answered as it should be.
    pub fn on_success(&mut self) -> Option<Turned> {
        self.failures = 0;
        let was = std::mem::replace(&mut self.state, State::Closed);
        (was != State::Closed).then_some(Turned::Closed)
    }

    /// A call was not.
    pub fn on_failure(&mut self, now_ms: u64) -> Option<Turned> {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Closed if self.failures_max > 0 && self.failures >= self.failures_max => {
                self.state = State::Open(now_ms.saturating_add(self.pause_ms));
                Some(Turned::Open)
            }
            State::Trying(_) => {
                self.state = State::Open(now_ms.saturating_add(self.pause_ms));
                None
            }
            // Calls that began before it opened.
            _ => None,
        }
    }

    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// How long it will stay open at least.
    pub fn open_for_ms(&self, now_ms: u64) -> Option<u64> {
        match self.state {
            State::Closed => None,
            State::Open(until) => Some(until.saturating_sub(now_ms)),
            State::Trying(since) => Some(since.saturating_add(self.pause_ms).saturating_sub(now_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_closes_after_one_success() {
        let mut circuit = Circuit::new(3, 1_000);
        assert_eq!(circuit.on_failure(0), None);
        assert_eq!(circuit.on_failure(0), None);
        assert_eq!(circuit.on_success(), None);
        for _ in 0..2 {
            assert_eq!(circuit.on_failure(10), None);
            assert!(circuit.admits(10));
        }
        assert_eq!(circuit.on_failure(10), Some(Turned::Open));
        assert!(!circuit.admits(1_009) && circuit.is_open());
        assert_eq!(circuit.open_for_ms(510), Some(500));
        assert!(circuit.admits(1_010), "one tries");
        assert!(!circuit.admits(1_010), "one alone");
        assert_eq!(circuit.on_success(), Some(Turned::Closed));
        assert!(circuit.admits(1_010) && !circuit.is_open());
        assert_eq!(circuit.on_failure(1_010), None, "it counts anew");
    }

    #[test]
    fn a_try_that_fails_opens_it_again_and_one_that_is_given_up_holds_nobody_up() {
        let mut circuit = Circuit::new(1, 1_000);
        assert_eq!(circuit.on_failure(0), Some(Turned::Open));
        assert_eq!(circuit.on_failure(5), None, "began before it opened");
        assert!(circuit.admits(1_000));
        assert_eq!(circuit.on_failure(1_500), None);
        assert!(!circuit.admits(2_499));
        assert!(circuit.admits(2_500), "whose client then leaves");
        assert!(!circuit.admits(3_499));
        assert!(circuit.admits(3_500));
    }

    #[test]
    fn with_zero_it_never_opens() {
        let mut circuit = Circuit::new(0, 1_000);
        for now_ms in 0..100 {
            assert_eq!(circuit.on_failure(now_ms), None);
            assert!(circuit.admits(now_ms));
        }
    }
}
