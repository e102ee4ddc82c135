//! What a backplane promises, whatever it is made of. One suite (`tests/it/backplane`) holds every engine to it,
//! skipping by [`Capabilities`], never by name.
//!
//! An engine keeps each room's log, tells every attached node of what was appended, and holds who is where, who is
//! revoked, and what is to be used once. It numbers and keeps; it decides nothing: where a room stands and what is
//! missing is worked out above it ([`super::cursor`]), once for all engines.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::lineage::Lineage;
use super::outbox::{Backlog, HookSet, Outboxes, Place};

/// What a call comes to.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failed>> + Send + 'a>>;

/// Why a call came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// Certainly nothing was changed.
    #[error("refused: {}", .0.as_str())]
    Refused(Refusal),
    /// It may have been done or not: the answer was lost or late.
    #[error("no answer came")]
    Unknown,
}

/// Why the engine did not do it. The words are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no link, or it says that it is not the one to ask: `READONLY`, `LOADING`, `CLUSTERDOWN`, `TRYAGAIN`.
    Away,
    /// The deadline had passed when the engine came to it.
    Late,
    /// `OOM`, a full stream.
    Full,
    /// `NOREPLICAS`, `MISCONF`: it could not be kept as safely as was asked.
    Unsafe,
    /// The engine holds something else under this name, or something that cannot be read.
    Broken,
    /// Not allowed: the account lacks a permission.
    Forbidden,
}

impl Refusal {
    /// For metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Late => "late",
            Self::Full => "full",
            Self::Unsafe => "unsafe",
            Self::Broken => "broken",
            Self::Forbidden => "forbidden",
        }
    }

    /// Whether the same call may do better a moment later.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Away | Self::Full | Self::Unsafe)
    }
}

/// Partitions of rooms. Part of the layout of everything that is stored: never changed.
pub const PARTITIONS: u16 = 1_024;

/// Messages in one call of [`Backplane::publish`].
pub const BATCH_MESSAGES_MAX: usize = 64;

/// Bytes of envelopes in one call of [`Backplane::publish`], unless a single one is larger.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Entries in one answer of [`Backplane::range`] and [`Backplane::before`].
pub const PAGE_ENTRIES_MAX: usize = 128;

/// A room, as backplanes know it. A clone is a reference count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoomKey {
    pub name: Arc<str>,
    /// `crc32(name) % PARTITIONS`
    pub partition: u16,
}

impl RoomKey {
    #[must_use]
    pub fn new(name: Arc<str>) -> Self {
        let partition = super::partition::of(&name);
        Self { name, partition }
    }

    /// What clients call it.
    #[must_use]
    pub fn called(&self) -> &str {
        crate::protocol::room::called(&self.name)
    }

    /// Whether only probes can be in it: little of it is kept, and not for long.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        crate::protocol::room::is_shadow(&self.name)
    }

    /// Whether it carries what is for users: its log has bounds of its own.
    #[must_use]
    pub fn is_post(&self) -> bool {
        *self.name == *crate::protocol::room::POST
    }
}

/// A place in a room's log: everything up to `seq`, as `epoch` numbered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub epoch: Arc<str>,
    /// 0 before the first message.
    pub seq: u64,
}

/// A message before it has a number.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Who says it; a `key` belongs to its user and room.
    pub user: Arc<str>,
    /// Makes a retry harmless for the key window.
    pub key: Option<Box<str>>,
    /// See [`super::envelope`].
    pub envelope: Bytes,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Appended here.
    New(Position),
    /// Its key was taken before: the place of the first message with it.
    Again(Position),
    /// Certainly not appended.
    Refused(Refusal),
    /// Perhaps appended. Only a draft with a key may be tried again.
    Unknown,
}

/// One message of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    /// The seq of the message before it in this room; 0 before the first.
    pub follows: u64,
    /// When the engine took it, in ms since the Unix epoch.
    pub time_ms: u64,
    pub envelope: Bytes,
}

/// A room at the moment of attaching.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The seq of the newest message, 0 when there was none. Its epoch is the newest of `lineage`.
    pub head: u64,
    pub lineage: Lineage,
    pub users: Users,
}

/// Who is in a room, on all nodes.
#[derive(Debug, Clone, Default)]
pub struct Users {
    /// Changes with every transition; [`PresenceEvent::follows`] names the one before.
    pub version: u64,
    pub users: Vec<(Arc<str>, Arc<str>)>,
}

