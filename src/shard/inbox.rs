//! What a shard is to do, in order. Fed by every thread, emptied by the shard's flusher.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::backplane::contract::Position;
use crate::hub::{MemberId, Room, User};
use crate::protocol::client::Ref;
use crate::protocol::close::Close;
use crate::protocol::error::ErrorCode;
use crate::shard::ending::Ending;
use crate::websocket::encoded::Frame;

/// One thing to do. Commands about a room are pushed under that room's lock, so that every shard meets them
/// in the room's order.
#[derive(Debug)]
pub enum Command {
    /// A chat, to the members of the room that are live; replays find it in history.
    Chat {
        room: u64,
        frame: Frame,
        /// How long it may wait for more.
        window_ms: u32,
    },
    /// A `reset` for one live member of the room, in order with its chats; a replay finds out by itself.
    Reset { room: u64, member: MemberId, frame: Frame },
    /// `join`, `left` or `count`, to every member of the room.
    Presence {
        room: u64,
        frame: Frame,
        /// The user whom it is about, who is not told.
        except: Option<Arc<str>>,
        /// Only for those whose token's claim grants `list` in the room of this name.
        granted: Option<Arc<str>>,
    },
    /// A member comes: `list` first, then what it missed, then live.
    Enter {
        room: Arc<Room>,
        slot: u32,
        list: Frame,
        from: From,
        /// It was in the room already and wants only the list.
        again: Option<Box<Asked>>,
    },
    /// A replay, the connection's `generation`th, has reached the head.
    CaughtUp { room: u64, slot: u32, generation: u32 },
    /// A `list` reply, said anew behind the replay if one runs: it tells the client where it stands.
    List {
        room: u64,
        slot: u32,
        frame: Frame,
        asked: Box<Asked>,
    },
    /// A member goes.
    Leave { room: u64, slot: u32 },
    /// For one connection alone, in order with the rest.
    Reply { member: MemberId, frame: Frame },
    /// For every connection of a user.
    ToUser(ToUser),
    /// What became of a chat that went to the backplane: its answer, and whether it was kept as a new one, kept before, or
    /// not (none).
    Said {
        member: MemberId,
        frame: Option<Frame>,
        kept: Option<bool>,
        by_probe: bool,
    },
    /// What became of a request that had to wait for the backplane: its answer, if it is not on its way already.
    Settled {
        member: MemberId,
        frame: Option<Frame>,
        settled: Settled,
    },
    /// A close, in order with the rest; of nobody else who has the slot by then.
    Close {
        member: MemberId,
        close: Close,
        reconnect_after_ms: u64,
    },
    /// Revoked and kicked connections from this slot on end.
    End { ending: Arc<Ending>, from: u32 },
    /// The answer to the peer's close frame, with its code.
    Answer { slot: u32, code: Option<u16> },
    /// The connection is gone and has left every room: its slot may be used again.
    Gone { slot: u32 },
}

/// What every connection of a user is to hear or to do.
#[derive(Debug, Clone)]
pub enum ToUser {
    Message {
        user: Arc<str>,
        frame: Frame,
    },
    /// Leave the room of this name.
    Leave {
        user: Arc<str>,
        room: Arc<str>,
    },
}

impl Command {
    /// The room whose chats must have been handed on before this is done: those that still wait in a flush window. A list
    /// names a place behind them, a replay has read them, and who leaves was there when they were said.
    #[must_use]
    pub fn must_find_said(&self) -> Option<u64> {
        match self {
            Self::Chat { room, window_ms: 0, .. }
            | Self::Reset { room, .. }
            | Self::CaughtUp { room, .. }
            | Self::List { room, .. }
            | Self::Leave { room, .. } => Some(*room),
            Self::Enter { room, .. } => Some(room.id),
            _ => None,
        }
    }
}

/// How a request that waited came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The member is in; with what became of its `since`.
    In {
        recovered: Option<bool>,
    },
    /// A page of history.
    Paged,
    Refused(ErrorCode),
}

/// Who asked for a list, and as what it is answered.
#[derive(Debug)]
pub struct Asked {
    pub user: User,
    /// Whether it is told of others.
    pub sees_users: bool,
    /// The raw JSON of the `ref`.
    pub reference: Option<Box<str>>,
    /// Of a `join` with a `since` that could not be recovered: `false`.
    pub recovered: Option<bool>,
}

impl Asked {
    #[must_use]
    pub fn new(user: &User, sees_users: bool, reference: Option<Ref<'_>>, recovered: Option<bool>) -> Box<Self> {
        Box::new(Self {
            user: user.clone(),
            sees_users,
            reference: reference.map(|reference| reference.as_json().into()),
            recovered,
        })
    }

    #[must_use]
    pub fn reference(&self) -> Option<Ref<'_>> {
        self.reference.as_deref().and_then(Ref::from_json)
    }
}

/// Where an entering member begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// With the next chat.
    Head,
    /// With the successor of this position, read from history.
    After(Position),
}

/// Commands in one inbox above which no connection of this node is read from until the flusher has caught up. One
/// turn of a connection brings some two hundred more at most.
pub const INBOX_COMMANDS_PAUSE: usize = 256;

/// Commands in one inbox above which new chats are answered `unavailable`: only other shards can get it there.
pub const INBOX_COMMANDS_MAX: usize = 65_536;

/// Places that an emptied queue keeps.
const COMMANDS_KEPT: usize = 8_192;

/// The queue of one shard.
#[derive(Debug, Default)]
pub struct Inbox {
    commands: Mutex<Vec<Command>>,
    /// Of `commands`, readable without its lock.
    len: AtomicUsize,
    filled: Notify,
}

impl Inbox {
    pub fn push(&self, command: Command) {
        let first = {
            let mut commands = self.commands.lock();
            commands.push(command);
            self.len.store(commands.len(), Ordering::Relaxed);
            commands.len() == 1
        };
        if first {
            self.filled.notify_one();
        }
    }

    /// Whether the flusher is so far behind that chats must wait outside.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len.load(Ordering::Relaxed) >= INBOX_COMMANDS_MAX
    }

    /// Whether readers must let the flusher catch up first.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.len.load(Ordering::Relaxed) >= INBOX_COMMANDS_PAUSE
    }

    /// Swaps the queue out whole; `taken` must be empty and lends its memory.
    pub fn take(&self, taken: &mut Vec<Command>) {
        debug_assert!(taken.is_empty(), "commands would be done twice");
        // A burst must not leave its queue behind.
        taken.shrink_to(COMMANDS_KEPT);
        let mut commands = self.commands.lock();
        std::mem::swap(&mut *commands, taken);
        self.len.store(0, Ordering::Relaxed);
    }

    /// Waits until there is something to do. Wakes at once if something came since the last `take`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Has the flusher look, though no command came.
    pub fn nudge(&self) {
        self.filled.notify_one();
    }
}
