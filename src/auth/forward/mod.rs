//! Sessions of the application (`auth.forward`): a client without a token is whoever the application says it is.
//!
//! `passed` (pure) picks the cookies and headers that go along, `cache` (pure) keeps good answers for a moment,
//! `Policy::vouched` reads what was answered. Here they are put in order, bounded in number and in time, and an application
//! that keeps failing is left alone for a while.

mod cache;
mod passed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::denied::{Denied, DeniedWord};
use super::{NotVouched, OriginVerdict, Policy, Verified, now, require_named};
use crate::config;
use crate::hooks::circuit::{Circuit, Turned};
use crate::outbound::{Answer, Ask, CallFailed, Client, Outbound, Target};
use crate::runtime::NotAdmitted;
use crate::telemetry::metrics::{self, ForwardResult, Metrics, Purpose};
use crate::telemetry::traces::TraceContext;
use cache::{Cache, Key};
use passed::Passed;

/// Longest answer: the claims of a token, which are far below it, and room for what is ignored.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Between two lines of the log about answers that are none: a client may cause them.
const LINES_APART: Duration = Duration::from_secs(10);

/// Tells the application which page asks.
const PAGE: &str = "x-conclave-origin";

const SIGNED_OUT: Denied = Denied::new(
    DeniedWord::TokenMissing,
    "no token, and the application says that nobody is signed in",
);

/// Asks the application.
pub struct Forward {
    target: Target,
    client: Client,
    passed: Passed,
    /// Places among the questions under way.
    turns: Semaphore,
    circuit: Mutex<Circuit>,
    /// When the clock of the circuit and of the log began.
    began: Instant,
    /// When the log was last told of a bad answer: ms since then, and one, so that 0 is never.
    warned_ms: AtomicU64,
    /// None: each is asked anew.
    cache: Option<Mutex<Cache>>,
    metrics: Arc<Metrics>,
}

/// What is asked about one client.
pub struct Question {
    headers: HeaderMap,
    key: Key,
}

impl Forward {
    /// None: nobody is to be asked.
    ///
    /// # Errors
    /// The URL is none, or the CA file cannot be used.
    pub fn new(config: &config::Auth, outbound: &Outbound, metrics: Arc<Metrics>) -> anyhow::Result<Option<Self>> {
        let forward = &config.forward;
        let Some(url) = &forward.url else { return Ok(None) };
        let target = Target::parse(url).map_err(|what| anyhow::anyhow!("auth.forward.url: {what}"))?;
        let client = outbound.client(Purpose::Forward, forward.ca_file.as_deref(), forward.timeout);
        let pause_ms = u64::try_from(forward.pause.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(Self {
            target,
            client: client.context("auth.forward.ca_file")?,
            passed: Passed::new(forward, &config.cookie),
            turns: Semaphore::new(forward.in_flight),
            circuit: Mutex::new(Circuit::new(forward.failures, pause_ms)),
            began: Instant::now(),
            warned_ms: AtomicU64::new(0),
            cache: (!forward.cache.is_zero()).then(|| Mutex::new(Cache::new(forward.cache, forward.cache_entries))),
            metrics,
        }))
    }

    /// What there is to ask about this request; none if it shows nothing that the application knows anybody by.
    ///
    /// # Errors
    /// It shows a cookie, and the page that it comes from may not use one.
    pub fn question(&self, parts: &Parts, origin: OriginVerdict) -> Result<Option<Question>, Denied> {
        let Some(mut headers) = self.passed.of(&parts.headers) else {
            return Ok(None);
        };
        // A header may have been added by a browser or a proxy as a cookie is; but a client that is no browser has no page.
        if headers.contains_key(::http::header::COOKIE) || origin != OriginVerdict::Absent {
            require_named(origin)?;
        }
        if let Some(page) = parts.headers.get(ORIGIN) {
            headers.insert(PAGE, page.clone());
        }
        let key = Key::of(&headers);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(trace) = trace_of(&parts.headers) {
            headers.insert("traceparent", trace);
        }
        Ok(Some(Question { headers, key }))
    }

