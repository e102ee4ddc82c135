//! Shards without connections: they do what `shard::flusher` does with each command, and hand out what would be
//! written, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::backplane::contract::Position;
use crate::hub::room::{Cursor, PieceLimits, Replay};
use crate::hub::{MemberId, Room};
use crate::protocol::error::ErrorCode;
use crate::protocol::server;
use crate::shard::inbox::{Asked, Command, From, Inbox, Settled};
use crate::websocket::encoded::Frame;

#[derive(Debug, Clone, Copy)]
pub struct PieceSize {
    pub bytes: usize,
    pub frames: usize,
}

struct Running {
    room: Arc<Room>,
    generation: u32,
    at: Position,
    held: Vec<Asked>,
}

#[derive(Default)]
struct Conn {
    tab: usize,
    /// The test has given it up: nobody reads what still comes.
    ended: bool,
    replays: VecDeque<Running>,
    caught_up: Vec<Running>,
    generation: u32,
}

#[derive(Default)]
struct Members {
    name: Arc<str>,
    live: BTreeSet<u32>,
    replaying: BTreeMap<u32, u32>,
}

struct Shard {
    inbox: Arc<Inbox>,
    conns: Vec<Option<Conn>>,
    rooms: BTreeMap<u64, Members>,
}

pub struct Shards {
    shards: Vec<Shard>,
    piece: PieceSize,
    /// Tab, frame, and whether it is a list that had to wait for the end of a replay.
    delivered: Vec<(usize, Frame, bool)>,
    /// Slots whose request to the backplane came out.
    pub settled: Vec<(u32, Settled)>,
}

impl Shards {
    pub fn new(inboxes: Arc<[Arc<Inbox>]>, piece: PieceSize) -> Self {
        let shard = |inbox: &Arc<Inbox>| Shard {
            inbox: Arc::clone(inbox),
            conns: Vec::new(),
            rooms: BTreeMap::new(),
        };
        Self {
            shards: inboxes.iter().map(shard).collect(),
            piece,
            delivered: Vec::new(),
            settled: Vec::new(),
        }
    }

    pub fn register(&mut self, shard: usize, tab: usize) -> u32 {
        let conns = &mut self.shards[shard].conns;
        let conn = Conn { tab, ..Conn::default() };
        let slot = conns.iter().position(Option::is_none).unwrap_or_else(|| {
            conns.push(None);
            conns.len() - 1
        });
        conns[slot] = Some(conn);
        u32::try_from(slot).expect("few")
    }

    pub fn end(&mut self, shard: usize, slot: u32) {
        let conn = self.shards[shard].conns[slot as usize].as_mut().expect("registered");
        conn.ended = true;
        conn.replays.clear();
        conn.caught_up.clear();
    }

    pub fn member(shard: usize, slot: u32) -> MemberId {
        MemberId {
            life: 0,
            shard: u16::try_from(shard).expect("few"),
            slot,
        }
    }

    pub fn inbox(&self, shard: usize) -> &Inbox {
        &self.shards[shard].inbox
    }

    pub fn is_in(&self, shard: usize, slot: u32, name: &str) -> bool {
        let holds = |members: &Members| members.live.contains(&slot) || members.replaying.contains_key(&slot);
        self.shards[shard]
            .rooms
            .values()
            .any(|members| &*members.name == name && holds(members))
    }

    pub fn delivered(&mut self) -> Vec<(usize, Frame, bool)> {
        std::mem::take(&mut self.delivered)
    }

    pub fn is_quiet(&self) -> bool {
        let replays = |shard: &Shard| shard.conns.iter().flatten().any(|conn| !conn.replays.is_empty());
        let waiting = |shard: &Shard| shard.rooms.values().any(|members| !members.replaying.is_empty());
        !self.shards.iter().any(|shard| replays(shard) || waiting(shard))
    }

    pub fn drain(&mut self, shard: usize) {
        let mut commands = Vec::new();
        self.shards[shard].inbox.take(&mut commands);
        for command in commands {
            self.obey(shard, command);
        }
    }

    fn obey(&mut self, shard: usize, command: Command) {
        match command {
            Command::Chat { room, frame, .. } => {
                let members = self.shards[shard].rooms.get(&room).map(|members| members.live.clone());
                for slot in members.unwrap_or_default() {
                    self.hand(shard, slot, frame.clone(), false);
                }
            }
            Command::Presence { room, frame, .. } => {
                let Some(members) = self.shards[shard].rooms.get(&room) else {
                    return;
                };
                let slots: Vec<u32> = members.live.iter().chain(members.replaying.keys()).copied().collect();
                for slot in slots {
                    self.hand(shard, slot, frame.clone(), false);
                }
            }
            Command::Enter {
                room,
                slot,
                list,
                from,
                again,
            } => match again {
                Some(asked) => self.answer(shard, slot, room.id, list, *asked),
                None => self.enter(shard, slot, room, list, from),
            },
            Command::CaughtUp { room, slot, generation } => {
                let Some(members) = self.shards[shard].rooms.get_mut(&room) else {
                    return;
                };
                if members.replaying.get(&slot) == Some(&generation) {
                    members.replaying.remove(&slot);
                    members.live.insert(slot);
                    if let Some(conn) = self.shards[shard].conns[slot as usize].as_mut() {
                        conn.caught_up.retain(|running| running.room.id != room);
                    }
                }
            }
            Command::List {
                room,
                slot,
                frame,
                asked,
            } => self.answer(shard, slot, room, frame, *asked),
            Command::Leave { room, slot } => {
                for asked in self.end_replay(shard, slot, room) {
                    let error = server::Error {
                        reference: asked.reference(),
                        code: ErrorCode::NotJoined,
                        message: "",
                        reason: None,
                        retry_after_ms: None,
                    };
                    self.hand(shard, slot, Frame::text(|out| error.write(out)), true);
                }
                if let Some(members) = self.shards[shard].rooms.get_mut(&room) {
                    members.live.remove(&slot);
                    members.replaying.remove(&slot);
                }
            }
            Command::Gone { slot } => self.shards[shard].conns[slot as usize] = None,
            Command::Reset { member, frame, .. } => self.hand(shard, member.slot, frame, false),
            Command::Said { member, frame, .. } => {
                if let Some(frame) = frame {
                    self.hand(shard, member.slot, frame, false);
                }
            }
            Command::Settled { member, frame, settled } => {
                if let Some(frame) = frame {
                    self.hand(shard, member.slot, frame, false);
                }
                self.settled.push((member.slot, settled));
            }
            Command::Reply { .. }
            | Command::End { .. }
            | Command::Close { .. }
            | Command::Answer { .. }
            | Command::ToUser(_) => {
                panic!("the hub does not say this")
            }
        }
    }

