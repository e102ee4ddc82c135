//! Stopping in named phases, so that a deploy is not noticed (README, Stopping).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::protocol::close::Close;
use crate::runtime::Node;
use crate::telemetry::metrics::DrainPhase;

/// Closes are spread over this share of the drain time; the rest is for the last ones to leave.
const CLOSING_SHARE: f64 = 0.8;

/// How often a slice of the connections is closed.
const SLICE: Duration = Duration::from_millis(50);

/// After the last phase, whoever is left has so long to be cut.
const LAST: Duration = Duration::from_secs(1);

/// Whether this node is on its way out, and how far.
#[derive(Debug, Default)]
pub struct Drain {
    draining: AtomicBool,
    /// Connections that have not been told yet.
    left: AtomicUsize,
}

impl Drain {
    /// New sockets are sent elsewhere.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Connections that have not been told to come back yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// Runs the phases; returns when no connection is left or the deadline has passed.
///
/// # Cancel safety
/// Cancel safe: dropped (by a second signal), the phases simply end.
pub async fn drain(node: &Arc<Node>, stop_listening: impl FnOnce()) {
    let config = &node.config.drain;
    // 1. Balancers stop sending; whoever comes meanwhile is still served.
    node.health.draining();
    phase(node, DrainPhase::Grace);
    sleep(config.grace).await;
    // 2. Nobody new.
    node.drain.draining.store(true, Ordering::Relaxed);
    stop_listening();
    // 3. Each client is told when to come back and closed, a slice at a time.
    phase(node, DrainPhase::Closing);
    let deadline = Instant::now() + config.time;
    close_all(node, config.time.mul_f64(CLOSING_SHARE)).await;
    // 4. A bounded wait.
    let left = tokio::time::timeout_at(deadline, node.tasks.connections_ended())
        .await
        .is_err();
    if left {
        phase(node, DrainPhase::Deadline);
        tracing::warn!(left = node.tasks.connections_left(), "drain deadline passed");
        for shard in &node.shards {
            shard.terminate_all(Close::RESTART);
        }
        drop(timeout(LAST, node.tasks.connections_ended()).await);
    }
    phase(node, DrainPhase::Stopped);
}

fn phase(node: &Node, phase: DrainPhase) {
    node.metrics.drain_phase(phase);
    tracing::info!(phase = ?phase, connections = node.connections(), "stopping");
}

/// Spreads the closes, and the returns, evenly over `time`: the node that takes the clients over gets them at
/// the rate at which this one lets them go.
async fn close_all(node: &Node, time: Duration) {
    let mut left: Vec<_> = node.shards.iter().flat_map(|shard| shard.members()).collect();
    let total = left.len();
    if total == 0 {
        return;
    }
    let started = Instant::now();
    let slices = (time.as_secs_f64() / SLICE.as_secs_f64()).ceil().max(1.0);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of connections per slice"
    )]
    let per_slice = (total as f64 / slices).ceil() as usize;
    for slice in 1_u32.. {
        let keep = left.len().saturating_sub(per_slice);
        for member in left.drain(keep..) {
            node.shards[member.shard as usize].close_for_restart(member.slot, reconnect_after_ms(time, total));
        }
        node.drain.left.store(left.len(), Ordering::Relaxed);
        if left.is_empty() {
            return;
        }
        sleep_until(started + SLICE * slice).await;
    }
}

/// When a client that is told now should come back: at once for a handful, spread out for many.
fn reconnect_after_ms(time: Duration, total: usize) -> u64 {
    // A node takes some thousand handshakes a second and core; half of that is left to everybody else.
    const RETURNS_PER_SECOND: u64 = 1_000;
    let spread_ms = (total as u64 * 1_000 / RETURNS_PER_SECOND)
        .clamp(100, u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(100));
    100 + rand_below(spread_ms)
}

fn rand_below(bound: u64) -> u64 {
    let bits = uuid::Uuid::new_v4().as_u128();
    u64::try_from(bits % u128::from(bound.max(1))).unwrap_or(0)
}
