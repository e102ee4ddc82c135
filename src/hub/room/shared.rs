//! A room whose log the backplane keeps, for all nodes: what this node knows of it, and what it still has to ask.
//!
//! The room's history is a copy of the log's end. Everything that needs more than the copy waits here while the driver
//! asks, one question at a time ([`Ask`]); the answers come back through `on_…`, and whoever waited is told through its
//! shard's inbox. All of it happens under the room's lock, so that every member meets chats, resets and lists in one order.

mod answers;
mod entering;
mod hearing;
mod saying;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Asker, Log, Pending, Room, Sees, State, Swept};
use crate::backplane::contract::{Draft, Position as Place, RoomKey};
use crate::hub::errands::Errands;
use crate::hub::{MemberId, User};
use crate::protocol::client::{Page, Ref};
use crate::protocol::error::ErrorCode;
use crate::protocol::server::{self, ResetReason};
use crate::websocket::encoded::Frame;

/// How long a room without members stays attached: whoever comes back soon needs no new subscription.
const DESERTED_MS: u64 = 30_000;

/// When to try again after `unavailable`.
const RETRY_MS: u64 = 500;

/// What this node knows of a shared room.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "separate facts, each with its own reader")]
pub(super) struct Shared {
    /// None until the room is attached: subscribed, and its position read.
    at: Option<Place>,
    /// The driver has this room in hand and will ask for the next question.
    asking: bool,
    /// Something may be missing after `at`.
    behind: bool,
    /// The last wake-up that was dropped while a repair ran, or before the room was attached.
    missed: Option<Place>,
    /// Repairs and attaches begun; the last one done.
    repairs_begun: u64,
    repairs_done: u64,
    /// The history holds all that the log keeps, or as much of it as it may.
    complete: bool,
    /// The log does not know the room any more: it must be made anew.
    reopen: bool,
    /// Somebody waits for older messages than the history holds.
    wants_older: bool,
    /// Where the presence below stands, and whether it missed something.
    users_version: u64,
    users_behind: bool,
    /// A change of presence was dropped while the users were read.
    users_missed: bool,
    /// Users with connections on this node.
    held: HashMap<Arc<str>, Held>,
    /// The last change by which one of them entered.
    entered: u64,
    queue: VecDeque<(Pending, Draft)>,
    queue_bytes: usize,
    /// Handed to the driver, in order.
    in_flight: Vec<Pending>,
    /// Acknowledged to members here, and not heard yet: if the log loses one of these, its sender must be told.
    acked: Vec<(MemberId, Place)>,
    /// The driver has the queue in hand.
    publishing: bool,
    waiting: Vec<Waiting>,
    /// Who was not let in and has yet to hear of it: its leave is none.
    refused: Vec<MemberId>,
    /// Since when nobody is here.
    deserted_ms: u64,
    detach: bool,
}

struct Held {
    json: Arc<str>,
    connections: u32,
    /// When it leaves, once its last connection has closed.
    leaves_ms: u64,
}

/// Somebody who waits until the log has been asked.
struct Waiting {
    whom: Asker<Frame>,
    /// The repair that must have been done for an answer.
    repair: u64,
    what: Wanted,
}

enum Wanted {
    In {
        user: User,
        since: Option<Place>,
        again: bool,
        sees: Sees,
    },
    Page {
        page: Page,
        limit: usize,
    },
}

/// A question for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Attach,
    /// What follows this position.
    Repair(Place),
    /// What lies before this seq.
    Older(u64),
    Users,
    Detach,
}

impl Shared {
    /// Whether a connection of this user is here.
    pub fn holds(&self, user: &str) -> bool {
        self.held.get(user).is_some_and(|held| held.connections > 0)
    }

    /// Connections that wait to be let in.
    pub fn waiting_outside(&self) -> usize {
        let outside = |waiting: &&Waiting| matches!(waiting.what, Wanted::In { again: false, .. });
        self.waiting.iter().filter(outside).count()
    }

    /// Whether the room follows its log.
    pub fn is_attached(&self) -> bool {
        self.at.is_some()
    }

    /// Nobody here waits for anything, was here, or follows the log.
    pub fn is_untouched(&self) -> bool {
        let idle = self.waiting.is_empty() && self.queue.is_empty() && !self.publishing && self.held.is_empty();
        idle && self.at.is_none() && !self.asking
    }

    pub fn is_complete(&self) -> bool {
        self.complete && self.at.is_some()
    }

    /// The history was cut short by this node, not by the log.
    pub fn is_incomplete(&mut self) {
        self.complete = false;
    }