    fn enter(&mut self, shard: usize, slot: u32, room: Arc<Room>, list: Frame, from: From) {
        self.hand(shard, slot, list, false);
        let id = room.id;
        let held = self.end_replay(shard, slot, id);
        let this = &mut self.shards[shard];
        let members = this.rooms.entry(id).or_default();
        members.name = Arc::clone(&room.name);
        members.live.remove(&slot);
        members.replaying.remove(&slot);
        let conn = this.conns[slot as usize].as_mut().expect("registered");
        match from {
            From::Head => {
                assert!(held.is_empty(), "who is in the room and asks again stays where it is");
                members.live.insert(slot);
            }
            From::After(at) => {
                conn.generation += 1;
                members.replaying.insert(slot, conn.generation);
                if !conn.ended {
                    conn.replays.push_back(Running {
                        room,
                        generation: conn.generation,
                        at,
                        held,
                    });
                }
            }
        }
    }

    fn answer(&mut self, shard: usize, slot: u32, room: u64, list: Frame, asked: Asked) {
        let Some(conn) = self.shards[shard].conns[slot as usize].as_mut() else {
            return;
        };
        match conn.replays.iter_mut().find(|running| running.room.id == room) {
            Some(running) => running.held.push(asked),
            None => match conn.caught_up.iter().position(|running| running.room.id == room) {
                Some(at) => {
                    let mut running = conn.caught_up.remove(at);
                    conn.generation += 1;
                    running.generation = conn.generation;
                    running.held = vec![asked];
                    let generation = running.generation;
                    conn.replays.push_back(running);
                    let members = self.shards[shard].rooms.get_mut(&room).expect("it is a member");
                    members.replaying.insert(slot, generation);
                }
                None => self.hand(shard, slot, list, false),
            },
        }
    }

    fn end_replay(&mut self, shard: usize, slot: u32, room: u64) -> Vec<Asked> {
        let Some(conn) = self.shards[shard].conns[slot as usize].as_mut() else {
            return Vec::new();
        };
        conn.caught_up.retain(|running| running.room.id != room);
        let at = conn.replays.iter().position(|running| running.room.id == room);
        at.and_then(|at| conn.replays.remove(at))
            .map(|running| running.held)
            .unwrap_or_default()
    }

    /// One piece of one replay.
    pub fn refill(&mut self, shard: usize, slot: u32) {
        let member = Self::member(shard, slot);
        let Some(conn) = self.shards[shard].conns[slot as usize].as_mut() else {
            return;
        };
        let Some(mut running) = conn.replays.pop_front() else {
            return;
        };
        let cursor = Cursor {
            member,
            generation: running.generation,
            at: &running.at,
        };
        let limits = PieceLimits {
            bytes: self.piece.bytes,
            frames: self.piece.frames,
        };
        let mut taken = Vec::new();
        let piece = running.room.replay(&cursor, limits, &running.held, |frame, is_chat| {
            taken.push((frame, !is_chat));
        });
        let chats = taken.iter().filter(|(_, held)| !held);
        assert!(chats.clone().count() <= self.piece.frames.max(1));
        assert!(
            chats.clone().count() == 1
                || chats.map(|(frame, _)| frame.bytes().len()).sum::<usize>() <= self.piece.bytes
        );
        match piece {
            Replay::Piece(at) | Replay::Leaving(at) => {
                running.at = at;
                conn.replays.push_back(running);
            }
            Replay::Reset { to, reason } => {
                let reset = server::Reset {
                    room_json: &running.room.name_json,
                    epoch: &to.epoch,
                    seq: to.seq,
                    reason,
                };
                taken.push((Frame::text(|out| reset.write(out)), false));
                running.at = to;
                conn.replays.push_back(running);
            }
            Replay::CaughtUp(at) => {
                running.at = at;
                running.held = Vec::new();
                conn.caught_up.push(running);
            }
        }
        for (frame, held) in taken {
            self.hand(shard, slot, frame, held);
        }
    }

    fn hand(&mut self, shard: usize, slot: u32, frame: Frame, held: bool) {
        if let Some(conn) = &self.shards[shard].conns[slot as usize]
            && !conn.ended
        {
            self.delivered.push((conn.tab, frame, held));
        }
    }
}
