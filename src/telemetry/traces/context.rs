//! Names of spans on the way in and out: W3C Trace Context.

use std::fmt;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, ContextGuard};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// What a tracing system must be able to carry (W3C Trace Context, section 3.3.1.5); more is left out.
const TRACESTATE_BYTES_MAX: usize = 512;
/// `00-` + 32 + `-` + 16 + `-` + 2. Later versions may be longer; ours are read.
const TRACEPARENT_BYTES_MAX: usize = 128;

/// The name of a span: 25 bytes, so that a connection can afford to keep one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`; an invalid one is none.
    pub fn parse(traceparent: &str) -> Option<Self> {
        if traceparent.len() > TRACEPARENT_BYTES_MAX {
            return None;
        }
        let carried = Carried {
            traceparent,
            tracestate: None,
        };
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carried);
        Self::of(context.span().span_context())
    }

    /// The name of the current span of the thread, if it has one.
    pub fn current() -> Option<Self> {
        Self::of(Context::current().span().span_context())
    }

    /// The name of a span that has one.
    pub(super) fn of(span: &SpanContext) -> Option<Self> {
        span.is_valid().then(|| Self {
            trace_id: span.trace_id().to_bytes(),
            span_id: span.span_id().to_bytes(),
            flags: span.trace_flags().to_u8(),
        })
    }

    /// Whether its trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.to_remote().is_sampled()
    }

    /// Makes this the current span of the thread until the guard is dropped, so that log lines
    /// carry its ids. Not to be held over an await.
    pub fn attach(&self) -> ContextGuard {
        Context::new().with_remote_span_context(self.to_remote()).attach()
    }

    pub(super) fn to_remote(self) -> SpanContext {
        SpanContext::new(
            TraceId::from_bytes(self.trace_id),
            SpanId::from_bytes(self.span_id),
            TraceFlags::new(self.flags),
            true,
            TraceState::NONE,
        )
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (TraceId::from_bytes(self.trace_id), SpanId::from_bytes(self.span_id));
        write!(out, "00-{trace_id}-{span_id}-{:02x}", self.flags & 1)
    }
}

/// The caller's span, if the headers name exactly one and it is valid.
pub(super) fn from_headers(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else {
        return None;
    };
    let traceparent = parent
        .to_str()
        .ok()
        .filter(|text| text.len() <= TRACEPARENT_BYTES_MAX)?;
    let carried = Carried {
        traceparent,
        tracestate: tracestate(headers),
    };
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carried);
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

/// The header may come in several lines, which are one list.
fn tracestate(headers: &HeaderMap) -> Option<String> {
    let lines: Result<Vec<_>, _> = headers.get_all(TRACESTATE).iter().map(|line| line.to_str()).collect();
    let joined = lines.ok()?.join(",");
    (!joined.is_empty() && joined.len() <= TRACESTATE_BYTES_MAX).then_some(joined)
}

struct Carried<'a> {
    traceparent: &'a str,
    tracestate: Option<String>,
}

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.traceparent),
            TRACESTATE => self.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}
