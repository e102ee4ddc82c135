//! What the application tells a user, carried out on the connections that this shard has of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::protocol::close::Close;
use crate::shard::Shard;
use crate::shard::inbox::ToUser;
use crate::shard::members::Local;

impl Shard {
    /// For the tasks of connections: whether there is one that is to leave a room.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.removes.load(Ordering::Relaxed)
    }

    /// For the task of a connection: the rooms that it is to leave, by name, once; `but` this one, which it cannot leave yet.
    #[must_use]
    pub fn removals(&self, slot: u32, but: Option<&str>) -> Vec<Arc<str>> {
        let mut local = self.local.lock();
        let rooms = local.take_removals(slot, but);
        self.removes.store(local.removes(), Ordering::Relaxed);
        rooms
    }

    pub(super) fn to_user(&self, local: &mut Local, what: ToUser, now_ms: u64) {
        match what {
            ToUser::Message { user, frame } => {
                for conn in local.of_user(&user) {
                    self.queue(local, &conn, frame.clone(), now_ms);
                    self.counters.user_messages.inc();
                }
            }
            // Each leaves by itself, if it is in the room, and says so.
            ToUser::Leave { user, room } => {
                for conn in local.of_user(&user) {
                    if local.remove_from(conn.member.slot, &room) {
                        self.removes.store(true, Ordering::Relaxed);
                        conn.wake();
                    } else {
                        // So many rooms at once, and its task looks at none: nobody may stay where it is not wanted.
                        self.close(local, &conn, Close::KICKED, 0, now_ms);
                    }
                }
            }
        }
    }
}
