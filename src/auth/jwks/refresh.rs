//! Reads each issuer's set by the clock, and by nothing else: one reading at a time, whoever waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::{sleep_until, timeout};

use super::{Issuer, Line};
use crate::auth::jwk::{self, BadSet};
use crate::auth::{Keys, Policy};
use crate::outbound::{Ask, CallFailed, Client, Outbound};
use crate::runtime::Tasks;
use crate::telemetry::metrics::{JwksResult, Metrics, Purpose};

/// Longest set; the largest public ones have some 10 KiB.
const SET_BYTES_MAX: usize = 256 * 1024;
/// Longest ETag that is sent back.
const ETAG_BYTES_MAX: usize = 1024;
/// Share of a pause by which it may be shorter, so that nodes do not ask all at once.
const SPREAD: f64 = 0.1;

/// The issuers of a node, and how each is asked.
pub struct Jwks {
    issuers: Vec<(Arc<Issuer>, Arc<Client>)>,
    line: Arc<Line>,
    /// Longest of the issuers' `timeout`.
    first_max: Duration,
}

/// What a reading brought.
enum Brought {
    /// Not modified, or the same bytes.
    Same,
    Set(jwk::SetRead),
}

/// Why it brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    Call(CallFailed),
    Status(StatusCode),
    BadSet(BadSet),
}

/// What is known of the last answer.
#[derive(Default)]
struct Last {
    etag: Option<HeaderValue>,
    digest: Option<[u8; 32]>,
}

impl Jwks {
    /// Those of the keys.
    ///
    /// # Errors
    /// A `jwks_ca_file` that cannot be used.
    pub fn new(policy: &Policy, outbound: &Outbound) -> anyhow::Result<Self> {
        Self::of(policy.keys(), outbound)
    }

    pub(in crate::auth) fn of(keys: &Keys, outbound: &Outbound) -> anyhow::Result<Self> {
        let client = |issuer: &Arc<Issuer>| {
            let source = &issuer.source;
            let client = outbound.client(Purpose::Jwks, source.ca_file.as_deref(), source.timeout)?;
            Ok((Arc::clone(issuer), Arc::new(client)))
        };
        Ok(Self {
            issuers: keys.issuers().iter().map(client).collect::<anyhow::Result<_>>()?,
            line: Arc::clone(keys.line()),
            first_max: keys
                .issuers()
                .iter()
                .map(|issuer| issuer.source.timeout)
                .max()
                .unwrap_or_default(),
        })
    }

    /// Begins to read, each issuer in a task of its own.
    pub fn start(&self, tasks: &Tasks, metrics: &Metrics) {
        if self.issuers.is_empty() {
            return;
        }
        let line = Arc::clone(&self.line);
        metrics.on_scrape(Box::new(move |gauges| {
            gauges.jwks_waiting = line.waiting() as u64;
            gauges.jwks_full = line.full.value();
            gauges.jwks_over_kids = line.over_kids.value();
        }));
        for (issuer, client) in &self.issuers {
            let handles = metrics.jwks(issuer.name());
            let (shown, started) = (Arc::clone(issuer), Instant::now());
            let (age, keys) = (handles.age, handles.keys);
            metrics.on_scrape(Box::new(move |_| {
                age.set(shown.set().read_at().unwrap_or(started).elapsed().as_secs_f64());
                keys.set(shown.keys() as f64);
            }));
            let (issuer, client, fetches) = (Arc::clone(issuer), Arc::clone(client), handles.fetches);
            tasks.spawn("jwks", async move {
                issuer.keep(&client, |result| fetches.inc(result)).await;
            });
        }
    }

    /// Waits until each issuer has been asked once, but not for one that does not answer: its users wait then, nobody else.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tried(&self) {
        let all = join_all(self.issuers.iter().map(|(issuer, _)| issuer.tried()));
        drop(timeout(self.first_max, all).await);
    }

    /// Reads each once, for a command that ends afterwards; a sentence for each that could not be read.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read stays read.
    pub async fn read_once(&self) -> Vec<String> {
        let readings = self.issuers.iter().map(|(issuer, client)| async {
            let failed = issuer.turn(client, &mut Last::default()).await.err()?;
            let target = &issuer.source.target;
            Some(format!(
                "keys of {:?} cannot be read from {target}: {failed}",
                issuer.name
            ))
        });
        join_all(readings).await.into_iter().flatten().collect()
    }
}

