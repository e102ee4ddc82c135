//! One hook's own metrics. Its label is the name that the operator gave it.

use super::handles::{Registrar, Words};
use super::{Metrics, names};

/// What a request to a hook came to; those from `busy` on had no good answer.
pub const HOOK_RESULTS: &[&str] = &[
    "ok",
    "denied",
    "busy",
    "circuit_open",
    "abandoned",
    "forbidden",
    "connect",
    "tls",
    "timeout",
    "too_large",
    "protocol",
    "status",
    "malformed",
    super::labels::OTHER,
];

/// `conclave_hook_*` of one hook.
pub struct HookMetrics {
    requests: Words,
    duration: metrics::Histogram,
    circuit_open: metrics::Gauge,
    waiting: metrics::Gauge,
}

impl Metrics {
    /// Registers a hook with zeros; a handle for as long as the hook lives.
    pub fn hook(&self, name: &str) -> HookMetrics {
        let new = Registrar(&self.recorder);
        HookMetrics {
            requests: new.words_of(&names::HOOK_REQUESTS, name, HOOK_RESULTS),
            duration: new.histogram(&names::HOOK_DURATION, &[name]),
            circuit_open: new.gauge(&names::HOOK_CIRCUIT_OPEN, &[name]),
            waiting: new.gauge(&names::HOOK_WAITING, &[name]),
        }
    }
}

impl HookMetrics {
    /// A request came to one of [`HOOK_RESULTS`].
    pub fn request(&self, result: &'static str) {
        self.requests.inc(result);
    }

    /// It took so long, whatever it came to.
    pub fn duration(&self, seconds: f64) {
        self.duration.record(seconds);
    }

    /// Nothing is asked for now, or again.
    pub fn circuit_open(&self, is_open: bool) {
        self.circuit_open.set(f64::from(u8::from(is_open)));
    }

    /// Requests under way.
    pub fn waiting(&self, requests: usize) {
        self.waiting.set(requests as f64);
    }
}
