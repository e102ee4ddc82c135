//! One core's share: the connections that it serves, what they are to be told, and who writes it.
//!
//! Everything a shard does to its connections happens in its flusher and its sweeper, on its own thread; other
//! threads reach it through its [`Inbox`] only.

pub mod budget;
mod departures;
pub mod ending;
mod flusher;
mod held;
pub mod inbox;
mod members;
mod sweeper;
mod told;
mod users;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::auth::Identity;
use crate::config::{Config, Limits};
use crate::connection::transport::Transport;
use crate::connection::{Conn, OutboxLimits};
use crate::hub::MemberId;
use crate::protocol::close::Close;
use crate::runtime::Tasks;
use crate::shard::budget::Budget;
use crate::shard::departures::Departures;
use crate::shard::inbox::{Command, Inbox};
use crate::shard::members::Local;
use crate::telemetry::metrics::{Metrics, ShardCounters};
use crate::telemetry::taps::Taps;

pub use flusher::round;

/// What all shards of a node share.
pub struct Budgets {
    /// `limits.node_outbox_bytes`
    pub outboxes: Arc<Budget>,
    /// `limits.node_inbound_bytes`
    pub inbound: Arc<Budget>,
}

impl Budgets {
    #[must_use]
    pub fn new(limits: &Limits, shards: usize) -> Self {
        Self {
            outboxes: Arc::new(Budget::new(limits.node_outbox_bytes, shards)),
            inbound: Arc::new(Budget::new(limits.node_inbound_bytes, shards)),
        }
    }
}

/// One shard.
pub struct Shard {
    pub index: usize,
    pub inbox: Arc<Inbox>,
    pub counters: Arc<ShardCounters>,
    pub outbox_limits: OutboxLimits,
    /// Who has left and is not forgotten yet.
    pub departures: Departures,
    metrics: Arc<Metrics>,
    taps: Arc<Taps>,
    started: Instant,
    heartbeat: Duration,
    /// Bytes that wait for readers, on all shards.
    outboxes: Arc<Budget>,
    /// Bytes of messages that are not whole, on all shards.
    inbound: Arc<Budget>,
    /// Some connection is to leave a room, which `local` knows. Written by this shard's own threads only.
    removes: AtomicBool,
    /// Locked by this shard's own threads only.
    local: Mutex<Local>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard({})", self.index)
    }
}

impl Shard {
    /// The shard with this index; `inbox` is known to every room.
    #[must_use]
    pub fn new(
        index: usize,
        inbox: Arc<Inbox>,
        config: &Config,
        budgets: &Budgets,
        metrics: Arc<Metrics>,
        taps: Arc<Taps>,
    ) -> Arc<Self> {
        let outbox_limits = OutboxLimits::new(&config.limits);
        let counters = Arc::new(ShardCounters::with_probes());
        metrics.register_shard(Arc::clone(&counters));
        Arc::new(Self {
            index,
            inbox,
            counters,
            outbox_limits,
            departures: Departures::default(),
            metrics,
            taps,
            started: Instant::now(),
            heartbeat: config.heartbeat.interval,
            outboxes: Arc::clone(&budgets.outboxes),
            inbound: Arc::clone(&budgets.inbound),
            removes: AtomicBool::new(false),
            local: Mutex::new(Local::new(&outbox_limits)),
        })
    }

    /// Spawns what a shard does by itself on the current runtime.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        tasks.spawn("flusher", flusher::run(Arc::clone(self)));
        tasks.spawn("sweeper", sweeper::run(Arc::clone(self)));
        tasks.spawn("departures", departures::run(Arc::clone(self)));
    }

    /// This shard's clock, milliseconds since it started.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// This shard's clock, nanoseconds since it started.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes a connection in; an echo is nobody's. What `first` gives is done before anything else about it.
    pub fn register(
        &self,
        transport: Transport,
        identity: Option<Arc<Identity>>,
        is_probe: bool,
        expires_at: u64,
        first: impl FnOnce(&Conn) -> Option<Command>,
    ) -> Arc<Conn> {
        self.counters.of(is_probe).connections_opened.inc();
        let index = u16::try_from(self.index).unwrap_or(u16::MAX);
        let mut local = self.local.lock();
        let conn = local.register(index, transport, identity, is_probe, expires_at);
        // Under the lock: whoever finds the connection here (a drain, a kick) comes behind its first word.
        if let Some(first) = first(&conn) {
            self.inbox.push(first);
        }
        conn
    }

    /// Has the sweeper end the connection when its new token ends.
    pub fn watch_expiry(&self, conn: &Arc<Conn>) {
        self.local.lock().watch_expiry(conn);
    }

    /// Every connection of this shard.
    #[must_use]
    pub fn members(&self) -> Vec<MemberId> {
        self.local.lock().members()
    }

    /// Tells one connection to come back later, and closes it, behind what it is being sent.
    pub fn close_for_restart(&self, member: MemberId, reconnect_after_ms: u64) {
        self.inbox.push(Command::Close {
            member,
            close: Close::RESTART,
            reconnect_after_ms,
        });
    }

    /// Cuts whoever is left.
    pub fn terminate_all(&self, close: Close) {
        let local = self.local.lock();
        for conn in local.conns() {
            conn.terminate(close);
        }
    }
}
