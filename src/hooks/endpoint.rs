//! One URL of the application: signed requests, bounded in time, number and size of the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method};
use parking_lot::Mutex;

use super::circuit::{Circuit, Turned};
use super::sign::Signer;
use crate::auth;
use crate::outbound::{Answer, Ask, CallFailed, Client, Outbound, Target};
use crate::telemetry::metrics::{HookMetrics, Metrics, Purpose};

/// A `Retry-After` beyond this counts as this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What an endpoint is made of.
pub struct Settings<'a> {
    /// Label of its metrics.
    pub name: &'a str,
    pub url: &'a str,
    /// PEM roots; none: the system's.
    pub ca_file: Option<&'a std::path::Path>,
    /// Over everything, from the look-up of the name to the last byte of the answer.
    pub timeout: Duration,
    /// Requests under way at the same time.
    pub in_flight: usize,
    /// Failures in a row that open the circuit, 0: it never opens; and for how long.
    pub circuit: (u32, Duration),
    /// Longest answer.
    pub answer_bytes: usize,
}

/// Where events are posted.
pub struct Endpoint {
    name: Box<str>,
    target: Target,
    client: Client,
    signer: Arc<Signer>,
    answer_bytes_max: usize,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    circuit: Mutex<Circuit>,
    /// When the clock of the circuit began.
    began: Instant,
    /// Answers are none since the last good one, which the log knows.
    is_failing: AtomicBool,
    metrics: HookMetrics,
}

/// No answer, or none that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookFailed {
    /// As many requests are under way as may be.
    Busy,
    /// It has failed so often that it is left alone for so long.
    CircuitOpen {
        for_ms: u64,
    },
    Call(CallFailed),
    /// Answered, but with a status that is none of those that count.
    Status {
        status: u16,
        /// From `Retry-After`, at most an hour.
        retry_after: Option<Duration>,
    },
    /// Answered with something that is no answer; says what.
    Malformed(&'static str),
}

