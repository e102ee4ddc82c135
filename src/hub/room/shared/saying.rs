//! Chats on their way to the backplane, in each sender's order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::{Asker, Pending, Room, Said, Words};
use super::{Shared, shared, unavailable};
use crate::backplane::contract::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Draft, Outcome, Refusal};
use crate::backplane::envelope;
use crate::hub::MemberId;
use crate::protocol::client::Ref;
use crate::protocol::server;
use crate::shard::inbox::Command;
use crate::websocket::encoded::Frame;

/// Acknowledged chats that the room has not heard of yet. Usually none: they come over another link a moment later.
const ACKED_MAX: usize = 4_096;

impl Room {
    pub(in crate::hub::room) fn say_shared(
        self: &Arc<Self>,
        shared: &mut Shared,
        words: &Words<'_>,
        whom: Asker<Outcome>,
    ) -> Said {
        let errands = self.errands();
        if !errands.is_up() {
            errands.metrics.backplane().refused(Refusal::Away.as_str());
            return Said::Unavailable;
        }
        let envelope = envelope::seal(&words.user.json, words.content, words.trace);
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
            whom,
            until_ms: words.now_ms.saturating_add(timeout_ms),
            is_doubtful: false,
        };
        let draft = Draft {
            user: Arc::clone(&words.user.id),
            key: words.key.map(Into::into),
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

    /// How long the batch that is under way may still be tried: until its first chat must be answered.
    #[must_use]
    pub fn patience(&self, now_ms: u64) -> Duration {
        self.with(|state| {
            let first = shared(&mut state.log)
                .in_flight
                .iter()
                .map(|pending| pending.until_ms)
                .min();
            Duration::from_millis(first.unwrap_or(now_ms).saturating_sub(now_ms))
        })
    }

    /// What became of the batch. True if some of it is to be tried again, in a moment: those are first in the queue.
    pub fn published(&self, batch: Vec<Draft>, outcomes: &[Outcome], now_ms: u64) -> bool {
        self.with(|state| {
            let shared = shared(&mut state.log);
            let pendings = std::mem::take(&mut shared.in_flight);
            let mut again = Vec::new();
            for ((mut pending, draft), outcome) in pendings
                .into_iter()
                .zip(batch)
                .zip(outcomes.iter().chain(std::iter::repeat(&Outcome::Unknown)))
            {
                let may_pass = match outcome {
                    Outcome::Refused(refusal) => refusal.may_pass(),
                    // Only a key makes a second try harmless.
                    Outcome::Unknown => draft.key.is_some(),
                    Outcome::New(_) | Outcome::Again(_) => false,
                };
                if let Outcome::New(place) = outcome
                    && let Asker::Member { member, .. } = pending.whom
                    && shared.acked.len() < ACKED_MAX
                    && shared
                        .at
                        .as_ref()
                        .is_none_or(|at| at.epoch != place.epoch || at.seq < place.seq)
                {
                    shared.acked.push((member, place.clone()));
                }
                match outcome {
                    Outcome::New(place) => self.tell_placed(&draft, place, now_ms),
                    // Kept by the try before: rather told twice than not at all.
                    Outcome::Again(place) if pending.is_doubtful => self.tell_placed(&draft, place, now_ms),
                    Outcome::Unknown => pending.is_doubtful = true,
                    Outcome::Again(_) | Outcome::Refused(_) => {}
                }
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

    pub(super) fn answer(&self, pending: Pending, outcome: &Outcome) {
        let reason = match outcome {
            Outcome::New(_) | Outcome::Again(_) => None,
            Outcome::Refused(refusal) => Some(refusal.as_str()),
            Outcome::Unknown => Some("unknown"),
        };
        if let Some(reason) = reason {
            self.errands().metrics.backplane().refused(reason);
        }
        match pending.whom {
            Asker::Member { member, reference } => self.answer_member(member, reference.as_deref(), outcome),
            // A caller who went away does not want to know.
            Asker::Caller(caller) => drop(caller.send(outcome.clone())),
        }
    }

    fn answer_member(&self, member: MemberId, reference: Option<&str>, outcome: &Outcome) {
        let reference = reference.and_then(Ref::from_json);
        let (frame, kept) = match outcome {
            Outcome::New(place) | Outcome::Again(place) => {
                let frame = reference.map(|reference| {
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
                });
                (frame, Some(matches!(outcome, Outcome::New(_))))
            }
            Outcome::Refused(_) | Outcome::Unknown => (Some(unavailable(reference)), None),
        };
        self.inbox(member).push(Command::Said {
            member,
            frame,
            kept,
            by_probe: self.is_shadow(),
        });
    }
}
