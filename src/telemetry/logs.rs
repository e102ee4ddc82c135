//! Log lines: JSON for machines on standard output, or text for a person on standard error, with
//! the ids of the trace they belong to. No line waits for its reader; see [`writer`].

mod human;
mod panics;
#[cfg(test)]
mod tests;
mod throttle;
mod writer;

use std::io::IsTerminal;

use anyhow::Context as _;
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use self::panics::panics;
use self::throttle::Throttled;
pub use self::writer::lines_dropped;
use self::writer::{Lines, Output};
use super::traces::Traces;
use crate::config::{Log, LogFormat};

/// What others log about every connection or request; an operator's own filter comes later and wins.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,rustls_platform_verifier=warn,\
    tungstenite=warn,tokio_tungstenite=warn,mio=warn,notify=warn,tower=warn,tower_http=warn,\
    axum=warn,axum_server=warn,opentelemetry=warn,redis=warn,async_nats=off";

/// Who changed what is said whatever the level is, unless an operator names this target.
const AUDIT: &str = "conclave::audit=info";

/// Crates that handle requests, frames or keys: below `info` they may show what passes through
/// them, and that holds tokens. No filter of an operator changes this.
const PRIVATE: &[&str] = &[
    "async_nats",
    "h2",
    "hyper",
    "hyper_util",
    "redis",
    "reqwest",
    "rustls",
    "tokio_rustls",
    "tungstenite",
    "tokio_tungstenite",
    "axum",
    "axum_server",
    "tower",
    "tower_http",
    "jsonwebtoken",
    "opentelemetry",
    "opentelemetry_sdk",
    "opentelemetry-otlp",
    "opentelemetry_http",
];

/// Keeps the lines flowing; what is still queued when it is dropped is written first, for up to a
/// second. `main` holds it to its very end.
#[must_use]
pub struct Guard(Lines);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Sets up logging and the panic hook for this process.
///
/// # Errors
/// The filter cannot be parsed, or logging was set up before.
pub fn init(config: &Log, traces: Option<&Traces>) -> anyhow::Result<Guard> {
    let output = match config.format {
        LogFormat::Json => Output::Stdout,
        LogFormat::Human => Output::Stderr,
    };
    let lines = Lines::start(output)?;
    let colours = std::io::stderr().is_terminal();
    let subscriber = subscriber(config, traces, lines.clone(), colours)?;
    // Also takes in what other crates write through `log`.
    subscriber.try_init().context("logging was set up before")?;
    panics::install_hook();
    Ok(Guard(lines))
}

fn subscriber<W>(
    config: &Log,
    traces: Option<&Traces>,
    writer: W,
    colours: bool,
) -> anyhow::Result<impl Subscriber + Send + Sync + use<W>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(format!("{QUIET},{AUDIT},{}", config.level))
        .with_context(|| format!("log.level: `{}` is not a filter", config.level))?;
    let spans = traces.and_then(Traces::tracer).map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            // What lasts as long as the node is a `debug` span: for lines only, whatever their level.
            .with_filter(LevelFilter::INFO)
    });
    // The layer of the spans comes first: it makes a span's context the current one, and the
    // layers that write lines take their ids from there.
    let registry = tracing_subscriber::registry()
        .with(filter_fn(discreet))
        .with(filter)
        .with(spans);
    let lines: Box<dyn Layer<_> + Send + Sync> = match config.format {
        LogFormat::Json => Box::new(json(writer).with_filter(Throttled::default())),
        LogFormat::Human => Box::new(human::layer(writer, colours).with_filter(Throttled::default())),
    };
    Ok(registry.with(lines))
}

/// Whether the source of a line or span may say it.
fn discreet(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || !PRIVATE.contains(&krate)
}

fn json<S, W>(writer: W) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let mut layer = json_subscriber::JsonLayer::<S>::stdout().with_writer(writer);
    layer.with_timer("timestamp", tracing_subscriber::fmt::time::SystemTime);
    layer.with_level("level");
    layer.with_target("target");
    layer.with_flattened_event();
    layer.with_current_span("span");
    layer.add_multiple_dynamic_fields(|_, _, line| {
        if let Some((trace_id, span_id)) = ids() {
            let _ = line.write_field("trace_id", trace_id);
            let _ = line.write_field("span_id", span_id);
        }
    });
    layer
}

/// Ids of the span that is current on this thread.
fn ids() -> Option<(String, String)> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid()
            .then(|| (span.trace_id().to_string(), span.span_id().to_string()))
    })
}