    /// Who it is, in the application's words.
    ///
    /// # Errors
    /// Nobody; or nobody knows, because the application does not say.
    ///
    /// # Cancel safety
    /// Cancel safe: the application may have been asked.
    pub async fn ask(&self, question: Question, policy: &Policy) -> Result<Verified, NotAdmitted> {
        if let Some(known) = self.known(&question.key) {
            self.counts().cache_hit();
            return Ok(known);
        }
        // Never closed; whoever waits has a deadline, and a place among a bounded number.
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(NotAdmitted::Unavailable);
        };
        if !self.circuit.lock().admits(self.now_ms()) {
            self.counts().not_asked();
            return Err(NotAdmitted::Unavailable);
        }
        let started = Instant::now();
        let answer = self.client.send(Ask {
            method: Method::GET,
            target: &self.target,
            path_and_query: None,
            headers: question.headers,
            body: Bytes::new(),
            answer_bytes_max: ANSWER_BYTES_MAX,
        });
        let answer = answer.await;
        self.note(&answer);
        let (result, who) = self.read(answer, policy);
        self.counts().asked(result, started.elapsed().as_secs_f64());
        if let (Some(cache), Ok(verified)) = (&self.cache, &who) {
            cache.lock().put(question.key, verified.clone(), Instant::now());
        }
        who
    }

    fn known(&self, key: &Key) -> Option<Verified> {
        self.cache.as_ref()?.lock().get(key, Instant::now())
    }

    fn read(
        &self,
        answer: Result<Answer, CallFailed>,
        policy: &Policy,
    ) -> (ForwardResult, Result<Verified, NotAdmitted>) {
        let unavailable = Err(NotAdmitted::Unavailable);
        let answer = match answer {
            Ok(answer) => answer,
            Err(failed) => {
                if failed == CallFailed::TooLarge {
                    self.complain("more than 64 KiB", None);
                }
                return (failed_as(failed), unavailable);
            }
        };
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return (ForwardResult::SignedOut, Err(SIGNED_OUT.into()));
            }
            status => {
                let what = if status.is_redirection() {
                    "a redirect: it must answer 401 to whoever is not signed in"
                } else {
                    "neither 200, 401 nor 403"
                };
                self.complain(what, Some(status));
                return (ForwardResult::Status, unavailable);
            }
        }
        if !is_json(&answer.headers) {
            self.complain("not application/json, or encoded", None);
            return (ForwardResult::Malformed, unavailable);
        }
        match policy.vouched(&answer.body, now()) {
            Ok(verified) => (ForwardResult::Ok, Ok(verified)),
            Err(NotVouched::Denied(denied)) => (ForwardResult::Over, Err(denied.into())),
            Err(NotVouched::Malformed(what)) => {
                self.complain(what, None);
                (ForwardResult::Malformed, unavailable)
            }
        }
    }

    /// Whether the application as a whole works: what is wrong with one answer may be the doing of the one client that it is
    /// about, who must not shut the others out.
    fn note(&self, answer: &Result<Answer, CallFailed>) {
        let is_down = match answer {
            Ok(answer) => matches!(
                answer.status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            Err(failed) => *failed != CallFailed::TooLarge,
        };
        let turned = if is_down {
            self.circuit.lock().on_failure(self.now_ms())
        } else {
            self.circuit.lock().on_success()
        };
        let Some(turned) = turned else { return };
        self.counts().circuit(turned == Turned::Open);
        match turned {
            Turned::Open => tracing::warn!(
                target = %self.target,
                "auth.forward: the application keeps failing and is not asked for a while; who has no token is turned away with 1013"
            ),
            Turned::Closed => tracing::info!(target = %self.target, "auth.forward: the application answers again"),
        }
    }

    /// Nothing of the answer is shown: it is about somebody.
    fn complain(&self, what: &'static str, status: Option<StatusCode>) {
        let (now_ms, last_ms) = (self.now_ms().saturating_add(1), self.warned_ms.load(Relaxed));
        let is_due = last_ms == 0 || u128::from(now_ms - last_ms.min(now_ms)) >= LINES_APART.as_millis();
        let status = status.map(|status| status.as_u16());
        if is_due
            && self
                .warned_ms
                .compare_exchange(last_ms, now_ms, Relaxed, Relaxed)
                .is_ok()
        {
            tracing::warn!(target = %self.target, status, what, "auth.forward: not an answer; the client is turned away with 1013");
        } else {
            tracing::debug!(status, what, "auth.forward: not an answer");
        }
    }

    fn counts(&self) -> &metrics::Forward {
        self.metrics.forward()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Forgets answers that no longer count. To be called every few seconds.
    pub fn sweep(&self) {
        if let Some(cache) = &self.cache {
            cache.lock().sweep(Instant::now());
        }
    }
}

/// `application/json`, as it is.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let media_type = kind.unwrap_or("").split(';').next().unwrap_or("").trim();
    let encoding = headers.get(CONTENT_ENCODING);
    media_type.eq_ignore_ascii_case("application/json") && encoding.is_none_or(|encoding| encoding == "identity")
}

fn failed_as(failed: CallFailed) -> ForwardResult {
    match failed {
        CallFailed::Forbidden => ForwardResult::Forbidden,
        CallFailed::Connect => ForwardResult::Connect,
        CallFailed::Tls => ForwardResult::Tls,
        CallFailed::Timeout => ForwardResult::Timeout,
        CallFailed::TooLarge => ForwardResult::TooLarge,
        CallFailed::Protocol => ForwardResult::Protocol,
    }
}

/// The span of the request, or the caller's where nothing is traced here.
fn trace_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = || TraceContext::parse(headers.get("traceparent")?.to_str().ok()?);
    let context = TraceContext::current().or_else(named)?;
    HeaderValue::try_from(context.to_string()).ok()
}
