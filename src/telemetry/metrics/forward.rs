//! What is counted of questions to the application (`auth.forward`).

use super::handles::{Counters, Registrar};
use super::labels::ForwardResult;
use super::names;

/// Handles, registered once.
pub struct Forward {
    requests: Counters<ForwardResult>,
    duration: metrics::Histogram,
    circuit_open: metrics::Gauge,
    cache_hits: metrics::Counter,
}

impl Forward {
    pub(super) fn register(new: &Registrar<'_>) -> Self {
        Self {
            requests: new.counters(&names::FORWARD_REQUESTS),
            duration: new.histogram(&names::FORWARD_DURATION, &[]),
            circuit_open: new.gauge(&names::FORWARD_CIRCUIT, &[]),
            cache_hits: new.counter(&names::FORWARD_CACHE_HITS, &[]),
        }
    }

    /// The application was asked and answered, or not, after so long.
    pub fn asked(&self, result: ForwardResult, seconds: f64) {
        self.requests.inc(result);
        self.duration.record(seconds);
    }

    /// It was not asked, because it failed too often.
    pub fn not_asked(&self) {
        self.requests.inc(ForwardResult::CircuitOpen);
    }

    /// Whether it is asked.
    pub fn circuit(&self, is_open: bool) {
        self.circuit_open.set(f64::from(u8::from(is_open)));
    }

    /// An earlier answer counted again.
    pub fn cache_hit(&self) {
        self.cache_hits.increment(1);
    }
}
