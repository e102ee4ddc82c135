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
        loop {
            // Nothing is lost: changes wait in the state until they are written, and every life is told of all that is open.
            tokio::select! {
                () = self.changed.notified() => tokio::time::sleep(GATHER).await,
                changed = living.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = living.borrow_and_update().clone();
                    if let Some(living) = now.filter(|_| !self.closes.is_empty()) {
                        self.assert(&backplane, &living.incarnation).await;
                    }
                }
            }
            let incarnation = living.borrow().as_ref().map(|living| Arc::clone(&living.incarnation));
            if let Some(incarnation) = incarnation {
                self.write(&backplane, &incarnation).await;
            }
        }
    }

    /// A new life, or another server, which may lack some: the index gets every session that is open.
    async fn assert(&self, backplane: &Arc<dyn Backplane>, incarnation: &Incarnation) {
        let open: Vec<_> = {
            let state = self.state.lock();
            state
                .open
                .iter()
                .map(|(session, open)| (Arc::clone(session), open.clone()))
                .collect()
        };
        for piece in open.chunks(CALL_CHANGES_MAX) {
            // Who has ended meanwhile has an end that waits, and goes after this.
            let begins: Vec<_> = piece.iter().map(|(session, open)| self.begins(session, open)).collect();
            if let Err(error) = backplane.outbox_sessions(incarnation, &begins).await {
                tracing::debug!(%error, "sessions are not in the index: their ends are not told if this node dies");
            }
        }
    }

    /// Everything that waits, as far as it can be written.
    async fn write(&self, backplane: &Arc<dyn Backplane>, incarnation: &Incarnation) {
        loop {
            let piece: Vec<_> = {
                let state = self.state.lock();
                state.waiting.iter().take(CALL_CHANGES_MAX).cloned().collect()
            };
            if piece.is_empty() {
                return;
            }
            match backplane.outbox_sessions(incarnation, &piece).await {
                Ok(Presented::Done) => self.wrote(piece.len()),
                Ok(Presented::Fenced) | Err(Failed::Unknown | Failed::Refused(_)) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    self.changed.notify_one();
                    return;
                }
            }
        }
    }

    fn wrote(&self, count: usize) {
        let mut state = self.state.lock();
        let count = count.min(state.waiting.len());
        state.waiting.drain(..count);
        if state.waiting.is_empty() {
            state.waiting = VecDeque::new();
        }
        self.pending.send_replace(state.waiting.len());
    }
}
