//! The way of finished spans: a bounded queue, then batches from a thread of the SDK's own.
//!
//! The SDK drops what its queue cannot hold and tells nobody, so we keep the count of what is in it
//! and drop before it does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use http::{HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use secrecy::{ExposeSecret, SecretString};

use crate::telemetry::metrics::{Counter, Label, SpanFate};

/// Spans that may wait; about a kilobyte each.
const QUEUE_SPANS_MAX: usize = 2048;
/// Spans of one request to the collector.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others.
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// One request to the collector, all retries included.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Signal path of OTLP over HTTP.
const PATH: &str = "/v1/traces";

/// What became of finished spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    fates: [Counter; 3],
    /// Spans in the queue, and those of the batch that is being sent.
    queued: AtomicUsize,
}

impl SpanCounts {
    /// The counter of one fate.
    pub fn of(&self, fate: SpanFate) -> &Counter {
        &self.fates[fate.index()]
    }
}

/// Queue, batches and exporter for `endpoint`.
pub(super) fn processor(
    endpoint: &str,
    headers: &[(String, SecretString)],
    counts: Arc<SpanCounts>,
) -> anyhow::Result<impl SpanProcessor + use<>> {
    let exporter = Counting {
        inner: exporter(endpoint, headers)?,
        counts: counts.clone(),
    };
    // All said here, because the defaults come from the environment.
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    Ok(Bounded { inner, counts })
}

fn exporter(endpoint: &str, headers: &[(String, SecretString)]) -> anyhow::Result<Otlp> {
    let url = url(endpoint)?;
    let headers = headers.iter().map(header).collect::<anyhow::Result<HashMap<_, _>>>()?;
    Otlp::builder()
        .with_http()
        .with_http_client(client(&url)?)
        .with_endpoint(url)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(EXPORT_TIMEOUT)
        .with_headers(headers)
        .with_retry_policy(RetryPolicy::recommended().with_max_retries(1))
        .build()
        // The builder's own error may show the endpoint.
        .map_err(|_| anyhow!("traces.endpoint: the exporter cannot be set up"))
}

/// A header of every request. The exporter would leave out a bad one without a word, and the
/// collector would refuse every span; and it percent-decodes values, so a percent sign is escaped.
fn header((name, value): &(String, SecretString)) -> anyhow::Result<(String, String)> {
    let value = value.expose_secret();
    if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
        bail!("traces.headers: `{}` is not a header", name.escape_debug());
    }
    Ok((name.clone(), value.replace('%', "%25")))
}

/// The whole address of the collector. Never shown: nobody knows what somebody put into it.
fn url(endpoint: &str) -> anyhow::Result<String> {
    let url = reqwest::Url::parse(endpoint).map_err(|_| anyhow!("traces.endpoint is not an URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("traces.endpoint must start with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        bail!("traces.endpoint must not hold credentials or a query; use traces.headers");
    }
    let base = url.as_str().trim_end_matches('/');
    Ok(if base.ends_with(PATH) {
        base.to_owned()
    } else {
        format!("{base}{PATH}")
    })
}

/// A blocking client has a runtime inside and must not be built on another one.
fn client(url: &str) -> anyhow::Result<reqwest::blocking::Client> {
    let plain = url.starts_with("http://");
    let build = move || {
        let mut client = reqwest::blocking::Client::builder()
            .timeout(EXPORT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // Not from the environment, like everything else.
            .no_proxy();
        if plain {
            // Spares the search for root certificates, which an image without any would fail.
            client = client.tls_certs_only([]);
        }
        client.build()
    };
    thread::Builder::new()
        .name("conclave-traces".to_owned())
        .spawn(build)?
        .join()
        .map_err(|_| anyhow!("the client of the collector could not be built"))?
        .context("the client of the collector could not be built")
}

/// Lets at most `QUEUE_SPANS_MAX` spans be on their way.
#[derive(Debug)]
struct Bounded<P> {
    inner: P,
    counts: Arc<SpanCounts>,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let fits = self
            .counts
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
                (queued < QUEUE_SPANS_MAX).then_some(queued + 1)
            });
        match fits {
            Ok(_) => self.inner.on_end(span),
            Err(_) => self.counts.of(SpanFate::Dropped).inc(),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what the collector took.
#[derive(Debug)]
struct Counting<E> {
    inner: E,
    counts: Arc<SpanCounts>,
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        let fate = if result.is_ok() {
            SpanFate::Exported
        } else {
            SpanFate::Failed
        };
        self.counts.of(fate).add(spans as u64);
        self.counts.queued.fetch_sub(spans, Ordering::Relaxed);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
