//! Who is where: each incarnation writes its own places; everybody reads all places of the rooms they are in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::backplane::contract::{Change, Incarnation, PresenceEvent, Presented, RoomKey, Users};

use super::api::Scan;
use super::feed::Room;
use super::link::Link;
use super::names::{STREAMS, is_tally, stream_of};
use super::places::{Heard, Holder, Place, Places};
use super::problem::Problem;
use super::stored::{Stored, TIME};
use super::{Nats, TOGETHER};

/// Rooms of at most so many places are read place by place.
const SINGLY_MAX: usize = 16;

/// How often what was heard is compared with all that is stored, while nothing gives cause to.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// When all places were compared.
#[derive(Default)]
pub(super) struct Sweeps {
    last: tokio::sync::Mutex<Option<Instant>>,
}

impl Sweeps {
    /// Something may have been missed: the next audit compares everything.
    pub async fn are_due(&self) {
        *self.last.lock().await = None;
    }
}

impl Nats {
    pub(super) async fn move_users(&self, incarnation: &str, changes: &[Change]) -> Result<Presented, Problem> {
        let link = self.link()?;
        if self.is_buried(&link, incarnation).await? {
            return Ok(Presented::Fenced);
        }
        let places: Vec<_> = changes.iter().map(|change| self.written(incarnation, change)).collect();
        self.write(&link, places).await?;
        Ok(Presented::Done)
    }

    pub(super) async fn hold_exactly(&self, incarnation: &str, held: &[Change]) -> Result<Presented, Problem> {
        let link = self.link()?;
        if self.is_buried(&link, incarnation).await? {
            return Ok(Presented::Fenced);
        }
        let mut missing: HashMap<String, Written> = HashMap::new();
        for change in held {
            let written = self.written(incarnation, change);
            missing.insert(written.subject.clone(), written);
        }
        let mut surplus = Vec::new();
        for stream in 0..STREAMS {
            let filter = self.settings.names.held(stream, incarnation);
            let (subjects, _) = link
                .subjects(&self.settings.names.users_stream(stream), &filter)
                .await?;
            for subject in subjects {
                if missing.remove(&subject).is_none() && !is_tally(&subject) {
                    surplus.push(Written {
                        subject,
                        stream,
                        holder: Bytes::new(),
                    });
                }
            }
        }
        surplus.extend(missing.into_values());
        self.write(&link, surplus).await?;
        Ok(Presented::Done)
    }

    fn written(&self, incarnation: &str, change: &Change) -> Written {
        let holder = Holder {
            user: Arc::clone(&change.user),
            json: Arc::clone(&change.json),
        };
        let holder = change.enters.then(|| serde_json::to_vec(&holder).unwrap_or_default());
        Written {
            subject: self.settings.names.place(&change.room, incarnation, &change.user),
            stream: stream_of(change.room.partition),
            holder: holder.unwrap_or_default().into(),
        }
    }

    /// In order. A place that was left is removed once everybody was told.
    async fn write(&self, link: &Link, places: Vec<Written>) -> Result<(), Problem> {
        let together = if link.clustered { 1 } else { TOGETHER };
        for some in places.chunks(together) {
            let stored = join_all(some.iter().map(|place| {
                let mut headers = HeaderMap::new();
                headers.insert(TIME, self.clock.now_ms().to_string());
                link.store(place.subject.clone(), headers, place.holder.clone())
            }))
            .await;
            let acks = stored.into_iter().collect::<Result<Vec<_>, _>>()?;
            let left = some.iter().zip(acks).filter(|(place, _)| place.holder.is_empty());
            // What stays behind says that nobody is there, and goes with the next leave or the incarnation.
            let removals = left.map(|(place, ack)| self.forget(link, place.stream, ack.seq));
            join_all(removals).await;
        }
        Ok(())
    }

    async fn forget(&self, link: &Link, stream: usize, seq: u64) {
        let removed = link.remove(&self.settings.names.users_stream(stream), seq).await;
        if let Err(problem) = removed {
            tracing::debug!(%problem, "NATS: the trace of a user who left stays for now");
        }
    }

    pub(super) async fn who_is_in(&self, room: &RoomKey) -> Result<Users, Problem> {
        let link = self.link()?;
        let attached = self.rooms.lock().get(&room.name).map(Arc::clone);
        if let Some(attached) = attached {
            self.read_places(&link, &attached).await?;
            return Ok(attached.places.lock().users());
        }
        let (all, up_to) = self.stored_places(&link, room).await?;
        let mut places = Places::default();
        places.read(all, up_to, self.clock.now_ms());
        let users = places.users().users;
        Ok(Users { version: 0, users })
    }

    /// Brings an attached room up to what is stored, and tells of what changed thereby.
    pub(super) async fn read_places(&self, link: &Link, room: &Room) -> Result<(), Problem> {
        let (all, up_to) = self.stored_places(link, &room.key).await?;
        let mut places = room.places.lock();
        let events = places.read(all, up_to, self.clock.now_ms());
        self.tell_presence(room, events);
        drop(places);
        Ok(())
    }

