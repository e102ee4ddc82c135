//! What a returning member missed, read through a cursor whenever its outbox is empty.
//!
//! The room's live chats wait behind it (the shard keeps the member apart until it has caught up), so a long
//! replay never trips the backlog limit: otherwise it would be tried and closed for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backplane::contract::Position;
use crate::connection::outbox::Outbox;
use crate::hub::MemberId;
use crate::hub::room::{Cursor, PieceLimits, Replay as Piece, Room};
use crate::protocol::server::Reset;
use crate::shard::inbox::Asked;
use crate::telemetry::metrics::ShardCounters;
use crate::websocket::encoded::Frame;

/// One room's cursor.
struct Replay {
    room: Arc<Room>,
    generation: u32,
    /// The last message handed out.
    at: Position,
    /// Lists that were asked for meanwhile: they are answered at the end, since a list says where one stands.
    held: Vec<Asked>,
}

/// What became of a list that was asked for.
pub enum Held {
    /// It will be answered at the end of the replay.
    Yes,
    /// The replay has reached the head, but its shard has not come to that word yet, and a list from before it would
    /// name a place that the client has passed: it goes on as this generation, and answers at its end.
    Anew(u32),
    /// No replay runs: answer it now.
    No,
    /// More lists wait than frames may.
    TooMany,
}

/// The replays of one connection, one per room at most. No allocation while there are none.
#[derive(Default)]
pub struct Replays(Option<Box<Running>>);

#[derive(Default)]
struct Running {
    replays: VecDeque<Replay>,
    /// Those that have reached the head, until their shard has come to that word.
    caught_up: Vec<Replay>,
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
            running.caught_up = Vec::new();
        }
    }

    /// Begins after `at`; a second replay of the same room takes the place of the first, and answers what that one
    /// would have. Returns its generation.
    pub fn begin(&mut self, room: Arc<Room>, at: Position) -> u32 {
        let held = self.end(room.id);
        let running = self.0.get_or_insert_default();
        running.generation = running.generation.wrapping_add(1);
        let generation = running.generation;
        running.replays.push_back(Replay {
            room,
            generation,
            at,
            held,
        });
        generation
    }

    /// Gives up the replay of `room`, if there is one. Returns the lists that it still had to answer.
    pub fn end(&mut self, room: u64) -> Vec<Asked> {
        let Some(running) = &mut self.0 else {
            return Vec::new();
        };
        running.caught_up.retain(|replay| replay.room.id != room);
        let at = running.replays.iter().position(|replay| replay.room.id == room);
        at.and_then(|at| running.replays.remove(at))
            .map(|replay| replay.held)
            .unwrap_or_default()
    }

    /// Answers `asked` at the end of the replay of `room`, of which at most `max` may wait.
    pub fn hold(&mut self, room: u64, asked: Asked, max: usize) -> Held {
        let Some(running) = &mut self.0 else {
            return Held::No;
        };
        match running.replays.iter_mut().find(|replay| replay.room.id == room) {
            Some(replay) if replay.held.len() >= max => return Held::TooMany,
            Some(replay) => {
                replay.held.push(asked);
                return Held::Yes;
            }
            None => {}
        }
        let Some(at) = running.caught_up.iter().position(|replay| replay.room.id == room) else {
            return Held::No;
        };
        let mut replay = running.caught_up.swap_remove(at);
        running.generation = running.generation.wrapping_add(1);
        replay.generation = running.generation;
        replay.held.push(asked);
        running.replays.push_back(replay);
        Held::Anew(running.generation)
    }

    /// The shard has come to the word that this replay has reached the head.
    pub fn settle(&mut self, room: u64, generation: u32) {
        if let Some(running) = &mut self.0 {
            running
                .caught_up
                .retain(|replay| replay.room.id != room || replay.generation != generation);
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
        for _ in 0..running.replays.len() {
            let Some(mut replay) = running.replays.pop_front() else {
                break;
            };
            let mut messages = 0;
            let cursor = Cursor {
                member,
                generation: replay.generation,
                at: &replay.at,
            };
            let piece = replay.room.replay(&cursor, limits, &replay.held, |frame, is_chat| {
                messages += u64::from(is_chat);
                outbox.push(frame, now_ms);
            });
            counters.replayed_messages.add(messages);
            match piece {
                // Who is leaving is told so by its shard, as soon as that comes to it.
                Piece::Piece(at) | Piece::Leaving(at) => {
                    replay.at = at;
                    running.replays.push_back(replay);
                }
                Piece::Reset { to, reason } => {
                    let reset = Reset {
                        room_json: &replay.room.name_json,
                        epoch: &to.epoch,
                        seq: to.seq,
                        reason,
                    };
                    outbox.push(Frame::text(|out| reset.write(out)), now_ms);
                    replay.at = to;
                    running.replays.push_back(replay);
                }
                Piece::CaughtUp(at) => {
                    replay.at = at;
                    replay.held = Vec::new();
                    running.caught_up.push(replay);
                }
            }
            if !outbox.is_empty() {
                return Refill::Filled;
            }
        }
        if running.replays.is_empty() {
            running.replays = VecDeque::new();
        }
        Refill::Nothing
    }
}
