//! Which rooms there are on this node.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::config;
use crate::config::classes::{Class, Classes};
use crate::hooks::tell::queue::Queues;
use crate::hub::errands::Errands;
use crate::hub::post::POST_ID;
use crate::hub::room::{Joined, Joining, NodeRules, Read, Room, Rules, SHADOW_ID, Spoken, Swept, Words};
use crate::protocol;
use crate::protocol::client::Page;
use crate::shard::inbox::Inbox;
use crate::telemetry::taps::Taps;

/// Maps over which the names are spread, so that joining threads seldom meet. Joined members hold their room
/// and never come here.
const MAPS: usize = 64;

type Names = HashMap<Arc<str>, Arc<Room>>;

/// Every room of this node.
pub struct Hub {
    classes: Classes,
    /// By the index of the class.
    rules: Box<[Arc<Rules>]>,
    /// Of rooms that only probes are in.
    shadow_rules: Box<[Arc<Rules>]>,
    node_rules: Arc<NodeRules>,
    inboxes: Arc<[Arc<Inbox>]>,
    maps: Box<[Mutex<Names>]>,
    hasher: std::hash::RandomState,
    /// `limits.rooms`; 0 means no limit.
    rooms_max: usize,
    rooms: AtomicUsize,
    next_id: AtomicU64,
    /// Rooms whose `count` is due at the next tick.
    counts_due: Mutex<Vec<Arc<Room>>>,
    /// In none of the maps: it is there as long as the node.
    post: Arc<Room>,
    /// Where rooms put down what hooks are told of; none if nobody is told, or the backplane sees to it.
    queues: Option<Arc<Queues>>,
}

/// The node holds as many rooms as it may.
#[derive(Debug, PartialEq, Eq)]
pub struct TooManyRooms;

/// What all rooms hold together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub rooms: usize,
    /// Users, counted once per room.
    pub users: usize,
    pub messages: usize,
    pub bytes: usize,
}

impl Hub {
    #[must_use]
    pub fn new(config: &config::Config, inboxes: Arc<[Arc<Inbox>]>, errands: Option<Arc<Errands>>) -> Self {
        let classes = Classes::new(config);
        // What probes leave behind must not press on what users said.
        let shadow_rules = NodeRules::new(config, errands.clone());
        let node_rules = NodeRules::new(config, errands);
        let by_class =
            |rules: &dyn Fn(&Arc<Class>) -> Rules| classes.all().iter().map(|class| Arc::new(rules(class))).collect();
        let post_rules = Arc::new(Rules::of_post(classes.rest(), &node_rules));
        Self {
            post: Arc::new(Room::new(
                SHADOW_ID | POST_ID,
                protocol::room::POST.into(),
                post_rules,
                Arc::clone(&inboxes),
            )),
            rules: by_class(&|class| Rules::new(class, &node_rules)),
            shadow_rules: by_class(&|class| Rules::of_shadows(class, &shadow_rules)),
            classes,
            node_rules,
            inboxes,
            maps: (0..MAPS).map(|_| Mutex::default()).collect(),
            hasher: std::hash::RandomState::new(),
            rooms_max: config.limits.rooms,
            rooms: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            counts_due: Mutex::default(),
            queues: None,
        }
    }

    /// Lets a member into the room of that name, which begins to exist if it must.
    ///
    /// # Errors
    /// [`TooManyRooms`]: the room is new and the node is full of rooms.
    pub fn join(&self, name: &str, joining: &Joining<'_>) -> Result<(Arc<Room>, Joined), TooManyRooms> {
        loop {
            let room = self.room(name)?;
            match room.join(joining) {
                // It was removed between the look-up and the join; the next look-up makes a new one.
                Joined::Gone => {}
                joined => {
                    if let Joined::In { count_is_due: true, .. } = joined {
                        self.count_is_due(&room);
                    }
                    return Ok((room, joined));
                }
            }
        }
    }

    /// The class of the rooms of this name, as clients say it.
    #[must_use]
    pub fn class_of(&self, name: &str) -> &Arc<Class> {
        self.classes.of(name)
    }

    /// Says something in the room of that name, which begins to exist if it must, without being in it.
    ///
    /// # Errors
    /// [`TooManyRooms`]: the room is new and the node is full of rooms.
    pub fn speak(&self, name: &str, words: &Words<'_>) -> Result<Spoken, TooManyRooms> {
        loop {
            match self.room(name)?.speak(words) {
                Spoken::Gone => {}
                spoken => return Ok(spoken),
            }
        }
    }

    /// Reads a page of what was said in a room that exists, be it on another node.
    ///
    /// # Errors
    /// [`TooManyRooms`]: this node does not have the room and is full of rooms.
    pub fn read(&self, name: &str, page: Page, limit: usize, now_ms: u64) -> Result<Read, TooManyRooms> {
        loop {
            match self.room(name)?.read(page, limit, now_ms) {
                Read::Gone => {}
                read => return Ok(read),
            }
        }
    }

    /// What carries letters to users: see [`crate::hub::post`].
    #[must_use]
    pub fn post(&self) -> &Arc<Room> {
        &self.post
    }

