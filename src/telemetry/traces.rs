//! Spans for an upgrade, a session's start and end, a publish and its fan-out, sent over OTLP.
//!
//! A span is never open for as long as a socket: the upgrade ends with its answer, and what comes
//! later are short spans of their own that link to it. Whether to trace is decided before anything
//! is allocated, so an untraced message costs one branch and one random number. Spans hold no
//! room, user, address, query or header.

mod context;
mod export;
mod sampling;
mod spans;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::{Link, SpanBuilder, SpanContext, SpanKind, TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanLimits};
use opentelemetry_semantic_conventions::attribute;

pub use self::context::TraceContext;
pub use self::export::SpanCounts;
use self::sampling::{Decided, Sampling};
pub use self::spans::{AskingSpan, FanOutSpan, PublishSpan, UpgradeInfo, UpgradeSpan};
use crate::config;

/// `service.name` of every span.
const SERVICE_NAME: &str = "conclave";

/// Which process the spans come from.
#[derive(Debug, Clone)]
pub struct Service {
    /// Version of the package.
    pub version: &'static str,
    /// Unique per process: a restart is another instance.
    pub instance_id: String,
}

impl Service {
    /// A process of this version with a random instance id.
    pub fn new(version: &'static str) -> Self {
        Self {
            version,
            instance_id: uuid::Uuid::new_v4().to_string(),
        }
    }
}

/// The door to tracing; a clone is a reference.
#[derive(Clone)]
pub struct Traces(Option<Arc<Running>>);

struct Running {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sampling: Sampling,
    counts: Arc<SpanCounts>,
}

