//! What is read only when somebody looks: shard counters, gauges, the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::handles::{Counters, Registrar};
use super::labels::{Direction, Dropped, Kind, Label, Limit, OutboundResult, Purpose, SpanFate};
use super::names;
use super::process::{Process, Seconds};
use super::shard::ShardCounters;
use crate::outbound;
use crate::telemetry::logs;
use crate::telemetry::traces::SpanCounts;

/// The node at the moment of a scrape. `connections`, queues' bytes, `nodes` and `fd_limit`
/// are filled in before the readers run; a reader adds to what it finds, or sets it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Gauges {
    /// Sockets that are open.
    pub connections: u64,
    /// Connections this node accepts; 0 means no limit.
    pub connections_limit: u64,
    /// What may wait for all readers together.
    pub outbox_budget_bytes: u64,
    /// File descriptors this process may open.
    pub fd_limit: u64,
    /// Rooms on this node.
    pub rooms: u64,
    /// Connections in rooms.
    pub members: u64,
    /// Users in rooms; one in two rooms counts twice.
    pub users: u64,
    /// Bytes queued to clients.
    pub send_queue_bytes: u64,
    /// Bytes of messages that are not whole yet.
    pub receive_queue_bytes: u64,
    /// Messages kept in history.
    pub history_messages: u64,
    /// Bytes kept in history.
    pub history_bytes: u64,
    /// Nodes this one knows, itself included.
    pub nodes: u64,
    /// Whether the node wants new connections.
    pub ready: bool,
    /// Sockets that the drain has yet to close.
    pub draining_clients: u64,
    /// When the drain cuts whoever is left, in seconds since the Unix epoch; 0 before.
    pub drain_deadline: u64,
    /// Handshakes that wait for their turn.
    pub handshakes_waiting: u64,
    /// Handshakes that may begin per second.
    pub admission_rate: u64,
    /// Sign-ins that wait for keys.
    pub jwks_waiting: u64,
    /// Sign-ins that were refused because too many wait already.
    pub jwks_full: u64,
    /// The same, because their address waits for too many keys.
    pub jwks_over_kids: u64,
    /// CPU time of all handshakes so far.
    pub handshake_cpu_seconds: f64,
}

type Reader = Box<dyn Fn(&mut Gauges) + Send + Sync>;
type Sum = (metrics::Counter, fn(&ShardCounters) -> u64);
type Counted = (metrics::Counter, fn(&Gauges) -> u64);
type Shown = (metrics::Gauge, fn(&Gauges) -> u64);

/// Everything a scrape reads.
pub(super) struct Sources {
    shards: Mutex<Vec<Arc<ShardCounters>>>,
    runtimes: Mutex<Vec<Handle>>,
    readers: Mutex<Vec<Reader>>,
    spans: Mutex<Option<Arc<SpanCounts>>>,
    calls_counted: Mutex<Option<Arc<outbound::Counts>>>,
    /// Nodes that are alive, this one included.
    nodes: AtomicUsize,
    process: Process,
    sums: Vec<Sum>,
    messages: Vec<(Direction, Kind, metrics::Counter)>,
    gauges: Vec<Shown>,
    counts: Vec<Counted>,
    span_fates: Counters<SpanFate>,
    /// By purpose.
    calls: Vec<Counters<OutboundResult>>,
    panics: metrics::Counter,
    log_lines_dropped: metrics::Counter,
}

impl Sources {
    pub fn register(new: &Registrar<'_>) -> Self {
        Self {
            shards: Mutex::default(),
            runtimes: Mutex::default(),
            readers: Mutex::default(),
            spans: Mutex::default(),
            calls_counted: Mutex::default(),
            nodes: AtomicUsize::new(1),
            process: Process::register(new),
            sums: sums(new),
            messages: messages(new),
            gauges: gauges(new),
            counts: vec![
                (refused(new, Limit::JwksWaiting), |now| now.jwks_full),
                (refused(new, Limit::JwksKidsPerAddress), |now| now.jwks_over_kids),
            ],
            span_fates: new.counters(&names::TRACE_SPANS),
            calls: Purpose::ALL
                .iter()
                .map(|purpose| new.counters_of(&names::OUTBOUND_REQUESTS, purpose.word()))
                .collect(),
            panics: new.counter(&names::PANICS, &[]),
            log_lines_dropped: new.counter(&names::LOG_LINES_DROPPED, &[]),
        }
    }

