//! The task of one connection: reads, parses in place, dispatches, and finishes writes that the flusher could
//! not. Written as a future by hand: it holds a few hundred bytes and no copy of what it waits for.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::auth::Identity;
use crate::config;
use crate::connection::asking::Asks;
use crate::connection::limits::{Bucket, Patience};
use crate::connection::{Conn, Gate, Phase, Session};
use crate::hooks::tell::{End, Teller};
use crate::hub::{MemberId, Room, User};
use crate::limits::{CLOSE_LINGER, HARD_LIMIT_FACTOR, READ_PAUSE_MAX};
use crate::net::limit_key;
use crate::protocol::close::Close;
use crate::protocol::server::{self, RemovedReason};
use crate::runtime::{Ceilings, Node};
use crate::shard::Shard;
use crate::shard::inbox::Command;
use crate::telemetry::metrics::{Initiator, Kind, Limit, PanicPlace, RateLimit, ShardCounters};
use crate::telemetry::traces::TraceContext;
use crate::websocket::assembler::{Assembler, Bounds, Event};
use crate::websocket::encoded::Frame;
use crate::websocket::frame::{Opcode, Violation, ends_in_close};

thread_local! {
    /// Decrypted bytes, parsed in place; everything is used up or moved into the assembler within one call.
    static PLAIN: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Plaintext scratch above this is given back after use.
const PLAIN_KEPT_BYTES: usize = 64 * 1024;

/// What a close frame without a code counts as (RFC 6455 section 7.1.5).
const NO_CODE: u16 = 1005;

/// Reads in a row before others have their turn.
const READS_PER_TURN: usize = 16;

/// Messages of one connection before what came of them is written: each may mean two frames for it, and together they
/// stay far below the 1,024 that may wait.
const MESSAGES_PER_TURN: usize = 64;

/// What an upgrade hands to its connection.
pub struct Entrance {
    pub node: Arc<Node>,
    pub shard: Arc<Shard>,
    pub conn: Arc<Conn>,
    pub identity: Arc<Identity>,
    pub address: std::net::IpAddr,
    pub trace: Option<TraceContext>,
    /// Bytes that came with the upgrade request.
    pub early: Vec<u8>,
}

/// The first word to a client: `connected`. `expires_at` is as it is told.
#[must_use]
pub fn greeting(node: &Node, conn: &Conn, identity: &Identity, expires_at: Option<u64>) -> Command {
    let config = &node.config;
    let connected = server::Connected {
        session: &conn.session.to_string(),
        user_json: &identity.user_json,
        heartbeat_s: config.heartbeat.interval.as_secs().max(1),
        expires: expires_at,
        kept: config.backplane.kept.as_str(),
        message_bytes: config.limits.message_bytes,
        rooms: config.limits.rooms_per_connection,
        users_shown: config.room.users_shown,
        messages_per_second: config.limits.messages_per_second,
    };
    Command::Reply {
        member: conn.member,
        frame: Frame::text(|out| connected.write(out)),
    }
}

/// One connection on `/ws`.
///
/// There is one of these per idle connection, so what most of them never need lies in a box of its own.
pub struct Task {
    pub(super) life: Life,
    assembler: Assembler,
    aside: Option<Box<Aside>>,
}

/// What only some connections need, for a while.
#[derive(Default)]
struct Aside {
    /// Bytes that were read before their turn: with the upgrade request, or behind many other messages.
    early: Vec<u8>,
    /// Runs out when the end has taken long enough.
    linger: Option<Pin<Box<Sleep>>>,
    /// The close frame has left: `linger` measures the peer now.
    close_sent: bool,
    /// Nothing is read until then.
    pause: Option<Pin<Box<Sleep>>>,
    departure: Departure,
    /// The peer's close frame was given its answer.
    answered: bool,
    panicked: bool,
}

/// Whether a peer that has left may be seen off.
#[derive(Debug, Default, Clone, Copy)]
enum Departure {
    #[default]
    NotAsked,
    /// The number of its turn.
    Waiting(u64),
    Granted,
}

/// What lives as long as the connection: dropping it leaves every room and frees the slot.
#[expect(clippy::struct_excessive_bools, reason = "separate facts")]
pub(super) struct Life {
    pub node: Arc<Node>,
    pub shard: Arc<Shard>,
    pub conn: Arc<Conn>,
    pub identity: Arc<Identity>,
    pub rooms: Vec<Arc<Room>>,
    pub trace: Option<Box<TraceContext>>,
    /// None while no limit is configured.
    pub rates: Option<Box<Rates>>,
    /// Shard clock.
    opened_ms: u64,
    /// A close is queued: nothing more is taken in.
    ending: bool,
    /// The peer broke the protocol: what comes cannot be parsed any more.
    deaf: bool,
    /// It counts for `limits.connections_per_user`.
    is_seated: bool,
    /// Some of a message that is not whole was kept, and counted.
    keeps: bool,
    /// The last room was asked for, and the backplane has yet to let us in.
    pub(super) entering: bool,
    /// Of which room the backplane owes an answer, as long as it owes any.
    pub(super) owed_of: u64,
    /// None while it waits for nothing from the application.
    pub(super) asks: Option<Box<Asks>>,
    /// The peer said close first, or left; with its code.
    left_by_peer: Option<u16>,
}

/// How fast this connection may speak.
pub(super) struct Rates {
    pub messages: Bucket,
    pub bytes: Bucket,
    pub patience: Patience,
    /// As limits count addresses.
    pub address: IpAddr,
}

impl Rates {
    fn new(limits: &config::Limits, ceilings: &Ceilings, address: IpAddr) -> Option<Box<Self>> {
        let per_second = limits.messages_per_second;
        let none = per_second == 0 && limits.bytes_per_second == 0 && ceilings.are_none();
        let burst = if limits.messages_burst == 0 {
            per_second
        } else {
            limits.messages_burst
        };
        (!none).then(|| {
            Box::new(Self {
                messages: Bucket::new(per_second.into(), burst.into()),
                bytes: Bucket::new(limits.bytes_per_second, limits.bytes_per_second),
                patience: Patience::default(),
                address: limit_key(address),
            })
        })
    }
}

impl Task {
    /// The task that serves a client, who is greeted already ([`greeting`]).
    #[must_use]
    pub fn new(entrance: Entrance) -> Self {
        let Entrance {
            node,
            shard,
            conn,
            identity,
            address,
            trace,
            early,
        } = entrance;
        let life = Life {
            rates: Rates::new(&node.config.limits, &node.ceilings, address),
            rooms: Vec::new(),
            trace: trace.map(Box::new),
            opened_ms: shard.now_ms(),
            ending: false,
            deaf: false,
            is_seated: node.seats.count(&identity),
            keeps: false,
            entering: false,
            owed_of: 0,
            asks: None,
            left_by_peer: None,
            node,
            shard,
            conn,
            identity,
        };
        tracing::debug!(session = %life.session(), user = %life.identity.user_id, "connected");
        life.node.traces.session_started(life.trace.as_deref());
        if let Some(teller) = life.told() {
            teller.opened(life.session(), &life.identity);
        }
        let aside = (!early.is_empty()).then(|| {
            Box::new(Aside {
                early,
                ..Aside::default()
            })
        });
        Self {
            life,
            assembler: Assembler::new(),
            aside,
        }
    }

    /// Runs until the connection is over.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self
            .aside
            .as_ref()
            .is_some_and(|aside| matches!(aside.departure, Departure::Waiting(_)))
        {
            ready!(self.poll_departure(cx));
        }
        for _ in 0..READS_PER_TURN {
            if let Poll::Ready(Err(_)) = self.life.conn.poll_write(cx, &self.life.shard) {
                return self.gone(cx);
            }
            let phase = self.life.conn.phase();
            if phase != Phase::Open || self.life.ending {
                // Whatever the application answers now comes too late.
                self.life.asks = None;
            }
            match phase {
                Phase::Open if self.life.ending => return self.poll_farewell(cx),
                Phase::Open => {}
                Phase::Closing(_) => return self.poll_end(cx),
                Phase::Over(_) => return Poll::Ready(()),
                Phase::Broken => return self.gone(cx),
            }
            if self.life.shard.removes() {
                self.life.leave_removed();
            }
            if self.life.asks.is_some() && self.life.poll_asks(cx) {
                continue;
            }
            if let Some(pause) = self.aside.as_mut().and_then(|aside| aside.pause.as_mut()) {
                ready!(pause.as_mut().poll(cx));
                self.aside().pause = None;
                self.life.conn.heard();
            }
            if self.life.conn.is_held_back(&self.life.shard.outbox_limits) || self.life.awaits_answer() {
                return Poll::Pending;
            }
            if self.life.node.is_behind() {
                // What was said already is handed on before more is taken in.
                break;
            }
            let read = PLAIN.with_borrow_mut(|plain| self.poll_read(cx, plain));
            if !matches!(ready!(read), Ok(1..)) {
                return self.gone(cx);
            }
            if self.aside.as_ref().is_some_and(|aside| !aside.early.is_empty()) {
                break;
            }
        }
        // Others of this thread first; then we go on.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        plain.clear();
        match &mut self.aside {
            Some(aside) if !aside.early.is_empty() => *plain = std::mem::take(&mut aside.early),
            _ => {
                ready!(self.life.conn.poll_receive(cx, plain))?;
            }
        }
        let read = plain.len();
        self.take_in(plain);
        if plain.capacity() > PLAIN_KEPT_BYTES {
            *plain = Vec::new();
        }
        Poll::Ready(Ok(read))
    }

    /// Everything that one read brought.
    fn take_in(&mut self, plain: &mut [u8]) {
        let life = &mut self.life;
        life.counters().bytes_in.add(plain.len() as u64);
        let now_ns = life.shard.now_ns();
        let debt_ns = life
            .rates
            .as_mut()
            .map_or(0, |rates| rates.bytes.charge(plain.len() as u64, now_ns));
        let bounds = life.bounds();
        let mut used = 0;
        for _ in 0..MESSAGES_PER_TURN {
            match self.assembler.next(plain, &mut used, bounds) {
                Ok(Some(event)) => {
                    life.on_event(event, now_ns);
                    if life.ending {
                        return life.discard(&mut self.assembler, &mut plain[used..]);
                    }
                    if life.awaits_answer() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(violation) => return life.on_violation(violation),
            }
        }
        life.count_inbound(self.assembler.held_bytes());
        if used < plain.len() {
            // What came of these is written first, so that nobody is a slow reader for having said much at once.
            self.aside().early = plain[used..].to_vec();
        }
        if debt_ns > 0 {
            let life = &self.life;
            life.node.metrics.rate_limited(RateLimit::Bytes);
            let pause = Duration::from_nanos(debt_ns).min(READ_PAUSE_MAX);
            self.aside().pause = Some(Box::pin(tokio::time::sleep(pause)));
        }
    }

    /// A close frame is queued: let it leave, then read and discard until the peer has answered or [`CLOSE_LINGER`]
    /// has passed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Poll::Ready(Err(_)) = self.life.conn.poll_write(cx, &self.life.shard) {
                return Poll::Ready(());
            }
            let drained = self.life.conn.is_drained();
            if self.poll_linger(cx, drained).is_ready() {
                let close = self.life.conn.phase().end().unwrap_or(Close::HEARTBEAT);
                self.life.conn.terminate(close);
                return Poll::Ready(());
            }
            // After a violation nobody can tell an answer from rubbish: our side ends first (RFC 6455 section 7.1.1), and
            // what still comes is discarded.
            if drained && (self.life.deaf || self.life.left_by_peer.is_some()) {
                // Whether close_notify arrives is the peer's business now.
                drop(ready!(self.life.conn.poll_close(cx)));
                if self.life.left_by_peer.is_some() {
                    return Poll::Ready(());
                }
            }
            let read = PLAIN.with_borrow_mut(|plain| {
                plain.clear();
                let read = self.life.conn.poll_receive(cx, plain);
                self.life.discard(&mut self.assembler, plain);
                read
            });
            if !matches!(ready!(read), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }

    /// Ready when the end has taken long enough: as long as a backlog may be old until the close frame has left (a
    /// slow reader's has nothing in front of it), and [`CLOSE_LINGER`] from then on.
    fn poll_linger(&mut self, cx: &mut Context<'_>, drained: bool) -> Poll<()> {
        let slow = self.life.conn.phase().end() == Some(Close::SLOW_READER);
        let outbox_age = self.life.node.config.limits.outbox_age;
        let aside = self.aside();
        if aside.linger.is_none() || (drained && !aside.close_sent) {
            aside.close_sent = drained;
            let patience = if drained || slow {
                CLOSE_LINGER
            } else {
                outbox_age.max(CLOSE_LINGER)
            };
            aside.linger = Some(Box::pin(tokio::time::sleep(patience)));
        }
        aside
            .linger
            .as_mut()
            .map_or(Poll::Ready(()), |linger| linger.as_mut().poll(cx))
    }

    fn gone(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.life.left_by_peer.get_or_insert(1006);
        self.poll_departure(cx)
    }

    /// A close was said: the peer's is answered in its turn; ours is on its way through the inbox, and will wake us.
    fn poll_farewell(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(code) = self.life.left_by_peer else {
            return Poll::Pending;
        };
        ready!(self.poll_departure(cx));
        if !std::mem::replace(&mut self.aside().answered, true) {
            self.life.shard.inbox.push(Command::Answer {
                slot: self.life.member().slot,
                code: (code != NO_CODE).then_some(code),
            });
        }
        Poll::Pending
    }

    /// Ready when it is the turn of this connection to be seen off.
    fn poll_departure(&mut self, cx: &Context<'_>) -> Poll<()> {
        let shard = Arc::clone(&self.life.shard);
        let departure = &mut self.aside().departure;
        *departure = match *departure {
            Departure::NotAsked => match shard.departures.ask(cx.waker()) {
                Ok(()) => Departure::Granted,
                Err(number) => Departure::Waiting(number),
            },
            Departure::Waiting(number) if shard.departures.is_served(number) => Departure::Granted,
            same => same,
        };
        match departure {
            Departure::Granted => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    fn aside(&mut self) -> &mut Aside {
        self.aside.get_or_insert_default()
    }

    /// A bug: this connection is told so and ends, and no other. If that panics too, it is cut.
    fn panicked(&mut self) -> Poll<()> {
        self.life.node.metrics.panic_caught(PanicPlace::Connection);
        // The panic hook has said where; this says whose.
        tracing::error!(session = %self.life.session(), "a connection panicked and was ended");
        if std::mem::replace(&mut self.aside().panicked, true) {
            self.life.conn.terminate(Close::INTERNAL);
            return Poll::Ready(());
        }
        self.life.deaf = true;
        self.life.close(Close::INTERNAL);
        Poll::Pending
    }
}

impl Life {
    pub(super) fn user(&self) -> User {
        User {
            id: Arc::clone(&self.identity.user_id),
            json: Arc::clone(&self.identity.user_json),
        }
    }

    fn session(&self) -> Session {
        self.conn.session
    }

    /// Who tells hooks of it; nobody of a probe.
    fn told(&self) -> Option<&Teller> {
        self.node.teller.as_deref().filter(|_| !self.identity.is_probe)
    }

    /// Where it is counted what this connection does.
    pub(super) fn counters(&self) -> &ShardCounters {
        self.shard.counters.of(self.identity.is_probe)
    }

    fn bounds(&self) -> Bounds {
        let limits = &self.node.config.limits;
        Bounds {
            message_bytes: limits.message_bytes * HARD_LIMIT_FACTOR,
            fragments: limits.fragments,
        }
    }

    fn count_inbound(&mut self, bytes: usize) {
        if bytes > 0 || self.keeps {
            self.keeps = bytes > 0;
            self.conn.keep_inbound(bytes, &self.shard.counters);
        }
    }

    /// Whether nothing more is taken in for now.
    fn awaits_answer(&mut self) -> bool {
        self.asks.as_ref().is_some_and(|asks| asks.holds_up()) || self.awaits_backplane()
    }

    /// Whether the backplane owes an answer without which nothing more is taken in. A room that it refused is not ours.
    fn awaits_backplane(&mut self) -> bool {
        if !self.node.hub.is_shared() {
            return false;
        }
        match self.conn.gate() {
            Gate::Shut => true,
            Gate::Open { refused } => {
                if std::mem::take(&mut self.entering)
                    && refused
                    && let Some(room) = self.rooms.pop()
                {
                    self.leave_room(&room, false, crate::runtime::now_ms());
                }
                false
            }
        }
    }

    /// Leaves the rooms that the application took this connection out of, whatever else is waited for. Only the one about
    /// which the backplane owes it an answer is left as soon as that is there: it may not be in yet.
    pub(super) fn leave_removed(&mut self) {
        self.awaits_backplane();
        let asked = i8::from(self.asks.as_ref().is_some_and(|asks| asks.holds_up()));
        let pending = if self.entering {
            self.rooms.last()
        } else if self.conn.owed() > asked {
            self.rooms.iter().find(|room| room.id == self.owed_of)
        } else {
            None
        };
        let pending = pending.map(|room| Arc::clone(&room.name));
        for name in self.shard.removals(self.member().slot, pending.as_deref()) {
            self.be_removed(&name, RemovedReason::Kicked);
            self.withdraw(&name);
        }
    }

    /// Gone from the room, for everybody else; `closed` with its connection, which may be back in a moment.
    pub(super) fn leave_room(&self, room: &Arc<Room>, closed: bool, now_ms: u64) {
        self.counters().leaves.inc();
        if room.leave(self.member(), &self.identity.user_id, closed, now_ms) {
            self.node.hub.count_is_due(room);
        }
    }

    pub(super) fn member(&self) -> MemberId {
        self.conn.member
    }

    pub(super) fn reply(&self, frame: Frame) {
        self.shard.inbox.push(Command::Reply {
            member: self.member(),
            frame,
        });
    }

    /// Ends the connection, behind everything already queued.
    pub(super) fn close(&mut self, close: Close) {
        self.ending = true;
        self.shard.inbox.push(Command::Close {
            member: self.member(),
            close,
            reconnect_after_ms: 0,
        });
    }

    fn on_event(&mut self, event: Event<'_>, now_ns: u64) {
        let counters = self.counters();
        match event {
            Event::Text(text) => {
                counters.messages_in.of(Kind::Text).inc();
                self.on_text(text, now_ns);
            }
            Event::Binary(_) => {
                counters.messages_in.of(Kind::Binary).inc();
                self.close(Close::BINARY);
            }
            Event::Ping(payload) => {
                counters.messages_in.of(Kind::Ping).inc();
                self.reply(Frame::of(Opcode::Pong, payload));
            }
            Event::Pong(_) => {
                counters.messages_in.of(Kind::Pong).inc();
                if let Some(rtt_ms) = self.conn.on_pong(self.shard.now_ms())
                    && !self.identity.is_probe
                {
                    #[expect(clippy::cast_precision_loss, reason = "a round trip in ms is far below 2^52")]
                    self.node.metrics.ping_rtt(rtt_ms as f64 / 1_000.0);
                }
            }
            Event::Close(said) => {
                counters.messages_in.of(Kind::Close).inc();
                self.left_by_peer = Some(said.map_or(NO_CODE, |(code, _)| code));
                self.ending = true;
            }
        }
    }

    fn on_violation(&mut self, violation: Violation) {
        let close = match violation {
            Violation::Protocol(_) => Close::PROTOCOL,
            Violation::Utf8 => Close::UTF8,
            Violation::TooLarge => {
                self.node.metrics.limit_hit(Limit::MessageBytes);
                Close::TOO_LARGE
            }
            Violation::TooManyFragments => {
                self.node.metrics.limit_hit(Limit::Fragments);
                Close::TOO_LARGE
            }
        };
        tracing::debug!(session = %self.session(), ?violation, "closing");
        self.deaf = true;
        self.close(close);
    }

    /// After our close frame: only the peer's own is still of interest.
    fn discard(&mut self, assembler: &mut Assembler, plain: &mut [u8]) {
        if self.deaf && ends_in_close(plain) {
            self.left_by_peer.get_or_insert(NO_CODE);
        }
        let mut used = 0;
        let bounds = self.bounds();
        while self.left_by_peer.is_none() && !self.deaf {
            match assembler.next(plain, &mut used, bounds) {
                Ok(Some(Event::Close(_))) => self.left_by_peer = Some(NO_CODE),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(_) => self.deaf = true,
            }
        }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        catch_unwind(AssertUnwindSafe(|| this.step(cx))).unwrap_or_else(|_| this.panicked())
    }
}

impl Drop for Life {
    /// Leaves the hub first, then closes the socket; whatever is slow comes last.
    fn drop(&mut self) {
        self.count_inbound(0);
        let now_ms = crate::runtime::now_ms();
        for room in std::mem::take(&mut self.rooms) {
            self.leave_room(&room, true, now_ms);
        }
        if self.is_seated {
            self.node.seats.leave(&self.identity.user_id);
        }
        let ended = self.conn.phase().end();
        let dropped = self.conn.finish() as u64;
        self.shard.inbox.push(Command::Gone {
            slot: self.conn.member.slot,
        });
        self.counters().connections_closed.inc();
        self.counters().dropped_closed.add(dropped);
        let lifetime = Duration::from_millis(self.shard.now_ms().saturating_sub(self.opened_ms));
        // Our own close counts as ours, also when the peer answered it.
        let by_peer = self
            .left_by_peer
            .filter(|_| ended.is_none_or(|close| close == Close::NORMAL));
        let close = ended.unwrap_or(Close::HEARTBEAT);
        let (code, reason, initiator) = match by_peer {
            Some(code) => (code, "none", Initiator::Client),
            None => (close.code, close.reason, Initiator::Server),
        };
        if let Some(teller) = self.told() {
            let end = End {
                code,
                reason,
                duration: lifetime,
            };
            teller.closed(self.session(), &self.identity, &end);
        }
        self.node
            .hub
            .taps()
            .closed(&self.identity.user_id, self.session(), code, reason);
        if !self.identity.is_probe {
            self.node
                .metrics
                .disconnected(code, reason, initiator, lifetime.as_secs_f64());
        }
        self.node
            .traces
            .session_ended(self.trace.as_deref(), code, reason, lifetime);
        tracing::debug!(session = %self.session(), code, reason, "disconnected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls_io::TlsIo;

    /// An idle connection costs 4.9 KiB; a field more here is a field more for everybody.
    #[test]
    fn what_an_idle_connection_keeps_stays_small() {
        let sizes = [size_of::<Task>(), size_of::<Conn>(), size_of::<TlsIo>()];
        // With what is around them, allocations of 256, 192 and 1,280 bytes.
        assert!(sizes[0] <= 128 && sizes[1] <= 176 && sizes[2] <= 1_280, "{sizes:?}");
    }
}
