//! Stopping in named phases, so that a deploy is not noticed (ops/stopping.md).

pub mod plan;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::hub::MemberId;
use crate::protocol::close::Close;
use crate::runtime::{Cluster, Node, now_ms, supervisor};
use crate::telemetry::metrics::DrainPhase;
use plan::{Outlook, Plan, Room, Slots};

/// How often a slice of the connections is closed.
const SLICE: Duration = Duration::from_millis(50);

/// Those who came while everybody else was being told, over a listener that stays open, are told within so long.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How long a handshake may take that had begun when the listener was closed.
const ARRIVING_MAX: Duration = Duration::from_secs(2);

/// After the last phase, whoever is left has so long to be cut.
const LAST: Duration = Duration::from_secs(1);

/// A log line says how far closing is each time this share of it is over.
const PROGRESS: f64 = 0.25;

/// Whether this node is on its way out, and how far.
#[derive(Debug, Default)]
pub struct Drain {
    /// Cancelled when somebody asks for the drain other than by a signal.
    asked: CancellationToken,
    draining: AtomicBool,
    /// Connections that have not been told yet.
    left: AtomicUsize,
    told: Mutex<Told>,
}

/// What others may know of a drain.
#[derive(Debug, Clone, Default)]
struct Told {
    phase: Option<DrainPhase>,
    plan: Option<Plan>,
    /// Seconds since the Unix epoch.
    deadline: u64,
}

impl Drain {
    /// Has the node drain and end, as SIGTERM has. Doing it twice is harmless.
    pub fn begin(&self) {
        self.asked.cancel();
    }

    /// Waits until somebody calls [`Drain::begin`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// New sockets are sent elsewhere.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Connections that have not been told to come back yet; 0 while nobody thinks of stopping.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Where stopping stands.
    #[must_use]
    pub fn phase(&self) -> DrainPhase {
        self.told.lock().phase.unwrap_or(DrainPhase::Serving)
    }

    /// When whoever is left is cut, in seconds since the Unix epoch; 0 while nobody thinks of stopping.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.told.lock().deadline
    }

    /// The plan of the drain that has begun.
    #[must_use]
    pub fn plan(&self) -> Option<Plan> {
        self.told.lock().plan.clone()
    }
}

/// What a drain that began now would do.
#[must_use]
pub fn plan(node: &Node) -> Plan {
    plan::plan(&outlook(node, node.connections()))
}

fn outlook(node: &Node, clients: u64) -> Outlook {
    let config = &node.config.drain;
    Outlook {
        clients,
        grace: config.grace,
        time: config.time,
        accepts_per_second: node.facts().accepts_per_second,
        others: others(node),
    }
}

/// The nodes that take this one's clients over.
fn others(node: &Node) -> Vec<Room> {
    let others = node.cluster.as_ref().map(Cluster::others).unwrap_or_default();
    let stay = others.iter().filter(|other| other.is_ready && !other.is_draining);
    let room = stay.map(|other| Room {
        accepts_per_second: other.accepts_per_second,
        free: other.connections_max.saturating_sub(other.connections),
    });
    room.collect()
}

/// How the node is told to take nobody new.
pub struct Listening<Stop> {
    /// Somebody else holds the listening sockets too and gives them to this node's successor: whoever comes
    /// meanwhile is served until the very end, because nobody else would.
    pub is_handed_on: bool,
    pub stop: Stop,
}

