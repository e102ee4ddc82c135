//! What a room does for those who are not in it: the application, through the server API.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::shared::shared;
use super::{Asker, Log, People, Read, Room, Said, Spoken, Swept, Words};
use crate::backplane::contract::Entry;
use crate::backplane::envelope::Envelope;
use crate::hub::post::Letter;
use crate::protocol::client::Page;
use crate::runtime::now_ms;
use crate::shard::inbox::Command;

impl Room {
    /// Numbers, keeps and hands on what somebody says who is no member, in order with what members say: it waits in the
    /// same queue.
    pub fn speak(self: &Arc<Self>, words: &Words<'_>) -> Spoken {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.gone {
            return Spoken::Gone;
        }
        if let Log::Shared(shared) = &mut state.log {
            let (caller, answer) = oneshot::channel();
            return match self.say_shared(shared, words, Asker::Caller(caller)) {
                Said::Later => Spoken::Later(answer),
                _ => Spoken::Unavailable,
            };
        }
        match self.say_own(state, words) {
            Said::New { epoch, seq, .. } => Spoken::Kept {
                epoch,
                seq,
                again: false,
            },
            Said::Again { epoch, seq } => Spoken::Kept {
                epoch,
                seq,
                again: true,
            },
            Said::Later | Said::Unavailable => Spoken::Unavailable,
        }
    }

    /// A page of what was said. A room that nobody here is in is attached for it, and let go some time later.
    pub fn read(self: &Arc<Self>, page: Page, limit: usize, now_ms: u64) -> Read {
        let mut state = self.state.lock();
        if state.gone {
            return Read::Gone;
        }
        if let Log::Shared(shared) = &mut state.log
            && !shared.is_complete()
        {
            let (caller, answer) = oneshot::channel();
            return if self.wait_for_page(shared, Asker::Caller(caller), page, limit) {
                Read::Later(answer)
            } else {
                Read::Unavailable
            };
        }
        Read::Now(self.history_frame(&mut state, page, limit, None, now_ms))
    }

    /// Who is in it, on all nodes; none if this node does not follow the room and has to ask the backplane.
    #[must_use]
    pub fn people(&self, after: Option<&str>, limit: usize, now_ms: u64) -> Option<People> {
        let state = self.state.lock();
        if let Log::Shared(shared) = &state.log
            && !shared.is_attached()
        {
            return None;
        }
        let as_of_ms = (self.rules.node.errands.as_ref()).map_or(now_ms, |errands| errands.as_of_ms(now_ms));
        Some(People::page(state.presence.iter(), after, limit, as_of_ms))
    }

    /// Ends a room that exists only because somebody who is not in it has said something; true if it is to be forgotten.
    pub fn end_if_only_passed(&self) -> bool {
        self.with(|state| {
            let deserted = state.members() == 0;
            let log = shared(&mut state.log);
            let passed = deserted && !self.is_post() && log.is_untouched();
            passed && self.end(state) == Swept::Gone
        })
    }

    /// A letter that the log has told this node of.
    pub(super) fn deliver_letter(&self, entry: &Entry) {
        if let Ok(envelope) = Envelope::parse(&entry.envelope) {
            self.hand_out(envelope.content.get(), entry.time_ms, now_ms());
        }
    }

    /// Has every shard do what a letter says.
    pub(super) fn hand_out(&self, letter: &str, time_ms: u64, now_ms: u64) {
        let Some(letter) = Letter::open(letter) else {
            tracing::warn!("a letter to a user cannot be read: it is of another version");
            return;
        };
        let Some(what) = letter.read(time_ms, now_ms) else {
            return;
        };
        for inbox in &*self.inboxes {
            inbox.push(Command::ToUser(what.clone()));
        }
    }
}
