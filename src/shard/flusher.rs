//! Does what the inbox says and writes what came of it: no wake and no channel per delivery.
//!
//! A round takes the inbox whole, queues each frame to its members, and then gives every connection that has
//! something one turn. The first message after a pause leaves at once; while a round runs, the next gathers,
//! and everything gathered leaves as one TLS record and one `send`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Conn, Flushed, Held, Pushed};
use crate::hub::room::SHADOW_ID;
use crate::hub::{MemberId, Room};
use crate::limits::FLUSHES_PER_YIELD;
use crate::protocol::close::Close;
use crate::protocol::error::ErrorCode;
use crate::protocol::server;
use crate::shard::Shard;
use crate::shard::inbox::{Asked, Command, From, Settled};
use crate::shard::members::{Local, Queue};
use crate::telemetry::metrics::{PanicPlace, Recovery, SlowConsumer};
use crate::websocket::encoded::Frame;

/// One broadcast in so many is timed; a histogram entry for each would cost more than the broadcast.
const BROADCASTS_PER_SAMPLE: u64 = 64;

/// A slow reader comes back once it has caught its breath.
const SLOW_READER_RECONNECT_MS: u64 = 1_000;

/// Runs until the task is dropped.
pub(super) async fn run(shard: Arc<Shard>) {
    let mut commands = Vec::new();
    loop {
        wait(&shard).await;
        while round(&shard, &mut commands) {
            // Readers and acceptors of this thread have their turn between two slices.
            tokio::task::yield_now().await;
        }
    }
}

/// Until there is something to do: a command, or the end of a flush window.
async fn wait(shard: &Shard) {
    let end_ms = shard.local.lock().holding.next_end_ms();
    let Some(end_ms) = end_ms else {
        return shard.inbox.filled().await;
    };
    let end = shard.started + Duration::from_millis(end_ms);
    tokio::select! {
        () = shard.inbox.filled() => {}
        () = tokio::time::sleep_until(end.into()) => {}
    }
}