    fn tell_presence(&self, room: &Room, events: Vec<PresenceEvent>) {
        for event in events {
            self.tell_sink(|sink| sink.presence(&room.key.name, event));
        }
    }

    /// Everybody in a room, and the stream's newest seq before they were read. The leader says which places there are;
    /// what another copy has of them saves asking for each.
    async fn stored_places(&self, link: &Link, room: &RoomKey) -> Result<(Vec<Heard>, u64), Problem> {
        let names = &self.settings.names;
        let (stream, filter) = (names.users_stream(stream_of(room.partition)), names.users(room));
        let (subjects, info) = link.subjects(&stream, &filter).await?;
        let mut found: HashMap<String, Stored> = HashMap::new();
        if subjects.len() > SINGLY_MAX {
            let all = Scan {
                stream: &stream,
                subject: &filter,
                from: 1,
                max: subjects.len(),
                bare: false,
            };
            found.extend(
                link.scan(&all)
                    .await?
                    .into_iter()
                    .map(|stored| (stored.subject.clone(), stored)),
            );
        }
        let missing = subjects.iter().filter(|subject| !found.contains_key(*subject));
        let asked: Vec<_> = missing.map(|subject| link.newest(&stream, subject)).collect();
        let asked: Vec<_> = futures_util::stream::iter(asked)
            .buffer_unordered(TOGETHER)
            .collect()
            .await;
        for stored in asked {
            found.extend(stored?.map(|stored| (stored.subject.clone(), stored)));
        }
        let buried = self.buried.lock();
        let heard = found.into_values().filter_map(heard);
        let heard = heard
            .filter(|heard| !buried.contains_key(&heard.place.incarnation))
            .collect();
        Ok((heard, info.state.last_seq))
    }

    /// Compares the places of all attached rooms with what is stored, if that was not done on this link, or long ago.
    pub(super) async fn sweep_if_due(&self, link: &Link) -> Result<(), Problem> {
        let mut last = self.sweeps.last.lock().await;
        if last.is_some_and(|last| last.elapsed() < SWEEP_INTERVAL) {
            return Ok(());
        }
        let began = Instant::now();
        let rooms: Vec<Arc<Room>> = self.rooms.lock().values().map(Arc::clone).collect();
        for stream in 0..STREAMS {
            let here: Vec<&Arc<Room>> = rooms
                .iter()
                .filter(|room| stream_of(room.key.partition) == stream)
                .collect();
            if !here.is_empty() {
                self.sweep(link, stream, &here).await?;
            }
        }
        *last = Some(began);
        Ok(())
    }

    async fn sweep(&self, link: &Link, stream: usize, rooms: &[&Arc<Room>]) -> Result<(), Problem> {
        let names = &self.settings.names;
        let everything = names.subject(&format!("u.{stream}.>"));
        let (subjects, _) = link.subjects(&names.users_stream(stream), &everything).await?;
        let mut places: HashMap<&str, HashSet<Place>> = HashMap::new();
        {
            let buried = self.buried.lock();
            for subject in &subjects {
                let room = subject.rsplit('.').nth(2);
                let place = Place::of_subject(subject).filter(|place| !buried.contains_key(&place.incarnation));
                if let Some((room, place)) = room.zip(place) {
                    places.entry(room).or_default().insert(place);
                }
            }
        }
        for room in rooms {
            let subject = names.messages(&room.key);
            let stored = subject.rsplit('.').next().and_then(|word| places.get(word));
            let same = room.places.lock().are(stored.into_iter().flatten());
            if !same {
                // Perhaps because the stream lost what this node has heard: its numbers prove nothing then.
                room.places.lock().renumber();
                self.read_places(link, room).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn is_buried(&self, link: &Link, incarnation: &str) -> Result<bool, Problem> {
        let names = &self.settings.names;
        let burial = link.newest(&names.stream("state"), &names.burial(incarnation)).await?;
        Ok(burial.is_some())
    }

    /// From now on the places of these incarnations count for nobody.
    pub(super) fn hear_burials(&self, incarnations: impl IntoIterator<Item = Incarnation>) {
        for incarnation in incarnations {
            if self
                .buried
                .lock()
                .insert(Arc::clone(&incarnation), Instant::now())
                .is_some()
            {
                continue;
            }
            let rooms: Vec<Arc<Room>> = self.rooms.lock().values().map(Arc::clone).collect();
            for room in rooms {
                let mut places = room.places.lock();
                let events = places.bury(&incarnation, self.clock.now_ms());
                self.tell_presence(&room, events);
            }
        }
    }
}

/// A place to be written; nothing where somebody left.
struct Written {
    subject: String,
    stream: usize,
    holder: Bytes,
}

/// A stored place that somebody holds.
fn heard(stored: Stored) -> Option<Heard> {
    let holder = serde_json::from_slice(&stored.payload).ok()?;
    Some(Heard {
        place: Place::of_subject(&stored.subject)?,
        seq: stored.seq,
        holder: Some(holder),
        time_ms: stored.time_ms,
    })
}