/// Runs the phases; returns when no connection is left or the deadline has passed.
///
/// # Cancel safety
/// Cancel safe: dropped (by a second signal), the phases simply end.
pub async fn drain(node: &Arc<Node>, listening: Listening<impl FnOnce()>) {
    let config = &node.config.drain;
    // 1. Balancers stop sending; whoever comes meanwhile is still served.
    node.health.draining();
    if let Some(cluster) = &node.cluster {
        cluster.tell_others();
    }
    begin(node);
    phase(node, DrainPhase::Grace);
    sleep(config.grace).await;
    // 2. Nobody new.
    let stop_listening = || {
        node.drain.draining.store(true, Ordering::Relaxed);
        (listening.stop)();
    };
    let stop_listening = if listening.is_handed_on {
        Some(stop_listening)
    } else {
        stop_listening();
        None
    };
    // 3. Each client is told when to come back and closed, a slice at a time.
    phase(node, DrainPhase::Closing);
    let deadline = Instant::now() + config.time;
    close_all(node, members(node), &outlook(node, node.connections())).await;
    if let Some(stop_listening) = stop_listening {
        let_in_the_last(node).await;
        stop_listening();
        last_call(node).await;
    }
    let deadline = if listening.is_handed_on {
        // Those who were told last have time to hear it.
        deadline.max(Instant::now() + LAST)
    } else {
        deadline
    };
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

/// Says what is going to happen.
fn begin(node: &Node) {
    let plan = plan(node);
    let time_left = node.config.drain.grace + node.config.drain.time;
    tracing::info!(
        clients = plan.clients,
        others = plan.others,
        moving = plan.moving,
        end_seconds = plan.end_seconds,
        deadline_seconds = plan.deadline_seconds,
        last_return_seconds = plan.last_return_seconds,
        returns_per_second = plan.returns_per_second,
        fits = plan.fits,
        "drain begins"
    );
    let status = format!("draining {} clients", plan.clients);
    supervisor::stopping(time_left, &status);
    let clients = usize::try_from(plan.clients).unwrap_or(usize::MAX);
    node.drain.left.store(clients, Ordering::Relaxed);
    let mut told = node.drain.told.lock();
    told.deadline = (now_ms() / 1_000).saturating_add(time_left.as_secs());
    told.plan = Some(plan);
}

fn phase(node: &Node, phase: DrainPhase) {
    node.metrics.drain_phase(phase);
    node.drain.told.lock().phase = Some(phase);
    tracing::info!(phase = ?phase, connections = node.connections(), "stopping");
}

/// Every connection, in no order: neither a room nor a shard goes first.
fn members(node: &Node) -> Vec<MemberId> {
    let mut members: Vec<_> = node.shards.iter().flat_map(|shard| shard.members()).collect();
    let mut dice = Dice::new();
    for last in (1..members.len()).rev() {
        members.swap(last, dice.below(last + 1));
    }
    members
}

/// Tells everybody, each in time for the slot that the plan has for it.
async fn close_all(node: &Node, members: Vec<MemberId>, outlook: &Outlook) {
    let slots = Slots::new(&Outlook {
        clients: members.len() as u64,
        ..outlook.clone()
    });
    let (began, mut dice) = (Instant::now(), Dice::new());
    let mut said_at = PROGRESS;
    let mut told = 0;
    node.drain.left.store(members.len(), Ordering::Relaxed);
    for slice in 1_u32.. {
        let elapsed = began.elapsed().as_secs_f64();
        let due = slots.due(elapsed).min(members.len());
        for (index, member) in members.iter().enumerate().take(due).skip(told) {
            let after_ms = slots.reconnect_after_ms(index, elapsed, dice.share(), dice.share());
            node.shards[member.shard as usize].close_for_restart(*member, after_ms);
        }
        told = told.max(due);
        let left = members.len() - told;
        node.drain.left.store(left, Ordering::Relaxed);
        if left == 0 {
            return;
        }
        if told as f64 >= said_at * members.len() as f64 {
            tracing::info!(left, told, "draining");
            supervisor::status(&format!("draining: {left} of {} clients left", members.len()));
            said_at += PROGRESS;
        }
        sleep_until(began + SLICE * slice).await;
    }
}

/// From now on whoever comes waits for this node's successor; whoever is on the way in comes in.
async fn let_in_the_last(node: &Node) {
    node.closed.cancel();
    // A connection that has just been accepted is not counted among those who arrive until its task runs.
    sleep(SLICE).await;
    node.arriving.close();
    drop(timeout(ARRIVING_MAX, node.arriving.wait()).await);
    // The request of the very last one.
    sleep(SLICE).await;
}

/// Tells those who came over a listener that was open until now.
async fn last_call(node: &Node) {
    let last_call = Outlook {
        time: LAST_CALL,
        ..outlook(node, 0)
    };
    close_all(node, members(node), &last_call).await;
}

/// SplitMix64, seeded once: no call into the kernel per client.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(uuid::Uuid::new_v4().as_u64_pair().0)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// In `0.0..1.0`.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
    }

    /// In `0..bound`.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
