//! Outboxes: what hooks are still to be told, one for each hook and partition, written by whatever makes it happen. An
//! engine with [`super::contract::Capabilities::outbox`] keeps them next to the rooms, in the same step as the message or
//! the change of presence, so that an event is there if and only if what it tells of has happened.
//!
//! Who wants what is decided here, for all engines; what becomes of it is the business of [`crate::hooks::tell`].

pub mod record;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::contract::PARTITIONS;

/// Hooks that can be told. Sets of them are the bits of a number that scripts can count with.
pub const HOOKS_MAX: usize = 32;

/// What a hook can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    Open = 1,
    Close = 2,
    Join = 4,
    Left = 8,
    Chat = 16,
}

impl Event {
    pub const ALL: [Self; 5] = [Self::Open, Self::Close, Self::Join, Self::Left, Self::Chat];

    /// As the configuration and the backend call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Close => "close",
            Self::Join => "join",
            Self::Left => "left",
            Self::Chat => "chat",
        }
    }

    /// Whether it happens in a room.
    const fn is_of_a_room(self) -> bool {
        matches!(self, Self::Join | Self::Left | Self::Chat)
    }
}

/// Some of the hooks of [`Outboxes`], by their places in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HookSet(u32);

impl HookSet {
    /// One hook; none if there cannot be so many.
    #[must_use]
    pub const fn of(hook: usize) -> Self {
        Self(if hook < HOOKS_MAX { 1 << hook } else { 0 })
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As a number, of which the lowest bit is the first hook.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    #[must_use]
    pub const fn contains(self, hook: usize) -> bool {
        hook < HOOKS_MAX && self.0 & (1 << hook) != 0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Places in [`Outboxes::hooks`], ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..HOOKS_MAX).filter(move |hook| self.contains(*hook))
    }

    fn insert(&mut self, hook: usize) {
        *self = self.and(Self::of(hook));
    }
}

/// One hook that is told of things.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Part of the name of what is stored for it.
    pub name: Arc<str>,
    events: u8,
    /// Names, or what they begin with before a `*`; none: every room.
    rooms: Box<[Box<str>]>,
    /// Events that may wait for it.
    pub events_max: usize,
    /// Bytes of them.
    pub bytes_max: usize,
}

impl Hook {
    /// `rooms` are names of rooms, or what they begin with before a `*`; none of them means every room.
    #[must_use]
    pub fn new(name: &str, events: &[Event], rooms: &[String], events_max: usize, bytes_max: usize) -> Self {
        Self {
            name: name.into(),
            events: events.iter().fold(0, |bits, event| bits | *event as u8),
            rooms: rooms.iter().map(|pattern| pattern.as_str().into()).collect(),
            events_max,
            bytes_max,
        }
    }

    /// Whether it is told both of who enters and of what is said, and so can tell which came first.
    #[must_use]
    pub const fn hears_joins_and_chats(&self) -> bool {
        let both = Event::Join as u8 | Event::Chat as u8;
        self.events & both == both
    }

    fn wants(&self, event: Event, room: &str) -> bool {
        self.events & event as u8 != 0
            && (!event.is_of_a_room()
                || self.rooms.is_empty()
                || self.rooms.iter().any(|pattern| matches(pattern, room)))
    }
}

fn matches(pattern: &str, room: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => room.starts_with(prefix),
        None => room == pattern,
    }
}

/// Every hook that is told of things, and what this node is called in the events that it writes.
#[derive(Debug)]
pub struct Outboxes {
    pub node: Arc<str>,
    pub hooks: Box<[Hook]>,
    /// What this node wrote lately.
    pub written: Written,
}

/// Partitions in whose outboxes this node has put something: whoever sees to them need not wait until it looks again.
#[derive(Debug, Default)]
pub struct Written {
    partitions: [AtomicU64; PARTITIONS as usize / 64],
    some: Notify,
}

