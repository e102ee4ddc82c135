//! Connections that begin and end, on their way to the outboxes: in order, many at a time, with an index for whoever
//! buries this node. Only with an engine that keeps outboxes, and only if a hook is told of `open` or `close`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::queue::Lost;
use crate::backplane::contract::{Backplane, Failed, Incarnation, Presented, SessionChange, SessionTurn};
use crate::backplane::driver::Living;
use crate::backplane::outbox::record::{Record, What};
use crate::backplane::outbox::{Event, HookSet, Outboxes};
use crate::hooks::event::fresh_id;
use crate::protocol::server::quote;
use crate::runtime::now_ms;

/// Changes in one call.
const CALL_CHANGES_MAX: usize = 512;

/// Earlier incarnations of this node whose sessions may not have moved yet. With more of them in a row some `open` and
/// `close` are told once too often.
const BEFORE_MAX: usize = 4;

/// How long changes gather before they go.
const GATHER: Duration = Duration::from_millis(10);

/// After a call that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Sessions of this node.
pub(super) struct Sessions {
    outboxes: Arc<Outboxes>,
    opens: HookSet,
    closes: HookSet,
    /// Changes that may wait.
    waiting_max: usize,
    state: Mutex<State>,
    changed: Notify,
    /// Changes that wait or are under way.
    pending: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// Those that have not ended: the index must have them.
    open: HashMap<Arc<str>, Open>,
    waiting: VecDeque<SessionChange>,
    /// By hook: since the last change that found room.
    lost: HashMap<usize, Lost>,
}

#[derive(Clone)]
struct Open {
    user: Arc<str>,
    user_json: Arc<str>,
    since_ms: u64,
}

/// A connection that ended.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub code: u16,
    pub reason: &'a str,
    pub duration: Duration,
}

/// The members of an event of a session.
pub(super) fn members(event: Event, node: &str, user_json: &str, session: &str) -> String {
    format!(
        r#""event":"{}","node":{},"user":{user_json},"session":{}"#,
        event.as_str(),
        quote(node),
        quote(session)
    )
}

