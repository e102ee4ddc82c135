//! The task of one connection: reads, parses in place, dispatches, and finishes writes that the flusher could
//! not. Written as a future by hand: it holds a few hundred bytes and no copy of what it waits for.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

use crate::auth::Identity;
use crate::connection::limits::{Bucket, Patience};
use crate::connection::{Conn, Phase};
use crate::hub::{MemberId, Room, User};
use crate::limits::{CLOSE_LINGER, HARD_LIMIT_FACTOR, READ_PAUSE_MAX};
use crate::protocol::close::Close;
use crate::protocol::server;
use crate::runtime::Node;
use crate::shard::Shard;
use crate::shard::inbox::Command;
use crate::telemetry::metrics::{Initiator, Kind, Limit, PanicPlace, RateLimit};
use crate::telemetry::traces::TraceContext;
use crate::websocket::assembler::{Assembler, Bounds, Event};
use crate::websocket::encoded::Frame;
use crate::websocket::frame::{Opcode, Violation};

thread_local! {
    /// Decrypted bytes, parsed in place; everything is used up or moved into the assembler within one call.
    static PLAIN: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Plaintext scratch above this is given back after use.
const PLAIN_KEPT_BYTES: usize = 64 * 1024;

/// Reads in a row before others have their turn.
const READS_PER_TURN: usize = 16;

/// What an upgrade hands to its connection.
pub struct Entrance {
    pub node: Arc<Node>,
    pub shard: Arc<Shard>,
    pub conn: Arc<Conn>,
    pub identity: Arc<Identity>,
    /// As the client is told.
    pub expires_at: Option<u64>,
    pub address: std::net::IpAddr,
    pub trace: Option<TraceContext>,
    /// Bytes that came with the upgrade request.
    pub early: Vec<u8>,
}

/// One connection on `/ws`.
pub struct Task {
    pub(super) life: Life,
    assembler: Assembler,
    early: Vec<u8>,
    linger: Option<Pin<Box<Sleep>>>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// What lives as long as the connection: dropping it leaves every room and frees the slot.
pub(super) struct Life {
    pub node: Arc<Node>,
    pub shard: Arc<Shard>,
    pub conn: Arc<Conn>,
    /// What this connection is called in `connected` and in logs.
    session: Box<str>,
    pub identity: Arc<Identity>,
    pub user: User,
    pub rooms: Vec<Arc<Room>>,
    pub address: std::net::IpAddr,
    pub trace: Option<Box<TraceContext>>,
    pub messages: Bucket,
    pub bytes: Bucket,
    pub patience: Patience,
    opened: Instant,
    /// A close is queued: nothing more is taken in.
    ending: bool,
    /// The peer broke the protocol: what comes cannot be parsed any more.
    deaf: bool,
    /// The peer said close first, or left; with its code.
    left_by_peer: Option<u16>,
}

impl Task {
    /// Greets the client and gives the task that serves it.
    #[must_use]
    pub fn new(entrance: Entrance) -> Self {
        let Entrance {
            node,
            shard,
            conn,
            identity,
            expires_at,
            address,
            trace,
            early,
        } = entrance;
        let limits = &node.config.limits;
        let burst = if limits.messages_burst == 0 {
            limits.messages_per_second
        } else {
            limits.messages_burst
        };
        let life = Life {
            session: format!("s-{}", uuid::Uuid::new_v4().simple()).into(),
            user: User {
                id: Arc::clone(&identity.user_id),
                json: Arc::clone(&identity.user_json),
            },
            messages: Bucket::new(limits.messages_per_second.into(), burst.into()),
            bytes: Bucket::new(limits.bytes_per_second, limits.bytes_per_second),
            patience: Patience::default(),
            rooms: Vec::new(),
            address,
            trace: trace.map(Box::new),
            opened: Instant::now(),
            ending: false,
            deaf: false,
            left_by_peer: None,
            node,
            shard,
            conn,
            identity,
        };
        life.greet(expires_at);
        life.node.traces.session_started(life.trace.as_deref());
        Self {
            life,
            assembler: Assembler::new(),
            early,
            linger: None,
            pause: None,
        }
    }

    /// Runs until the connection is over.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            let shard = &self.life.shard;
            match self.life.conn.poll_write(cx, &shard.counters, || shard.now_ms()) {
                Poll::Ready(Ok(())) | Poll::Pending => {}
                Poll::Ready(Err(_)) => return self.gone(),
            }
            match self.life.conn.phase() {
                // The close is on its way through the inbox, and will wake us.
                Phase::Open if self.life.ending => return Poll::Pending,
                Phase::Open => {}
                Phase::Closing(_) => return self.poll_end(cx),
                Phase::Over(_) => return Poll::Ready(()),
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                self.life.conn.heard();
            }
            let read = PLAIN.with_borrow_mut(|plain| self.poll_read(cx, plain));
            match ready!(read) {
                Ok(0) => return self.gone(),
                Ok(_) => {}
                Err(_) => return self.gone(),
            }
        }
        // Others of this thread first; then we go on.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<std::io::Result<usize>> {
        plain.clear();
        if self.early.is_empty() {
            ready!(self.life.conn.poll_receive(cx, plain))?;
        } else {
            // hyper had read these together with the upgrade request.
            *plain = std::mem::take(&mut self.early);
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
        life.shard.counters.bytes_in.add(plain.len() as u64);
        let now_ns = life.shard.now_ns();
        let debt_ns = life.bytes.charge(plain.len() as u64, now_ns);
        let limits = &life.node.config.limits;
        let bounds = Bounds {
            message_bytes: limits.message_bytes * HARD_LIMIT_FACTOR,
            fragments: limits.fragments,
        };
        let mut used = 0;
        loop {
            match self.assembler.next(plain, &mut used, bounds) {
                Ok(Some(event)) => {
                    life.on_event(event, now_ns);
                    if life.ending {
                        return;
                    }
                }
                Ok(None) => break,
                Err(violation) => return life.on_violation(violation),
            }
        }
        if debt_ns > 0 {
            life.node.metrics.rate_limited(RateLimit::Bytes);
            let pause = std::time::Duration::from_nanos(debt_ns).min(READ_PAUSE_MAX);
            self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        }
    }

    /// A close frame is queued: let it leave, then read and discard until the peer has answered or
    /// [`CLOSE_LINGER`] has passed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_LINGER)));
        if linger.as_mut().poll(cx).is_ready() {
            let close = self.life.conn.phase().end().unwrap_or(Close::HEARTBEAT);
            self.life.conn.terminate(close);
            return Poll::Ready(());
        }
        loop {
            if self.life.left_by_peer.is_some() && self.life.conn.is_drained() {
                // Whether close_notify arrives is the peer's business now.
                drop(ready!(self.life.conn.poll_close(cx)));
                return Poll::Ready(());
            }
            let shard = Arc::clone(&self.life.shard);
            match self.life.conn.poll_write(cx, &shard.counters, || shard.now_ms()) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            let read = PLAIN.with_borrow_mut(|plain| {
                plain.clear();
                let read = self.life.conn.poll_receive(cx, plain);
                self.life.discard(&mut self.assembler, plain);
                read
            });
            match ready!(read) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    fn gone(&mut self) -> Poll<()> {
        self.life.left_by_peer.get_or_insert(1006);
        Poll::Ready(())
    }
}

impl Life {
    pub(super) fn member(&self) -> MemberId {
        self.conn.member
    }

    fn greet(&self, expires_at: Option<u64>) {
        let config = &self.node.config;
        let connected = server::Connected {
            session: &self.session,
            user_json: &self.user.json,
            heartbeat_s: config.heartbeat.interval.as_secs().max(1),
            expires: expires_at,
            kept: "memory",
            message_bytes: config.limits.message_bytes,
            rooms: config.limits.rooms_per_connection,
            users_shown: config.rooms.users_shown,
            messages_per_second: config.limits.messages_per_second,
        };
        self.reply(Frame::text(|out| connected.write(out)));
        tracing::debug!(session = %self.session, user = %self.user.id, "connected");
    }

    pub(super) fn reply(&self, frame: Frame) {
        self.shard.inbox.push(Command::Reply {
            slot: self.member().slot,
            frame,
        });
    }

    /// Ends the connection, behind everything already queued.
    pub(super) fn close(&mut self, close: Close) {
        self.ending = true;
        self.shard.inbox.push(Command::Close {
            slot: self.member().slot,
            close,
            reconnect_after_ms: 0,
        });
    }

    fn on_event(&mut self, event: Event<'_>, now_ns: u64) {
        let counters = &self.shard.counters;
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
                if let Some(rtt_ms) = self.conn.on_pong(self.shard.now_ms()) {
                    #[expect(clippy::cast_precision_loss, reason = "a round trip in ms is far below 2^52")]
                    self.node.metrics.ping_rtt(rtt_ms as f64 / 1_000.0);
                }
            }
            Event::Close(said) => {
                counters.messages_in.of(Kind::Close).inc();
                let code = said.map(|(code, _)| code);
                self.left_by_peer = Some(code.unwrap_or(1005));
                self.ending = true;
                self.shard.inbox.push(Command::Answer {
                    slot: self.member().slot,
                    code,
                });
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
        tracing::debug!(session = %self.session, ?violation, "closing");
        self.deaf = true;
        self.close(close);
    }

    /// After our close frame: only the peer's own is still of interest.
    fn discard(&mut self, assembler: &mut Assembler, plain: &mut [u8]) {
        let mut used = 0;
        let bounds = Bounds {
            message_bytes: usize::MAX / 2,
            fragments: usize::MAX,
        };
        while self.left_by_peer.is_none() && !self.deaf {
            match assembler.next(plain, &mut used, bounds) {
                Ok(Some(Event::Close(_))) => self.left_by_peer = Some(1005),
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
        match catch_unwind(AssertUnwindSafe(|| this.step(cx))) {
            Ok(polled) => polled,
            Err(_) => {
                // The panic hook has said where; this says whose. Only this connection ends.
                tracing::error!(session = %this.life.session, "a connection panicked and was ended");
                this.life.node.metrics.panic_caught(PanicPlace::Connection);
                this.life.conn.terminate(Close::INTERNAL);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Life {
    /// Leaves the hub first, then closes the socket; whatever is slow comes last.
    fn drop(&mut self) {
        let now_ms = crate::runtime::now_ms();
        for room in self.rooms.drain(..) {
            self.shard.counters.leaves.inc();
            if room.leave(self.conn.member, &self.user, now_ms) {
                self.node.hub.count_is_due(&room);
            }
        }
        let ended = self.conn.phase().end();
        let dropped = self.conn.finish() as u64;
        self.shard.inbox.push(Command::Gone {
            slot: self.conn.member.slot,
        });
        self.shard.counters.connections_closed.inc();
        let close = ended.unwrap_or(Close::HEARTBEAT);
        if close == Close::SLOW_READER {
            self.shard.counters.dropped_slow_reader.add(dropped);
        } else {
            self.shard.counters.dropped_closed.add(dropped);
        }
        let lifetime = self.opened.elapsed();
        // Our own close counts as ours, also when the peer answered it.
        let by_peer = self
            .left_by_peer
            .filter(|_| ended.is_none_or(|close| close == Close::NORMAL));
        let (code, reason, initiator) = match by_peer {
            Some(code) => (code, "none", Initiator::Client),
            None => (close.code, close.reason, Initiator::Server),
        };
        self.node
            .metrics
            .disconnected(code, reason, initiator, lifetime.as_secs_f64());
        self.node
            .traces
            .session_ended(self.trace.as_deref(), code, reason, lifetime);
        tracing::debug!(session = %self.session, code, reason, "disconnected");
    }
}

#[cfg(test)]
mod sizes {
    #[test]
    fn print() {
        println!("TLS {}", size_of::<rustls::server::UnbufferedServerConnection>());
        println!("TlsIo {}", size_of::<crate::net::tls_io::TlsIo>());
        println!("Conn {}", size_of::<crate::connection::Conn>());
        println!("Task {}", size_of::<super::Task>());
        println!("Life {}", size_of::<super::Life>());
        println!("Identity {}", size_of::<crate::auth::Identity>());
        println!("Asm {}", size_of::<crate::websocket::Assembler>());
    }
}