    pub fn add_shard(&self, counters: Arc<ShardCounters>) {
        self.shards.lock().push(counters);
    }

    pub fn add_runtime(&self, runtime: Handle) {
        self.runtimes.lock().push(runtime);
    }

    pub fn add_reader(&self, read: Reader) {
        self.readers.lock().push(read);
    }

    pub fn set_spans(&self, counts: Arc<SpanCounts>) {
        *self.spans.lock() = Some(counts);
    }

    pub fn set_outbound(&self, counts: Arc<outbound::Counts>) {
        *self.calls_counted.lock() = Some(counts);
    }

    pub fn set_nodes(&self, nodes: usize) {
        self.nodes.store(nodes, Relaxed);
    }

    /// Brings every handle up to date.
    pub fn read(&self) -> Seconds {
        let (mut seconds, fd_limit) = self.process.read(&self.runtimes.lock());
        let shards = self.shards.lock();
        self.read_counters(&shards);
        let mut gauges = Gauges {
            connections: shards.iter().map(|shard| shard.connections()).sum(),
            send_queue_bytes: queued_bytes(&shards),
            receive_queue_bytes: received_bytes(&shards),
            fd_limit,
            nodes: self.nodes.load(Relaxed) as u64,
            ..Gauges::default()
        };
        drop(shards);
        for read in self.readers.lock().iter() {
            read(&mut gauges);
        }
        for (handle, value) in &self.gauges {
            handle.set(value(&gauges) as f64);
        }
        for (handle, value) in &self.counts {
            handle.absolute(value(&gauges));
        }
        seconds.handshake_cpu = gauges.handshake_cpu_seconds;
        seconds
    }

    fn read_counters(&self, shards: &[Arc<ShardCounters>]) {
        let sum = |read: &dyn Fn(&ShardCounters) -> u64| shards.iter().map(|shard| read(shard)).sum();
        for (handle, read) in &self.sums {
            handle.absolute(sum(read));
        }
        for (direction, kind, handle) in &self.messages {
            handle.absolute(sum(&|shard| match direction {
                Direction::In => shard.messages_in.of(*kind).value(),
                Direction::Out => shard.messages_out.of(*kind).value(),
            }));
        }
        if let Some(spans) = self.spans.lock().as_ref() {
            for fate in SpanFate::ALL {
                self.span_fates.of(*fate).absolute(spans.of(*fate).value());
            }
        }
        if let Some(counts) = self.calls_counted.lock().as_ref() {
            for (purpose, calls) in Purpose::ALL.iter().zip(&self.calls) {
                for result in OutboundResult::ALL {
                    calls.of(*result).absolute(counts.of(*purpose, *result).value());
                }
            }
        }
        self.panics.absolute(logs::panics());
        self.log_lines_dropped.absolute(logs::lines_dropped());
    }
}

/// A sum below zero is two threads between two steps, not a queue.
fn queued_bytes(shards: &[Arc<ShardCounters>]) -> u64 {
    let bytes: i64 = shards.iter().map(|shard| shard.outbox_bytes.value()).sum();
    u64::try_from(bytes).unwrap_or(0)
}

fn received_bytes(shards: &[Arc<ShardCounters>]) -> u64 {
    let kib: i64 = shards.iter().map(|shard| shard.inbound_kib.value()).sum();
    u64::try_from(kib).unwrap_or(0) * 1024
}

