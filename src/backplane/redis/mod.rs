//! Redis and Valkey, from version 7: one server, Sentinel, Cluster.
//!
//! ```text
//! mod        the contract's methods          log        messages: publish, open, range, before, heads
//! settings   what it is told                 presence   who is where; leases
//! keys       names of what is stored         control    revocations, kicks; their log
//! payload    what channels bring             once       what is used once
//! outbox     what hooks are to be told
//!
//! calls      a script on the right shard     shard      one master and the links to it
//! script     by digest, else by text         keep       makes the links, watches them, makes them anew
//! error      what was not done, and why      check      what a server must be like
//! reply      answers of scripts              beat       what is looked at each second; its canary
//! kept       batches that replicas have      clock      the server's time
//!
//! topology   which shard holds what          rooms      attach and detach
//! cluster    the map, asked for again        subscriptions  what is wanted, what is confirmed where
//! sentinel   where the master is             push       what a subscriber link brings
//! dial link  one connection                  info problem backoff telemetry
//! ```

mod backoff;
mod beat;
mod calls;
mod canary;
mod check;
#[cfg(test)]
mod child;
mod clock;
mod cluster;
mod control;
mod dial;
mod error;
mod info;
mod keep;
mod kept;
mod keys;
mod link;
mod log;
mod once;
mod outbox;
mod payload;
mod presence;
mod problem;
mod push;
mod reply;
mod rooms;
mod script;
mod sentinel;
mod settings;
mod shard;
mod subscriptions;
mod tallies;
mod telemetry;
mod topology;

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::contract::{
    Advertised, Backplane, Call, Capabilities, Change, Control, Counted, Draft, Failed, Head, Incarnation, Opened,
    OutboxAnswer, OutboxAsk, OutboxDone, OutboxPiece, OutboxReport, Outcome, Page, Position, Presented, Range, Renewal,
    Revocation, RoomKey, SessionChange, Sink, Tally, Users,
};
use super::outbox::{Backlog, Outboxes, Place as OutboxPlace};
use crate::config::Config;
use crate::runtime::Tasks;
use crate::telemetry::metrics::{CallKind, Metrics};
use canary::Readiness;
use dial::Dialer;
use keys::Keys;
use problem::Problem;
use settings::{Kept, Places, Settings};
use shard::Shard;
use subscriptions::Subscriptions;
use telemetry::Telemetry;
use topology::{Map, Place};

/// The engine.
#[derive(Debug)]
pub struct Redis {
    settings: Settings,
    keys: Keys,
    telemetry: Telemetry,
    map: ArcSwap<Map>,
    /// Counts maps; a call that was sent elsewhere waits for the next.
    changed: watch::Sender<u64>,
    /// Somebody found the map wrong.
    refresh: Notify,
    subscriptions: Subscriptions,
    next_link: AtomicU64,
    /// What the first tries came to, for who starts the node.
    first: watch::Sender<First>,
    was_up: Mutex<Option<bool>>,
    started: OnceLock<Started>,
    /// For tasks that begin later than the start.
    me: Weak<Self>,
    order: presence::Order,
    /// Hooks that are told of things; none: nobody is.
    telling: OnceLock<outbox::Telling>,
}

/// What is there from the start on.
struct Started {
    sink: Arc<dyn Sink>,
    tasks: Tasks,
    dialer: Dialer,
    readiness: Arc<Readiness>,
    /// This process, in its canaries and permits.
    me: String,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("me", &self.me).finish_non_exhaustive()
    }
}

/// What the first tries to connect came to.
#[derive(Debug, Clone, Default)]
enum First {
    #[default]
    Waiting,
    /// All is there.
    Up,
    /// It is tried on.
    Away,
    /// It can never work like this: what a person should do.
    Unfit(String),
}

