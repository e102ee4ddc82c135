//! Attached rooms, what is heard of them, and the record that a room exists.

use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::backplane::contract::{Entry, Head, Opened, Position, RoomKey};
use crate::telemetry::metrics::Wakeup;

use super::clock::millis;
use super::feed::Room;
use super::link::Link;
use super::names::stream_of;
use super::places::{Heard, Place};
use super::problem::Problem;
use super::stored::{TIME, header};
use super::{Nats, TOGETHER};

/// That a room exists, as stored: `{"points":[[1700000000000,95,95]]}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Ascending, two at most.
    points: Vec<Point>,
}

/// What was known of a room at one time, by the server's clock: whatever is newer cannot have been dropped for its age
/// until that time is as old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Point(
    /// When, in ms since the Unix epoch.
    u64,
    /// The room's newest message, as everybody was told.
    u64,
    /// From here on it is certain: the same seq, or the stream's newest if older messages of the room may have been
    /// forgotten before.
    u64,
);

impl Known {
    /// The newest message that was recorded.
    pub fn head(&self) -> u64 {
        self.points.last().map_or(0, |Point(_, head, _)| *head)
    }

    /// Whether nothing above `seq` was dropped for its age, by the server's clock and this age.
    pub fn vouches_for(&self, seq: u64, now_ms: u64, age_ms: u64) -> bool {
        let vouches =
            |Point(at, head, from): &Point| now_ms.saturating_sub(*at) < age_ms && (*head == seq || *from <= seq);
        self.points.iter().any(vouches)
    }

    /// Whether the newest point is older than a quarter of `age_ms`.
    fn is_stale(&self, now_ms: u64, age_ms: u64) -> bool {
        self.points
            .last()
            .is_none_or(|Point(at, ..)| now_ms.saturating_sub(*at) >= age_ms / 4)
    }

    /// With a new point.
    fn touched(&self, point: Point, age_ms: u64) -> Self {
        let is_young = |Point(at, ..): &Point| point.0.saturating_sub(*at) < age_ms / 2;
        let older = self.points.iter().copied().find(is_young);
        Self {
            points: older.into_iter().chain([point]).collect(),
        }
    }
}

impl Nats {
    /// Subscribes before it reads: what comes after the answer is heard.
    pub(super) async fn open(&self, room: &RoomKey) -> Result<Opened, Problem> {
        let link = self.link()?;
        let attached = {
            let mut rooms = self.rooms.lock();
            let new = || Arc::new(Room::new(room.clone()));
            let attached = Arc::clone(rooms.entry(Arc::clone(&room.name)).or_insert_with(new));
            self.metrics.backplane().attached_rooms(rooms.len());
            attached
        };
        if !attached.is_subscribed() {
            self.subscribe(&link, &attached).await?;
        }
        self.read_places(&link, &attached).await?;
        let head = match self.newest(&link, room).await? {
            Some((seq, _)) => seq,
            None => self.make(&link, room).await?,
        };
        let users = attached.places.lock().users();
        Ok(Opened {
            head,
            lineage: self.epochs.up_to(stream_of(room.partition), head),
            users,
        })
    }

    /// Confirmed by the next answer over this link.
    pub(super) async fn subscribe(&self, link: &Link, room: &Arc<Room>) -> Result<(), Problem> {
        let subscriber = link.subscribe(self.settings.names.live(&room.key)).await?;
        link.feed(room.feed(subscriber)).await?;
        Ok(())
    }

    pub(super) fn close(&self, room: &RoomKey) {
        let mut rooms = self.rooms.lock();
        let closed = rooms.remove(&room.name);
        self.metrics.backplane().attached_rooms(rooms.len());
        drop(rooms);
        if let Some(closed) = closed {
            closed.end();
        }
    }

    /// Takes what a subscription brings. Never waits.
    pub(super) fn hear(&self, room: &Room, message: Message) {
        let subject = message.subject.as_str();
        let Some(seq) = header(&message, "Nats-Sequence") else {
            return;
        };
        let time_ms = header(&message, TIME).unwrap_or_else(|| self.clock.now_ms());
        if subject.rsplit('.').next() != Some("m") {
            let Some(place) = Place::of_subject(subject) else {
                return;
            };
            self.hear_place(room, place, seq, time_ms, &message.payload);
            return;
        }
        let stream = stream_of(room.key.partition);
        self.marks.note(stream, seq, &room.key.name);
        let entry = Entry {
            position: Position {
                epoch: self.epochs.epoch_of(stream, seq),
                seq,
            },
            follows: header(&message, "Nats-Last-Sequence").unwrap_or(0),
            time_ms,
            envelope: message.payload,
        };
        self.tell_sink(|sink| sink.message(&room.key.name, entry));
    }