fn sums(new: &Registrar<'_>) -> Vec<Sum> {
    let bytes = |direction: Direction| new.counter(&names::MESSAGE_BYTES, &[direction.word()]);
    let dropped = |reason: Dropped| new.counter(&names::DROPPED, &[reason.word()]);
    let plain = |definition| new.counter(definition, &[]);
    vec![
        (plain(&names::CONNECTIONS_OPENED), |shard| {
            shard.connections_opened.value()
        }),
        (plain(&names::CONNECTIONS_CLOSED), |shard| {
            shard.connections_closed.value()
        }),
        (bytes(Direction::In), |shard| shard.bytes_in.value()),
        (bytes(Direction::Out), |shard| shard.bytes_out.value()),
        (plain(&names::PUBLISHES), |shard| shard.publishes.value()),
        (plain(&names::DUPLICATE_PUBLISHES), |shard| {
            shard.duplicate_publishes.value()
        }),
        (plain(&names::DELIVERIES), |shard| shard.deliveries.value()),
        (dropped(Dropped::SlowReader), |shard| shard.dropped_slow_reader.value()),
        (dropped(Dropped::Closed), |shard| shard.dropped_closed.value()),
        (plain(&names::FLUSHES), |shard| shard.flushes.value()),
        (plain(&names::SENDS), |shard| shard.sends.value()),
        (plain(&names::JOINS), |shard| shard.joins.value()),
        (plain(&names::LEAVES), |shard| shard.leaves.value()),
        (plain(&names::REPLAYS), |shard| shard.replays.value()),
        (plain(&names::USER_MESSAGES), |shard| shard.user_messages.value()),
        (plain(&names::REPLAYED_MESSAGES), |shard| {
            shard.replayed_messages.value()
        }),
        (plain(&names::PROBE_SESSIONS), ShardCounters::probe_sessions),
    ]
}

fn messages(new: &Registrar<'_>) -> Vec<(Direction, Kind, metrics::Counter)> {
    let both = Direction::ALL
        .iter()
        .flat_map(|direction| Kind::ALL.iter().map(|kind| (*direction, *kind)));
    both.map(|(direction, kind)| {
        (
            direction,
            kind,
            new.counter(&names::MESSAGES, &[direction.word(), kind.word()]),
        )
    })
    .collect()
}

/// Of a limit whose own counter is read.
fn refused(new: &Registrar<'_>, limit: Limit) -> metrics::Counter {
    new.counter(&names::REFUSED, &[limit.word()])
}

fn gauges(new: &Registrar<'_>) -> Vec<Shown> {
    let plain = |definition| new.gauge(definition, &[]);
    vec![
        (plain(&names::CONNECTIONS), |now| now.connections),
        (plain(&names::OUTBOX_BUDGET), |now| now.outbox_budget_bytes),
        (plain(&names::CONNECTIONS_LIMIT), |now| now.connections_limit),
        (plain(&names::FD_LIMIT), |now| now.fd_limit),
        (plain(&names::ROOMS), |now| now.rooms),
        (plain(&names::MEMBERS), |now| now.members),
        (plain(&names::USERS), |now| now.users),
        (plain(&names::SEND_QUEUE_BYTES), |now| now.send_queue_bytes),
        (plain(&names::RECEIVE_QUEUE_BYTES), |now| now.receive_queue_bytes),
        (plain(&names::HISTORY_MESSAGES), |now| now.history_messages),
        (plain(&names::HISTORY_BYTES), |now| now.history_bytes),
        (plain(&names::NODES), |now| now.nodes),
        (plain(&names::READY), |now| u64::from(now.ready)),
        (plain(&names::DRAINING_CLIENTS), |now| now.draining_clients),
        (plain(&names::DRAIN_DEADLINE), |now| now.drain_deadline),
        (plain(&names::HANDSHAKES_WAITING), |now| now.handshakes_waiting),
        (plain(&names::ADMISSION_RATE), |now| now.admission_rate),
        (plain(&names::JWKS_WAITING), |now| now.jwks_waiting),
    ]
}