    /// The member goes; true if it was never let in.
    pub fn stop_waiting(&mut self, member: MemberId) -> bool {
        if let Some(at) = self.refused.iter().position(|refused| *refused == member) {
            self.refused.swap_remove(at);
            return true;
        }
        let mut entered = true;
        self.waiting.retain(|waiting| {
            if !waiting.whom.is(member) {
                return true;
            }
            if let Wanted::In { again: false, .. } = waiting.what {
                entered = false;
            }
            false
        });
        !entered
    }

    fn next(&mut self, inhabited: bool) -> Option<Ask> {
        let wanted = inhabited || !self.waiting.is_empty();
        let attach = if self.at.is_none() { wanted } else { self.reopen };
        if attach || (self.at.is_some() && self.behind) {
            self.missed = None;
            self.repairs_begun += 1;
        }
        if attach {
            self.users_missed = false;
            return Some(Ask::Attach);
        }
        let at = self.at.as_ref()?;
        if self.behind {
            return Some(Ask::Repair(at.clone()));
        }
        if self.users_behind {
            self.users_missed = false;
            return Some(Ask::Users);
        }
        if self.wants_older && !self.complete {
            return Some(Ask::Older(0));
        }
        if !self.detach {
            return None;
        }
        // Whoever comes from now on waits until the room is attached anew.
        (self.at, self.complete) = (None, false);
        self.acked.clear();
        Some(Ask::Detach)
    }

    /// Whether something that was dropped lies beyond where the room stands now.
    fn is_missing_more(&self) -> bool {
        let beyond = |missed: &Place| {
            self.at
                .as_ref()
                .is_none_or(|at| missed.epoch != at.epoch || missed.seq > at.seq)
        };
        self.missed.as_ref().is_some_and(beyond)
    }
}

impl Room {
    fn errands(&self) -> &Errands {
        let errands = self.rules.node.errands.as_deref();
        errands.expect("a shared room was made with errands")
    }

    /// As the backplane knows it.
    #[must_use]
    pub fn key(&self) -> RoomKey {
        RoomKey::new(Arc::clone(&self.name))
    }

    /// Has the driver ask what there is to ask.
    fn ask(self: &Arc<Self>, shared: &mut Shared) {
        if !std::mem::replace(&mut shared.asking, true) {
            self.errands().ask.push(Arc::clone(self));
        }
    }

    /// Runs `work` on the room if it is shared, which is all that the driver ever meets.
    pub(super) fn with<T: Default>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        if matches!(state.log, Log::Shared(_)) && !state.gone {
            work(&mut state)
        } else {
            T::default()
        }
    }

    /// The next question; `None` lets the driver go.
    pub fn next_ask(&self) -> Option<Ask> {
        self.with(|state| {
            let inhabited = self.is_post() || state.members.iter().any(|count| *count > 0);
            let first = state.history.first();
            let shared = shared(&mut state.log);
            let next = shared.next(inhabited);
            shared.asking = next.is_some();
            next.map(|ask| match ask {
                Ask::Older(_) => Ask::Older(first),
                other => other,
            })
        })
    }

    pub(super) fn sweep_shared(self: &Arc<Self>, state: &mut State, now_ms: u64) -> Swept {
        let deserted = state.members() == 0;
        let log = shared(&mut state.log);
        let idle = deserted && log.waiting.is_empty() && log.queue.is_empty() && !log.publishing && log.held.is_empty();
        if !idle || log.asking {
            log.deserted_ms = 0;
            return Swept::Inhabited;
        }
        if log.at.is_none() {
            return self.end(state);
        }
        if log.deserted_ms == 0 {
            log.deserted_ms = now_ms.max(1);
        } else if now_ms.saturating_sub(log.deserted_ms) >= DESERTED_MS {
            log.detach = true;
            self.ask(log);
        }
        Swept::Inhabited
    }
}

/// What a repair brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repaired {
    Delivered,
    Reset(ResetReason),
}

/// What a presence event was to the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Applied,
    Old,
    Missed,
}

pub(super) fn shared(log: &mut Log) -> &mut Shared {
    match log {
        Log::Shared(shared) => shared,
        Log::Own(_) => unreachable!("only rooms with errands come here, and they are shared"),
    }
}

fn unavailable(reference: Option<Ref<'_>>) -> Frame {
    let error = server::Error {
        reference,
        code: ErrorCode::Unavailable,
        message: "the backplane did not take it, or nobody knows; try again with the same key",
        reason: None,
        retry_after_ms: Some(RETRY_MS),
    };
    Frame::text(|out| error.write(out))
}
