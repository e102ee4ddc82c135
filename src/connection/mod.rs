//! One client's life.
//!
//! A task owns the reading ([`task`]); everybody else holds a [`Conn`] that can only push to its outbox or
//! close it. The flusher of the shard writes, and only ever tries: what the socket refuses, the task finishes.

mod asking;
mod dispatch;
pub mod echo;
pub mod heartbeat;
pub mod limits;
pub mod outbox;
mod replay;
mod session;
pub mod task;
pub mod transport;
pub mod turn_away;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::auth::{Identity, Verb};
use crate::backplane::contract::Position;
use crate::config;
use crate::connection::heartbeat::{Liveness, Verdict};
use crate::connection::outbox::Outbox;
pub use crate::connection::replay::Held;
use crate::connection::replay::{Refill, Replays};
pub use crate::connection::session::Session;
use crate::connection::transport::Transport;
use crate::hub::room::PieceLimits;
use crate::hub::{MemberId, Room};
use crate::net::tls_io::{JOINABLE_BYTES, PIECE_BYTES, Sent};
use crate::protocol::close::Close;
use crate::protocol::server;
use crate::shard::Shard;
use crate::shard::inbox::Asked;
use crate::telemetry::metrics::{Kind, Label, ShardCounters, SlowConsumer};
use crate::websocket::encoded::Frame;
use crate::websocket::frame::Opcode;

/// Unit of what a connection keeps of a message that is not whole: the longest there can be, 256 MiB, fits two bytes.
const INBOUND_UNIT_KIB: usize = 4;

/// Pieces written for one connection before the others have their turn: 64 KiB.
const PIECES_PER_FLUSH: usize = 4;

/// Chats of one connection that may be on their way to the backplane before no more is read from it.
const SAYING_MAX: u8 = 128;

/// `expires_at` of a connection whose token never ends.
pub const NEVER: u64 = u64::MAX;

thread_local! {
    static PIECE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(PIECE_BYTES));
    static PING: Frame = Frame::of(Opcode::Ping, b"");
}

/// How much may wait for one connection.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    pub bytes: usize,
    pub frames: usize,
    pub age_ms: u64,
    /// What a replay may add at once.
    pub piece: PieceLimits,
}

impl OutboxLimits {
    #[must_use]
    pub fn new(limits: &config::Limits) -> Self {
        let or_none = |max: usize| if max == 0 { usize::MAX } else { max };
        let age_ms = u64::try_from(limits.outbox_age.as_millis()).unwrap_or(u64::MAX);
        let (bytes, frames) = (or_none(limits.outbox_bytes), or_none(limits.outbox_frames));
        Self {
            bytes,
            frames,
            piece: PieceLimits::within(bytes, frames),
            age_ms: if age_ms == 0 { u64::MAX } else { age_ms },
        }
    }
}

/// One connection, as its shard holds it.
pub struct Conn {
    pub member: MemberId,
    pub session: Session,
    /// Unix seconds at which its token ends, leeway included; [`NEVER`] for none.
    expires_at: AtomicU64,
    state: Mutex<State>,
}

/// Taken by the threads of one shard only, so hardly ever contended.
#[expect(clippy::struct_excessive_bools, reason = "separate facts, each with its own reader")]
struct State {
    /// `None` once the connection is over.
    transport: Option<Transport>,
    /// As its newest token says; none of an echo.
    identity: Option<Arc<Identity>>,
    /// Counted apart.
    is_probe: bool,
    outbox: Outbox,
    replays: Replays,
    waker: Option<Waker>,
    phase: Phase,
    liveness: Liveness,
    /// In the flusher's list of connections to write to.
    dirty: bool,
    /// The socket refused; the task writes on when it may.
    waiting: bool,
    /// In the shard's list of connections that wait.
    watched: bool,
    /// Its own task reads nothing from it, until it has read what it was sent.
    held_back: bool,
    /// Requests whose answer the backplane still owes, less answers that came before the task knew that it had to wait:
    /// while it is above zero nothing more is taken in.
    gate: i8,
    /// The last of those was refused.
    refused: bool,
    /// Chats on their way to the backplane.
    saying: u8,
    /// What its task keeps of a message that is not whole, in units of [`INBOUND_UNIT_KIB`], rounded up.
    inbound: u16,
    /// An echo is in the middle of a frame: nothing of the outbox may come between its pieces.
    mid_reply: bool,
    /// Since when the bytes at the front wait, shard clock.
    stuck_since_ms: u64,
    /// When the last ping left, the low half of the shard clock; 0 when it has been answered.
    pinged_ms: u32,
}