impl Traces {
    /// Traces nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Sends spans to `config.endpoint`, or is off when there is none. The collector need not be
    /// there: spans wait in a bounded queue, and are dropped and counted when it is full.
    ///
    /// # Errors
    /// The endpoint cannot be used. The error never shows it whole: it might hold a password.
    pub fn start(config: &config::Traces, service: &Service) -> anyhow::Result<Self> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(Self::off());
        };
        let counts = Arc::new(SpanCounts::default());
        let processor = export::processor(endpoint, &config.headers, counts.clone())?;
        let sampling = Sampling::new(config.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampling.clone())
            // Said here, because the defaults come from the environment.
            .with_span_limits(SpanLimits::default())
            .with_resource(resource(service))
            .build();
        let tracer = provider.tracer(SERVICE_NAME);
        Ok(Self(Some(Arc::new(Running {
            provider,
            tracer,
            sampling,
            counts,
        }))))
    }

    /// Whether spans are recorded at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The fates of spans so far, for `Metrics::register_traces`.
    pub fn counts(&self) -> Option<Arc<SpanCounts>> {
        self.0.as_ref().map(|running| running.counts.clone())
    }

    /// For `tracing` spans, which share our provider and sampler.
    pub(super) fn tracer(&self) -> Option<SdkTracer> {
        self.0.as_ref().map(|running| running.tracer.clone())
    }

    /// Sends what is queued, for at most `timeout`; nothing is recorded afterwards. Blocks: not to
    /// be called on a thread that serves connections.
    pub fn shutdown(&self, timeout: Duration) {
        if let Some(running) = &self.0
            && let Err(error) = running.provider.shutdown_with_timeout(timeout)
        {
            tracing::warn!(%error, "not all spans could be sent");
        }
    }

    /// SERVER span of an upgrade request. Its parent is the caller's, if the headers name a valid one.
    pub fn upgrade(&self, headers: &HeaderMap, info: UpgradeInfo) -> UpgradeSpan {
        let Some(running) = &self.0 else {
            return UpgradeSpan::none();
        };
        let caller = context::from_headers(headers);
        if !running.sampling.decide(caller.as_ref()) {
            return UpgradeSpan::unsampled(caller);
        }
        let span = running.start(info.builder(), caller, None);
        UpgradeSpan::recording(span)
    }

    /// A session began; `upgrade` is what its `UpgradeSpan::context` said.
    pub fn session_started(&self, upgrade: Option<&TraceContext>) {
        self.session_event("websocket session start", upgrade, Vec::new);
    }

    /// A session ended with this close code and reason word, after so long.
    pub fn session_ended(&self, upgrade: Option<&TraceContext>, code: u16, reason: &'static str, lifetime: Duration) {
        self.session_event("websocket session end", upgrade, || {
            vec![
                KeyValue::new("conclave.close.code", i64::from(code)),
                KeyValue::new("conclave.close.reason", reason),
                KeyValue::new("conclave.session.duration_s", lifetime.as_secs_f64()),
            ]
        });
    }

    fn session_event(
        &self,
        name: &'static str,
        upgrade: Option<&TraceContext>,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) {
        let (Some(running), Some(upgrade)) = (&self.0, upgrade) else {
            return;
        };
        if !upgrade.is_sampled() {
            return;
        }
        let mut attributes = attributes();
        attributes.push(KeyValue::new(attribute::NETWORK_PROTOCOL_NAME, "websocket"));
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_attributes(attributes);
        // Ends as it is dropped: what it tells is its attributes and its link.
        drop(running.start(builder, None, Some(upgrade)));
    }

    /// PRODUCER span of a chat, linked to its session, and a child of the message's `traceparent`
    /// if that is valid. `None` when this one is not traced.
    pub fn publish(&self, upgrade: Option<&TraceContext>, traceparent: Option<&str>) -> Option<PublishSpan> {
        let running = self.0.as_ref()?;
        let caller = traceparent.and_then(TraceContext::parse).map(TraceContext::to_remote);
        if !running.sampling.decide(caller.as_ref()) {
            return None;
        }
        let builder = SpanBuilder::from_name("publish")
            .with_kind(SpanKind::Producer)
            .with_attributes([
                KeyValue::new(attribute::MESSAGING_OPERATION_NAME, "publish"),
                KeyValue::new(attribute::MESSAGING_OPERATION_TYPE, "send"),
            ]);
        Some(PublishSpan::new(running.start(builder, caller, upgrade)))
    }

    /// CLIENT span of a question to the application, linked to the session it is about, and a child of the message's
    /// `traceparent` if that is valid, else of the current span. With the `traceparent` that goes along, which there
    /// may be without a span.
    pub fn asking(
        &self,
        event: &'static str,
        upgrade: Option<&TraceContext>,
        traceparent: Option<&str>,
    ) -> (Option<AskingSpan>, Option<String>) {
        let Some(running) = &self.0 else {
            let passed_on = traceparent.and_then(TraceContext::parse);
            return (None, passed_on.map(|context| context.to_string()));
        };
        let caller = match traceparent.and_then(TraceContext::parse) {
            Some(context) => Some(context.to_remote()),
            None => Some(Context::current().span().span_context().clone()).filter(SpanContext::is_valid),
        };
        if !running.sampling.decide(caller.as_ref()) {
            let passed_on = caller.as_ref().and_then(TraceContext::of);
            return (None, passed_on.map(|context| context.to_string()));
        }
        let builder = SpanBuilder::from_name(format!("ask {event}"))
            .with_kind(SpanKind::Client)
            .with_attributes([KeyValue::new(attribute::HTTP_REQUEST_METHOD, "POST")]);
        let span = AskingSpan::new(running.start(builder, caller, upgrade));
        let traceparent = span.context().map(|context| context.to_string());
        (Some(span), traceparent)
    }

    /// CONSUMER span of what one node (or one of its shards) does with a traced publish: a trace of
    /// its own, linked to the publish. `None` when the publish is not traced.
    pub fn fan_out(&self, publish: Option<&TraceContext>, shard: usize, members: usize) -> Option<FanOutSpan> {
        let (running, publish) = (self.0.as_ref()?, publish?);
        if !publish.is_sampled() {
            return None;
        }
        let builder = SpanBuilder::from_name("fan-out")
            .with_kind(SpanKind::Consumer)
            .with_attributes([
                KeyValue::new(attribute::MESSAGING_OPERATION_NAME, "fan-out"),
                KeyValue::new(attribute::MESSAGING_OPERATION_TYPE, "process"),
                KeyValue::new("conclave.shard", saturating(shard)),
                KeyValue::new("conclave.members", saturating(members)),
            ]);
        Some(FanOutSpan::new(running.start(builder, None, Some(publish))))
    }
}

impl Running {
    /// Starts a span that was decided to be recorded.
    fn start(
        &self,
        builder: SpanBuilder,
        parent: Option<opentelemetry::trace::SpanContext>,
        link: Option<&TraceContext>,
    ) -> Span {
        let mut context = Context::new().with_value(Decided);
        if let Some(parent) = parent {
            context = context.with_remote_span_context(parent);
        }
        let links = link.map(|to| Link::with_context(to.to_remote()));
        builder
            .with_links(links.into_iter().collect())
            .start_with_context(&self.tracer, &context)
    }
}

fn resource(service: &Service) -> Resource {
    Resource::builder_empty()
        .with_service_name(SERVICE_NAME)
        .with_attributes([
            KeyValue::new(attribute::SERVICE_VERSION, service.version),
            KeyValue::new(attribute::SERVICE_INSTANCE_ID, service.instance_id.clone()),
        ])
        .build()
}

fn saturating(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
