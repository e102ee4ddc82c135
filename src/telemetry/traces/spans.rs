//! Handles of open spans. Each ends when it is dropped.

use std::future::Future;

use http::{Method, Version};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;
use opentelemetry_semantic_conventions::attribute;

use super::{TraceContext, saturating};

/// What is told about an upgrade request. No address, no query, no header.
#[derive(Debug, Clone)]
pub struct UpgradeInfo {
    /// `GET`, or `CONNECT` on HTTP/2.
    pub method: Method,
    /// Pattern of the route, such as `/ws`.
    pub route: &'static str,
    /// Version of HTTP.
    pub http: Version,
    /// Version of TLS: `1.2` or `1.3`.
    pub tls: Option<&'static str>,
}

impl UpgradeInfo {
    pub(super) fn builder(self) -> SpanBuilder {
        // The router let nothing else through, so the set of names is closed.
        let method = if self.method == Method::CONNECT {
            "CONNECT"
        } else {
            "GET"
        };
        let mut attributes = vec![
            KeyValue::new(attribute::HTTP_REQUEST_METHOD, method),
            KeyValue::new(attribute::HTTP_ROUTE, self.route),
            KeyValue::new(attribute::URL_SCHEME, "https"),
            KeyValue::new(attribute::NETWORK_PROTOCOL_NAME, "http"),
            KeyValue::new(attribute::NETWORK_PROTOCOL_VERSION, version(self.http)),
        ];
        attributes.extend(self.tls.map(|tls| KeyValue::new(attribute::TLS_PROTOCOL_VERSION, tls)));
        SpanBuilder::from_name(format!("{method} {}", self.route))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes)
    }
}

fn version(http: Version) -> &'static str {
    match http {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// The span of one upgrade request, or the name of the caller's when it is not recorded.
#[must_use]
pub struct UpgradeSpan(Option<Context>);

impl UpgradeSpan {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Log lines still carry the caller's ids.
    pub(super) fn unsampled(caller: Option<SpanContext>) -> Self {
        Self(caller.map(|caller| Context::new().with_remote_span_context(caller)))
    }

    pub(super) fn recording(span: Span) -> Self {
        Self(Some(Context::new().with_span(span)))
    }

    /// Its name, for the session that comes of it.
    pub fn context(&self) -> Option<TraceContext> {
        self.0
            .as_ref()
            .and_then(|context| TraceContext::of(context.span().span_context()))
    }

    /// Runs `work` with this as the current span: log lines carry its ids.
    pub async fn run<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }

    /// What was answered: the status, and a word of ours for why (`admitted`, `token_expired`).
    pub fn set_result(&self, status: u16, word: &'static str) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new(attribute::HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
        span.set_attribute(KeyValue::new("conclave.upgrade.result", word));
        if status >= 400 {
            span.set_attribute(KeyValue::new(attribute::ERROR_TYPE, word));
        }
        // A refusal is the caller's fault; only ours is an error of a server (semantic conventions).
        if status >= 500 {
            span.set_status(Status::error(word));
        }
    }
}

impl Drop for UpgradeSpan {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// The span of one chat, from its arrival until it was kept or refused.
#[must_use]
pub struct PublishSpan(Span);

impl PublishSpan {
    pub(super) fn new(span: Span) -> Self {
        Self(span)
    }

    /// Its name, for the fan-out here and (as text) on other nodes.
    pub fn context(&self) -> Option<TraceContext> {
        TraceContext::of(self.0.span_context())
    }

    /// It was kept under `seq`; `bytes` is the size of the frame.
    pub fn kept(&mut self, seq: u64, bytes: usize) {
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        self.0.set_attribute(KeyValue::new("conclave.seq", seq));
        self.0
            .set_attribute(KeyValue::new(attribute::MESSAGING_MESSAGE_BODY_SIZE, saturating(bytes)));
    }

    /// It was refused with this error code.
    pub fn refused(&mut self, code: &'static str) {
        self.0.set_attribute(KeyValue::new(attribute::ERROR_TYPE, code));
        self.0.set_status(Status::error(code));
    }
}

/// The span of one question to the application, from the request to its answer.
#[must_use]
pub struct AskingSpan(Span);

impl AskingSpan {
    pub(super) fn new(span: Span) -> Self {
        Self(span)
    }

    /// Its name, which the application is told.
    pub fn context(&self) -> Option<TraceContext> {
        TraceContext::of(self.0.span_context())
    }

    /// What it came to: a word of ours (`allowed`, `denied`, `timeout`).
    pub fn result(&mut self, word: &'static str, is_failure: bool) {
        self.0.set_attribute(KeyValue::new("conclave.hook.result", word));
        if is_failure {
            self.0.set_attribute(KeyValue::new(attribute::ERROR_TYPE, word));
            self.0.set_status(Status::error(word));
        }
    }
}

/// The span of bringing one chat to the members here.
#[must_use]
pub struct FanOutSpan(Span);

impl FanOutSpan {
    pub(super) fn new(span: Span) -> Self {
        Self(span)
    }

    /// How many connections it was queued to.
    pub fn delivered(&mut self, connections: usize) {
        self.0
            .set_attribute(KeyValue::new("conclave.delivered", saturating(connections)));
    }
}
