//! Counters of one shard: plain relaxed atomics, added up only when somebody looks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::labels::{Kind, Label};

/// Only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Takes `n` away.
    pub fn sub(&self, n: i64) {
        self.0.fetch_sub(n, Relaxed);
    }

    /// Now. May be below zero for a moment, when the two ends of a pair run on two threads.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One counter per kind of WebSocket message.
#[derive(Debug, Default)]
pub struct PerKind([Counter; 5]);

impl PerKind {
    /// The counter of `kind`.
    pub fn of(&self, kind: Kind) -> &Counter {
        &self.0[kind.index()]
    }
}

/// What one shard did. Its own threads write it, the scrape reads it; aligned so that two shards
/// never share a cache line (two lines, because x86 fetches them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Sockets that were admitted.
    pub connections_opened: Counter,
    /// Sockets of those that are gone.
    pub connections_closed: Counter,
    /// Whole messages read.
    pub messages_in: PerKind,
    /// Whole messages handed to the transport.
    pub messages_out: PerKind,
    /// Bytes of frames read, heads included.
    pub bytes_in: Counter,
    /// Bytes of frames handed to the transport, heads included.
    pub bytes_out: Counter,
    /// Chats that got a `seq`.
    pub publishes: Counter,
    /// Chats whose `key` was known already.
    pub duplicate_publishes: Counter,
    /// Room frames queued to members.
    pub deliveries: Counter,
    /// Messages of the application queued to connections of users.
    pub user_messages: Counter,
    /// Queued frames that died with a connection cut for its backlog.
    pub dropped_slow_reader: Counter,
    /// Queued frames that died with a connection that ended otherwise.
    pub dropped_closed: Counter,
    /// Connections that a flusher round wrote to.
    pub flushes: Counter,
    /// `send` calls on client sockets.
    pub sends: Counter,
    /// Members who entered a room.
    pub joins: Counter,
    /// Members who left a room.
    pub leaves: Counter,
    /// Joins with `since` that were replayed.
    pub replays: Counter,
    /// Messages sent by those.
    pub replayed_messages: Counter,
    /// Bytes queued to clients now.
    pub outbox_bytes: Gauge,
    /// The same of probes, which are in none of the above; none where there are no probes.
    probes: Option<Box<Self>>,
    /// KiB of messages that are not whole, each connection's rounded up.
    pub inbound_kib: Gauge,
}

impl ShardCounters {
    /// What clients do, and apart from it what probes do.
    pub fn with_probes() -> Self {
        Self {
            probes: Some(Box::default()),
            ..Self::default()
        }
    }

    /// Where what a client does is counted, or what a probe does.
    pub fn of(&self, probe: bool) -> &Self {
        match &self.probes {
            Some(probes) if probe => probes,
            _ => self,
        }
    }

    /// Sockets of probes that were admitted.
    pub fn probe_sessions(&self) -> u64 {
        self.probes
            .as_ref()
            .map_or(0, |probes| probes.connections_opened.value())
    }

    /// Sockets that are open now.
    pub fn connections(&self) -> u64 {
        // Closed first: a socket that ends between the two reads must not count below zero.
        let closed = self.connections_closed.value();
        self.connections_opened.value().saturating_sub(closed)
    }
}