/// Empties the inbox and writes for up to [`FLUSHES_PER_YIELD`] connections; true if more is left to do.
/// `commands` lends its memory.
pub fn round(shard: &Shard, commands: &mut Vec<Command>) -> bool {
    let mut local = shard.local.lock();
    shard.inbox.take(commands);
    let now_ms = shard.now_ms();
    for command in commands.drain(..) {
        // A panic costs this command, never the shard.
        if catch_unwind(AssertUnwindSafe(|| shard.obey(&mut local, command, now_ms))).is_err() {
            shard.metrics.panic_caught(PanicPlace::Flusher);
        }
    }
    while let Some(room) = local.holding.pop_ended(now_ms) {
        if catch_unwind(AssertUnwindSafe(|| shard.release(&mut local, room, now_ms))).is_err() {
            shard.metrics.panic_caught(PanicPlace::Flusher);
        }
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
        if let Some(room) = command.must_find_said() {
            self.release(local, room, now_ms);
        }
        match command {
            Command::Chat {
                room,
                frame,
                window_ms: 0,
            } => self.chat(local, room, &frame, now_ms),
            Command::Chat { room, frame, window_ms } => {
                if local.holding.hold(room, frame, window_ms, now_ms) {
                    self.release(local, room, now_ms);
                }
            }
            Command::Reset { room, member, frame } => {
                if let Some(conn) = local.same(member).cloned()
                    && local
                        .room(room)
                        .is_some_and(|members| members.live.contains_key(&member.slot))
                {
                    self.queue(local, &conn, frame, now_ms);
                }
            }
            Command::Presence {
                room,
                frame,
                except,
                granted,
            } => {
                let is_told = |conn: &Conn| {
                    except.as_deref().is_none_or(|user| !conn.is_of(user))
                        && granted.as_deref().is_none_or(|room| conn.is_granted_list(room))
                };
                self.presence(local, room, &frame, is_told, now_ms);
            }
            Command::Enter {
                room,
                slot,
                list,
                from,
                again,
            } => self.enter(local, room, slot, list, from, again, now_ms),
            Command::CaughtUp { room, slot, generation } => caught_up(local, room, slot, generation),
            Command::List {
                room,
                slot,
                frame,
                asked,
            } => {
                let Some(conn) = local.conn(slot).cloned() else { return };
                self.answer_list(local, &conn, room, frame, *asked, now_ms);
            }
            Command::Leave { room, slot } => self.leave(local, room, slot, now_ms),
            Command::Reply { member, frame } => {
                if let Some(conn) = local.same(member).cloned() {
                    self.queue(local, &conn, frame, now_ms);
                }
            }
            Command::ToUser(what) => self.to_user(local, what, now_ms),
            Command::Said {
                member,
                frame,
                kept,
                by_probe,
            } => {
                self.count_said(kept, by_probe);
                if let Some(conn) = local.same(member).cloned() {
                    conn.end_saying();
                    if let Some(frame) = frame {
                        self.queue(local, &conn, frame, now_ms);
                    }
                }
            }
            Command::Settled { member, frame, settled } => self.settle(local, member, frame, settled, now_ms),
            Command::Close {
                member,
                close,
                reconnect_after_ms,
            } => {
                if let Some(conn) = local.same(member).cloned() {
                    self.close(local, &conn, close, reconnect_after_ms, now_ms);
                }
            }
            Command::End { ending, from } => self.end(local, ending, from, now_ms),
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

    /// What became of a chat that went to the backplane.
    fn count_said(&self, kept: Option<bool>, by_probe: bool) {
        let counters = self.counters.of(by_probe);
        match kept {
            Some(true) => counters.publishes.inc(),
            Some(false) => counters.duplicate_publishes.inc(),
            None if by_probe => {}
            None => self.metrics.error_sent(ErrorCode::Unavailable.as_str()),
        }
    }

    fn leave(&self, local: &mut Local, room: u64, slot: u32, now_ms: u64) {
        if let Some(conn) = local.conn(slot).cloned() {
            for asked in conn.end_replay(room) {
                self.queue(local, &conn, left_too_soon(&asked), now_ms);
                self.metrics.error_sent(ErrorCode::NotJoined.as_str());
            }
        }
        local.leave(room, slot);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one command")]
    fn enter(
        &self,
        local: &mut Local,
        room: Arc<Room>,
        slot: u32,
        list: Frame,
        from: From,
        again: Option<Box<Asked>>,
        now_ms: u64,
    ) {
        let Some(conn) = local.conn(slot).cloned() else { return };
        if let Some(asked) = again {
            // It stays where it is, live or replaying.
            return self.answer_list(local, &conn, room.id, list, *asked, now_ms);
        }
        self.queue(local, &conn, list, now_ms);
        let members = local.room_for(room.id);
        members.live.swap_remove(&slot);
        members.replaying.swap_remove(&slot);
        match from {
            From::Head => {
                members.live.insert(slot, conn);
            }
            From::After(at) => {
                let (generation, begun) = conn.begin_replay(Arc::clone(&room), at);
                members.replaying.insert(slot, (Arc::clone(&conn), generation));
                if begun == Pushed::Dirty {
                    local.dirty.push_back(conn);
                }
            }
        }
    }

    fn settle(&self, local: &mut Local, member: MemberId, frame: Option<Frame>, settled: Settled, now_ms: u64) {
        match settled {
            Settled::In {
                recovered: Some(recovered),
            } => {
                self.metrics.history_recovery(if recovered {
                    Recovery::Recovered
                } else {
                    Recovery::NotRecovered
                });
                self.counters.replays.add(u64::from(recovered));
            }
            Settled::In { recovered: None } | Settled::Paged => {}
            Settled::Refused(code) => self.metrics.error_sent(code.as_str()),
        }
        if let Some(conn) = local.same(member).cloned() {
            if let Some(frame) = frame {
                self.queue(local, &conn, frame, now_ms);
            }
            conn.settle(matches!(settled, Settled::Refused(_)));
        }
    }

    fn answer_list(&self, local: &mut Local, conn: &Arc<Conn>, room: u64, frame: Frame, asked: Asked, now_ms: u64) {
        let (held, begun) = conn.hold_list(room, asked, &self.outbox_limits);
        match held {
            Held::Yes => {}
            Held::Anew(generation) => {
                let replaying = &mut local.room_for(room).replaying;
                replaying.insert(conn.member.slot, (Arc::clone(conn), generation));
                if begun == Pushed::Dirty {
                    local.dirty.push_back(Arc::clone(conn));
                }
            }
            Held::No => self.queue(local, conn, frame, now_ms),
            Held::TooMany => self.cut(local, vec![(Arc::clone(conn), SlowConsumer::Frames)], now_ms),
        }
    }

    /// Hands on what waits in a room.
    fn release(&self, local: &mut Local, room: u64, now_ms: u64) {
        if local.holding.is_empty() {
            return;
        }
        for frame in local.holding.release(room) {
            self.chat(local, room, &frame, now_ms);
        }
    }

    fn chat(&self, local: &mut Local, room: u64, frame: &Frame, now_ms: u64) {
        local.broadcasts = local.broadcasts.wrapping_add(1);
        let sampled = local.broadcasts.is_multiple_of(BROADCASTS_PER_SAMPLE) && room & SHADOW_ID == 0;
        let started = sampled.then(std::time::Instant::now);
        let (members, mut queue) = local.room_and_queue(room);
        let Some(members) = members else { return };
        let count = members.live.len();
        members.turn = (members.turn + 1) % count.max(1);
        let (first, last) = members.live.as_slice().split_at(members.turn);
        self.queue_all(last.values().chain(first.values()), frame, now_ms, &mut queue);
        let late = queue.late;
        self.cut(local, late, now_ms);
        self.counters.of(room & SHADOW_ID != 0).deliveries.add(count as u64);
        if let Some(started) = started {
            self.metrics.broadcast_seconds(started.elapsed().as_secs_f64());
        }
    }

    fn presence(&self, local: &mut Local, room: u64, frame: &Frame, is_told: impl Fn(&Conn) -> bool, now_ms: u64) {
        let (members, mut queue) = local.room_and_queue(room);
        let Some(members) = members else { return };
        let replaying = members.replaying.values().map(|(conn, _)| conn);
        let told = (members.live.values().chain(replaying)).filter(|conn| is_told(conn));
        self.queue_all(told, frame, now_ms, &mut queue);
        let late = queue.late;
        self.cut(local, late, now_ms);
    }

    fn queue_all<'a>(
        &self,
        members: impl Iterator<Item = &'a Arc<Conn>>,
        frame: &Frame,
        now_ms: u64,
        queue: &mut Queue<'_>,
    ) {
        for conn in members {
            match conn.push(frame.clone(), &self.outbox_limits, &self.counters, now_ms) {
                Pushed::Dirty => queue.dirty.push_back(Arc::clone(conn)),
                Pushed::Over(limit) => queue.late.push((Arc::clone(conn), limit)),
                Pushed::Queued | Pushed::Dropped => {}
            }
        }
    }

    pub(super) fn queue(&self, local: &mut Local, conn: &Arc<Conn>, frame: Frame, now_ms: u64) {
        if self.taps.is_on()
            && let Some(identity) = conn.identity()
        {
            self.taps.to_user(&identity.user_id, conn.session, &frame);
        }
        match conn.push(frame, &self.outbox_limits, &self.counters, now_ms) {
            Pushed::Dirty => local.dirty.push_back(Arc::clone(conn)),
            Pushed::Over(limit) => self.cut(local, vec![(Arc::clone(conn), limit)], now_ms),
            Pushed::Queued | Pushed::Dropped => {}
        }
    }

    pub(super) fn close(
        &self,
        local: &mut Local,
        conn: &Arc<Conn>,
        close: Close,
        reconnect_after_ms: u64,
        now_ms: u64,
    ) -> Pushed {
        let pushed = conn.close(close, reconnect_after_ms, &self.counters, now_ms);
        if pushed == Pushed::Dirty {
            local.dirty.push_back(Arc::clone(conn));
        }
        pushed
    }

    /// Closes slow readers. They harm only themselves: their place is kept in history.
    pub(super) fn cut(&self, local: &mut Local, late: Vec<(Arc<Conn>, SlowConsumer)>, now_ms: u64) {
        for (conn, limit) in late {
            if self.close(local, &conn, Close::SLOW_READER, SLOW_READER_RECONNECT_MS, now_ms) != Pushed::Dropped {
                self.metrics.slow_consumer(limit);
            }
        }
    }

    /// One connection's turn. A panic in it ends that connection and no other.
    fn flush(&self, local: &mut Local, conn: Arc<Conn>, now_ms: u64) {
        let flushed = catch_unwind(AssertUnwindSafe(|| {
            conn.flush(&self.outbox_limits, &self.counters, now_ms)
        }));
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

/// A member whose replay has reached the head is live from now on.
fn caught_up(local: &mut Local, room: u64, slot: u32, generation: u32) {
    if let Some(members) = local.room(room)
        && members
            .replaying
            .get(&slot)
            .is_some_and(|(_, running)| *running == generation)
        && let Some((conn, _)) = members.replaying.swap_remove(&slot)
    {
        conn.settle_replay(room, generation);
        members.live.insert(slot, conn);
    }
}

/// Answers a list that was to follow a replay, of a room that has been left before: a list now would name a place
/// that the client never reached.
fn left_too_soon(asked: &Asked) -> Frame {
    let error = server::Error {
        reference: asked.reference(),
        code: ErrorCode::NotJoined,
        message: "the room was left before its list could be said",
        reason: None,
        retry_after_ms: None,
    };
    Frame::text(|out| error.write(out))
}
