//! What the application tells a user, carried out on the connections that this shard has of it.

use std::sync::Arc;

use crate::protocol::close::Close;
use crate::shard::Shard;
use crate::shard::inbox::ToUser;
use crate::shard::members::Local;

impl Shard {
    /// For the task of a connection: the rooms that it is to leave, by name, once.
    #[must_use]
    pub fn removals(&self, slot: u32) -> Vec<Arc<str>> {
        self.local.lock().take_removals(slot)
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
                        conn.be_removed();
                    } else {
                        // So many rooms at once, and its task looks at none: nobody may stay where it is not wanted.
                        self.close(local, &conn, Close::KICKED, 0, now_ms);
                    }
                }
            }
        }
    }
}