/// How far the end has come. Holds rows of the table of closes by reference: there is one of these per connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// A close frame is queued or sent; whatever comes is discarded.
    Closing(&'static Close),
    /// Nothing more is written or read.
    Over(&'static Close),
    /// The stream broke under us: the peer has gone.
    Broken,
}

/// Whether a connection is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Shut,
    Open { refused: bool },
}

/// What became of a pushed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// Queued; somebody else will write it.
    Queued,
    /// Queued, and this connection must be put on the flusher's list.
    Dirty,
    /// It is closing: dropped.
    Dropped,
    /// Over this limit: not queued.
    Over(SlowConsumer),
}

/// What a flush left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing.
    Done,
    /// More than one turn could take.
    More,
    /// The socket is full: the task goes on, and the shard is to watch its age from now on.
    Waiting,
}

impl Conn {
    #[must_use]
    pub fn new(
        member: MemberId,
        transport: Transport,
        identity: Option<Arc<Identity>>,
        is_probe: bool,
        expires_at: u64,
    ) -> Self {
        let state = State {
            transport: Some(transport),
            identity,
            is_probe,
            outbox: Outbox::default(),
            replays: Replays::default(),
            waker: None,
            phase: Phase::Open,
            liveness: Liveness::Alive,
            dirty: false,
            waiting: false,
            watched: false,
            held_back: false,
            mid_reply: false,
            gate: 0,
            refused: false,
            saying: 0,
            inbound: 0,
            stuck_since_ms: 0,
            pinged_ms: 0,
        };
        Self {
            member,
            session: Session::random(),
            expires_at: AtomicU64::new(expires_at),
            state: Mutex::new(state),
        }
    }

