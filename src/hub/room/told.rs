//! What hooks are told of a room, where the backplane does not keep that itself.

use std::sync::Arc;

use super::{Room, Words};
use crate::backplane::contract::{Draft, Position};
use crate::backplane::envelope;
use crate::backplane::outbox::record::{Record, What};
use crate::backplane::outbox::{Event, HookSet};
use crate::backplane::partition;
use crate::hooks::event::fresh_id;
use crate::hooks::tell::queue::Queues;

/// Who is told what of one room.
pub(super) struct Told {
    queues: Arc<Queues>,
    partition: u16,
    joins: HookSet,
    lefts: HookSet,
    chats: HookSet,
}

impl Room {
    /// Has hooks told of it, if any wants to be.
    pub(in crate::hub) fn telling(mut self, queues: Option<&Arc<Queues>>) -> Self {
        self.told = queues.and_then(|queues| {
            let [joins, lefts, chats] =
                [Event::Join, Event::Left, Event::Chat].map(|event| queues.outboxes.wanting(event, &self.name));
            let told = Told {
                queues: Arc::clone(queues),
                partition: partition::of(&self.name),
                joins,
                lefts,
                chats,
            };
            (!joins.and(lefts).and(chats).is_empty()).then(|| Box::new(told))
        });
        self
    }

    /// A user came or went. The caller holds the room's lock, which keeps this in order.
    pub(super) fn tell_presence(&self, joined: bool, user_json: &str, now_ms: u64) {
        let Some(told) = &self.told else { return };
        let hooks = if joined { told.joins } else { told.lefts };
        if !hooks.is_empty() {
            let what = What::Presence {
                joined,
                node: &told.queues.outboxes.node,
                room: self.called(),
                user_json,
            };
            told.push(hooks, now_ms, what);
        }
    }

    /// Something was said, and numbered here.
    pub(super) fn tell_said(&self, words: &Words<'_>, epoch: &str, seq: u64) {
        if let Some(told) = self.told.as_deref().filter(|told| !told.chats.is_empty()) {
            let envelope = envelope::seal(&words.user.json, words.content, words.trace);
            self.tell_chat(told, (epoch, seq), words.key, &envelope, words.now_ms);
        }
    }

    /// Something was said on this node, and numbered by the backplane.
    pub(super) fn tell_placed(&self, draft: &Draft, place: &Position, now_ms: u64) {
        if let Some(told) = self.told.as_deref().filter(|told| !told.chats.is_empty()) {
            let place = (&*place.epoch, place.seq);
            self.tell_chat(told, place, draft.key.as_deref(), &draft.envelope, now_ms);
        }
    }

    fn tell_chat(&self, told: &Told, (epoch, seq): (&str, u64), key: Option<&str>, envelope: &[u8], now_ms: u64) {
        // This node sealed it: it is text.
        let Ok(envelope) = std::str::from_utf8(envelope) else {
            return;
        };
        let what = What::Chat {
            epoch,
            seq,
            node: &told.queues.outboxes.node,
            room: self.called(),
            key,
            envelope,
        };
        told.push(told.chats, now_ms, what);
    }
}

impl Told {
    fn push(&self, hooks: HookSet, time_ms: u64, what: What<'_>) {
        let id = fresh_id();
        let record = Record { id: &id, time_ms, what };
        self.queues.push(hooks, self.partition, &record);
    }
}
