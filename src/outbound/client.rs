//! One question, one bounded answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use super::Counts;
use super::addresses::Rule;
use super::failure::{CallFailed, innermost};
use super::resolver::{Filtered, Lookup};
use super::target::Target;
use crate::telemetry::metrics::{Label, OutboundResult, Purpose};

/// Who is asking, for the logs of whoever is asked.
const USER_AGENT: &str = concat!("conclave/", env!("CARGO_PKG_VERSION"));
/// Longest list of headers of an HTTP/2 answer; HTTP/1 takes at most 100 headers, 400 KiB in all.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Connections without work, kept for the next question, each host.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// How long they are kept; servers close theirs after 60 s and more, Node.js after 5 s.
const IDLE_TIME: Duration = Duration::from_secs(50);
/// An HTTP/2 connection on which nothing came for so long is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(10);

/// What to ask.
pub struct Ask<'a> {
    pub method: Method,
    pub target: &'a Target,
    /// In the place of the target's own.
    pub path_and_query: Option<&'a str>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Longest body of the answer.
    pub answer_bytes_max: usize,
}

/// What was answered, with whatever status; a redirect is an answer like any other.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// As it came, nothing decoded.
    pub body: Bytes,
}

/// Asks for one purpose.
pub struct Client {
    http: reqwest::Client,
    purpose: Purpose,
    deadline: Duration,
    rule: Arc<Rule>,
    counts: Arc<Counts>,
    /// The last call had no answer, which the log knows.
    is_failing: AtomicBool,
}

/// What a client is made of.
pub(super) struct Parts {
    pub purpose: Purpose,
    pub roots: Arc<RootCertStore>,
    pub deadline: Duration,
    pub rule: Arc<Rule>,
    pub lookup: Arc<dyn Lookup>,
    pub counts: Arc<Counts>,
}

impl Client {
    pub(super) fn new(parts: Parts) -> anyhow::Result<Self> {
        let resolver = Filtered {
            rule: Arc::clone(&parts.rule),
            lookup: parts.lookup,
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(parts.roots)?)
            .dns_resolver(Arc::new(resolver))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(USER_AGENT)
            // A dead address of several leaves time for the others.
            .connect_timeout(parts.deadline / 2)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE_TIME)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(parts.deadline)
            .http2_keep_alive_while_idle(true)
            .build()
            .context("the HTTP client could not be set up")?;
        Ok(Self {
            http,
            purpose: parts.purpose,
            deadline: parts.deadline,
            rule: parts.rule,
            counts: parts.counts,
            is_failing: AtomicBool::new(false),
        })
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// No answer, or none that counts.
    /// # Cancel safety
    /// Cancel safe for us; whoever was asked may have heard it.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Answer, CallFailed> {
        let target = ask.target;
        // What is not looked up never meets the resolver.
        let result = match target.check(&self.rule) {
            Err(what) => Err((CallFailed::Forbidden, what)),
            Ok(()) => match tokio::time::timeout(self.deadline, self.exchange(ask)).await {
                Ok(result) => result,
                Err(_) => Err((CallFailed::Timeout, format!("no answer within {:?}", self.deadline))),
            },
        };
        let label = result
            .as_ref()
            .err()
            .map_or(OutboundResult::Ok, |(failed, _)| failed.label());
        self.counts.of(self.purpose, label).inc();
        self.log(target, result.as_ref().err());
        result.map_err(|(failed, _)| failed)
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, (CallFailed, String)> {
        let failed = |error: reqwest::Error| (CallFailed::of(&error), innermost(&error));
        let too_large = || {
            let what = format!("an answer of more than {} bytes", ask.answer_bytes_max);
            (CallFailed::TooLarge, what)
        };
        let request = self
            .http
            .request(ask.method.clone(), ask.target.url(ask.path_and_query))
            .headers(ask.headers)
            .body(ask.body);
        let mut response = request.send().await.map_err(failed)?;
        if response
            .content_length()
            .is_some_and(|bytes| bytes > ask.answer_bytes_max as u64)
        {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ask.answer_bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
        })
    }

    /// One line when it begins to fail; the caller says what follows from it, and when it is over.
    fn log(&self, target: &Target, failed: Option<&(CallFailed, String)>) {
        let was_failing = self.is_failing.swap(failed.is_some(), Relaxed);
        let Some((failed, what)) = failed else {
            return;
        };
        let purpose = self.purpose.word();
        if was_failing {
            tracing::debug!(purpose, %target, result = failed.as_str(), what, "a call failed again");
            return;
        }
        let remedy = match failed {
            CallFailed::Forbidden => "if it is meant, list the network in outbound.networks",
            CallFailed::Tls => "check the certificate and the CA file of this URL",
            CallFailed::Connect => "check the URL and that somebody listens there",
            CallFailed::Timeout | CallFailed::TooLarge | CallFailed::Protocol => "look at whoever answers there",
        };
        tracing::warn!(purpose, %target, result = failed.as_str(), what, remedy, "a call failed");
    }
}

fn tls(roots: Arc<RootCertStore>) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
