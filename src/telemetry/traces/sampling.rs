//! Which traces are recorded: those the caller records, else a share.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// Traces per second that callers may have recorded by asking. Anybody can send a `traceparent`
/// that says "recorded"; past this they are sampled like everyone else, so that nobody can flood
/// the collector from outside.
const ASKED_PER_SECOND: u32 = 100;

/// In a context: the decision was taken before the span was built.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decided;

/// The rule; a clone shares its counts.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    /// A random `u64` below this is recorded.
    below: u64,
    asked: Arc<Asked>,
}

impl Sampling {
    /// Records this share (0 to 1) of what no caller decided.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates: 1.0 becomes u64::MAX, and NaN 0"
    )]
    pub fn new(ratio: f64) -> Self {
        let below = (ratio.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self {
            below,
            asked: Arc::default(),
        }
    }

    /// Whether to record something whose caller is `caller`.
    pub fn decide(&self, caller: Option<&SpanContext>) -> bool {
        match caller {
            Some(caller) if !caller.is_sampled() => false,
            Some(_) if self.asked.take() => true,
            _ => self.share(),
        }
    }

    fn share(&self) -> bool {
        self.below == u64::MAX || (self.below > 0 && random() < self.below)
    }
}

/// For `tracing` spans: as their parent, else the share.
impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let decided = parent.is_some_and(|context| context.get::<Decided>().is_some());
        let above = parent
            .filter(|context| context.has_active_span())
            .map(|context| context.span().span_context().clone());
        let record = decided
            || match &above {
                Some(above) if above.is_valid() => above.is_sampled(),
                _ => self.share(),
            };
        SamplingResult {
            decision: if record {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: above.map_or(TraceState::NONE, |above| above.trace_state().clone()),
        }
    }
}

/// How many were recorded because they asked, in this second.
#[derive(Debug)]
struct Asked {
    started: Instant,
    /// Second in the upper half, count in the lower.
    window: AtomicU64,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            window: AtomicU64::new(0),
        }
    }
}

impl Asked {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the count")]
    fn take(&self) -> bool {
        let second = self.started.elapsed().as_secs();
        let taken = self
            .window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
                let count = if window >> 32 == second { window as u32 } else { 0 };
                (count < ASKED_PER_SECOND).then_some(second << 32 | u64::from(count + 1))
            });
        taken.is_ok()
    }
}

/// A random number that is good enough to choose a sample (SplitMix64), without a lock.
fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::traces::TraceContext;

    #[test]
    fn the_share_is_kept() {
        let count = |ratio| (0..100_000).filter(|_| Sampling::new(ratio).decide(None)).count();
        assert_eq!(count(0.0), 0);
        assert_eq!(count(f64::NAN), 0);
        assert_eq!(count(1.0), 100_000);
        assert!((8_500..11_500).contains(&count(0.1)));
    }

    #[test]
    fn the_caller_decides_within_reason() {
        let caller = |flags: &str| {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            TraceContext::parse(&text).unwrap().to_remote()
        };
        let (none, all) = (Sampling::new(0.0), Sampling::new(1.0));
        assert!(!all.decide(Some(&caller("00"))));
        let recorded = (0..1000).filter(|_| none.decide(Some(&caller("01")))).count();
        // The loop may straddle the turn of a second.
        assert!((100..=200).contains(&recorded), "{recorded}");
    }
}