impl Redis {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// None so far; what is wrong with certificates is told by the start.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Arc<Self>> {
        Ok(Self::with(Settings::of(config), Telemetry::new(metrics)))
    }

    #[cfg(test)]
    fn with_settings(settings: Settings) -> Arc<Self> {
        Self::with(settings, Telemetry::none())
    }

    fn with(settings: Settings, telemetry: Telemetry) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            keys: Keys::new(&settings.prefix, settings.db),
            settings,
            telemetry,
            map: ArcSwap::default(),
            changed: watch::Sender::default(),
            refresh: Notify::new(),
            subscriptions: Subscriptions::default(),
            next_link: AtomicU64::new(0),
            first: watch::Sender::default(),
            was_up: Mutex::default(),
            started: OnceLock::new(),
            me: Weak::clone(me),
            order: presence::Order::default(),
            telling: OnceLock::new(),
        })
    }

    fn started(&self) -> &Started {
        self.started.get().expect("only tasks of the start ask")
    }

    async fn begin(self: Arc<Self>, sink: Arc<dyn Sink>, tasks: Tasks) -> anyhow::Result<()> {
        let started = Started {
            readiness: Readiness::new(Arc::clone(&sink)),
            dialer: Dialer::new(&self.settings, tasks.clone())?,
            me: uuid::Uuid::new_v4().simple().to_string(),
            sink,
            tasks: tasks.clone(),
        };
        anyhow::ensure!(self.started.set(started).is_ok(), "the backplane was started twice");
        let mut first = self.first.subscribe();
        match self.settings.places.clone() {
            Places::One(host) => drop(self.keep_one(&tasks, Some(host))),
            Places::Sentinels { .. } => {
                let shard = self.keep_one(&tasks, None);
                tasks.spawn("redis sentinel", Arc::clone(&self).follow_sentinels(shard));
            }
            Places::Cluster(seeds) => tasks.spawn("redis cluster", Arc::clone(&self).follow_cluster(seeds)),
        }
        tasks.spawn("redis control", Arc::clone(&self).follow_control());
        let decided = first.wait_for(|first| !matches!(first, First::Waiting));
        // Not decided by then: it is away, and tried on.
        let patience = self.settings.connect_timeout + self.settings.call_timeout;
        match tokio::time::timeout(patience, decided).await {
            Ok(Ok(first)) => match &*first {
                First::Unfit(what) => Err(anyhow::anyhow!("{what}")),
                First::Waiting | First::Up | First::Away => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// One shard for everything.
    fn keep_one(self: &Arc<Self>, tasks: &Tasks, host: Option<settings::Host>) -> Arc<Shard> {
        let shard = Shard::at(host);
        self.map.store(Arc::new(Map::single(Arc::clone(&shard))));
        tasks.spawn("redis shard", Arc::clone(self).keep(Arc::clone(&shard)));
        shard
    }

    fn shard(&self, place: Place) -> Option<Arc<Shard>> {
        self.map.load().shard(place).cloned()
    }

    /// Whether an acknowledgement waits for replicas.
    fn is_replicated(&self) -> bool {
        matches!(self.settings.kept, Kept::Replica(_))
    }

    fn is_cluster(&self) -> bool {
        self.map.load().is_clustered()
    }

    /// A try to connect came to its end.
    fn note_first(&self, problem: Option<&Problem>) {
        self.first.send_if_modified(|first| {
            let is_new = matches!(first, First::Waiting);
            match problem {
                _ if !is_new => {}
                // The others of the cluster are still to come.
                None if !self.map.load().shards().iter().all(|shard| shard.is_up()) => return false,
                None => *first = First::Up,
                Some(Problem::IsCluster(_) | Problem::Moved(_)) => return false,
                Some(Problem::Unfit(..)) => *first = First::Unfit(problem.map(ToString::to_string).unwrap_or_default()),
                Some(_) => *first = First::Away,
            }
            is_new
        });
    }

    /// Tells whether it can be reached at all, if that has changed. Where one master of several is away, its rooms alone
    /// are refused, and compared once it is back.
    fn tell_up(&self) {
        let mut was_up = self.was_up.lock();
        let map = self.map.load();
        let are_up = map.is_whole() && map.shards().iter().all(|shard| shard.is_up());
        for kind in self.link_kinds() {
            self.telemetry.link_up(*kind, are_up);
        }
        let up = map.shards().iter().any(|shard| shard.is_up());
        if *was_up != Some(up) {
            *was_up = Some(up);
            // Under the lock, so that the last word told is the newest.
            self.started().sink.up(up);
        }
    }
}

/// Counts a call.
async fn counted<T>(
    engine: &Redis,
    kind: CallKind,
    call: impl Future<Output = Result<T, super::contract::Failed>>,
) -> Result<T, super::contract::Failed> {
    let asked = Instant::now();
    let result = call.await;
    engine.telemetry.call(kind, result.as_ref().err().copied(), asked);
    result
}

impl Backplane for Redis {
    fn kind(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            dense: true,
            atomic: true,
            history_age: true,
            lineage: true,
            fenced_presence: true,
            exact_counts: true,
            outbox: true,
        }
    }

    fn start<'a>(
        self: Arc<Self>,
        sink: Arc<dyn Sink>,
        tasks: &'a Tasks,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>> {
        Box::pin(self.begin(sink, tasks.clone()))
    }

    fn publish<'a>(
        &'a self,
        room: &'a RoomKey,
        drafts: &'a [Draft],
        within: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>> {
        Box::pin(self.append(room, drafts, within))
    }

    fn attach<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Opened> {
        Box::pin(counted(self, CallKind::Attach, self.subscribe_and_open(room)))
    }

    fn detach<'a>(&'a self, room: &'a RoomKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async { self.unsubscribe(room) })
    }

    fn range<'a>(&'a self, room: &'a RoomKey, after: &'a Position, limit: usize) -> Call<'a, Range> {
        Box::pin(counted(self, CallKind::Range, self.read_after(room, after, limit)))
    }

    fn before<'a>(&'a self, room: &'a RoomKey, seq: u64, limit: usize) -> Call<'a, Page> {
        Box::pin(counted(self, CallKind::Before, self.read_before(room, seq, limit)))
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomKey]) -> Call<'a, Vec<Option<Head>>> {
        Box::pin(counted(self, CallKind::Heads, self.read_heads(rooms)))
    }

    fn users<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Users> {
        Box::pin(counted(self, CallKind::Users, self.read_users(room)))
    }

    fn present<'a>(&'a self, incarnation: &'a Incarnation, changes: &'a [Change]) -> Call<'a, Presented> {
        Box::pin(counted(self, CallKind::Present, self.move_users(incarnation, changes)))
    }

    fn assert_held<'a>(&'a self, incarnation: &'a Incarnation, held: &'a [Change]) -> Call<'a, Presented> {
        Box::pin(counted(self, CallKind::Present, self.move_users_to(incarnation, held)))
    }

    fn renew<'a>(&'a self, incarnation: &'a Incarnation, begin: bool, lease: Duration) -> Call<'a, Renewal> {
        Box::pin(counted(
            self,
            CallKind::Renew,
            self.renew_lease(incarnation, begin, lease),
        ))
    }

    fn advertise<'a>(&'a self, incarnation: &'a Incarnation, facts: &'a [u8]) -> Call<'a, Vec<Advertised>> {
        Box::pin(counted(self, CallKind::Renew, self.advertise_facts(incarnation, facts)))
    }

    fn count<'a>(&'a self, incarnation: &'a Incarnation, user: &'a str, tally: Tally, max: u32) -> Call<'a, Counted> {
        Box::pin(counted(
            self,
            CallKind::Present,
            self.count_one(incarnation, user, tally, max),
        ))
    }

    fn recount<'a>(&'a self, incarnation: &'a Incarnation, users: &'a [(Arc<str>, Tally)]) -> Call<'a, Presented> {
        Box::pin(counted(self, CallKind::Present, self.count_again(incarnation, users)))
    }

    fn reap<'a>(&'a self, dead: &'a Incarnation) -> Call<'a, bool> {
        Box::pin(counted(self, CallKind::Reap, self.bury(dead)))
    }

    fn resign<'a>(&'a self, incarnation: &'a Incarnation) -> Call<'a, ()> {
        Box::pin(counted(self, CallKind::Present, self.give_back(incarnation)))
    }

    fn tell<'a>(&'a self, control: &'a Control) -> Call<'a, ()> {
        Box::pin(counted(self, CallKind::Control, self.tell_all(control)))
    }

    fn revocations(&self) -> Call<'_, Vec<Revocation>> {
        Box::pin(counted(self, CallKind::Control, self.read_revocations()))
    }

    fn merge_revocations<'a>(&'a self, known: &'a [Revocation]) -> Call<'a, ()> {
        Box::pin(counted(self, CallKind::Control, self.write_revocations(known)))
    }

    fn put<'a>(&'a self, name: &'a str, value: &'a [u8], lifetime: Duration) -> Call<'a, bool> {
        Box::pin(self.put_once(name, value, lifetime))
    }

    fn get<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        Box::pin(self.get_kept(name))
    }

    fn take<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>> {
        Box::pin(self.take_once(name))
    }

    fn keep_outboxes(&self, outboxes: Arc<Outboxes>) {
        if !outboxes.hooks.is_empty() {
            // Told once; who tells it again changes nothing.
            let _ = self.telling.set(outbox::Telling::new(outboxes));
        }
    }

    fn outbox_sessions<'a>(
        &'a self,
        incarnation: &'a Incarnation,
        before: &'a [Incarnation],
        changes: &'a [SessionChange],
    ) -> Call<'a, Vec<Result<Presented, Failed>>> {
        let call = self.change_sessions(incarnation, before, changes);
        Box::pin(counted(self, CallKind::Outbox, call))
    }

    fn outbox_report<'a>(&'a self, incarnation: &'a Incarnation, own: &'a [Backlog]) -> Call<'a, Vec<OutboxReport>> {
        Box::pin(counted(self, CallKind::Outbox, self.report_backlogs(incarnation, own)))
    }

    fn outbox_waiting<'a>(&'a self, partitions: &'a [u16]) -> Call<'a, Vec<(OutboxPlace, Backlog)>> {
        Box::pin(counted(self, CallKind::Outbox, self.waiting_outboxes(partitions)))
    }

    fn outbox_read<'a>(
        &'a self,
        incarnation: &'a Incarnation,
        asks: &'a [OutboxAsk],
        piece: OutboxPiece,
    ) -> Call<'a, Vec<Result<OutboxAnswer, Failed>>> {
        let call = self.read_outboxes(incarnation, asks, piece);
        Box::pin(counted(self, CallKind::Outbox, call))
    }

    fn outbox_done<'a>(&'a self, done: &'a [OutboxDone]) -> Call<'a, Vec<Result<bool, Failed>>> {
        Box::pin(counted(self, CallKind::Outbox, self.finish_outboxes(done)))
    }
}
