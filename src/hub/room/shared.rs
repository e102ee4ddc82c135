//! A room whose log the backplane keeps, for all nodes: what this node knows of it, and what it still has to ask.
//!
//! The room's history is a copy of the log's end. Everything that needs more than the copy waits here while the driver
//! asks, one question at a time ([`Ask`]); the answers come back through `on_…`, and whoever waited is told through its
//! shard's inbox. All of it happens under the room's lock, so that every member meets chats, resets and lists in one order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Joined, Joining, Log, Paged, Paging, Pending, Room, Said, Saying, State, Swept};
use crate::backplane::contract::{
    BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Change, Draft, Entry, Head, Opened, Outcome, Page as LogPage,
    Position as Place, PresenceEvent, Range, Refusal, RoomKey, Users,
};
use crate::backplane::cursor::{self, Heard, Repair};
use crate::backplane::envelope::{self, Envelope};
use crate::backplane::lineage::Verdict;
use crate::hub::errands::Errands;
use crate::hub::history::{History, Kept};
use crate::hub::{MemberId, Position, User};
use crate::protocol::client::{Page, Ref};
use crate::protocol::error::ErrorCode;
use crate::protocol::server::{self, ResetReason};
use crate::shard::inbox::{Command, Settled};
use crate::telemetry::traces::TraceContext;
use crate::websocket::encoded::Frame;

/// How long a room without members stays attached: whoever comes back soon needs no new subscription.
const DESERTED_MS: u64 = 30_000;

/// When to try again after `unavailable`.
const RETRY_MS: u64 = 500;

/// What this node knows of a shared room.
#[derive(Default)]
pub(super) struct Shared {
    /// None until the room is attached: subscribed, and its position read.
    at: Option<Place>,
    /// The driver has this room in hand and will ask for the next question.
    asking: bool,
    /// Something may be missing after `at`.
    behind: bool,
    /// A wake-up was dropped while a repair ran.
    missed: bool,
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
    queue: VecDeque<(Pending, Draft)>,
    queue_bytes: usize,
    /// Handed to the driver, in order.
    in_flight: Vec<Pending>,
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
    member: MemberId,
    reference: Option<Box<str>>,
    /// The repair that must have been done for an answer.
    repair: u64,
    what: Wanted,
}

enum Wanted {
    In {
        user: User,
        since: Option<Place>,
        again: bool,
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
            if waiting.member != member {
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
            self.missed = false;
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
        self.detach.then_some(Ask::Detach)
    }
}

impl Room {
    fn errands(&self) -> &Errands {
        let errands = self.rules.errands.as_deref();
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
    fn with<T: Default>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        if matches!(state.log, Log::Shared(_)) && !state.gone {
            work(&mut state)
        } else {
            T::default()
        }
    }

    // What members ask for.

    pub(super) fn join_shared(self: &Arc<Self>, state: &mut State, joining: &Joining<'_>) -> Joined {
        let head = state.history.head();
        let shared = shared(&mut state.log);
        let attached = shared.at.is_some();
        let recovered = match joining.since {
            None if attached => Some(None),
            Some(since) if attached => {
                let verdict = state.lineage.judge(since.epoch, since.seq, head);
                (verdict == Verdict::Good && state.history.covers(since.seq)).then_some(Some(true))
            }
            _ => None,
        };
        if let Some(recovered) = recovered {
            self.enter_shared(state, joining, recovered);
            return Joined::In {
                recovered,
                count_is_due: false,
            };
        }
        if !self.errands().is_up() {
            return Joined::Unavailable;
        }
        let what = Wanted::In {
            user: joining.user.clone(),
            since: joining.since.map(|since| Place {
                epoch: since.epoch.into(),
                seq: since.seq,
            }),
            again: joining.again,
        };
        self.wait(shared, joining.member, joining.reference, what);
        if attached {
            // What this node does not know, another may have told the client: the log decides.
            shared.behind = true;
        }
        self.ask(shared);
        Joined::Later
    }

