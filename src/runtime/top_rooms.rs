//! The largest and the busiest rooms, for whoever asks on any node: each looks over its own rooms now and then, and tells
//! the others of the first hundred beside its facts. Nothing is counted per message: a room's last `seq` at two moments
//! tells how many chats came between them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::backplane::directory::TopRoom;
use crate::hub::{Glance, Hub};
use crate::runtime::Node;

/// Rooms that each node tells of, by members and by rate each.
pub const TOP_ROOMS: usize = 100;

/// Bytes of their names and numbers, about; beyond it the last of the lists are left out.
const TOLD_BYTES_MAX: usize = 24 * 1024;

/// What one room costs there besides its name.
const LINE_BYTES: usize = 48;

/// How often a node looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// A look is good for so long: who asks meanwhile gets the same.
const GOOD_FOR: Duration = Duration::from_millis(900);

/// After a longer pause the rates of the pause say nothing of now.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the last look found.
#[derive(Debug, Default)]
pub struct TopRooms {
    /// One looks at a time.
    looking: tokio::sync::Mutex<Looks>,
    shown: Mutex<Arc<[TopRoom]>>,
}

#[derive(Debug, Default)]
struct Looks {
    looked: Option<Instant>,
    /// Last `seq` by room.
    heads: HashMap<u64, u64>,
}

struct Seen {
    id: u64,
    name: Arc<str>,
    glance: Glance,
    /// Chats in 1,000 seconds.
    rate: u64,
}

impl TopRooms {
    /// What the last look found, for the others.
    #[must_use]
    pub fn shown(&self) -> Arc<[TopRoom]> {
        Arc::clone(&self.shown.lock())
    }

    /// Looks again if the last look is old, one piece of the rooms at a time.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is noted before the end.
    pub async fn look(&self, hub: &Hub) -> Arc<[TopRoom]> {
        let mut looks = self.looking.lock().await;
        let since = looks.looked.map(|looked| looked.elapsed());
        if since.is_some_and(|since| since < GOOD_FOR) {
            return self.shown();
        }
        let mut seen = Vec::new();
        let note = |room: &Arc<crate::hub::Room>| {
            seen.push(Seen {
                id: room.id,
                name: Arc::clone(&room.name),
                glance: room.glance(),
                rate: 0,
            });
        };
        hub.visit_gently(note).await;
        if let Some(elapsed) = since.filter(|since| *since <= PAUSE_MAX) {
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
            for seen in &mut seen {
                let before = looks.heads.get(&seen.id).copied().unwrap_or(seen.glance.head);
                seen.rate = (seen.glance.head.saturating_sub(before)).saturating_mul(1_000_000) / elapsed_ms;
            }
        }
        looks.looked = Some(Instant::now());
        looks.heads = seen.iter().map(|seen| (seen.id, seen.glance.head)).collect();
        let shown: Arc<[TopRoom]> = first(seen).into();
        *self.shown.lock() = Arc::clone(&shown);
        shown
    }
}

/// Those that are among the first by members or by rate.
fn first(mut seen: Vec<Seen>) -> Vec<TopRoom> {
    let by_members = |seen: &Seen| (Reverse(seen.glance.members), Reverse(seen.rate));
    let by_rate = |seen: &Seen| (Reverse(seen.rate), Reverse(seen.glance.members));
    if seen.len() > 2 * TOP_ROOMS {
        seen.select_nth_unstable_by_key(TOP_ROOMS, by_members);
        let (_, rest) = seen.split_at_mut(TOP_ROOMS);
        rest.select_nth_unstable_by_key(TOP_ROOMS, by_rate);
        seen.truncate(2 * TOP_ROOMS);
    }
    seen.retain(|seen| seen.glance.members > 0 || seen.rate > 0);
    seen.sort_unstable_by_key(by_members);
    let line = |seen: Seen| TopRoom {
        room: Arc::clone(&seen.name),
        members: seen.glance.members as u64,
        users: seen.glance.users as u64,
        rate: seen.rate,
    };
    // The list by members may be long names alone; the busy ones must not fall off its end.
    let (mut large, mut busy): (Vec<_>, Vec<_>) = (Vec::new(), seen);
    if busy.len() > TOP_ROOMS {
        large = busy.drain(..TOP_ROOMS).collect();
        busy.sort_unstable_by_key(by_rate);
    }
    let mut both = Vec::with_capacity(large.len() + busy.len());
    let (mut large, mut busy) = (large.into_iter(), busy.into_iter());
    loop {
        match (large.next(), busy.next()) {
            (None, None) => break,
            (one, other) => both.extend(one.into_iter().chain(other)),
        }
    }
    let mut bytes = 0;
    let fit = both.into_iter().take_while(|seen| {
        bytes += seen.name.len() + LINE_BYTES;
        bytes <= TOLD_BYTES_MAX
    });
    fit.map(line).collect()
}

/// The same room on several nodes: its connections are everybody's own, its users and its chats all of them know.
#[must_use]
pub fn merged<'a>(lists: impl IntoIterator<Item = &'a [TopRoom]>) -> Vec<TopRoom> {
    let mut rooms: HashMap<Arc<str>, TopRoom> = HashMap::new();
    for room in lists.into_iter().flatten() {
        match rooms.get_mut(&room.room) {
            Some(known) => {
                known.members = known.members.saturating_add(room.members);
                known.users = known.users.max(room.users);
                known.rate = known.rate.max(room.rate);
            }
            None => drop(rooms.insert(Arc::clone(&room.room), room.clone())),
        }
    }
    rooms.into_values().collect()
}

/// Looks now and then, if others are told: runs until the task is dropped.
pub(super) async fn run(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        node.top_rooms.look(&node.hub).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: String, members: usize, rate: u64) -> Seen {
        Seen {
            id: 1,
            name: name.into(),
            glance: Glance {
                members,
                users: members,
                head: 0,
            },
            rate,
        }
    }

    #[test]
    fn the_large_and_the_busy_are_told_of_and_none_that_are_empty() {
        let rooms = (0..1_000_usize).map(|n| seen(format!("r{n}"), n, 1_000 - n as u64));
        let told = first(rooms.chain([seen("empty".to_owned(), 0, 0)]).collect());
        assert_eq!(told.len(), 2 * TOP_ROOMS);
        let names: Vec<&str> = told.iter().map(|room| &*room.room).collect();
        assert!(["r999", "r900", "r1", "r99"].iter().all(|name| names.contains(name)));
        assert!(!names.contains(&"r500") && !names.contains(&"empty"));
        let few = first(vec![seen("a".to_owned(), 1, 0), seen("b".to_owned(), 0, 5)]);
        assert_eq!(few.len(), 2);
    }

    #[test]
    fn what_is_told_is_bounded_whatever_the_names_are() {
        let long = |n: usize| "x".repeat(120) + &format!("{n:08}");
        let told = first((0..1_000).map(|n| seen(long(n), n + 1, n as u64)).collect());
        assert!(serde_json::to_vec(&told).expect("JSON").len() < TOLD_BYTES_MAX + 4_096);
        assert!(told.len() > 100);
    }

    #[test]
    fn a_room_on_two_nodes_is_one() {
        let room = |members, users, rate| TopRoom {
            room: "lobby".into(),
            members,
            users,
            rate,
        };
        let [one, other] = [room(2, 5, 10), room(4, 5, 12)];
        assert_eq!(merged([&[one][..], &[other][..]]), [room(6, 5, 12)]);
    }
}
