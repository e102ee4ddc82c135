//! Does what the inbox says and writes what came of it: no wake and no channel per delivery.
//!
//! A round takes the inbox whole, queues each frame to its members, and then gives every connection that has
//! something one turn. The first message after a pause leaves at once; while a round runs, the next gathers,
//! and everything gathered leaves as one TLS record and one `send`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::connection::{Conn, Flushed, Pushed};
use crate::limits::FLUSHES_PER_YIELD;
use crate::protocol::close::Close;
use crate::shard::Shard;
use crate::shard::inbox::{Command, From};
use crate::shard::members::{Local, MemberMap};
use crate::telemetry::metrics::{PanicPlace, SlowConsumer};
use crate::websocket::encoded::Frame;

/// One broadcast in so many is timed; a histogram entry for each would cost more than the broadcast.
const BROADCASTS_PER_SAMPLE: u64 = 64;

/// A slow reader comes back once it has caught its breath.
const SLOW_READER_RECONNECT_MS: u64 = 1_000;

/// Runs until the task is dropped.
pub(super) async fn run(shard: Arc<Shard>) {
    let mut commands = Vec::new();
    loop {
        shard.inbox.filled().await;
        if !shard.flush_window.is_zero() {
            tokio::time::sleep(shard.flush_window).await;
        }
        while round(&shard, &mut commands) {
            // Readers and acceptors of this thread have their turn between two slices.
            tokio::task::yield_now().await;
        }
    }
}

/// Empties the inbox and writes for up to [`FLUSHES_PER_YIELD`] connections; true if more is left to do.
/// `commands` lends its memory.
pub fn round(shard: &Shard, commands: &mut Vec<Command>) -> bool {
    let mut local = shard.local.lock();
    shard.inbox.take(commands);
    let now_ms = shard.now_ms();
    for command in commands.drain(..) {
        shard.obey(&mut local, command, now_ms);
    }
    let mut flushes = 0;
    while flushes < FLUSHES_PER_YIELD
        && let Some(conn) = local.dirty.pop_front()
    {
        shard.flush(&mut local, conn, now_ms);
        flushes += 1;
    }
    shard.counters.flushes.add(flushes as u64);
    !local.dirty.is_empty()
}

impl Shard {
    fn obey(&self, local: &mut Local, command: Command, now_ms: u64) {
        match command {
            Command::Chat { room, frame } => self.chat(local, room, &frame, now_ms),
            Command::Presence { room, frame } => self.presence(local, room, &frame, now_ms),
            Command::Enter { room, slot, list, from } => {
                let Some(conn) = local.conn(slot).cloned() else { return };
                self.queue(local, &conn, list, now_ms);
                let id = room.id;
                let members = local.room_for(id);
                members.live.swap_remove(&slot);
                members.replaying.swap_remove(&slot);
                match from {
                    From::Head => {
                        conn.end_replay(id);
                        members.live.insert(slot, conn);
                    }
                    From::After(seq) => {
                        members.replaying.insert(slot, Arc::clone(&conn));
                        let begun = conn.begin_replay(crate::connection::replay::Replay::new(room, seq));
                        if begun == Pushed::Dirty {
                            local.dirty.push_back(conn);
                        }
                    }
                }
            }
            Command::CaughtUp { room, slot } => {
                if let Some(members) = local.room(room)
                    && let Some(conn) = members.replaying.swap_remove(&slot)
                {
                    members.live.insert(slot, conn);
                }
            }
            Command::List { room, slot, frame } => {
                let Some(conn) = local.conn(slot).cloned() else { return };
                if let Err(frame) = conn.push_behind_replay(room, frame) {
                    self.queue(local, &conn, frame, now_ms);
                }
            }
            Command::Leave { room, slot } => {
                if let Some(conn) = local.conn(slot) {
                    conn.end_replay(room);
                }
                local.leave(room, slot);
            }
            Command::Reply { slot, frame } => {
                if let Some(conn) = local.conn(slot).cloned() {
                    self.queue(local, &conn, frame, now_ms);
                }
            }
            Command::Close {
                slot,
                close,
                reconnect_after_ms,
            } => {
                if let Some(conn) = local.conn(slot).cloned()
                    && conn.close(close, reconnect_after_ms, now_ms) == Pushed::Dirty
                {
                    local.dirty.push_back(conn);
                }
            }
            Command::Answer { slot, code } => {
                if let Some(conn) = local.conn(slot).cloned()
                    && conn.answer_close(code, now_ms) == Pushed::Dirty
                {
                    local.dirty.push_back(conn);
                }
            }
            Command::Gone { slot } => local.forget(slot),
        }
    }

