//! `/echo`: says back what it hears, text and binary, for probes and conformance tests. No rooms, no outbox:
//! nothing is read until the reply has been taken by the socket.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::Sleep;

use crate::connection::{Conn, Phase};
use crate::limits::CLOSE_LINGER;
use crate::protocol::close::Close;
use crate::runtime::Node;
use crate::shard::Shard;
use crate::shard::inbox::Command;
use crate::telemetry::metrics::{Initiator, Kind, PanicPlace, ShardCounters};
use crate::websocket::assembler::{Assembler, Bounds, Event};
use crate::websocket::frame::{Opcode, Violation, close_frame, ends_in_close, write_frame};

thread_local! {
    static PLAIN: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Scratch above this is given back after use.
const KEPT_BYTES: usize = 64 * 1024;

/// Reads in a row before others have their turn.
const READS_PER_TURN: usize = 16;

/// One connection on `/echo`.
pub struct Echo {
    node: Arc<Node>,
    shard: Arc<Shard>,
    conn: Arc<Conn>,
    assembler: Assembler,
    early: Vec<u8>,
    /// The reply that the socket has not taken yet, from `taken` on; empty at rest.
    reply: Vec<u8>,
    taken: usize,
    ending: Option<Close>,
    /// The close frame is in `reply`.
    closes: bool,
    left_by_peer: Option<u16>,
    deaf: bool,
    is_probe: bool,
    linger: Option<Pin<Box<Sleep>>>,
    opened: Instant,
}

impl Echo {
    #[must_use]
    pub fn new(node: Arc<Node>, shard: Arc<Shard>, conn: Arc<Conn>, early: Vec<u8>) -> Self {
        conn.begin_draining();
        Self {
            is_probe: conn.is_probe(),
            node,
            shard,
            conn,
            assembler: Assembler::new(),
            early,
            reply: Vec::new(),
            taken: 0,
            ending: None,
            closes: false,
            left_by_peer: None,
            deaf: false,
            linger: None,
            opened: Instant::now(),
        }
    }

    fn counters(&self) -> &ShardCounters {
        self.shard.counters.of(self.is_probe)
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            // Pings of the sweeper and a drain's close still come through the outbox.
            if let Poll::Ready(Err(_)) = self.conn.poll_write(cx, &self.shard) {
                return Poll::Ready(());
            }
            match self.conn.phase() {
                Phase::Over(_) => return Poll::Ready(()),
                Phase::Broken => {
                    self.left_by_peer.get_or_insert(1006);
                    return Poll::Ready(());
                }
                Phase::Open | Phase::Closing(_) => {}
            }
            if self.ending.is_some() || self.conn.phase() != Phase::Open {
                let linger = self
                    .linger
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_LINGER)));
                if linger.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
            }
            if ready!(self.poll_reply(cx)).is_err() {
                return Poll::Ready(());
            }
            let over = self.ending.is_some() || self.conn.phase() != Phase::Open;
            if over && self.deaf && self.conn.is_drained() {
                // The server's side ends first (RFC 6455 section 7.1.1); what still comes is discarded.
                drop(ready!(self.conn.poll_close(cx)));
                if self.left_by_peer.is_some() {
                    return Poll::Ready(());
                }
            }
            let read = PLAIN.with_borrow_mut(|plain| self.poll_read(cx, plain));
            match ready!(read) {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    self.left_by_peer.get_or_insert(1006);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands the reply to the socket, piece by piece.
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while self.taken < self.reply.len() {
            let reply = &self.reply[self.taken..];
            let taken = ready!(self.conn.poll_send(cx, reply, self.closes, &self.shard.counters))?;
            self.taken += taken;
        }
        self.taken = 0;
        if self.reply.capacity() > 0 {
            self.reply = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<std::io::Result<usize>> {
        plain.clear();
        if self.early.is_empty() {
            ready!(self.conn.poll_receive(cx, plain))?;
        } else {
            *plain = std::mem::take(&mut self.early);
        }
        let read = plain.len();
        self.counters().bytes_in.add(read as u64);
        self.take_in(plain);
        if plain.capacity() > KEPT_BYTES {
            *plain = Vec::new();
        }
        // One attempt right away: most replies leave whole, and nothing is kept.
        if let Poll::Ready(Err(error)) = self.poll_reply(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(read))
    }

    fn take_in(&mut self, plain: &mut [u8]) {
        let echo = &self.node.config.echo;
        let bounds = Bounds {
            message_bytes: echo.message_bytes,
            fragments: echo.fragments,
        };
        if self.deaf && ends_in_close(plain) {
            self.left_by_peer.get_or_insert(1005);
        }
        let mut used = 0;
        while !self.deaf {
            let counters = self.shard.counters.of(self.is_probe);
            let event = match self.assembler.next(plain, &mut used, bounds) {
                Ok(Some(event)) => event,
                Ok(None) => {
                    return self
                        .conn
                        .keep_inbound(self.assembler.held_bytes(), &self.shard.counters);
                }
                Err(violation) => return self.on_violation(violation),
            };
            let (kind, answer, payload) = match event {
                Event::Text(text) => (Kind::Text, Opcode::Text, text.as_bytes()),
                Event::Binary(bytes) => (Kind::Binary, Opcode::Binary, bytes),
                Event::Ping(payload) => (Kind::Ping, Opcode::Pong, payload),
                Event::Pong(_) => {
                    counters.messages_in.of(Kind::Pong).inc();
                    continue;
                }
                Event::Close(said) => {
                    counters.messages_in.of(Kind::Close).inc();
                    let code = said.map(|(code, _)| code);
                    self.left_by_peer = Some(code.unwrap_or(1005));
                    self.deaf = true;
                    if self.begin_ending(Close::NORMAL) {
                        match code {
                            Some(code) => self.reply.extend(close_frame(code, "")),
                            None => write_frame(&mut self.reply, Opcode::Close, b""),
                        }
                    }
                    return;
                }
            };
            counters.messages_in.of(kind).inc();
            if self.ending.is_none() {
                write_frame(&mut self.reply, answer, payload);
                let said = if kind == Kind::Ping { Kind::Pong } else { kind };
                counters.messages_out.of(said).inc();
            }
        }
    }

    /// True if the close frame is ours to say: a drain's may be on its way already.
    fn begin_ending(&mut self, close: Close) -> bool {
        self.closes = self.ending.replace(close).is_none() && self.conn.close_by_itself(close);
        if self.closes {
            self.counters().messages_out.of(Kind::Close).inc();
        }
        self.closes
    }

    fn on_violation(&mut self, violation: Violation) {
        let close = match violation {
            Violation::Protocol(_) => Close::PROTOCOL,
            Violation::Utf8 => Close::UTF8,
            Violation::TooLarge | Violation::TooManyFragments => Close::TOO_LARGE,
        };
        self.deaf = true;
        if self.begin_ending(close) {
            self.reply.extend(close_frame(close.code, close.reason));
        }
    }
}

impl Future for Echo {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        catch_unwind(AssertUnwindSafe(|| this.step(cx))).unwrap_or_else(|_| {
            this.node.metrics.panic_caught(PanicPlace::Connection);
            this.conn.terminate(Close::INTERNAL);
            Poll::Ready(())
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.conn.keep_inbound(0, &self.shard.counters);
        let ended = self.ending.or(self.conn.phase().end());
        self.conn.finish();
        self.shard.inbox.push(Command::Gone {
            slot: self.conn.member.slot,
        });
        self.counters().connections_closed.inc();
        let lifetime_s = self.opened.elapsed().as_secs_f64();
        let by_peer = self
            .left_by_peer
            .filter(|_| ended.is_none_or(|close| close == Close::NORMAL));
        match by_peer {
            _ if self.is_probe => {}
            Some(code) => self
                .node
                .metrics
                .disconnected(code, "none", Initiator::Client, lifetime_s),
            None => {
                let close = ended.unwrap_or(Close::HEARTBEAT);
                self.node
                    .metrics
                    .disconnected(close.code, close.reason, Initiator::Server, lifetime_s);
            }
        }
    }
}