    pub(super) fn page_later(self: &Arc<Self>, shared: &mut Shared, asked: &Paging<'_>) -> Paged {
        if !self.errands().is_up() {
            return Paged::Unavailable;
        }
        let what = Wanted::Page {
            page: asked.page,
            limit: asked.limit,
        };
        self.wait(shared, asked.member, asked.reference, what);
        shared.wants_older = true;
        self.ask(shared);
        Paged::Later
    }

    fn wait(&self, shared: &mut Shared, member: MemberId, reference: Option<Ref<'_>>, what: Wanted) {
        shared.deserted_ms = 0;
        shared.detach = false;
        shared.waiting.push(Waiting {
            member,
            reference: reference.map(|reference| reference.as_json().into()),
            // One that runs now may have looked before the client's last message was said.
            repair: shared.repairs_begun + 1,
            what,
        });
    }

    /// Lets a member in, of whose `since` everything is known.
    fn enter_shared(self: &Arc<Self>, state: &mut State, joining: &Joining<'_>, recovered: Option<bool>) {
        let shared = shared(&mut state.log);
        (shared.deserted_ms, shared.detach) = (0, false);
        if !joining.again {
            let user = joining.user;
            let held = shared.held.get_mut(&user.id);
            let changed = match held {
                Some(held) => {
                    held.connections += 1;
                    let renamed = held.json != user.json;
                    held.json = Arc::clone(&user.json);
                    renamed
                }
                None => {
                    let json = Arc::clone(&user.json);
                    shared.held.insert(
                        Arc::clone(&user.id),
                        Held {
                            json,
                            connections: 1,
                            leaves_ms: 0,
                        },
                    );
                    true
                }
            };
            if changed {
                self.errands().change(self.change(&user.id, &user.json, true));
            }
        }
        self.enter(state, joining, recovered);
    }

    fn change(&self, user: &Arc<str>, json: &Arc<str>, enters: bool) -> Change {
        Change {
            room: self.key(),
            user: Arc::clone(user),
            json: Arc::clone(json),
            enters,
        }
    }

    pub(super) fn leave_shared(self: &Arc<Self>, state: &mut State, user: &Arc<str>, closed: bool, now_ms: u64) {
        let shared = shared(&mut state.log);
        let Some(held) = shared.held.get_mut(user) else { return };
        held.connections = held.connections.saturating_sub(1);
        if held.connections > 0 {
            return;
        }
        let errands = self.errands();
        if closed && !errands.bounds.leave_grace.is_zero() {
            let grace_ms = u64::try_from(errands.bounds.leave_grace.as_millis()).unwrap_or(u64::MAX);
            held.leaves_ms = now_ms.saturating_add(grace_ms);
            errands.leave_later(held.leaves_ms, Arc::clone(self), Arc::clone(user));
        } else if let Some(held) = shared.held.remove(user) {
            errands.change(self.change(user, &held.json, false));
        }
    }

    /// The time is up for a user whose last connection closed.
    pub fn leave_if_gone(self: &Arc<Self>, user: &Arc<str>, now_ms: u64) {
        self.with(|state| {
            let shared = shared(&mut state.log);
            // It may have been here again since, and have gone again.
            let due = |held: &Held| held.connections == 0 && held.leaves_ms <= now_ms;
            if shared.held.get(user).is_some_and(due)
                && let Some(held) = shared.held.remove(user)
            {
                self.errands().change(self.change(user, &held.json, false));
            }
        });
    }

    /// Everybody leaves whose last connection closed, however recently.
    pub fn leave_all_gone(self: &Arc<Self>) {
        self.with(|state| {
            let log = shared(&mut state.log);
            log.held.retain(|user, held| {
                if held.connections == 0 {
                    self.errands().change(self.change(user, &held.json, false));
                }
                held.connections > 0
            });
        });
    }

