//! Who has left, and waits for being seen off: thousands who leave at the same moment (a network that went) must not hold
//! up those who stay. A departure is taken at the pace of a share of the core, one at a time between everything else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::net::admission::Pace;
use crate::shard::Shard;

/// What departures may take of a core.
const SHARE: f64 = 0.5;
/// CPU time of one: its rooms left, the others told, its socket closed (5,000 at once took 0.24 to 0.36 s).
const COST_NS: i64 = 60_000;

/// The departures of one shard.
#[derive(Debug)]
pub struct Departures {
    state: Mutex<State>,
    arrived: Notify,
    started: Instant,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// At most one per connection of this shard.
    waiting: VecDeque<Waker>,
    /// Numbers below this have had their turn.
    served: u64,
    next_number: u64,
}

impl Default for Departures {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                pace: Pace::new(SHARE),
                waiting: VecDeque::new(),
                served: 0,
                next_number: 0,
            }),
            arrived: Notify::new(),
            started: Instant::now(),
        }
    }
}

impl Departures {
    /// Asks for a turn.
    ///
    /// # Errors
    /// It is not now: the number that will be served, of which `waker` is told.
    pub fn ask(&self, waker: &Waker) -> Result<(), u64> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && state.pace.wait(self.now_ns()).is_zero() {
            state.pace.spend(COST_NS, self.now_ns());
            return Ok(());
        }
        let number = state.next_number;
        state.next_number += 1;
        state.waiting.push_back(waker.clone());
        drop(state);
        self.arrived.notify_one();
        Err(number)
    }

    /// Whether the turn with this number has come.
    #[must_use]
    pub fn is_served(&self, number: u64) -> bool {
        number < self.state.lock().served
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn serve_next(&self) {
        let mut state = self.state.lock();
        if let Some(waker) = state.waiting.pop_front() {
            state.served += 1;
            state.pace.spend(COST_NS, self.now_ns());
            // A connection that was cut meanwhile is no longer there to be woken.
            waker.wake();
        }
        if state.waiting.is_empty() {
            // A rush must not leave its queue behind.
            state.waiting = VecDeque::new();
        }
    }
}

/// Runs until the task is dropped.
pub(super) async fn run(shard: Arc<Shard>) {
    let departures = &shard.departures;
    loop {
        departures.arrived.notified().await;
        loop {
            let wait = {
                let mut state = departures.state.lock();
                if state.waiting.is_empty() {
                    break;
                }
                state.pace.wait(departures.now_ns())
            };
            if wait.is_zero() {
                departures.serve_next();
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_leave_at_once_and_a_rush_in_turn() {
        let departures = Departures::default();
        let asked: Vec<_> = (0..10_000).map(|_| departures.ask(Waker::noop())).collect();
        assert!(asked[..10].iter().all(Result::is_ok), "nobody waits for nothing");
        let waiting: Vec<u64> = asked.into_iter().filter_map(Result::err).collect();
        assert!(waiting.len() > 9_000, "{} of 10,000 wait", waiting.len());
        assert!(!departures.is_served(waiting[0]));
        departures.serve_next();
        assert!(departures.is_served(waiting[0]) && !departures.is_served(waiting[1]));
        for _ in &waiting {
            departures.serve_next();
        }
        assert!(waiting.iter().all(|number| departures.is_served(*number)));
        assert_eq!(departures.state.lock().waiting.capacity(), 0);
    }
}
