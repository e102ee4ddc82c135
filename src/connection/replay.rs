//! What a returning member missed, read through a cursor whenever its outbox is empty.
//!
//! The room's live chats wait behind it (the shard keeps the member apart until it has caught up), so a long
//! replay never trips the backlog limit: otherwise it would be tried and closed for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::connection::outbox::Outbox;
use crate::hub::MemberId;
use crate::hub::room::{Replay as Piece, Room};
use crate::limits::REPLAY_PIECE_BYTES;
use crate::protocol::server::{Reset, ResetReason};
use crate::telemetry::metrics::ShardCounters;
use crate::websocket::encoded::Frame;

/// One room's cursor.
pub(crate) struct Replay {
    room: Arc<Room>,
    /// The last seq handed out.
    at: u64,
    /// `list` replies that were asked for meanwhile.
    held: Vec<Frame>,
}

impl Replay {
    pub(crate) fn new(room: Arc<Room>, after: u64) -> Self {
        Self {
            room,
            at: after,
            held: Vec::new(),
        }
    }
}

/// The replays of one connection, one per room at most. No allocation while there are none.
#[derive(Default)]
pub(crate) struct Replays(VecDeque<Replay>);

pub(crate) enum Refill {
    /// No replay has anything to say.
    Nothing,
    /// The outbox has frames again.
    Filled,
}

impl Replays {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }

    /// A second replay of the same room takes the place of the first.
    pub(crate) fn begin(&mut self, replay: Replay) {
        self.end(replay.room.id);
        self.0.push_back(replay);
    }

    pub(crate) fn end(&mut self, room: u64) {
        self.0.retain(|replay| replay.room.id != room);
        if self.0.is_empty() {
            self.clear();
        }
    }

    /// Keeps `frame` until the replay of `room` is done; gives it back if none runs.
    pub(crate) fn hold(&mut self, room: u64, frame: Frame) -> Result<(), Frame> {
        match self.0.iter_mut().find(|replay| replay.room.id == room) {
            Some(replay) => {
                replay.held.push(frame);
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// Bytes of held replies: they count as backlog.
    pub(crate) fn held_bytes(&self) -> usize {
        self.0
            .iter()
            .flat_map(|replay| &replay.held)
            .map(|frame| frame.bytes().len())
            .sum()
    }

    /// Fills the empty outbox with at most one piece of [`REPLAY_PIECE_BYTES`], the rooms taking turns.
    pub(crate) fn refill(
        &mut self,
        member: MemberId,
        outbox: &mut Outbox,
        counters: &ShardCounters,
        now_ms: u64,
    ) -> Refill {
        while let Some(mut replay) = self.0.pop_front() {
            let mut messages = 0;
            let piece = replay.room.replay(member, replay.at, REPLAY_PIECE_BYTES, |frame| {
                messages += 1;
                outbox.push(frame, now_ms);
            });
            counters.replayed_messages.add(messages);
            match piece {
                Piece::Piece(at) => {
                    replay.at = at;
                    self.0.push_back(replay);
                }
                Piece::Trimmed { epoch, seq } => {
                    let reset = Reset {
                        room_json: &replay.room.name_json,
                        epoch: &epoch,
                        seq,
                        reason: ResetReason::Trimmed,
                    };
                    outbox.push(Frame::text(|out| reset.write(out)), now_ms);
                    replay.at = seq;
                    self.0.push_back(replay);
                }
                Piece::CaughtUp => {
                    for frame in replay.held {
                        outbox.push(frame, now_ms);
                    }
                }
            }
            if !outbox.is_empty() {
                return Refill::Filled;
            }
        }
        self.clear();
        Refill::Nothing
    }
}