    pub(super) fn say_shared(self: &Arc<Self>, shared: &mut Shared, saying: &Saying<'_>) -> Said {
        let errands = self.errands();
        if !errands.is_up() {
            errands.metrics.backplane().refused(Refusal::Away.as_str());
            return Said::Unavailable;
        }
        let envelope = envelope::seal(&saying.user.json, saying.content, saying.trace);
        let (bytes, bounds) = (envelope.len(), &errands.bounds);
        let node_bytes = errands.queued_bytes.load(Ordering::Relaxed);
        let room_full = shared.queue.len() >= bounds.room_messages || shared.queue_bytes + bytes > bounds.room_bytes;
        if room_full || node_bytes + bytes > bounds.node_bytes {
            let queue = if room_full { "room_queue" } else { "node_queue" };
            errands.metrics.backplane().refused(queue);
            return Said::Unavailable;
        }
        let timeout_ms = u64::try_from(bounds.publish_timeout.as_millis()).unwrap_or(u64::MAX);
        let pending = Pending {
            member: saying.member,
            reference: saying.reference.map(|reference| reference.as_json().into()),
            until_ms: saying.now_ms.saturating_add(timeout_ms),
        };
        let draft = Draft {
            user: Arc::clone(&saying.user.id),
            key: saying.key.map(Into::into),
            envelope,
        };
        self.queued(shared, bytes.cast_signed(), 1);
        shared.queue.push_back((pending, draft));
        if !std::mem::replace(&mut shared.publishing, true) {
            errands.publish.push(Arc::clone(self));
        }
        Said::Later
    }

    fn queued(&self, shared: &mut Shared, bytes: isize, messages: isize) {
        let errands = self.errands();
        shared.queue_bytes = shared.queue_bytes.wrapping_add_signed(bytes);
        // Two's complement: adding a negative number is a subtraction.
        errands.queued_bytes.fetch_add(bytes.cast_unsigned(), Ordering::Relaxed);
        errands
            .queued_messages
            .fetch_add(messages.cast_unsigned(), Ordering::Relaxed);
    }

    // What the driver does.

    /// The next chats to publish, at most one call's worth; empty when there are none, and then the driver lets go of the
    /// room. Those that have waited too long are answered.
    pub fn next_batch(&self, now_ms: u64) -> Vec<Draft> {
        self.with(|state| {
            let shared = shared(&mut state.log);
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some((pending, draft)) = shared.queue.front() {
                let late = pending.until_ms <= now_ms;
                bytes += draft.envelope.len();
                if !late && !batch.is_empty() && (batch.len() >= BATCH_MESSAGES_MAX || bytes > BATCH_BYTES_MAX) {
                    break;
                }
                let Some((pending, draft)) = shared.queue.pop_front() else {
                    break;
                };
                self.queued(shared, -draft.envelope.len().cast_signed(), -1);
                if late {
                    bytes -= draft.envelope.len();
                    self.answer(pending, &Outcome::Unknown);
                } else {
                    shared.in_flight.push(pending);
                    batch.push(draft);
                }
            }
            shared.publishing = !batch.is_empty();
            batch
        })
    }

    /// What became of the batch. True if some of it is to be tried again, in a moment: those are first in the queue.
    pub fn published(&self, batch: Vec<Draft>, outcomes: &[Outcome], now_ms: u64) -> bool {
        self.with(|state| {
            let shared = shared(&mut state.log);
            let pendings = std::mem::take(&mut shared.in_flight);
            let mut again = Vec::new();
            for ((pending, draft), outcome) in pendings.into_iter().zip(batch).zip(outcomes) {
                let may_pass = match outcome {
                    Outcome::Refused(refusal) => refusal.may_pass(),
                    // Only a key makes a second try harmless.
                    Outcome::Unknown => draft.key.is_some(),
                    Outcome::New(_) | Outcome::Again(_) => false,
                };
                if may_pass && pending.until_ms > now_ms {
                    again.push((pending, draft));
                } else {
                    self.answer(pending, outcome);
                }
            }
            let retry = !again.is_empty();
            for (pending, draft) in again.into_iter().rev() {
                self.queued(shared, draft.envelope.len().cast_signed(), 1);
                shared.queue.push_front((pending, draft));
            }
            retry
        })
    }