    fn hear_place(&self, room: &Room, place: Place, seq: u64, time_ms: u64, payload: &[u8]) {
        if self.buried.lock().contains_key(&place.incarnation) {
            return;
        }
        let holder = match payload {
            [] => None,
            written => match serde_json::from_slice(written) {
                Ok(holder) => Some(holder),
                Err(_) => return self.metrics.backplane().wakeup(Wakeup::Unreadable),
            },
        };
        let heard = Heard {
            place,
            seq,
            holder,
            time_ms,
        };
        // Told under the lock, so that versions are told in their order.
        let mut places = room.places.lock();
        if let Some(event) = places.hear(heard) {
            self.tell_sink(|sink| sink.presence(&room.key.name, event));
        }
    }

    pub(super) async fn known(&self, link: &Link, room: &RoomKey) -> Result<Option<Known>, Problem> {
        let names = &self.settings.names;
        let found = link.newest(&names.stream("known"), &names.known(room)).await?;
        // What cannot be read is as good as nothing, and is replaced.
        Ok(found.map(|found| serde_json::from_slice(&found.payload).unwrap_or_default()))
    }

    /// Records that the room exists though nothing of it is kept. The newest seq that it is known to have had.
    async fn make(&self, link: &Link, room: &RoomKey) -> Result<u64, Problem> {
        let known = self.known(link, room).await?.unwrap_or_default();
        self.touch(link, room, &known, None).await?;
        Ok(known.head())
    }

    /// `newest`: the newest message that is kept, if any is.
    async fn touch(&self, link: &Link, room: &RoomKey, known: &Known, newest: Option<u64>) -> Result<(), Problem> {
        let (now_ms, age_ms) = (self.clock.now_ms(), millis(self.settings.stream_age));
        if !known.is_stale(now_ms, age_ms) {
            return Ok(());
        }
        let head = newest.unwrap_or_else(|| known.head());
        let from = if newest.is_some() || known.vouches_for(head, now_ms, age_ms) {
            head
        } else {
            let stream = self.settings.names.rooms_stream(stream_of(room.partition));
            link.info(&stream).await?.state.last_seq
        };
        let touched = known.touched(Point(now_ms, head, from), age_ms);
        let body = serde_json::to_vec(&touched).map_err(|_| Problem::BROKEN)?;
        link.store(self.settings.names.known(room), HeaderMap::new(), body.into())
            .await?;
        Ok(())
    }

    pub(super) async fn where_they_stand(&self, rooms: &[RoomKey]) -> Result<Vec<Option<Head>>, Problem> {
        let link = self.link()?;
        self.sweep_if_due(&link).await?;
        let asked: Vec<_> = rooms.iter().map(|room| self.where_it_stands(&link, room)).collect();
        let heads: Vec<_> = futures_util::stream::iter(asked).buffered(TOGETHER).collect().await;
        heads.into_iter().collect()
    }

    /// A room whose newest message is about to be dropped for its age is recorded with it.
    async fn where_it_stands(&self, link: &Link, room: &RoomKey) -> Result<Option<Head>, Problem> {
        let half_ms = millis(self.settings.stream_age) / 2;
        let seq = match self.newest(link, room).await? {
            Some((seq, stored_ms)) if self.clock.now_ms().saturating_sub(stored_ms) < half_ms => seq,
            found => {
                let known = self.known(link, room).await?;
                let seq = match (&found, &known) {
                    (Some((seq, _)), _) => *seq,
                    (None, Some(known)) => known.head(),
                    (None, None) => return Ok(None),
                };
                let newest = found.map(|(seq, _)| seq);
                self.touch(link, room, &known.unwrap_or_default(), newest).await?;
                seq
            }
        };
        let attached = self.rooms.lock().get(&room.name).map(Arc::clone);
        Ok(Some(Head {
            position: Position {
                epoch: self.epochs.epoch_of(stream_of(room.partition), seq),
                seq,
            },
            presence: attached.map_or(0, |attached| attached.places.lock().version()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_vouches_as_long_as_it_is_young() {
        let made = Known::default().touched(Point(1_000, 0, 70), 400);
        assert!(Known::default().is_stale(1_000, 400) && made.is_stale(1_100, 400) && !made.is_stale(1_050, 400));
        assert!(made.vouches_for(0, 1_399, 400) && made.vouches_for(70, 1_399, 400));
        assert!(!made.vouches_for(0, 1_400, 400), "too old");
        assert!(!made.vouches_for(50, 1_399, 400), "of an earlier life of the room");
        let later = made.touched(Point(1_100, 75, 75), 400);
        assert_eq!((later.head(), later.points.len()), (75, 2));
        assert!(later.vouches_for(0, 1_200, 400) && later.vouches_for(75, 1_450, 400));
        assert!(!later.vouches_for(74, 1_450, 400));
        assert_eq!(later.touched(Point(2_000, 75, 75), 400).points, [Point(2_000, 75, 75)]);
    }
}