/// Messages after a position.
#[derive(Debug, Clone)]
pub struct Range {
    pub found: Found,
    /// The seq of the newest message.
    pub head: u64,
    pub lineage: Lineage,
}

/// How a log answers to a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The successors, ascending, without a hole; none at the head.
    Entries(Vec<Entry>),
    /// Some successors are no longer kept: the newest position that has all of its own.
    Trimmed(Position),
    /// The epoch went only as far as this seq: what was above it is lost.
    Forked(u64),
    /// Nobody knows the epoch.
    Unknown,
    /// There is no such room (any more).
    None,
}

/// Messages before a seq.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Ascending, without a hole up to the seq that was asked for.
    pub entries: Vec<Entry>,
    /// Whether older ones are kept.
    pub more: bool,
}

/// Where a room is, cheaply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub position: Position,
    /// As [`Users::version`].
    pub presence: u64,
}

/// One life of a node in the backplane's eyes: a random word, never used again.
pub type Incarnation = Arc<str>;

/// A user enters a room on this node as its first connection here, or leaves as its last.
#[derive(Debug, Clone)]
pub struct Change {
    pub room: RoomKey,
    pub user: Arc<str>,
    /// `{"id":…,"name":…,"info":…}`
    pub json: Arc<str>,
    pub enters: bool,
}

/// What changes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// All of them are done.
    Done,
    /// The incarnation is buried: take a new one and enter everybody again.
    Fenced,
}

/// How many connections of a user an incarnation has. Of two, the one with the larger version was said later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub connections: u32,
    pub version: u64,
}

/// What counting a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It is noted.
    Within,
    /// It would be one too many.
    Over,
    /// The incarnation has no lease: nothing was noted.
    Fenced,
}

/// What an incarnation says of itself, see [`super::directory`].
pub type Advertised = (Incarnation, Bytes);

/// What a renewal of the lease came to.
#[derive(Debug, Clone)]
pub enum Renewal {
    Alive {
        /// Which server numbered it: another one after a failover (`master_replid`).
        server: Arc<str>,
        /// Incarnations with a lease, this one included.
        nodes: Vec<Incarnation>,
        /// Incarnations whose lease has ended and that are still to be reaped.
        expired: Vec<Incarnation>,
    },
    /// The lease had ended: take a new incarnation and enter everybody again.
    Expired,
}

/// A user came or went, in the eyes of all nodes.
#[derive(Debug, Clone)]
pub struct PresenceEvent {
    /// [`Users::version`] before it; another one than the node knows means that something was missed.
    pub follows: u64,
    pub version: u64,
    pub joined: bool,
    pub user: Arc<str>,
    pub json: Arc<str>,
    pub time_ms: u64,
}

/// Whom a revocation or a kick is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    User(Arc<str>),
    /// One connection: `connected.session`.
    Session(Arc<str>),
    /// The `jti` claim.
    Token(Arc<str>),
}

/// Tokens that no longer count. Entries only ever add: two of one subject merge to the later of each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    pub subject: Subject,
    /// Unix seconds: tokens with an `iat` at or before it are revoked, and tokens without `iat`.
    pub issued_before: u64,
    /// Unix seconds: no such token can be alive any more, the entry may be forgotten.
    pub forget_after: u64,
}

impl Revocation {
    /// Every token that can be issued until `now` and `ban` are over is revoked, and only until then.
    #[must_use]
    pub fn ban(subject: Subject, ban: std::time::Duration, now: u64) -> Self {
        let until = now.saturating_add(ban.as_secs().max(1));
        Self {
            subject,
            issued_before: until,
            forget_after: until,
        }
    }
}

/// What one node tells all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    Revoke(Revocation),
    /// Ends connections once. Older than 60 s it no longer counts.
    Kick {
        subject: Subject,
        time_ms: u64,
    },
}

/// A connection begins or ends, for the hooks that are told so.
#[derive(Debug, Clone)]
pub struct SessionChange {
    /// Decides the partition: what is told of one user's sessions is in order.
    pub user: Arc<str>,
    /// `s-…`
    pub session: Arc<str>,
    pub turn: SessionTurn,
    /// Who is told.
    pub hooks: HookSet,
    /// The event, see [`super::outbox::record`].
    pub record: Bytes,
}