    fn chat(&self, local: &mut Local, room: u64, frame: &Frame, now_ms: u64) {
        let sampled = self.counters.deliveries.value().is_multiple_of(BROADCASTS_PER_SAMPLE);
        let started = sampled.then(std::time::Instant::now);
        let Some(members) = local.room(room) else { return };
        let count = members.live.len();
        members.turn = if count == 0 { 0 } else { (members.turn + 1) % count };
        let turn = members.turn;
        let mut late = Vec::new();
        let mut dirty = std::mem::take(&mut local.dirty);
        if let Some(members) = local.room(room) {
            self.queue_all(&members.live, turn, frame, now_ms, &mut dirty, &mut late);
        }
        local.dirty = dirty;
        self.cut(local, late, now_ms);
        self.counters.deliveries.add(count as u64);
        if let Some(started) = started {
            self.metrics.broadcast_seconds(started.elapsed().as_secs_f64());
        }
    }

    fn presence(&self, local: &mut Local, room: u64, frame: &Frame, now_ms: u64) {
        let mut late = Vec::new();
        let mut dirty = std::mem::take(&mut local.dirty);
        if let Some(members) = local.room(room) {
            self.queue_all(&members.live, 0, frame, now_ms, &mut dirty, &mut late);
            self.queue_all(&members.replaying, 0, frame, now_ms, &mut dirty, &mut late);
        }
        local.dirty = dirty;
        self.cut(local, late, now_ms);
    }

    /// Queues `frame` to every member, beginning with the one at `turn`.
    fn queue_all(
        &self,
        members: &MemberMap,
        turn: usize,
        frame: &Frame,
        now_ms: u64,
        dirty: &mut std::collections::VecDeque<Arc<Conn>>,
        late: &mut Vec<(Arc<Conn>, SlowConsumer)>,
    ) {
        let (first, last) = members.as_slice().split_at(turn.min(members.len()));
        for conn in last.values().chain(first.values()) {
            match conn.push(frame.clone(), &self.outbox_limits, now_ms) {
                Pushed::Dirty => dirty.push_back(Arc::clone(conn)),
                Pushed::Over(limit) => late.push((Arc::clone(conn), limit)),
                Pushed::Queued | Pushed::Dropped => {}
            }
        }
    }

    fn queue(&self, local: &mut Local, conn: &Arc<Conn>, frame: Frame, now_ms: u64) {
        match conn.push(frame, &self.outbox_limits, now_ms) {
            Pushed::Dirty => local.dirty.push_back(Arc::clone(conn)),
            Pushed::Over(limit) => self.cut(local, vec![(Arc::clone(conn), limit)], now_ms),
            Pushed::Queued | Pushed::Dropped => {}
        }
    }

    /// Closes slow readers. They harm only themselves: their place is kept in history.
    pub(super) fn cut(&self, local: &mut Local, late: Vec<(Arc<Conn>, SlowConsumer)>, now_ms: u64) {
        for (conn, limit) in late {
            if conn.close(Close::SLOW_READER, SLOW_READER_RECONNECT_MS, now_ms) == Pushed::Dirty {
                local.dirty.push_back(Arc::clone(&conn));
            }
            self.metrics.slow_consumer(limit);
        }
    }

    /// One connection's turn. A panic in it ends that connection and no other.
    fn flush(&self, local: &mut Local, conn: Arc<Conn>, now_ms: u64) {
        let flushed = catch_unwind(AssertUnwindSafe(|| conn.flush(&self.counters, now_ms)));
        match flushed {
            Ok(Flushed::Done) => {}
            Ok(Flushed::More) => local.dirty.push_back(conn),
            Ok(Flushed::Waiting) => local.waiting.push(conn),
            Err(_) => {
                self.metrics.panic_caught(PanicPlace::Flusher);
                conn.terminate(Close::INTERNAL);
            }
        }
    }
}