impl HookFailed {
    /// For metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::Call(failed) => failed.as_str(),
            Self::Status { .. } => "status",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl Endpoint {
    /// # Errors
    /// The URL is none, or the CA file cannot be used.
    pub fn new(
        settings: &Settings<'_>,
        signer: Arc<Signer>,
        outbound: &Outbound,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let target = Target::parse(settings.url).map_err(|what| anyhow::anyhow!("hook {}: {what}", settings.name))?;
        let (failures_max, pause) = settings.circuit;
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            name: settings.name.into(),
            target,
            client: outbound.client(Purpose::Hook, settings.ca_file, settings.timeout)?,
            signer,
            answer_bytes_max: settings.answer_bytes,
            in_flight: AtomicUsize::new(0),
            in_flight_max: settings.in_flight,
            circuit: Mutex::new(Circuit::new(failures_max, pause_ms)),
            began: Instant::now(),
            is_failing: AtomicBool::new(false),
            metrics: metrics.hook(settings.name),
        })
    }

    /// Label of its metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Posts `body`, which counts as taken with any 2xx. The same `id` on every try lets the application drop what
    /// it has seen; `trace` is a `traceparent`.
    ///
    /// # Errors
    /// Nobody has taken it, or nobody has said so.
    /// # Cancel safety
    /// Cancel safe for us; the application may have heard it.
    pub async fn post(&self, id: &str, body: Bytes, trace: Option<&str>) -> Result<Answer, HookFailed> {
        let accepted = |answer: Answer| {
            if answer.status.is_success() {
                Ok(("ok", answer))
            } else {
                Err(status_of(&answer))
            }
        };
        self.post_and_read(id, body, trace, accepted).await
    }

    /// As [`post`](Self::post), where `read` says what the answer means: a word for the metric with it, or that it
    /// is none. What is none counts for the circuit like no answer at all.
    pub(super) async fn post_and_read<T>(
        &self,
        id: &str,
        body: Bytes,
        trace: Option<&str>,
        read: impl FnOnce(Answer) -> Result<(&'static str, T), HookFailed>,
    ) -> Result<T, HookFailed> {
        let mut request = self.begin()?;
        let ask = Ask {
            method: Method::POST,
            target: &self.target,
            path_and_query: None,
            headers: self.headers(id, &body, trace),
            body,
            answer_bytes_max: self.answer_bytes_max,
        };
        let answer = self.client.send(ask).await.map_err(HookFailed::Call);
        match answer.and_then(read) {
            Ok((word, value)) => {
                request.result = word;
                self.turned(self.circuit.lock().on_success(), None);
                self.is_failing.store(false, Relaxed);
                Ok(value)
            }
            Err(failed) => {
                request.result = failed.as_str();
                let turned = self.circuit.lock().on_failure(self.now_ms());
                self.turned(turned, Some(failed));
                self.log(failed);
                Err(failed)
            }
        }
    }

    /// A place among the requests under way, if nothing speaks against one more.
    fn begin(&self) -> Result<UnderWay<'_>, HookFailed> {
        let refused = |failed: HookFailed| {
            self.metrics.request(failed.as_str());
            failed
        };
        let now_ms = self.now_ms();
        {
            // Before the number: a busy hook must not use up the one try of an open circuit.
            let mut circuit = self.circuit.lock();
            if self.in_flight.load(Relaxed) >= self.in_flight_max {
                drop(circuit);
                return Err(refused(HookFailed::Busy));
            }
            if !circuit.admits(now_ms) {
                let for_ms = circuit.open_for_ms(now_ms).unwrap_or(0);
                drop(circuit);
                return Err(refused(HookFailed::CircuitOpen { for_ms }));
            }
            // Under the lock, so that no two take the last place.
            self.metrics.waiting(self.in_flight.fetch_add(1, Relaxed) + 1);
        }
        Ok(UnderWay {
            endpoint: self,
            since: Instant::now(),
            result: "abandoned",
        })
    }

    fn headers(&self, id: &str, body: &[u8], trace: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(trace) = trace.and_then(|trace| HeaderValue::from_str(trace).ok()) {
            headers.insert("traceparent", trace);
        }
        self.signer.sign(&mut headers, id, auth::now(), body);
        headers
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn turned(&self, turned: Option<Turned>, failed: Option<HookFailed>) {
        let hook = &*self.name;
        match turned {
            Some(Turned::Open) => {
                self.metrics.circuit_open(true);
                let result = failed.map_or("", HookFailed::as_str);
                tracing::warn!(hook, result, "a hook keeps failing and is left alone for a while");
            }
            Some(Turned::Closed) => {
                self.metrics.circuit_open(false);
                tracing::info!(hook, "a hook answers again");
            }
            None => {}
        }
    }

    /// One line when it begins to answer what is none. The client tells of those who do not answer at all.
    fn log(&self, failed: HookFailed) {
        let is_answered = matches!(failed, HookFailed::Status { .. } | HookFailed::Malformed(_));
        if !is_answered || self.is_failing.swap(true, Relaxed) {
            return;
        }
        let hook = &*self.name;
        match failed {
            HookFailed::Status { status, .. } => {
                tracing::warn!(hook, status, "a hook was answered with a status that says nothing");
            }
            HookFailed::Malformed(what) => tracing::warn!(hook, what, "a hook's answer is none"),
            _ => {}
        }
    }
}

/// A status as a failure.
pub(super) fn status_of(answer: &Answer) -> HookFailed {
    let seconds = answer
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    HookFailed::Status {
        status: answer.status.as_u16(),
        retry_after: seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
    }
}

/// A request under way; counted when it ends, also by being dropped.
struct UnderWay<'a> {
    endpoint: &'a Endpoint,
    since: Instant,
    result: &'static str,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let metrics = &self.endpoint.metrics;
        metrics.waiting(self.endpoint.in_flight.fetch_sub(1, Relaxed).saturating_sub(1));
        metrics.request(self.result);
        metrics.duration(self.since.elapsed().as_secs_f64());
    }
}
