//! What the log answers, and what comes of it for the members.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::{Room, State};
use super::{Repaired, shared};
use crate::backplane::contract::{Entry, Opened, Page, Position as Place, Range, Users};
use crate::backplane::cursor::{self, Repair};
use crate::backplane::envelope::Envelope;
use crate::backplane::lineage::Verdict;
use crate::hub::history::History;
use crate::hub::{MemberId, User};
use crate::protocol::server::{self, ResetReason};
use crate::shard::inbox::Command;
use crate::telemetry::metrics::Wakeup;
use crate::telemetry::traces::TraceContext;
use crate::websocket::encoded::Frame;

impl Room {
    /// Whether every shard can be told more.
    pub fn can_hand_on(&self) -> bool {
        let state = self.state.lock();
        !self.is_choked(&state)
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
                Some(was) => match cursor::reopened(&was, head, &state.lineage) {
                    Some((to, reason)) => self.reset(state, to, reason),
                    None => shared(&mut state.log).at = Some(was),
                },
            }
            let log = shared(&mut state.log);
            log.complete = head == 0 || (log.complete && !log.reopen);
            log.reopen = false;
            // What came between the question and its answer met a room that did not know where it stood.
            log.behind = log.is_missing_more() || log.at.as_ref().is_some_and(|at| at.seq < head);
            if !log.behind {
                log.repairs_done = log.repairs_begun;
            }
            if self.is_post() {
                self.errands().open_post();
            }
            let count_is_due = self.take_users(state, users, now_ms);
            self.settle_waiting(state, now_ms);
            count_is_due
        })
    }

    /// What follows where the room stood when the driver asked.
    pub fn on_range(self: &Arc<Self>, range: Range, now_ms: u64) -> Option<Repaired> {
        self.with(|state| {
            let at = shared(&mut state.log).at.clone()?;
            let lineage = range.lineage.clone();
            let repaired = match cursor::repair(&at, range) {
                Repair::Deliver { entries, again } => {
                    state.lineage = lineage;
                    self.tell_losers(state);
                    let delivered = !entries.is_empty();
                    for entry in entries {
                        self.deliver(state, &entry);
                    }
                    let log = shared(&mut state.log);
                    log.behind = again || log.is_missing_more();
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
    pub fn on_older(self: &Arc<Self>, page: Page, now_ms: u64) -> bool {
        self.with(|state| {
            let (mut full, mut taken) = (false, 0);
            for entry in page.entries.iter().rev() {
                if entry.position.seq < state.history.base() {
                    // What was said meanwhile has filled the copy.
                    full = true;
                    break;
                }
                if entry.position.seq > state.history.base() {
                    // Another log.
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
            if log.complete || log.waiting.is_empty() {
                log.wants_older = false;
            }
            self.report(state, now_ms);
            self.settle_waiting(state, now_ms);
            full || taken > 0 || !page.more
        })
    }

    fn take_older(&self, state: &mut State, entry: &Entry) -> bool {
        let kept = if self.rules.node.bytes_over() > 0 {
            self.rules.kept.pressed()
        } else {
            self.rules.kept
        };
        let frame = self.frame(entry, begins_epoch(state, entry));
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

    /// The successor of where the room stands.
    pub(super) fn deliver(&self, state: &mut State, entry: &Entry) {
        let log = shared(&mut state.log);
        let Some(at) = &mut log.at else { return };
        let new_epoch = at.epoch != entry.position.epoch;
        *at = entry.position.clone();
        let at = at.seq;
        log.acked.retain(|(_, place)| place.seq > at);
        let new_epoch = new_epoch || begins_epoch(state, entry);
        state.lineage.extend(&entry.position.epoch, entry.position.seq);
        let seq = entry.position.seq;
        if self.is_post() {
            self.deliver_letter(entry);
        }
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
        let Ok(envelope) = Envelope::parse(&entry.envelope) else {
            self.errands().metrics.backplane().wakeup(Wakeup::Unreadable);
            tracing::warn!(seq = entry.position.seq, "a message in the backplane cannot be read");
            return None;
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

    /// Members who were told that something is kept that the log has lost since, though the room never heard of it.
    fn tell_losers(&self, state: &mut State) {
        let log = shared(&mut state.log);
        let Some(at) = &log.at else { return };
        if log.acked.is_empty() {
            return;
        }
        let lineage = &state.lineage;
        // Whatever the newest epoch numbered may be newer than the answer that is at hand.
        let (kept, lost) = std::mem::take(&mut log.acked)
            .into_iter()
            .partition(|(_, place)| lineage.judge(&place.epoch, place.seq, u64::MAX) == Verdict::Good);
        log.acked = kept;
        let frame = self.reset_frame(at, ResetReason::Rewound);
        let mut told: Vec<MemberId> = Vec::new();
        for (member, _) in lost {
            if !told.contains(&member) {
                told.push(member);
                self.inbox(member).push(Command::Reset {
                    room: self.id,
                    member,
                    frame: frame.clone(),
                });
            }
        }
    }

    /// The room stands elsewhere now, and says so to everybody who followed it.
    pub(super) fn reset(&self, state: &mut State, to: Place, reason: ResetReason) {
        if self.is_post() {
            tracing::warn!(
                reason = reason.as_str(),
                "messages to users were lost before this node could read them"
            );
        }
        let frame = self.reset_frame(&to, reason);
        let log = shared(&mut state.log);
        match reason {
            ResetReason::Rewound => {
                state.history.rewind(to.seq);
                // A copy that was full is not any more, and the log may have older ones.
                log.complete = to.seq == 0;
            }
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
        // Everybody is told, also whom it was acknowledged to.
        log.acked.clear();
        self.rules.node.taps.to_room(&self.name, &frame);
        for (_, inbox, _) in self.with_members(state) {
            inbox.push(Command::Chat {
                room: self.id,
                frame: frame.clone(),
                window_ms: 0,
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
    pub(super) fn present(&self, state: &mut State, user: &User, here: bool, time_ms: u64) -> bool {
        let changed = if here {
            state.presence.place(user, self.rules.class.users_shown)
        } else {
            state.presence.leave(&user.id, self.rules.class.users_shown).is_some()
        };
        changed && self.announce(state, here, user, Some(&user.id), time_ms)
    }

    fn take_users(&self, state: &mut State, users: Users, now_ms: u64) -> bool {
        let log = shared(&mut state.log);
        (log.users_version, log.users_behind) = (users.version, log.users_missed);
        let mut count_is_due = false;
        let there: HashSet<&str> = users.users.iter().map(|(id, _)| &**id).collect();
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
}

/// Whether a message is the first of its epoch, as far as is known.
fn begins_epoch(state: &State, entry: &Entry) -> bool {
    state.lineage.epoch_of(entry.follows) != entry.position.epoch
}
