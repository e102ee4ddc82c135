//! Coming, going, and waiting to be let in.

use std::sync::Arc;

use super::super::{Asker, Joined, Joining, Paged, Paging, Room, State};
use super::{Held, Shared, Waiting, Wanted, shared, unavailable};
use crate::backplane::contract::{Change, Position as Place};
use crate::backplane::lineage::Verdict;
use crate::hub::{MemberId, Position};
use crate::protocol::client::{Page, Ref};
use crate::protocol::error::ErrorCode;
use crate::shard::inbox::{Command, Settled};
use crate::websocket::encoded::Frame;

impl Room {
    pub(in crate::hub::room) fn join_shared(self: &Arc<Self>, state: &mut State, joining: &Joining<'_>) -> Joined {
        let head = state.history.head();
        let shared = shared(&mut state.log);
        let attached = shared.at.is_some();
        let recovered = match joining.since {
            None if attached => Some(None),
            Some(_) if attached && !joining.sees.past => Some(Some(false)),
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
            sees: joining.sees,
        };
        wait(shared, Asker::member(joining.member, joining.reference), what);
        if attached {
            // What this node does not know, another may have told the client: the log decides.
            shared.behind = true;
        }
        self.ask(shared);
        Joined::Later
    }

    pub(in crate::hub::room) fn page_later(self: &Arc<Self>, shared: &mut Shared, asked: &Paging<'_>) -> Paged {
        let whom = Asker::member(asked.member, asked.reference);
        if self.wait_for_page(shared, whom, asked.page, asked.limit) {
            Paged::Later
        } else {
            Paged::Unavailable
        }
    }

    /// False if the backplane is away.
    pub(in crate::hub::room) fn wait_for_page(
        self: &Arc<Self>,
        shared: &mut Shared,
        whom: Asker<Frame>,
        page: Page,
        limit: usize,
    ) -> bool {
        if !self.errands().is_up() {
            return false;
        }
        wait(shared, whom, Wanted::Page { page, limit });
        shared.wants_older = true;
        self.ask(shared);
        true
    }

    /// Lets a member in, of whose `since` everything is known.
    fn enter_shared(self: &Arc<Self>, state: &mut State, joining: &Joining<'_>, recovered: Option<bool>) {
        let shared = shared(&mut state.log);
        (shared.deserted_ms, shared.detach) = (0, false);
        if !joining.again {
            let user = joining.user;
            let held = shared.held.get_mut(&user.id);
            if held.is_none() {
                self.tell_presence(true, &user.json, joining.now_ms);
            }
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
            if changed && let Some(number) = self.tell_change(&user.id, &user.json, true) {
                shared.entered = number;
            }
        }
        self.enter(state, joining, recovered);
    }

    /// Tells all nodes who came or went; of a probe none.
    fn tell_change(&self, user: &Arc<str>, json: &Arc<str>, enters: bool) -> Option<u64> {
        (!self.is_shadow()).then(|| self.errands().change(self.change(user, json, enters)))
    }

