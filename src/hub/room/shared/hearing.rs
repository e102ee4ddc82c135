//! What the engine hears of a room, and how far the room has come.

use std::sync::Arc;

use super::super::{Room, State};
use super::{Shared, Told, shared};
use crate::backplane::contract::{Entry, Head, Position as Place, PresenceEvent};
use crate::backplane::cursor::{self, Heard};
use crate::hub::User;

impl Room {
    /// Messages that arrived together, in order. What each was is told; nothing if the room is not open.
    pub fn on_messages(self: &Arc<Self>, entries: &[Entry], told: impl FnMut(Heard)) {
        // Under one lock, so that members get them in one go.
        self.with(|state| {
            entries
                .iter()
                .filter_map(|entry| self.on_message(state, entry))
                .for_each(told);
        });
    }

    fn on_message(self: &Arc<Self>, state: &mut State, entry: &Entry) -> Option<Heard> {
        let log = shared(&mut state.log);
        if log.at.is_none() || log.reopen || log.behind {
            // The log has it, and the question that runs, or the one after it, brings it.
            log.missed = Some(entry.position.clone());
            self.ask_again(log);
            return Some(Heard::Ahead);
        }
        let at = log.at.clone()?;
        let heard = cursor::hear(&at, entry);
        match heard {
            Heard::Old => {}
            Heard::Next if !self.is_choked(state) => {
                self.deliver(state, entry);
            }
            Heard::Next | Heard::Ahead | Heard::Foreign => self.fall_behind(state),
        }
        Some(heard)
    }

    /// The driver gave up on this room, and something new has come since: it may do better now.
    fn ask_again(self: &Arc<Self>, log: &mut Shared) {
        if log.at.is_some() && self.errands().is_up() {
            self.ask(log);
        }
    }

    pub(super) fn fall_behind(self: &Arc<Self>, state: &mut State) {
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
                self.ask_again(log);
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

    /// Where the room's presence stands.
    #[must_use]
    pub fn users_version(&self) -> u64 {
        self.with(|state| shared(&mut state.log).users_version)
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
}