/// What became of a connection.
#[derive(Debug, Clone)]
pub enum SessionTurn {
    Begins {
        /// What its end is told as if its node dies: members of a JSON object, without time, id and duration.
        end: Bytes,
        /// When, in ms since the Unix epoch.
        since_ms: u64,
    },
    Ends,
    /// Nothing: the event says that others were lost on the way here.
    Lost,
}

/// Asks for what waits in one outbox.
#[derive(Debug, Clone)]
pub struct OutboxAsk {
    pub place: Place,
    /// Whom the asker knows to be dead, and takes the outbox from.
    pub instead_of: Option<Incarnation>,
}

/// How much of an outbox is read at once, and for how long it belongs to who read it.
#[derive(Debug, Clone, Copy)]
pub struct OutboxPiece {
    pub events: usize,
    /// Unless a single one is larger.
    pub bytes: usize,
    pub hold: Duration,
}

/// What an outbox answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboxAnswer {
    Page(OutboxPage),
    /// Another incarnation has it in hand.
    Busy(Incarnation),
}

/// The oldest of what waits in an outbox, which belongs to who asked until its time is over or another takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxPage {
    /// The number of the lease: a word that was never used before. [`Backplane::outbox_done`] without it does nothing.
    pub lease: Arc<str>,
    /// The number of the first record; they are dense.
    pub first: u64,
    /// See [`super::outbox::record`].
    pub records: Vec<Bytes>,
}

/// What need not be told any more.
#[derive(Debug, Clone)]
pub struct OutboxDone {
    pub place: Place,
    pub lease: Arc<str>,
    /// This record and all before it.
    pub upto: u64,
    /// Whoever wants it next may have it at once.
    pub release: bool,
}

/// Which incarnation sees to outboxes, and what waits in those that are its own, by hook.
pub type OutboxReport = (Incarnation, Vec<Backlog>);

/// What an engine cannot do is left out of its suite by these, and named in README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "separate promises")]
pub struct Capabilities {
    /// `seq` rises by exactly one.
    pub dense: bool,
    /// A batch is appended whole or not at all, and `not_after` is kept by the engine itself.
    pub atomic: bool,
    /// History ends by the age of each message.
    pub history_age: bool,
    /// A tail lost in a failover is told by the engine at once (lineage), not only by comparing heads.
    pub lineage: bool,
    /// Presence versions and fencing are kept by the engine.
    pub fenced_presence: bool,
    /// Of connections that are counted at the same moment exactly as many are refused as are too many; else perhaps more.
    pub exact_counts: bool,
    /// What hooks are to be told is kept in the same step as what happened ([`Backplane::keep_outboxes`]).
    pub outbox: bool,
}