    /// Has rooms put down what hooks are told of, before there is any room.
    #[must_use]
    pub fn telling(mut self, queues: Option<Arc<Queues>>) -> Self {
        self.queues = queues;
        self
    }

    /// Whether a backplane numbers what is said, for all nodes.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.node_rules.errands.is_some()
    }

    /// What the rooms want of the backplane.
    #[must_use]
    pub fn errands(&self) -> Option<&Arc<Errands>> {
        self.node_rules.errands.as_ref()
    }

    /// Who looks on.
    #[must_use]
    pub fn taps(&self) -> &Arc<Taps> {
        &self.node_rules.taps
    }

    /// The room of that name, if this node has it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Room>> {
        if name == protocol::room::POST {
            return Some(Arc::clone(&self.post));
        }
        self.map_of(name).lock().get(name).cloned()
    }

    /// Takes a room that has ended out of the directory.
    pub fn forget(&self, room: &Arc<Room>) {
        let mut map = self.map_of(&room.name).lock();
        if map.get(&room.name).is_some_and(|known| known.id == room.id) {
            map.remove(&room.name);
            self.rooms.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Visits every room of users, one map at a time.
    pub fn visit(&self, mut visit: impl FnMut(&Arc<Room>)) {
        self.visit_all(|room| {
            if !room.is_shadow() {
                visit(room);
            }
        });
    }

    /// As [`Hub::visit`], and lets others run between two maps.
    ///
    /// # Cancel safety
    /// Cancel safe: the rest is not visited.
    pub async fn visit_gently(&self, mut visit: impl FnMut(&Arc<Room>)) {
        for map in &self.maps {
            let rooms: Vec<Arc<Room>> = map.lock().values().cloned().collect();
            rooms.iter().filter(|room| !room.is_shadow()).for_each(&mut visit);
            tokio::task::yield_now().await;
        }
    }

    /// Visits every room, those of probes too: for the backplane, to which they are rooms like others.
    pub fn visit_all(&self, mut visit: impl FnMut(&Arc<Room>)) {
        for map in &self.maps {
            let rooms: Vec<Arc<Room>> = map.lock().values().cloned().collect();
            rooms.iter().for_each(&mut visit);
        }
        visit(&self.post);
    }

    /// Has the room's `count` sent at the next tick.
    pub fn count_is_due(&self, room: &Arc<Room>) {
        self.counts_due.lock().push(Arc::clone(room));
    }

    /// Called once a second: large rooms say how many they are.
    pub fn send_counts(&self, now_ms: u64) {
        let mut due = std::mem::take(&mut *self.counts_due.lock());
        due.retain(|room| room.send_count(now_ms));
        self.counts_due.lock().append(&mut due);
    }

    /// Forgets old messages, and rooms that nobody can come back for; and while the node keeps too much, what was said
    /// in deserted rooms, the longest silent first. Takes one map at a time and lets others run in between.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not visited is visited next time.
    pub async fn sweep(&self, now_ms: u64) {
        let mut deserted = Vec::new();
        for map in &self.maps {
            map.lock().retain(|_, room| match room.sweep(now_ms) {
                Swept::Inhabited => true,
                Swept::Deserted { said_ms } => {
                    if self.node_rules.bytes_over() > 0 {
                        deserted.push((said_ms, Arc::clone(room)));
                    }
                    true
                }
                Swept::Gone => {
                    self.rooms.fetch_sub(1, Ordering::Relaxed);
                    false
                }
            });
            tokio::task::yield_now().await;
        }
        deserted.sort_unstable_by_key(|(said_ms, _)| *said_ms);
        for (_, room) in deserted {
            if self.node_rules.bytes_over() == 0 {
                return;
            }
            room.forget(now_ms);
        }
    }

    /// Visits every room once: for a scrape. Rooms of probes are none of the users'.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for map in &self.maps {
            for room in map.lock().values().filter(|room| !room.is_shadow()) {
                let (users, messages, bytes) = room.measure();
                totals.rooms += 1;
                totals.users += users;
                totals.messages += messages;
                totals.bytes += bytes;
            }
        }
        totals
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash do")]
    fn map_of(&self, name: &str) -> &Mutex<Names> {
        &self.maps[(self.hasher.hash_one(name) as usize) % MAPS]
    }

    fn room(&self, name: &str) -> Result<Arc<Room>, TooManyRooms> {
        let mut map = self.map_of(name).lock();
        if let Some(room) = map.get(name) {
            return Ok(Arc::clone(room));
        }
        if self.rooms_max > 0 && self.rooms.load(Ordering::Relaxed) >= self.rooms_max {
            return Err(TooManyRooms);
        }
        self.rooms.fetch_add(1, Ordering::Relaxed);
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let class = self.class_of(protocol::room::called(name)).index;
        let (id, rules) = if protocol::room::is_shadow(name) {
            (number | SHADOW_ID, &self.shadow_rules[class])
        } else {
            (number, &self.rules[class])
        };
        let name: Arc<str> = name.into();
        let room = Room::new(id, Arc::clone(&name), Arc::clone(rules), Arc::clone(&self.inboxes));
        let room = Arc::new(room.telling(self.queues.as_ref()));
        map.insert(name, Arc::clone(&room));
        Ok(room)
    }
}
