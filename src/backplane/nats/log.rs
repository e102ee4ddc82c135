//! Appending to a room's log, and where it stands.

use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::backplane::contract::{Draft, Failed, Outcome, Position, Refusal, RoomKey};

use super::api::Ack;
use super::link::Link;
use super::names::{message_id, stream_of};
use super::problem::Problem;
use super::stored::TIME;
use super::{Nats, TOGETHER};

/// Bytes of a message beside its envelope: headers and subject.
const OVERHEAD_BYTES: usize = 1_024;

impl Nats {
    /// Some drafts at a time, and no more once one was not taken: what follows it must not come before it.
    pub(super) async fn append(&self, room: &RoomKey, drafts: &[Draft], within: Duration) -> Vec<Outcome> {
        let deadline = Instant::now() + within;
        let mut outcomes = Vec::with_capacity(drafts.len());
        let link = match self.link() {
            Ok(link) => link,
            Err(failed) => return vec![outcome(failed); drafts.len()],
        };
        // One server takes what comes over one connection in its order. Where a stream's leader may change in the
        // middle, only an answer tells that the one before was taken.
        let together = if link.clustered { 1 } else { TOGETHER };
        let mut stopped = None;
        for some in drafts.chunks(together) {
            if stopped.is_none() && Instant::now() >= deadline {
                stopped = Some(Refusal::Late);
            }
            if let Some(refusal) = stopped {
                outcomes.extend(some.iter().map(|_| Outcome::Refused(refusal)));
                continue;
            }
            // `join_all` polls in this order, which is the order of sending.
            outcomes.extend(join_all(some.iter().map(|draft| self.append_one(&link, room, draft))).await);
            stopped = outcomes.iter().rev().take(some.len()).find_map(stops);
        }
        outcomes
    }

    async fn append_one(&self, link: &Link, room: &RoomKey, draft: &Draft) -> Outcome {
        if draft.envelope.len() + OVERHEAD_BYTES > link.payload_bytes_max() {
            return Outcome::Refused(Refusal::Broken);
        }
        let mut headers = HeaderMap::new();
        headers.insert(TIME, self.clock.now_ms().to_string());
        if let Some(key) = &draft.key {
            headers.insert("Nats-Msg-Id", message_id(&room.name, &draft.user, key));
        }
        let subject = self.settings.names.messages(room);
        match link.store(subject, headers, draft.envelope.clone()).await {
            Ok(ack) => self.placed(room, ack),
            Err(problem) => outcome(problem.into()),
        }
    }

    fn placed(&self, room: &RoomKey, ack: Ack) -> Outcome {
        let stream = stream_of(room.partition);
        let position = Position {
            epoch: self.epochs.epoch_of(stream, ack.seq),
            seq: ack.seq,
        };
        if ack.duplicate {
            return Outcome::Again(position);
        }
        self.marks.note(stream, ack.seq, &room.name);
        Outcome::New(position)
    }

    /// The newest message of a room: its seq and when it was stored. `None` if nothing is kept.
    pub(super) async fn newest(&self, link: &Link, room: &RoomKey) -> Result<Option<(u64, u64)>, Problem> {
        let names = &self.settings.names;
        let stream = names.rooms_stream(stream_of(room.partition));
        let newest = link.newest(&stream, &names.messages(room)).await?;
        Ok(newest.map(|newest| (newest.seq, newest.stored_ms)))
    }
}

const fn outcome(failed: Failed) -> Outcome {
    match failed {
        Failed::Refused(refusal) => Outcome::Refused(refusal),
        Failed::Unknown => Outcome::Unknown,
    }
}

/// Whether what comes after such an outcome has to wait. A message that can never be taken is nobody's predecessor.
const fn stops(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Refused(Refusal::Broken) => None,
        Outcome::Refused(refusal) => Some(*refusal),
        Outcome::Unknown => Some(Refusal::Away),
        Outcome::New(_) | Outcome::Again(_) => None,
    }
}