/// Which rooms an engine is not sure of any more.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    All,
    /// Rooms of these partitions.
    Partitions(&'a dyn PartitionSet),
    /// One room: its subscription went.
    Room(&'a str),
}

/// Some partitions.
pub trait PartitionSet: Send + Sync + std::fmt::Debug {
    fn contains(&self, partition: u16) -> bool;
}

/// Where an engine tells what it hears. Called by the task that reads the link: every method returns at once, and
/// holds on to nothing unbounded.
pub trait Sink: Send + Sync {
    /// A message of an attached room was appended. May come twice, late, out of order or not at all.
    fn message(&self, room: &str, entry: Entry);

    /// As [`Sink::message`], of several that came together, in order.
    fn messages(&self, room: &str, entries: Vec<Entry>) {
        for entry in entries {
            self.message(room, entry);
        }
    }

    /// Somebody came to an attached room or went. As unreliable as [`Sink::message`].
    fn presence(&self, room: &str, event: PresenceEvent);

    /// From the control log: in order, each at least once while the link is whole.
    fn control(&self, control: Control);

    /// As [`Sink::control`], by an engine that knows when it took the entry: ms since the Unix epoch, by its own clock.
    fn control_at(&self, control: Control, time_ms: u64) {
        let _ = time_ms;
        self.control(control);
    }

    /// Entries of the control log may have been missed: load [`Backplane::revocations`] again and write back what
    /// is missing there. Also after every new server.
    fn control_suspect(&self);

    /// Wake-ups of these rooms may have been missed, and the subscription is good again: compare their heads, users
    /// and held places.
    fn suspect(&self, scope: Scope<'_>);

    /// The engine can or cannot be reached, as a whole. Repeats are allowed.
    fn up(&self, up: bool);

    /// Whether this node should ask balancers to go elsewhere: its own link does not heal, and the others' do.
    fn unready(&self, unready: bool);
}

/// Rooms across nodes.
///
/// # Cancel safety
/// No method is cancel safe unless it says so: once polled, it may be done though nobody hears of it.
pub trait Backplane: Send + Sync {
    /// `redis`, `nats`, `memory`: for metrics and logs.
    fn kind(&self) -> &'static str;

    fn capabilities(&self) -> Capabilities;

    /// Begins: links are made and kept from now on, `sink` is told what they bring. Returns without waiting for the
    /// engine; what it can never work with (version, eviction policy, permissions) is an error if it answers within
    /// the connect timeout, with the remedy for a person.
    fn start<'a>(
        self: Arc<Self>,
        sink: Arc<dyn Sink>,
        tasks: &'a crate::runtime::Tasks,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

    /// Appends drafts to a room, in this order, and tells every attached node of each. At most
    /// [`BATCH_MESSAGES_MAX`] and [`BATCH_BYTES_MAX`]; the caller has one call per room in flight at a time, which is
    /// what keeps a sender's order.
    ///
    /// One outcome per draft, in order. [`Outcome::New`] is kept as `backplane.kept` says: with `replica` a replica has
    /// it too. Appended at most `within` from now by the engine's own clock, or refused as [`Refusal::Late`]: a node that
    /// wakes from a pause publishes nothing.
    fn publish<'a>(
        &'a self,
        room: &'a RoomKey,
        drafts: &'a [Draft],
        within: Duration,
    ) -> Pin<Box<dyn Future<Output = Vec<Outcome>> + Send + 'a>>;

    /// Subscribes, waits until that is confirmed, and only then reads where the room stands: whatever comes later
    /// reaches [`Sink::message`]. Makes the room if there is none. A second call only reads again.
    fn attach<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Opened>;

    /// Ends the subscription, in order with [`Backplane::attach`] of the same room. Errors do not matter: a link that
    /// breaks has ended it too.
    fn detach<'a>(&'a self, room: &'a RoomKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    /// What follows a position, at most `limit` entries.
    fn range<'a>(&'a self, room: &'a RoomKey, after: &'a Position, limit: usize) -> Call<'a, Range>;

    /// The newest entries below `seq`, at most `limit`.
    fn before<'a>(&'a self, room: &'a RoomKey, seq: u64, limit: usize) -> Call<'a, Page>;

    /// Where rooms stand, in the order asked; `None` for a room that the engine does not know. Also keeps rooms with
    /// members from being forgotten.
    fn heads<'a>(&'a self, rooms: &'a [RoomKey]) -> Call<'a, Vec<Option<Head>>>;

    /// Who is in a room.
    fn users<'a>(&'a self, room: &'a RoomKey) -> Call<'a, Users>;

    /// Moves users between this incarnation and none, in order. A user who thereby comes to or leaves a room as a whole
    /// is told to all nodes, once. Every change is idempotent.
    fn present<'a>(&'a self, incarnation: &'a Incarnation, changes: &'a [Change]) -> Call<'a, Presented>;

    /// Makes the engine's record of this incarnation equal to `held` in all partitions: adds what is missing, removes
    /// what is no longer held. `enters` of each must be true. Heals lost enters and lost leaves.
    fn assert_held<'a>(&'a self, incarnation: &'a Incarnation, held: &'a [Change]) -> Call<'a, Presented>;

    /// Renews the lease of this incarnation, or takes one for a new incarnation (`begin`). Runs out after `lease` by
    /// the engine's clock; an ended lease is never renewed.
    fn renew<'a>(&'a self, incarnation: &'a Incarnation, begin: bool, lease: Duration) -> Call<'a, Renewal>;

    /// Stores what this incarnation says of itself, for as long as it has a lease, and reads what all say. An incarnation
    /// whose lease has ended may still be among them until it is reaped; its own facts are there if it has one.
    fn advertise<'a>(&'a self, incarnation: &'a Incarnation, facts: &'a [u8]) -> Call<'a, Vec<Advertised>>;

    /// Notes how many connections of a user this incarnation has, unless all that live have more than `max` together. A
    /// caller who is answered [`Counted::Over`] says by [`Backplane::recount`] how many there are without the new one.
    fn count<'a>(&'a self, incarnation: &'a Incarnation, user: &'a str, tally: Tally, max: u32) -> Call<'a, Counted>;

    /// Notes how many connections of users this incarnation has, none included, whatever that comes to. They are forgotten
    /// with the incarnation.
    fn recount<'a>(&'a self, incarnation: &'a Incarnation, users: &'a [(Arc<str>, Tally)]) -> Call<'a, Presented>;

    /// Buries an incarnation whose lease has ended, then moves its users out piece by piece. Any node may do this, and
    /// several at once. True when nothing is left.
    fn reap<'a>(&'a self, dead: &'a Incarnation) -> Call<'a, bool>;

    /// Gives the lease back in order: the incarnation's users leave now.
    fn resign<'a>(&'a self, incarnation: &'a Incarnation) -> Call<'a, ()>;

    /// Tells all nodes; a revocation is also kept until it may be forgotten. Done when kept as `backplane.kept` says.
    fn tell<'a>(&'a self, control: &'a Control) -> Call<'a, ()>;

    /// Every revocation that is kept.
    fn revocations(&self) -> Call<'_, Vec<Revocation>>;

    /// Keeps the later of each time of these and what is there, and tells all nodes of what was new.
    fn merge_revocations<'a>(&'a self, known: &'a [Revocation]) -> Call<'a, ()>;

    /// Keeps a value under a name for a while; false if the name was taken.
    fn put<'a>(&'a self, name: &'a str, value: &'a [u8], lifetime: Duration) -> Call<'a, bool>;

    /// The value of a name, which stays.
    fn get<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>>;

    /// Takes the value of a name, which is gone then: of two takers one gets it.
    fn take<'a>(&'a self, name: &'a str) -> Call<'a, Option<Bytes>>;

    /// From now on every message and every change of presence goes into the outboxes of the hooks that want it, in the
    /// step that makes it true; also those of dead nodes that this one reaps. Called at most once, before the start.
    ///
    /// An outbox is bounded ([`super::outbox::Hook`]): what finds it full is counted, and a record in its place says how many
    /// there were.
    fn keep_outboxes(&self, outboxes: Arc<Outboxes>) {
        let _ = outboxes;
    }

    /// Puts sessions' beginnings and ends into the outboxes of the hooks that want them, in order, and keeps an index of
    /// those that began, so that whoever reaps this incarnation tells of their ends. A session that is in the index does not
    /// begin again; the end of one that is not is told all the same. `before`: earlier incarnations of this node, whose
    /// index may still have some of the sessions; they move from there, and do not begin again.
    ///
    /// What became of each change; changes of one user share their fate.
    fn outbox_sessions<'a>(
        &'a self,
        incarnation: &'a Incarnation,
        before: &'a [Incarnation],
        changes: &'a [SessionChange],
    ) -> Call<'a, Vec<Result<Presented, Failed>>> {
        let _ = (incarnation, before, changes);
        no_outboxes()
    }

    /// Says that this incarnation sees to outboxes, and what waits in its own; reads what all that live say. Hooks for
    /// which too much waits take nothing more until it is less.
    fn outbox_report<'a>(&'a self, incarnation: &'a Incarnation, own: &'a [Backlog]) -> Call<'a, Vec<OutboxReport>> {
        let _ = (incarnation, own);
        no_outboxes()
    }

    /// What waits in which outboxes of these partitions; empty ones are left out, and cost next to nothing.
    fn outbox_waiting<'a>(&'a self, partitions: &'a [u16]) -> Call<'a, Vec<(Place, Backlog)>> {
        let _ = partitions;
        no_outboxes()
    }

    /// Reads the oldest of what waits, and takes the outbox in hand. An answer each, in order.
    fn outbox_read<'a>(
        &'a self,
        incarnation: &'a Incarnation,
        asks: &'a [OutboxAsk],
        piece: OutboxPiece,
    ) -> Call<'a, Vec<Result<OutboxAnswer, Failed>>> {
        let _ = (incarnation, asks, piece);
        no_outboxes()
    }

    /// Forgets what was told; false where another has the outbox in hand by now, and nothing was done.
    fn outbox_done<'a>(&'a self, done: &'a [OutboxDone]) -> Call<'a, Vec<Result<bool, Failed>>> {
        let _ = done;
        no_outboxes()
    }
}

/// The answer of an engine without [`Capabilities::outbox`].
fn no_outboxes<'a, T>() -> Call<'a, T> {
    Box::pin(async { Err(Failed::Refused(Refusal::Forbidden)) })
}
