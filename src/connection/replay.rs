//! What a returning member missed, read through a cursor whenever its outbox is empty.
//!
//! The room's live chats wait behind it (the shard keeps the member apart until it has caught up), so a long
//! replay never trips the backlog limit: otherwise it would be tried and closed for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::connection::outbox::Outbox;
use crate::hub::MemberId;
use crate::hub::room::{Cursor, PieceLimits, Replay as Piece, Room};
use crate::protocol::server::{Reset, ResetReason};
use crate::shard::inbox::Asked;
use crate::telemetry::metrics::ShardCounters;
use crate::websocket::encoded::Frame;

/// One room's cursor.
struct Replay {
    room: Arc<Room>,
    generation: u32,
    /// The last seq handed out.
    at: u64,
    /// Lists that were asked for meanwhile: they are answered at the end, since a list says where one stands.
    held: Vec<Asked>,
}

/// What became of a list that was asked for.
pub enum Held {
    /// It will be answered at the end of the replay.
    Yes,
    /// No replay runs: answer it now.
    No(Box<Asked>),
    /// More lists wait than frames may.
    TooMany,
}

/// The replays of one connection, one per room at most. No allocation while there are none.
#[derive(Default)]
pub struct Replays(Option<Box<Running>>);

#[derive(Default)]
struct Running {
    replays: VecDeque<Replay>,
    /// Of the last one begun.
    generation: u32,
}

pub enum Refill {
    /// No replay has anything to say.
    Nothing,
    /// The outbox has frames again.
    Filled,
}

impl Replays {
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|running| running.replays.is_empty())
    }

    pub fn clear(&mut self) {
        if let Some(running) = &mut self.0 {
            running.replays = VecDeque::new();
        }
    }

    /// Begins after `seq`; a second replay of the same room takes the place of the first. Returns its generation.
    pub fn begin(&mut self, room: Arc<Room>, seq: u64) -> u32 {
        self.end(room.id);
        let running = self.0.get_or_insert_default();
        running.generation = running.generation.wrapping_add(1);
        let generation = running.generation;
        running.replays.push_back(Replay {
            room,
            generation,
            at: seq,
            held: Vec::new(),
        });
        generation
    }

    pub fn end(&mut self, room: u64) {
        if let Some(running) = &mut self.0 {
            running.replays.retain(|replay| replay.room.id != room);
        }
    }

    /// Answers `asked` at the end of the replay of `room`, of which at most `max` may wait.
    pub fn hold(&mut self, room: u64, asked: Box<Asked>, max: usize) -> Held {
        let mut replays = self.0.iter_mut().flat_map(|running| &mut running.replays);
        match replays.find(|replay| replay.room.id == room) {
            None => Held::No(asked),
            Some(replay) if replay.held.len() >= max => Held::TooMany,
            Some(replay) => {
                replay.held.push(*asked);
                Held::Yes
            }
        }
    }

    /// Fills the empty outbox with at most one piece, the rooms taking turns.
    pub fn refill(
        &mut self,
        member: MemberId,
        outbox: &mut Outbox,
        limits: PieceLimits,
        counters: &ShardCounters,
        now_ms: u64,
    ) -> Refill {
        let Some(running) = &mut self.0 else {
            return Refill::Nothing;
        };
        while let Some(mut replay) = running.replays.pop_front() {
            let mut messages = 0;
            let cursor = Cursor {
                member,
                generation: replay.generation,
                seq: replay.at,
            };
            let piece = replay.room.replay(&cursor, limits, &replay.held, |frame, is_chat| {
                messages += u64::from(is_chat);
                outbox.push(frame, now_ms);
            });
            counters.replayed_messages.add(messages);
            match piece {
                Piece::Piece(at) => {
                    replay.at = at;
                    running.replays.push_back(replay);
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
                    running.replays.push_back(replay);
                }
                Piece::CaughtUp => {}
            }
            if !outbox.is_empty() {
                return Refill::Filled;
            }
        }
        running.replays = VecDeque::new();
        Refill::Nothing
    }
}
