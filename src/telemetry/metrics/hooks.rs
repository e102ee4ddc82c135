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

/// What a hook that is told of things has of its own.
pub struct TellMetrics {
    delivered: metrics::Counter,
    lost: metrics::Counter,
    retries: metrics::Counter,
    backlog: metrics::Gauge,
    lag: metrics::Gauge,
}

impl Metrics {
    /// As [`Metrics::hook`], for one that is told of things.
    pub fn tell_hook(&self, name: &str) -> TellMetrics {
        let new = Registrar(&self.recorder);
        TellMetrics {
            delivered: new.counter(&names::HOOK_DELIVERED_EVENTS, &[name]),
            lost: new.counter(&names::HOOK_LOST_EVENTS, &[name]),
            retries: new.counter(&names::HOOK_RETRIES, &[name]),
            backlog: new.gauge(&names::HOOK_BACKLOG_EVENTS, &[name]),
            lag: new.gauge(&names::HOOK_LAG, &[name]),
        }
    }
}

impl TellMetrics {
    /// For tests that count nothing.
    #[cfg(test)]
    pub fn none() -> Self {
        Self {
            delivered: metrics::Counter::noop(),
            lost: metrics::Counter::noop(),
            retries: metrics::Counter::noop(),
            backlog: metrics::Gauge::noop(),
            lag: metrics::Gauge::noop(),
        }
    }

    /// So many events were taken by the backend.
    pub fn delivered(&self, events: u64) {
        self.delivered.increment(events);
    }

    /// So many never will be.
    pub fn lost(&self, events: u64) {
        self.lost.increment(events);
    }

    /// A batch is tried again.
    pub fn retry(&self) {
        self.retries.increment(1);
    }

    /// So many events wait, and the oldest that a lane has in hand is so old.
    pub fn waiting(&self, events: u64, lag_ms: u64) {
        self.backlog.set(events as f64);
        self.lag.set(lag_ms as f64 / 1_000.0);
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