impl Written {
    pub fn note(&self, partition: u16) {
        let (at, bit) = (usize::from(partition) / 64, partition % 64);
        let before = self.partitions[at].fetch_or(1 << bit, Ordering::Relaxed);
        if before & (1 << bit) == 0 {
            self.some.notify_one();
        }
    }

    /// Waits until there are some that [`Written::take`] has not had.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn noted(&self) {
        self.some.notified().await;
    }

    /// Those since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<u16> {
        let mut taken = Vec::new();
        for (word, from) in self.partitions.iter().zip((0_u16..).step_by(64)) {
            let bits = word.swap(0, Ordering::Relaxed);
            taken.extend((0..64).filter(|bit| bits & (1 << bit) != 0).map(|bit| from + bit));
        }
        taken
    }
}

impl Outboxes {
    /// At most [`HOOKS_MAX`] hooks; those beyond are left out, which the configuration does not allow to happen.
    #[must_use]
    pub fn new(node: &str, mut hooks: Vec<Hook>) -> Self {
        hooks.truncate(HOOKS_MAX);
        Self {
            node: node.into(),
            hooks: hooks.into(),
            written: Written::default(),
        }
    }

    /// Whether a hook is told of both who enters a room and what is said there.
    #[must_use]
    pub fn hears_joins_and_chats(&self, room: &str) -> bool {
        let [joins, chats] = [Event::Join, Event::Chat].map(|event| self.wanting(event, room));
        joins.iter().any(|hook| chats.contains(hook))
    }

    /// Who wants to be told of this; `room` is as the backplane calls it, and counts only for what happens in one. Nobody is
    /// told of probes.
    #[must_use]
    pub fn wanting(&self, event: Event, room: &str) -> HookSet {
        let mut set = HookSet::default();
        if event.is_of_a_room() && crate::protocol::room::is_shadow(room) {
            return set;
        }
        for (at, hook) in self.hooks.iter().enumerate() {
            if hook.wants(event, room) {
                set.insert(at);
            }
        }
        set
    }
}

/// One hook's outbox in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub partition: u16,
    /// In [`Outboxes::hooks`].
    pub hook: usize,
}

/// What waits in some outboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    pub events: u64,
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, events: &[Event], rooms: &[&str]) -> Hook {
        let rooms: Vec<_> = rooms.iter().map(|room| (*room).to_owned()).collect();
        Hook::new(name, events, &rooms, 10, 1_000)
    }

    #[test]
    fn each_event_goes_to_whoever_wants_it_of_that_room() {
        let outboxes = Outboxes::new(
            "a",
            vec![
                hook("all", &Event::ALL, &[]),
                hook("teams", &[Event::Chat, Event::Close], &["team-*", "lobby"]),
            ],
        );
        let wanting = |event, room| outboxes.wanting(event, room).iter().collect::<Vec<_>>();
        assert_eq!(wanting(Event::Chat, "team-7"), [0, 1]);
        assert_eq!(wanting(Event::Chat, "lobby"), [0, 1]);
        assert_eq!(wanting(Event::Chat, "lobby2"), [0]);
        assert_eq!(wanting(Event::Join, "team-7"), [0]);
        assert_eq!(wanting(Event::Close, ""), [0, 1], "a session is in no room");
        assert!(wanting(Event::Chat, &crate::protocol::room::shadow_of("lobby")).is_empty());
    }

    #[tokio::test]
    async fn what_was_written_is_taken_once() {
        let written = Written::default();
        for partition in [0, 63, 64, 1_023, 64] {
            written.note(partition);
        }
        written.noted().await;
        assert_eq!(written.take(), [0, 63, 64, 1_023]);
        assert!(written.take().is_empty());
    }

    #[test]
    fn a_set_names_its_hooks() {
        let mut set = HookSet::default();
        assert!(set.is_empty());
        set.insert(0);
        set.insert(HOOKS_MAX - 1);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 31]);
        assert_eq!(set.bits(), 0x8000_0001);
        assert!(!set.contains(HOOKS_MAX));
    }
}