    /// Queues a frame. Over a limit it first writes what the socket takes: only a reader that does not keep up is
    /// slow, not one to whom much was said at once.
    pub fn push(&self, frame: Frame, limits: &OutboxLimits, counters: &ShardCounters, now_ms: u64) -> Pushed {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Pushed::Dropped;
        }
        let over = state.over(&frame, limits);
        if over.is_some() && !state.make_room(&frame, self.member, limits, counters, now_ms) {
            return over.map_or(Pushed::Dropped, Pushed::Over);
        }
        state.outbox.push(frame, now_ms);
        state.mark_dirty()
    }

    /// Begins to replay a room after `at`. Returns the replay's generation, and whether the flusher must look.
    pub fn begin_replay(&self, room: Arc<Room>, at: Position) -> (u32, Pushed) {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return (0, Pushed::Dropped);
        }
        let generation = state.replays.begin(room, at);
        (generation, state.mark_dirty())
    }

    /// Gives up a replay, if there is one. Returns the lists that it still had to answer.
    pub fn end_replay(&self, room: u64) -> Vec<Asked> {
        self.state.lock().replays.end(room)
    }

    /// Answers a list at the end of the replay of `room`, if one runs.
    pub fn hold_list(&self, room: u64, asked: Asked, limits: &OutboxLimits) -> (Held, Pushed) {
        let mut state = self.state.lock();
        let held = state.replays.hold(room, asked, limits.frames);
        let begun = if let Held::Anew(_) = held {
            state.mark_dirty()
        } else {
            Pushed::Queued
        };
        (held, begun)
    }

    /// The shard has made the member of a replay that reached the head a live one.
    pub fn settle_replay(&self, room: u64, generation: u32) {
        self.state.lock().replays.settle(room, generation);
    }

    /// Begins the end: queued frames leave first (a slow reader's do not), then `closing` where one is due, then
    /// the close frame. Nothing that comes afterwards is sent.
    pub fn close(&self, close: Close, reconnect_after_ms: u64, counters: &ShardCounters, now_ms: u64) -> Pushed {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Pushed::Dropped;
        }
        state.replays.clear();
        if close == Close::SLOW_READER {
            let counters = counters.of(state.is_probe);
            counters.dropped_slow_reader.add(state.outbox.drop_unbegun() as u64);
        }
        if matches!(close.code, 1012 | 1013) {
            let closing = server::Closing {
                reason: close.reason,
                reconnect_after_ms,
            };
            state.outbox.push(Frame::text(|out| closing.write(out)), now_ms);
        }
        state.outbox.push(Frame::close(close.code, close.reason), now_ms);
        state.phase = Phase::Closing(close.row());
        state.wake();
        state.mark_dirty()
    }

    /// Answers the peer's close frame with `code`.
    pub fn answer_close(&self, code: Option<u16>, now_ms: u64) -> Pushed {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Pushed::Dropped;
        }
        state.replays.clear();
        // RFC 6455 section 5.5.1: the answer echoes the code. Without one there is none to echo.
        state.outbox.push(
            code.map_or_else(|| Frame::of(Opcode::Close, b""), |code| Frame::close(code, "")),
            now_ms,
        );
        state.phase = Phase::Closing(Close::NORMAL.row());
        state.wake();
        state.mark_dirty()
    }

    /// Ends the connection now, with a reset.
    pub fn terminate(&self, close: Close) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Over(_) | Phase::Broken) {
            return;
        }
        if let Some(transport) = &state.transport {
            transport.reset_on_drop();
        }
        state.phase = Phase::Over(close.row());
        state.wake();
    }

    /// An echo says its close itself, between two replies; false if another close is on its way already.
    fn close_by_itself(&self, close: Close) -> bool {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return false;
        }
        // A ping that waits for the end of the reply would follow the close frame in it.
        state.outbox.drop_unbegun();
        state.phase = Phase::Closing(close.row());
        true
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn flush(&self, limits: &OutboxLimits, counters: &ShardCounters, now_ms: u64) -> Flushed {
        let mut state = self.state.lock();
        state.dirty = false;
        if state.waiting || state.mid_reply {
            return Flushed::Done;
        }
        let flushed = state.write(self.member, limits, counters, now_ms);
        match flushed {
            Ok(Flushed::More) => {
                state.dirty = true;
                Flushed::More
            }
            Ok(Flushed::Waiting) => state.wait(),
            Ok(Flushed::Done) => {
                // A connection that has said its last word is finished by its task.
                if matches!(state.phase, Phase::Closing(_)) {
                    state.wake();
                }
                Flushed::Done
            }
            Err(_) => {
                state.fail();
                Flushed::Done
            }
        }
    }

    /// What waits, and for how long; `None` when it need not be watched any longer.
    pub fn backlog(&self, now_ms: u64) -> Option<Backlog> {
        let mut state = self.state.lock();
        if !state.waiting || state.phase != Phase::Open {
            state.watched = false;
            return None;
        }
        let unsent = state.transport.as_ref().map_or(0, Transport::unsent);
        Some(Backlog {
            bytes: state.outbox.bytes() + unsent,
            age_ms: now_ms.saturating_sub(state.stuck_since_ms),
        })
    }

    /// For the task: the answer to its request will come from the backplane.
    fn wait_for_answer(&self) {
        self.state.lock().gate += 1;
    }

    /// For the task: how many answers are owed.
    fn owed(&self) -> i8 {
        self.state.lock().gate
    }

    /// The shard has passed on that answer.
    pub fn settle(&self, refused: bool) {
        let mut state = self.state.lock();
        state.gate -= 1;
        state.refused |= refused;
        state.wake();
    }

    /// For the task: a chat is on its way to the backplane.
    fn begin_saying(&self) {
        let mut state = self.state.lock();
        state.saying = state.saying.saturating_add(1);
    }

    /// The shard has passed on what became of a chat.
    pub fn end_saying(&self) {
        let mut state = self.state.lock();
        state.saying = state.saying.saturating_sub(1);
        if state.saying == SAYING_MAX - 1 {
            state.wake();
        }
    }

    /// For the task: whether the backplane must answer before more is taken in; once it need not, whether the request
    /// that was waited for was refused.
    fn gate(&self) -> Gate {
        let mut state = self.state.lock();
        if state.gate > 0 || state.saying >= SAYING_MAX {
            // We do not listen, so silence proves nothing.
            state.liveness.on_heard();
            return Gate::Shut;
        }
        Gate::Open {
            refused: std::mem::take(&mut state.refused),
        }
    }

    /// Whose it is, as the newest token says.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.state.lock().identity.clone()
    }

    /// Asks about whose it is; none of an echo, and none once its close is on the way.
    pub fn judged<T>(&self, judge: impl FnOnce(&Identity) -> Option<T>) -> Option<T> {
        let state = self.state.lock();
        let identity = state.identity.as_deref().filter(|_| state.phase == Phase::Open)?;
        judge(identity)
    }

    fn set_identity(&self, identity: Arc<Identity>) {
        self.state.lock().identity = Some(identity);
    }

    /// Whether a probe is at the other end, which nothing of the clients' counts.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.state.lock().is_probe
    }

    /// Whether it is this user's.
    #[must_use]
    pub fn is_of(&self, user: &str) -> bool {
        let state = self.state.lock();
        state
            .identity
            .as_ref()
            .is_some_and(|identity| *identity.user_id == *user)
    }

    /// Whether its token's claim lets it see who is in a room where not everybody may.
    pub fn is_granted_list(&self, room: &str) -> bool {
        let state = self.state.lock();
        (state.identity.as_ref()).is_some_and(|identity| identity.is_granted(room, Verb::List, false))
    }

    /// Whether the connection must be replaced by a new one before its keys are used up.
    pub fn is_worn(&self) -> bool {
        self.state.lock().transport.as_ref().is_some_and(Transport::is_worn)
    }

    /// The sweeper's visit.
    pub fn visit(&self, limits: &OutboxLimits, counters: &ShardCounters, now_ms: u64) -> (Verdict, Pushed) {
        let verdict = {
            let mut state = self.state.lock();
            if state.phase != Phase::Open {
                return (Verdict::Ping, Pushed::Dropped);
            }
            if state.held_back || state.gate > 0 || state.saying >= SAYING_MAX {
                // We do not listen: the age of its backlog is what ends it, not silence.
                state.liveness.on_heard();
            }
            let verdict = state.liveness.on_visit();
            if verdict == Verdict::Ping {
                state.pinged_ms = low_half(now_ms).max(1);
            }
            verdict
        };
        match verdict {
            Verdict::Ping => (verdict, self.push(PING.with(Frame::clone), limits, counters, now_ms)),
            Verdict::Terminate => (verdict, Pushed::Queued),
        }
    }

    /// Milliseconds since the ping that this pong answers, once per ping.
    fn on_pong(&self, now_ms: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let pinged_ms = std::mem::take(&mut state.pinged_ms);
        (pinged_ms > 0).then(|| u64::from(low_half(now_ms).wrapping_sub(pinged_ms)))
    }

    /// For the task, after each read: so many bytes of a message that is not whole are kept.
    fn keep_inbound(&self, bytes: usize, counters: &ShardCounters) {
        let units = u16::try_from(bytes.div_ceil(INBOUND_UNIT_KIB * 1024)).unwrap_or(u16::MAX);
        let before = std::mem::replace(&mut self.state.lock().inbound, units);
        let added = i64::from(units) - i64::from(before);
        counters
            .inbound_kib
            .add(added * i64::try_from(INBOUND_UNIT_KIB).unwrap_or(i64::MAX));
    }

    /// Bytes of a message that is not whole, up to a unit more; of one that is being closed they are as good as gone.
    pub fn inbound_bytes(&self) -> usize {
        let state = self.state.lock();
        match state.phase {
            Phase::Open => usize::from(state.inbound) * INBOUND_UNIT_KIB * 1024,
            _ => 0,
        }
    }

    /// Counts a deliberate pause in reading as life: the sweeper must not end whom we stopped listening to.
    fn heard(&self) {
        self.state.lock().liveness.on_heard();
    }

    /// Has the task look again.
    pub fn wake(&self) {
        self.state.lock().wake();
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    #[must_use]
    pub fn expires_at(&self) -> u64 {
        self.expires_at.load(Ordering::Relaxed)
    }

    fn set_expires_at(&self, expires_at: u64) {
        self.expires_at.store(expires_at, Ordering::Relaxed);
    }

    /// For an echo, which greets nobody: has its task let the answer to the upgrade leave.
    fn begin_draining(&self) {
        self.state.lock().waiting = true;
    }

    /// For the task: reads once.
    fn poll_receive(&self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        let Some(transport) = &mut state.transport else {
            return Poll::Ready(Ok(0));
        };
        let before = transport.unsent();
        let received = transport.poll_receive(cx, plain);
        // A KeyUpdate wants an answer, though nobody here has anything to say.
        if transport.unsent() > before {
            state.waiting = true;
            cx.waker().wake_by_ref();
        }
        if matches!(received, Poll::Ready(Ok(1..))) {
            state.liveness.on_heard();
        }
        received
    }

    /// For the task: goes on writing where the flusher was refused. `Ready` when nothing waits.
    fn poll_write(&self, cx: &mut Context<'_>, shard: &Shard) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        state.keep_waker(cx);
        if !state.waiting || state.mid_reply {
            return Poll::Ready(Ok(()));
        }
        let Some(transport) = &mut state.transport else {
            return Poll::Ready(Ok(()));
        };
        std::task::ready!(transport.poll_drain(cx))?;
        let now_ms = shard.now_ms();
        state.stuck_since_ms = now_ms;
        let flushed = state.write(self.member, &shard.outbox_limits, &shard.counters, now_ms)?;
        state.waiting = flushed != Flushed::Done;
        if state.waiting {
            // Either the socket took a piece and refused the next, or others have their turn first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// For an echo, which has no outbox: hands the first piece of `reply` to the socket as soon as that has
    /// taken everything before it. Returns how much was taken; a reply that has not begun when another's close frame
    /// is on its way is taken whole and dropped (RFC 6455 section 5.5.1), unless it holds our own close frame.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        reply: &[u8],
        closes: bool,
        counters: &ShardCounters,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open && !closes && !state.mid_reply {
            return Poll::Ready(Ok(reply.len()));
        }
        let counters = counters.of(state.is_probe);
        let Some(transport) = &mut state.transport else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        std::task::ready!(transport.poll_drain(cx))?;
        let piece = &reply[..reply.len().min(PIECE_BYTES)];
        counters.sends.inc();
        counters.bytes_out.add(piece.len() as u64);
        let sent = transport.try_send(piece)?;
        // What the socket refused is offered again, with a waker, right away.
        if sent == Sent::Waiting
            && let Poll::Ready(Err(error)) = transport.poll_drain(cx)
        {
            return Poll::Ready(Err(error));
        }
        let left = transport.unsent() > 0;
        state.mid_reply = piece.len() < reply.len();
        if !state.mid_reply && (left || !state.outbox.is_empty()) {
            // Either way the task's next turn finds nothing else to do than to write on.
            state.waiting = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(piece.len()))
    }

    /// For the task: whether so much waits for the client that nothing more is taken from it: much of what it would ask
    /// for could only be added to that. The task is woken when the socket takes more.
    fn is_held_back(&self, limits: &OutboxLimits) -> bool {
        let mut state = self.state.lock();
        let much = state.outbox.bytes() > limits.bytes / 4 || state.outbox.frames() > limits.frames / 4;
        state.held_back = state.waiting && much;
        state.held_back
    }

    /// For the task: whether everything queued has left.
    fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.outbox.is_empty() && state.transport.as_ref().is_none_or(|transport| transport.unsent() == 0)
    }

    /// For the task: ends the stream in order.
    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state.lock().transport {
            Some(transport) => transport.poll_close(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// For the task, at the very end: frees the socket, whoever still holds the connection. Returns the frames
    /// that die with it.
    fn finish(&self) -> usize {
        let mut state = self.state.lock();
        let end = state.phase.end().unwrap_or(Close::HEARTBEAT);
        state.phase = Phase::Over(end.row());
        state.transport = None;
        state.waker = None;
        state.replays.clear();
        std::mem::take(&mut state.outbox).frames()
    }
}

/// Enough of a clock to measure a round trip with, in half the room.
#[expect(clippy::cast_possible_truncation, reason = "differences are taken modulo 2^32")]
const fn low_half(now_ms: u64) -> u32 {
    now_ms as u32
}

/// What a waiting connection holds back.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    pub bytes: usize,
    pub age_ms: u64,
}

impl Phase {
    /// The close that it is about, if it is over or nearly so.
    #[must_use]
    pub fn end(self) -> Option<Close> {
        match self {
            Self::Open | Self::Broken => None,
            Self::Closing(close) | Self::Over(close) => Some(*close),
        }
    }
}

impl State {
    fn mark_dirty(&mut self) -> Pushed {
        if self.waiting || std::mem::replace(&mut self.dirty, true) {
            Pushed::Queued
        } else {
            Pushed::Dirty
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn keep_waker(&mut self, cx: &Context<'_>) {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// Which limit one more frame would pass. One frame always fits, however large: an outbox smaller than a message
    /// must not close everybody.
    fn over(&self, frame: &Frame, limits: &OutboxLimits) -> Option<SlowConsumer> {
        if self.outbox.is_empty() {
            None
        } else if self.outbox.bytes() + frame.bytes().len() > limits.bytes {
            Some(SlowConsumer::Bytes)
        } else if self.outbox.frames() >= limits.frames {
            Some(SlowConsumer::Frames)
        } else {
            None
        }
    }

    /// Writes until `frame` fits; false if the socket takes no more, or is gone.
    fn make_room(
        &mut self,
        frame: &Frame,
        member: MemberId,
        limits: &OutboxLimits,
        counters: &ShardCounters,
        now_ms: u64,
    ) -> bool {
        while self.over(frame, limits).is_some() {
            if self.waiting || self.mid_reply {
                return false;
            }
            match self.write(member, limits, counters, now_ms) {
                Ok(Flushed::Done | Flushed::More) => {}
                // The task goes on as soon as it is told that the connection closes.
                Ok(Flushed::Waiting) => {
                    self.waiting = true;
                    return false;
                }
                Err(_) => {
                    self.fail();
                    return false;
                }
            }
        }
        true
    }

    /// The socket refused: from now on the task writes.
    fn wait(&mut self) -> Flushed {
        self.waiting = true;
        self.wake();
        if std::mem::replace(&mut self.watched, true) {
            Flushed::Done
        } else {
            Flushed::Waiting
        }
    }

    /// The stream broke: nothing more is written or read.
    fn fail(&mut self) {
        self.phase = self.phase.end().map_or(Phase::Broken, |close| Phase::Over(close.row()));
        self.wake();
    }

    /// One turn: everything queued leaves as records of up to [`PIECE_BYTES`], one `send` each.
    fn write(
        &mut self,
        member: MemberId,
        limits: &OutboxLimits,
        counters: &ShardCounters,
        now_ms: u64,
    ) -> io::Result<Flushed> {
        if matches!(self.phase, Phase::Over(_) | Phase::Broken) {
            return Ok(Flushed::Done);
        }
        let counters = counters.of(self.is_probe);
        let Some(transport) = &mut self.transport else {
            return Ok(Flushed::Done);
        };
        if transport.unsent() > JOINABLE_BYTES && transport.try_drain()? == Sent::Waiting {
            return Ok(Flushed::Waiting);
        }
        PIECE.with_borrow_mut(|piece| {
            for _ in 0..PIECES_PER_FLUSH {
                if self.outbox.is_empty() {
                    match self
                        .replays
                        .refill(member, &mut self.outbox, limits.piece, counters, now_ms)
                    {
                        Refill::Nothing => {
                            let drained = transport.try_drain()? == Sent::Whole;
                            return Ok(if drained { Flushed::Done } else { Flushed::Waiting });
                        }
                        Refill::Filled => {}
                    }
                }
                // A replay's age begins anew with every piece: a long one is not a slow reader.
                self.stuck_since_ms = if self.replays.is_empty() {
                    self.outbox.oldest_ms().unwrap_or(now_ms)
                } else {
                    now_ms
                };
                piece.clear();
                let mut taken = [0; Kind::ALL.len()];
                self.outbox
                    .take(PIECE_BYTES, piece, |frame| taken[frame.kind().index()] += 1);
                for (kind, frames) in Kind::ALL.iter().zip(taken).filter(|(_, frames)| *frames > 0) {
                    counters.messages_out.of(*kind).add(frames);
                }
                counters.sends.inc();
                counters.bytes_out.add(piece.len() as u64);
                if transport.try_send(piece)? == Sent::Waiting {
                    return Ok(Flushed::Waiting);
                }
            }
            let more = !self.outbox.is_empty() || !self.replays.is_empty();
            Ok(if more { Flushed::More } else { Flushed::Done })
        })
    }
}