/// What the members say of an end.
pub(super) fn ended(code: u16, reason: &str) -> String {
    format!(r#","code":{code},"reason":{}"#, quote(reason))
}

/// The record of it, as of now.
pub(super) fn record(members: &str, time_ms: u64) -> String {
    let id = fresh_id();
    let record = Record {
        id: &id,
        time_ms,
        what: What::Session { members },
    };
    record.to_text()
}

impl Sessions {
    /// None if no hook is told of them.
    pub(super) fn new(outboxes: &Arc<Outboxes>) -> Option<Arc<Self>> {
        let [opens, closes] = [Event::Open, Event::Close].map(|event| outboxes.wanting(event, ""));
        let all = opens.and(closes);
        let waiting_max = all.iter().map(|hook| outboxes.hooks[hook].events_max).max()?;
        Some(Arc::new(Self {
            outboxes: Arc::clone(outboxes),
            opens,
            closes,
            waiting_max,
            state: Mutex::default(),
            changed: Notify::new(),
            pending: watch::Sender::default(),
        }))
    }

    /// A connection has begun.
    pub(super) fn opened(&self, session: &str, user: &Arc<str>, user_json: &Arc<str>) {
        let session: Arc<str> = session.into();
        let open = Open {
            user: Arc::clone(user),
            user_json: Arc::clone(user_json),
            since_ms: now_ms(),
        };
        let mut state = self.state.lock();
        let change = self.begins(&session, &open);
        state.open.insert(session, open);
        self.wait(&mut state, change);
    }

    /// It has ended.
    pub(super) fn closed(&self, session: &str, end: &End<'_>) {
        let now_ms = now_ms();
        let mut state = self.state.lock();
        let Some((session, open)) = state.open.remove_entry(session) else {
            return;
        };
        let millis = end.duration.as_millis();
        let members = members(Event::Close, &self.outboxes.node, &open.user_json, &session)
            + &ended(end.code, end.reason)
            + &format!(r#","duration_ms":{millis}"#);
        let change = SessionChange {
            user: open.user,
            session,
            turn: SessionTurn::Ends,
            hooks: self.closes,
            record: record(&members, now_ms).into(),
        };
        self.wait(&mut state, change);
    }

    fn begins(&self, session: &Arc<str>, open: &Open) -> SessionChange {
        let node = &self.outboxes.node;
        let end = members(Event::Close, node, &open.user_json, session) + &ended(1006, "node_died");
        SessionChange {
            user: Arc::clone(&open.user),
            session: Arc::clone(session),
            turn: SessionTurn::Begins {
                end: end.into(),
                since_ms: open.since_ms,
            },
            hooks: self.opens,
            record: record(&members(Event::Open, node, &open.user_json, session), open.since_ms).into(),
        }
    }

    fn wait(&self, state: &mut State, change: SessionChange) {
        if self.closes.is_empty() && change.hooks.is_empty() {
            return;
        }
        if state.waiting.len() >= self.waiting_max {
            for hook in change.hooks.iter() {
                state.lost.entry(hook).or_default().add(now_ms());
            }
            return;
        }
        for (hook, mut lost) in std::mem::take(&mut state.lost) {
            if let Some(text) = lost.take(now_ms()) {
                state.waiting.push_back(SessionChange {
                    turn: SessionTurn::Lost,
                    hooks: HookSet::of(hook),
                    record: Bytes::from(text),
                    ..change.clone()
                });
            }
        }
        state.waiting.push_back(change);
        self.pending.send_replace(state.waiting.len());
        self.changed.notify_one();
    }

    /// Waits until the outboxes have everything.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn written(&self) {
        let mut pending = self.pending.subscribe();
        // The sender lives as long as we do.
        let _ = pending.wait_for(|pending| *pending == 0).await;
    }

    /// Writes, until it is dropped.
    pub(super) async fn run(
        self: Arc<Self>,
        backplane: Arc<dyn Backplane>,
        mut living: watch::Receiver<Option<Living>>,
    ) {
        let mut lives = Lives::default();
        let is_kept = !self.closes.is_empty();
        lives.see(living.borrow_and_update().as_ref(), is_kept);
        loop {
            // Nothing is lost: changes wait in the state until they are written, and every life is told of all that is open.
            tokio::select! {
                () = self.changed.notified() => tokio::time::sleep(GATHER).await,
                changed = living.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    lives.see(living.borrow_and_update().as_ref(), is_kept);
                }
            }
            let Some(now) = lives.now.clone() else {
                continue;
            };
            if lives.is_due {
                lives.is_due = !self.assert(&backplane, &now, &lives.before).await;
            }
            if !self.write(&backplane, &now, &lives.before).await || lives.is_due {
                tokio::time::sleep(RETRY_PAUSE).await;
                self.changed.notify_one();
            }
        }
    }

    /// A new life, or another server, which may lack some: the index gets every session that is open. False if that must
    /// be tried again: until it has them their ends are not told, or falsely, when an incarnation of this node is buried.
    async fn assert(&self, backplane: &Arc<dyn Backplane>, now: &Incarnation, before: &[Incarnation]) -> bool {
        let open: Vec<_> = {
            let state = self.state.lock();
            let open = state.open.iter();
            open.map(|(session, open)| (Arc::clone(session), open.clone()))
                .collect()
        };
        for piece in open.chunks(CALL_CHANGES_MAX) {
            // Who has ended meanwhile has an end that waits, and goes after this.
            let begins: Vec<_> = piece.iter().map(|(session, open)| self.begins(session, open)).collect();
            match backplane.outbox_sessions(now, before, &begins).await {
                Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == Ok(Presented::Done)) => {}
                outcomes => {
                    tracing::debug!(?outcomes, "sessions are not in the index yet");
                    return false;
                }
            }
        }
        true
    }

    /// Everything that waits; false if some of it must be tried again.
    async fn write(&self, backplane: &Arc<dyn Backplane>, now: &Incarnation, before: &[Incarnation]) -> bool {
        loop {
            let piece: Vec<_> = {
                let state = self.state.lock();
                state.waiting.iter().take(CALL_CHANGES_MAX).cloned().collect()
            };
            if piece.is_empty() {
                return true;
            }
            let outcomes = backplane.outbox_sessions(now, before, &piece).await;
            if !outcomes.is_ok_and(|outcomes| self.wrote(&outcomes)) {
                return false;
            }
        }
    }

    /// What became of the oldest that wait; those that were not done wait on. True if all were.
    fn wrote(&self, outcomes: &[Result<Presented, Failed>]) -> bool {
        let mut state = self.state.lock();
        let count = outcomes.len().min(state.waiting.len());
        let tried: Vec<_> = state.waiting.drain(..count).collect();
        let mut all = true;
        for (change, outcome) in tried.into_iter().zip(outcomes).rev() {
            if *outcome != Ok(Presented::Done) {
                state.waiting.push_front(change);
                all = false;
            }
        }
        if state.waiting.is_empty() {
            state.waiting = VecDeque::new();
        }
        self.pending.send_replace(state.waiting.len());
        all
    }
}