    /// The last change by which a user entered here; 0: there was none.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.with(|state| shared(&mut state.log).entered)
    }

    pub(super) fn change(&self, user: &Arc<str>, json: &Arc<str>, enters: bool) -> Change {
        Change {
            room: self.key(),
            user: Arc::clone(user),
            json: Arc::clone(json),
            enters,
        }
    }

    pub(in crate::hub::room) fn leave_shared(
        self: &Arc<Self>,
        state: &mut State,
        user: &Arc<str>,
        closed: bool,
        now_ms: u64,
    ) {
        let shared = shared(&mut state.log);
        let Some(held) = shared.held.get_mut(user) else { return };
        held.connections = held.connections.saturating_sub(1);
        if held.connections > 0 {
            return;
        }
        let errands = self.errands();
        if closed && !errands.bounds.leave_grace.is_zero() && !self.is_shadow() {
            let grace_ms = u64::try_from(errands.bounds.leave_grace.as_millis()).unwrap_or(u64::MAX);
            held.leaves_ms = now_ms.saturating_add(grace_ms);
            errands.leave_later(held.leaves_ms, Arc::clone(self), Arc::clone(user));
        } else if let Some(held) = shared.held.remove(user) {
            self.tell_presence(false, &held.json, now_ms);
            self.tell_change(user, &held.json, false);
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
                self.tell_presence(false, &held.json, now_ms);
                self.tell_change(user, &held.json, false);
            }
        });
    }

    /// Everybody leaves whose last connection closed, however recently.
    pub fn leave_all_gone(self: &Arc<Self>) {
        self.with(|state| {
            let log = shared(&mut state.log);
            log.held.retain(|user, held| {
                if held.connections == 0 {
                    self.tell_presence(false, &held.json, crate::runtime::now_ms());
                    self.tell_change(user, &held.json, false);
                }
                held.connections > 0
            });
        });
    }

    /// Users that this node holds in the room, grace included.
    pub fn held(&self, into: &mut Vec<Change>) {
        if self.is_shadow() {
            return;
        }
        self.with(|state| {
            for (user, held) in &shared(&mut state.log).held {
                into.push(self.change(user, &held.json, true));
            }
        });
    }

    pub(super) fn settle(&self, member: MemberId, frame: impl Into<Option<Frame>>, settled: Settled) {
        self.inbox(member).push(Command::Settled {
            member,
            frame: frame.into(),
            settled,
        });
    }

    /// Lets those in who can be answered now.
    pub(super) fn settle_waiting(self: &Arc<Self>, state: &mut State, now_ms: u64) {
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
        let (what, repair) = (&waiting.what, waiting.repair);
        let (member, reference) = match (&waiting.whom, what) {
            (_, Wanted::Page { .. }) if !log.complete => {
                log.wants_older = true;
                return (!waiting.whom.is_gone()).then_some(waiting);
            }
            (Asker::Member { member, reference }, _) => (*member, reference.as_deref().and_then(Ref::from_json)),
            (Asker::Caller(_), Wanted::Page { page, limit }) => {
                let frame = self.history_frame(state, *page, *limit, None, now_ms);
                if let Asker::Caller(caller) = waiting.whom {
                    drop(caller.send(frame));
                }
                return None;
            }
            (Asker::Caller(_), Wanted::In { .. }) => return None,
        };
        match what {
            Wanted::Page { page, limit } => {
                let frame = self.history_frame(state, *page, *limit, reference, now_ms);
                self.settle(member, frame, Settled::Paged);
            }
            Wanted::In {
                user,
                since,
                again,
                sees,
            } => {
                let recovered = match since {
                    None => None,
                    Some(_) if !sees.past => Some(false),
                    Some(since) => match state.lineage.judge(&since.epoch, since.seq, head) {
                        Verdict::Good if state.history.covers(since.seq) => Some(true),
                        Verdict::Good if !log.complete => {
                            log.wants_older = true;
                            return Some(waiting);
                        }
                        _ if log.repairs_done < repair => {
                            log.behind = true;
                            return Some(waiting);
                        }
                        _ => Some(false),
                    },
                };
                let joining = Joining {
                    member,
                    user,
                    since: since.as_ref().map(|since| Position {
                        epoch: &since.epoch,
                        seq: since.seq,
                    }),
                    reference,
                    again: *again,
                    sees: *sees,
                    now_ms,
                };
                self.enter_shared(state, &joining, recovered);
                let recovered = recovered.filter(|_| !self.is_shadow());
                self.settle(member, None, Settled::In { recovered });
            }
        }
        None
    }

    /// The question found no answer. Whoever waits for it is told.
    pub fn ask_failed(self: &Arc<Self>) {
        self.with(|state| {
            let shared = shared(&mut state.log);
            for waiting in std::mem::take(&mut shared.waiting) {
                // A caller hears it by the end of its channel.
                let Asker::Member { member, reference } = waiting.whom else {
                    continue;
                };
                let reference = reference.as_deref().and_then(Ref::from_json);
                if let Wanted::In { again: false, .. } = waiting.what {
                    shared.refused.push(member);
                }
                self.settle(member, unavailable(reference), Settled::Refused(ErrorCode::Unavailable));
            }
            shared.wants_older = false;
            // What is behind stays so: a whole link, or the next audit, brings it up again.
            shared.asking = false;
        });
    }
}

fn wait(shared: &mut Shared, whom: Asker<Frame>, what: Wanted) {
    shared.deserted_ms = 0;
    shared.detach = false;
    if let Asker::Caller(_) = whom {
        shared.waiting.retain(|waiting| !waiting.whom.is_gone());
    }
    shared.waiting.push(Waiting {
        whom,
        // One that runs now may have looked before the client's last message was said.
        repair: shared.repairs_begun + 1,
        what,
    });
}