impl Issuer {
    /// Reads for as long as the node runs.
    ///
    /// # Cancel safety
    /// Cancel safe: a reading that was given up changes nothing.
    async fn keep(&self, client: &Client, count: impl Fn(JwksResult)) {
        let mut last = Last::default();
        let (mut failures, mut vouched) = (0_u32, false);
        loop {
            let begun_at = Instant::now();
            self.progress.send_modify(|progress| progress.begun += 1);
            let turn = self.turn(client, &mut last).await;
            count(turn.unwrap_or_else(Failed::label));
            let pause = match turn {
                Ok(_) => {
                    if failures > 0 {
                        tracing::info!(issuer = self.name, failures, "keys can be read again");
                    }
                    failures = 0;
                    self.source.refresh
                }
                Err(failed) => {
                    failures += 1;
                    self.complain(failed, failures, vouched);
                    self.pause_after(failures)
                }
            };
            vouched = self.set().vouches(Instant::now());
            // A reading that takes long is part of the pause, but for the least of it.
            let gap = self.source.minimum_gap.min(pause);
            let next_at = (begun_at + spread(pause)).max(Instant::now() + gap);
            self.progress.send_modify(|progress| {
                progress.ended = progress.begun;
                if turn.is_ok() {
                    progress.succeeded = progress.begun;
                }
                progress.next_at = next_at;
            });
            sleep_until(next_at.into()).await;
        }
    }

    /// One reading; what it brought holds from here on.
    async fn turn(&self, client: &Client, last: &mut Last) -> Result<JwksResult, Failed> {
        let brought = self.read(client, last).await?;
        let (now, set) = (Instant::now(), self.set());
        let found = match brought {
            Brought::Same => {
                self.set.store(Arc::new(set.again(now)));
                return Ok(JwksResult::NotModified);
            }
            Brought::Set(found) => found,
        };
        for what in &found.ignored {
            tracing::warn!(issuer = self.name, what, "a key of the issuer is ignored");
        }
        let is_empty = found.keys.is_empty();
        let (next, change) = set.next(found.keys, &self.terms, self.source.grace, now);
        self.set.store(Arc::new(next));
        if !change.is_none() {
            tracing::info!(issuer = self.name, added = ?change.added, removed = ?change.removed, "keys have changed");
        }
        if is_empty {
            let grace_s = self.source.grace.as_secs();
            tracing::error!(
                issuer = self.name,
                grace_s,
                "the issuer serves no key that can be used: soon nobody of it can sign in"
            );
        }
        Ok(JwksResult::Ok)
    }

    async fn read(&self, client: &Client, last: &mut Last) -> Result<Brought, Failed> {
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/jwk-set+json, application/json"),
        );
        if let Some(etag) = &last.etag {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        let ask = Ask {
            method: Method::GET,
            target: &self.source.target,
            path_and_query: None,
            headers,
            body: Bytes::new(),
            answer_bytes_max: SET_BYTES_MAX,
        };
        let answer = client.send(ask).await.map_err(Failed::Call)?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if last.etag.is_some() => return Ok(Brought::Same),
            status => return Err(Failed::Status(status)),
        }
        let digest = sha256(&answer.body);
        let found = if last.digest == Some(digest) {
            Brought::Same
        } else {
            Brought::Set(jwk::read_set(&answer.body, &self.algorithms).map_err(Failed::BadSet)?)
        };
        // Only of a set that was taken: another is read whole the next time.
        let etag = answer.headers.get(ETAG).filter(|etag| etag.len() <= ETAG_BYTES_MAX);
        *last = Last {
            etag: etag.cloned(),
            digest: Some(digest),
        };
        Ok(found)
    }

    /// One line when it begins to fail, and one when what is known has become too old.
    fn complain(&self, failed: Failed, failures: u32, vouched: bool) {
        let (issuer, target, what) = (&self.name, &self.source.target, failed.to_string());
        let vouches = self.set().vouches(Instant::now());
        if vouched && !vouches {
            tracing::error!(issuer, %target, what, "keys have not been read for auth.jwks_maximum_age: nobody of this issuer can sign in");
        } else if failures > 1 {
            tracing::debug!(issuer, %target, what, failures, "keys cannot be read");
        } else if vouches {
            tracing::warn!(issuer, %target, what, "keys cannot be read; those that are known stay in use");
        } else {
            tracing::warn!(issuer, %target, what, "keys cannot be read, and none are known: nobody of this issuer can sign in");
        }
    }

    /// Doubles from `minimum_gap` up to `refresh`.
    fn pause_after(&self, failures: u32) -> Duration {
        let gap = self.source.minimum_gap;
        let doubled = gap.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        doubled.min(self.source.refresh.max(gap))
    }
}

impl Failed {
    fn label(self) -> JwksResult {
        match self {
            Self::Call(CallFailed::Forbidden) => JwksResult::Forbidden,
            Self::Call(CallFailed::Connect) => JwksResult::Connect,
            Self::Call(CallFailed::Tls) => JwksResult::Tls,
            Self::Call(CallFailed::Timeout) => JwksResult::Timeout,
            Self::Call(CallFailed::TooLarge) => JwksResult::TooLarge,
            Self::Call(CallFailed::Protocol) => JwksResult::Protocol,
            Self::Status(_) => JwksResult::Status,
            Self::BadSet(_) => JwksResult::BadSet,
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(failed) => failed.fmt(f),
            Self::Status(status) => write!(f, "answered {}, and redirects are not followed", status.as_u16()),
            Self::BadSet(bad) => f.write_str(bad.as_str()),
        }
    }
}

fn spread(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without random bytes nodes ask together, which is no harm.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    pause.mul_f64(1.0 - SPREAD * f64::from(byte[0]) / 255.0)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    digest
}