    fn answer(&self, pending: Pending, outcome: &Outcome) {
        let reference = pending.reference.as_deref().and_then(Ref::from_json);
        let (place, kept) = match outcome {
            Outcome::New(place) => (Some(place), Some(true)),
            Outcome::Again(place) => (Some(place), Some(false)),
            Outcome::Refused(_) | Outcome::Unknown => (None, None),
        };
        let frame = match place {
            Some(place) => reference.map(|reference| {
                let done = server::Done {
                    reference,
                    expires: None,
                    kept: Some(server::Kept {
                        room_json: &self.name_json,
                        epoch: &place.epoch,
                        seq: place.seq,
                    }),
                };
                Frame::text(|out| done.write(out))
            }),
            None => {
                let reason = match outcome {
                    Outcome::Refused(refusal) => refusal.as_str(),
                    _ => "unknown",
                };
                self.errands().metrics.backplane().refused(reason);
                Some(unavailable(reference))
            }
        };
        self.inbox(pending.member).push(Command::Said {
            member: pending.member,
            frame,
            kept,
        });
    }

    /// The next question; `None` lets the driver go.
    pub fn next_ask(&self) -> Option<Ask> {
        self.with(|state| {
            let inhabited = state.members.iter().any(|count| *count > 0);
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

    /// The question found no answer. Whoever waits for it is told; true if the driver is to go on, since somebody waits.
    pub fn ask_failed(self: &Arc<Self>, ask: &Ask) -> bool {
        self.with(|state| {
            let shared = shared(&mut state.log);
            for waiting in std::mem::take(&mut shared.waiting) {
                let reference = waiting.reference.as_deref().and_then(Ref::from_json);
                self.settle(
                    waiting.member,
                    unavailable(reference),
                    Settled::Refused(ErrorCode::Unavailable),
                );
            }
            shared.wants_older = false;
            if *ask == Ask::Detach {
                shared.detach = false;
            }
            // What is behind stays so: a whole link, or the next audit, brings it up again.
            shared.asking = false;
            false
        })
    }

    fn settle(&self, member: MemberId, frame: impl Into<Option<Frame>>, settled: Settled) {
        self.inbox(member).push(Command::Settled {
            member,
            frame: frame.into(),
            settled,
        });
    }

    pub fn on_attached(self: &Arc<Self>, opened: Opened, now_ms: u64) -> bool {
        self.with(|state| {
            let Opened { head, lineage, users } = opened;
            let at = Place {
                epoch: lineage.epoch(),
                seq: head,
            };
            let was = shared(&mut state.log).at.replace(at.clone());
            state.lineage = lineage;
            match was {
                None => state.history = History::after_seq(head),
                Some(was) => {
                    if let Some(to) = cursor::reopened(&was, head, &state.lineage) {
                        self.reset(state, to, ResetReason::Epoch);
                    } else {
                        shared(&mut state.log).at = Some(was);
                    }
                }
            }
            let log = shared(&mut state.log);
            log.complete = head == 0 || (log.complete && !log.reopen);
            log.reopen = false;
            // What came between the question and its answer met a room that did not know where it stood.
            log.behind = log.missed;
            log.repairs_done = log.repairs_begun;
            let count_is_due = self.take_users(state, users, now_ms);
            self.settle_waiting(state, now_ms);
            count_is_due
        })
    }

    /// Whether every shard can be told more.
    pub fn can_hand_on(&self) -> bool {
        let state = self.state.lock();
        !self.with_members(&state).any(|(_, inbox, _)| inbox.is_full())
    }

    /// What follows where the room stood when the driver asked.
    pub fn on_range(self: &Arc<Self>, range: Range, now_ms: u64) -> Option<Repaired> {
        self.with(|state| {
            let at = shared(&mut state.log).at.clone()?;
            let lineage = range.lineage.clone();
            let repaired = match cursor::repair(&at, range) {
                Repair::Deliver { entries, again } => {
                    state.lineage = lineage;
                    let delivered = !entries.is_empty();
                    for entry in entries {
                        self.deliver(state, &entry);
                    }
                    let log = shared(&mut state.log);
                    log.behind = again || log.missed;
                    if !again {
                        log.repairs_done = log.repairs_begun;
                    }
                    delivered.then_some(Repaired::Delivered)
                }
                Repair::Reset { to, reason } => {
                    state.lineage = lineage;
                    self.reset(state, to, reason);
                    Some(Repaired::Reset(reason))
                }
                Repair::Open => {
                    shared(&mut state.log).reopen = true;
                    None
                }
            };
            self.settle_waiting(state, now_ms);
            repaired
        })
    }

    /// Older messages, up to the oldest that is held.
    ///
    /// True if the room has come further.
    pub fn on_older(self: &Arc<Self>, page: LogPage, now_ms: u64) -> bool {
        self.with(|state| {
            let (mut full, mut taken) = (false, 0);
            for entry in page.entries.iter().rev() {
                if entry.position.seq != state.history.base() {
                    // Either the history has moved on since the question, or the log is another one.
                    shared(&mut state.log).behind = true;
                    return false;
                }
                if !self.take_older(state, entry) {
                    full = true;
                    break;
                }
                taken += 1;
            }
            let log = shared(&mut state.log);
            log.complete = full || !page.more;
            if log.complete {
                log.wants_older = false;
            }
            self.report(state, now_ms);
            self.settle_waiting(state, now_ms);
            full || taken > 0 || !page.more
        })
    }

    fn take_older(&self, state: &mut State, entry: &Entry) -> bool {
        let kept = if self.rules.node_bytes_over() > 0 {
            Kept {
                bytes: self.rules.kept.bytes / 4,
                ..self.rules.kept
            }
        } else {
            self.rules.kept
        };
        let seq = entry.position.seq;
        let first_of_epoch = seq > 1 && state.lineage.epoch_of(seq - 1) != state.lineage.epoch_of(seq);
        let frame = self.frame(entry, first_of_epoch);
        let frame = frame.unwrap_or_else(|| self.reset_frame(&entry.position, ResetReason::Trimmed));
        state.history.push_older(entry.follows, entry.time_ms, frame, &kept)
    }

    pub fn on_users(self: &Arc<Self>, users: Users, now_ms: u64) -> bool {
        self.with(|state| self.take_users(state, users, now_ms))
    }

    /// The subscription has ended; true if nobody came meanwhile and the room may go.
    pub fn on_detached(&self) -> bool {
        self.with(|state| {
            let deserted = state.members() == 0;
            let log = shared(&mut state.log);
            log.detach = false;
            log.at = None;
            log.complete = false;
            let deserted = deserted && log.waiting.is_empty() && log.queue.is_empty() && !log.publishing;
            let gone = deserted && log.held.is_empty();
            if gone {
                self.end(state);
            }
            gone
        })
    }

    // What the engine hears.

    /// A message that arrived.
    pub fn on_message(self: &Arc<Self>, entry: &Entry) -> Option<Heard> {
        self.with(|state| {
            let log = shared(&mut state.log);
            if log.at.is_none() || log.reopen || log.behind {
                // The log has it, and the question that runs, or the one after it, brings it.
                log.missed = true;
                return Some(Heard::Ahead);
            }
            let at = log.at.clone()?;
            let heard = cursor::hear(&at, entry);
            match heard {
                Heard::Old => {}
                Heard::Next if !self.with_members(state).any(|(_, inbox, _)| inbox.is_full()) => {
                    self.deliver(state, entry);
                }
                Heard::Next | Heard::Ahead | Heard::Foreign => self.fall_behind(state),
            }
            Some(heard)
        })
    }

    fn fall_behind(self: &Arc<Self>, state: &mut State) {
        let log = shared(&mut state.log);
        log.behind = true;
        self.ask(log);
    }

    /// Somebody came or went; `None` if the room is not attached, and whether a `count` became due.
    pub fn on_presence(self: &Arc<Self>, event: &PresenceEvent) -> Option<(Told, bool)> {
        self.with(|state| {
            let log = shared(&mut state.log);
            if log.at.is_none() || log.reopen || log.users_behind {
                log.users_missed = true;
                return Some((Told::Missed, false));
            }
            if event.version <= log.users_version {
                return Some((Told::Old, false));
            }
            if event.follows != log.users_version {
                log.users_behind = true;
                self.ask(log);
                return Some((Told::Missed, false));
            }
            log.users_version = event.version;
            let user = User {
                id: Arc::clone(&event.user),
                json: Arc::clone(&event.json),
            };
            Some((Told::Applied, self.present(state, &user, event.joined, event.time_ms)))
        })
    }

    /// Where the room stands; none while it is not attached.
    #[must_use]
    pub fn at(&self) -> Option<Place> {
        self.with(|state| shared(&mut state.log).at.clone())
    }

    /// Whether the room stands where its log does, presence included.
    #[must_use]
    pub fn is_at(&self, head: Option<&Head>) -> bool {
        self.with(|state| {
            let log = shared(&mut state.log);
            let here = |head: &Head| log.at.as_ref() == Some(&head.position) && log.users_version == head.presence;
            head.is_some_and(here) && !log.behind && !log.users_behind
        })
    }

    /// Whether the room has come at least as far as its log once was.
    #[must_use]
    pub fn has_passed(&self, head: &Head) -> bool {
        self.with(|state| {
            let log = shared(&mut state.log);
            let Some(at) = &log.at else { return true };
            let passed = at.epoch == head.position.epoch && at.seq >= head.position.seq;
            passed && log.users_version >= head.presence && !log.behind && !log.users_behind
        })
    }

    /// Has the room look at its log.
    pub fn on_suspect(self: &Arc<Self>) {
        self.with(|state| {
            let log = shared(&mut state.log);
            if log.at.is_some() {
                log.users_behind = true;
                self.fall_behind(state);
            } else {
                self.ask(log);
            }
        });
    }

    /// Users that this node holds in the room, grace included.
    pub fn held(&self, into: &mut Vec<Change>) {
        self.with(|state| {
            for (user, held) in &shared(&mut state.log).held {
                into.push(self.change(user, &held.json, true));
            }
        });
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

    // What comes of it.

    /// The successor of where the room stands.
    fn deliver(&self, state: &mut State, entry: &Entry) {
        let log = shared(&mut state.log);
        let Some(at) = &mut log.at else { return };
        let new_epoch = at.epoch != entry.position.epoch;
        *at = entry.position.clone();
        state.lineage.extend(&entry.position.epoch, entry.position.seq);
        let seq = entry.position.seq;
        match self.frame(entry, new_epoch) {
            Some(frame) => {
                let members = self.hand_on(state, seq, entry.time_ms, frame);
                self.trace(entry, members);
            }
            None => {
                // Nobody can read it, but it has its number: those who count are told where they stand.
                let frame = self.reset_frame(&entry.position, ResetReason::Trimmed);
                self.hand_on(state, seq, entry.time_ms, frame);
            }
        }
    }

    fn frame(&self, entry: &Entry, names_epoch: bool) -> Option<Frame> {
        let envelope = match Envelope::parse(&entry.envelope) {
            Ok(envelope) => envelope,
            Err(_) => {
                tracing::warn!(seq = entry.position.seq, "a message in the backplane cannot be read");
                return None;
            }
        };
        let chat = server::Chat {
            room_json: &self.name_json,
            seq: entry.position.seq,
            epoch: names_epoch.then_some(&entry.position.epoch),
            from_json: envelope.from.get(),
            content: envelope.content.get(),
            time_ms: entry.time_ms,
        };
        Some(Frame::text(|out| chat.write(out)))
    }

    /// One span per node for the fan-out of a traced publish.
    fn trace(&self, entry: &Entry, members: usize) {
        let traces = &self.errands().traces;
        if traces.counts().is_none() {
            return;
        }
        let trace = Envelope::parse(&entry.envelope)
            .ok()
            .and_then(|envelope| envelope.trace);
        let publish = trace.and_then(TraceContext::parse);
        if let Some(mut fan_out) = traces.fan_out(publish.as_ref(), 0, members) {
            fan_out.delivered(members);
        }
    }

    /// The room stands elsewhere now, and says so to everybody who followed it.
    fn reset(&self, state: &mut State, to: Place, reason: ResetReason) {
        let frame = self.reset_frame(&to, reason);
        let log = shared(&mut state.log);
        match reason {
            ResetReason::Rewound => state.history.rewind(to.seq),
            ResetReason::Trimmed => {
                state.history = History::after_seq(to.seq);
                log.complete = true;
            }
            ResetReason::Epoch => {
                state.history = History::after_seq(to.seq);
                log.complete = to.seq == 0;
            }
        }
        log.at = Some(to);
        for (_, inbox, _) in self.with_members(state) {
            inbox.push(Command::Chat {
                room: self.id,
                frame: frame.clone(),
            });
        }
    }

    fn reset_frame(&self, to: &Place, reason: ResetReason) -> Frame {
        let reset = server::Reset {
            room_json: &self.name_json,
            epoch: &to.epoch,
            seq: to.seq,
            reason,
        };
        Frame::text(|out| reset.write(out))
    }

    /// A user is here now or is not, in the eyes of all nodes. True if a `count` became due.
    fn present(&self, state: &mut State, user: &User, here: bool, time_ms: u64) -> bool {
        let changed = if here {
            state.presence.place(user, self.rules.users_shown)
        } else {
            state.presence.leave(&user.id, self.rules.users_shown).is_some()
        };
        changed && self.announce(state, here, user, Some(&user.id), time_ms)
    }

    fn take_users(&self, state: &mut State, users: Users, now_ms: u64) -> bool {
        let log = shared(&mut state.log);
        (log.users_version, log.users_behind) = (users.version, log.users_missed);
        let mut count_is_due = false;
        let there: HashMap<&str, ()> = users.users.iter().map(|(id, _)| (&**id, ())).collect();
        for user in state.presence.users_besides(&there) {
            count_is_due |= self.present(state, &user, false, now_ms);
        }
        for (id, json) in &users.users {
            let user = User {
                id: Arc::clone(id),
                json: Arc::clone(json),
            };
            count_is_due |= self.present(state, &user, true, now_ms);
        }
        count_is_due
    }

    /// Lets those in who can be answered now.
    fn settle_waiting(self: &Arc<Self>, state: &mut State, now_ms: u64) {
        let waiting = std::mem::take(&mut shared(&mut state.log).waiting);
        for waiting in waiting {
            if let Some(waiting) = self.try_settle(state, waiting, now_ms) {
                shared(&mut state.log).waiting.push(waiting);
            }
        }
    }

    /// Answers, or gives back who has to wait on.
    fn try_settle(self: &Arc<Self>, state: &mut State, waiting: Waiting, now_ms: u64) -> Option<Waiting> {
        let head = state.history.head();
        let log = shared(&mut state.log);
        let reference = waiting.reference.as_deref().and_then(Ref::from_json);
        match &waiting.what {
            Wanted::Page { page, limit } => {
                if !log.complete {
                    log.wants_older = true;
                    return Some(waiting);
                }
                let frame = self.history_frame(state, *page, *limit, reference, now_ms);
                self.settle(waiting.member, frame, Settled::Paged);
            }
            Wanted::In { user, since, again } => {
                let recovered = match since {
                    None => None,
                    Some(since) => match state.lineage.judge(&since.epoch, since.seq, head) {
                        Verdict::Good if state.history.covers(since.seq) => Some(true),
                        Verdict::Good if !log.complete => {
                            log.wants_older = true;
                            return Some(waiting);
                        }
                        _ if log.repairs_done < waiting.repair => {
                            log.behind = true;
                            return Some(waiting);
                        }
                        _ => Some(false),
                    },
                };
                let joining = Joining {
                    member: waiting.member,
                    user,
                    since: since.as_ref().map(|since| Position {
                        epoch: &since.epoch,
                        seq: since.seq,
                    }),
                    reference,
                    again: *again,
                    now_ms,
                };
                self.enter_shared(state, &joining, recovered);
                self.settle(waiting.member, None, Settled::In { recovered });
            }
        }
        None
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

fn shared(log: &mut Log) -> &mut Shared {
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