/// Under which incarnations this node has kept sessions.
#[derive(Debug, Default)]
struct Lives {
    /// None without a lease.
    now: Option<Incarnation>,
    /// The last one that had a lease.
    last: Option<Incarnation>,
    /// Earlier ones, oldest first.
    before: Vec<Incarnation>,
    /// Every session that is open must get into the index.
    is_due: bool,
}

impl Lives {
    fn see(&mut self, living: Option<&Living>, is_kept: bool) {
        self.now = living.map(|living| Arc::clone(&living.incarnation));
        let Some(now) = self.now.clone() else {
            return;
        };
        self.is_due = is_kept;
        if let Some(last) = self.last.replace(Arc::clone(&now))
            && last != now
        {
            if self.before.len() >= BEFORE_MAX {
                self.before.remove(0);
            }
            self.before.push(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::outbox::Hook;

    fn living(incarnation: &str) -> Living {
        Living {
            incarnation: incarnation.into(),
            server: "a server".into(),
        }
    }

    #[test]
    fn earlier_lives_are_known_for_a_while() {
        let mut lives = Lives::default();
        for name in ["1", "1", "2", "3", "4", "5", "6"] {
            lives.see(Some(&living(name)), true);
            assert!(lives.is_due);
            lives.see(None, true);
            assert_eq!(lives.now, None);
        }
        assert_eq!(lives.last.as_deref(), Some("6"));
        let before: Vec<_> = lives.before.iter().map(|life| &**life).collect();
        assert_eq!(before, ["2", "3", "4", "5"]);
    }

    #[test]
    fn what_was_not_written_waits_on_in_its_order() {
        let hook = Hook::new("all", &Event::ALL, &[], 100, 10_000);
        let sessions = Sessions::new(&Arc::new(Outboxes::new("a", vec![hook]))).expect("wanted");
        for name in ["s-1", "s-2", "s-3", "s-4"] {
            sessions.opened(name, &"u".into(), &r#"{"id":"u"}"#.into());
        }
        let done = Ok(Presented::Done);
        assert!(!sessions.wrote(&[Err(Failed::Unknown), done, Ok(Presented::Fenced)]));
        let left: Vec<_> = {
            let state = sessions.state.lock();
            state.waiting.iter().map(|change| change.session.to_string()).collect()
        };
        assert_eq!(left, ["s-1", "s-3", "s-4"]);
        assert!(sessions.wrote(&[done; 3]));
        assert_eq!(*sessions.pending.borrow(), 0);
    }
}
