//! What a shard is to do, in order. Fed by every thread, emptied by the shard's flusher.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::hub::Room;
use crate::protocol::close::Close;
use crate::websocket::encoded::Frame;

/// One thing to do. Commands about a room are pushed under that room's lock, so that every shard meets them
/// in the room's order.
#[derive(Debug)]
pub enum Command {
    /// A chat, to the members of the room that are live; replays find it in history.
    Chat { room: u64, frame: Frame },
    /// `join`, `left` or `count`, to every member of the room.
    Presence { room: u64, frame: Frame },
    /// A member comes: `list` first, then what it missed, then live.
    Enter {
        room: Arc<Room>,
        slot: u32,
        list: Frame,
        from: From,
    },
    /// A replay has reached the head.
    CaughtUp { room: u64, slot: u32 },
    /// A `list` reply: behind the replay, if one runs, since it says where the client stands.
    List { room: u64, slot: u32, frame: Frame },
    /// A member goes.
    Leave { room: u64, slot: u32 },
    /// For one connection alone, in order with the rest.
    Reply { slot: u32, frame: Frame },
    /// A close, in order with the rest.
    Close {
        slot: u32,
        close: Close,
        reconnect_after_ms: u64,
    },
    /// The answer to the peer's close frame, with its code.
    Answer { slot: u32, code: Option<u16> },
    /// The connection is gone and has left every room: its slot may be used again.
    Gone { slot: u32 },
}

/// Where an entering member begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the next chat.
    Head,
    /// With the successor of this seq, read from history.
    After(u64),
}

/// Commands in one inbox above which new chats are answered `unavailable`. What else may come is bounded by
/// the number of connections and their rooms.
pub const INBOX_COMMANDS_MAX: usize = 65_536;

/// The queue of one shard.
#[derive(Debug, Default)]
pub struct Inbox {
    commands: Mutex<Vec<Command>>,
    filled: Notify,
}

impl Inbox {
    pub fn push(&self, command: Command) {
        let first = {
            let mut commands = self.commands.lock();
            commands.push(command);
            commands.len() == 1
        };
        if first {
            self.filled.notify_one();
        }
    }

    /// Whether the flusher is so far behind that chats must wait outside.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.commands.lock().len() >= INBOX_COMMANDS_MAX
    }

    /// Swaps the queue out whole; `taken` must be empty and lends its memory.
    pub fn take(&self, taken: &mut Vec<Command>) {
        debug_assert!(taken.is_empty(), "commands would be done twice");
        std::mem::swap(&mut *self.commands.lock(), taken);
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
