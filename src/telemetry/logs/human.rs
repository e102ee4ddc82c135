//! One line for a person: time, level, message, fields.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self as fmt_layer, FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Writes events as text; in colour on a terminal, unless `NO_COLOR` says otherwise.
pub(super) fn layer<S, W>(writer: W, colours: bool) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Left alone the layer looks at NO_COLOR itself, so `with_ansi(true)` would overrule a person.
    let layer = fmt_layer::layer();
    let layer = if colours { layer } else { layer.with_ansi(false) };
    layer.event_format(Human).with_writer(writer)
}

struct Human;

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(&mut line)?;
        let level = *event.metadata().level();
        if line.has_ansi_escapes() {
            write!(line, " \x1b[{}m{level:>5}\x1b[0m ", colour(level))?;
        } else {
            write!(line, " {level:>5} ")?;
        }
        context.field_format().format_fields(line.by_ref(), event)?;
        if let Some((trace_id, span_id)) = super::ids() {
            write!(line, " trace_id={trace_id} span_id={span_id}")?;
        }
        writeln!(line)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}
