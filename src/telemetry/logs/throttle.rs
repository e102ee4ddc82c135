//! A collector that is away makes the exporter complain with each batch; a few lines a minute say
//! as much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::{Event, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of the exporter's own log per minute.
const LINES_PER_MINUTE: u32 = 4;
/// Targets of the OpenTelemetry crates start so.
const TARGET: &str = "opentelemetry";

/// Lets everything pass but the surplus of the exporter's own log.
pub(super) struct Throttled {
    started: Instant,
    /// Minute in the upper half, lines of that minute in the lower.
    window: AtomicU64,
}

impl Default for Throttled {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            window: AtomicU64::new(0),
        }
    }
}

impl Throttled {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the count")]
    fn take(&self) -> bool {
        let minute = self.started.elapsed().as_secs() / 60;
        let taken = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
                let lines = if window >> 32 == minute { window as u32 } else { 0 };
                (lines < LINES_PER_MINUTE).then_some(minute << 32 | u64::from(lines + 1))
            });
        taken.is_ok()
    }
}

impl<S> Filter<S> for Throttled {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        !event.metadata().target().starts_with(TARGET) || self.take()
    }
}
