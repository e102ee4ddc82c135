//! The largest and the busiest rooms. Nothing is counted per message: a room's last `seq` at two moments tells how many
//! chats came between them. One look visits each room once, for some hundred nanoseconds; at most one look a second.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::hub::{Glance, Hub};

/// Rooms in each list.
const SHOWN: usize = 10;

/// A look is good for so long: who asks meanwhile gets the same.
const GOOD_FOR: Duration = Duration::from_millis(900);

/// After a longer pause the rates of the pause say nothing of now.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the last look found.
#[derive(Debug, Default)]
pub struct Top {
    looked: Option<Instant>,
    /// Last `seq` by room.
    heads: HashMap<u64, u64>,
    shown: Shown,
}

/// Both lists, the largest first.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Shown {
    pub by_members: Vec<Line>,
    /// Empty at the first look: rates need two.
    pub by_rate: Vec<Line>,
}

/// One room.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub room: String,
    /// Connections on this node.
    pub members: usize,
    /// Users on all nodes.
    pub users: usize,
    pub chats_per_second: f64,
}

struct Seen {
    id: u64,
    name: std::sync::Arc<str>,
    glance: Glance,
    rate: f64,
}

impl Top {
    /// Looks again if the last look is old.
    pub fn look(&mut self, hub: &Hub, now: Instant) -> &Shown {
        let since = self.looked.map(|looked| now.saturating_duration_since(looked));
        if since.is_some_and(|since| since < GOOD_FOR) {
            return &self.shown;
        }
        let elapsed = since.filter(|since| *since <= PAUSE_MAX);
        let mut seen = Vec::new();
        hub.visit(|room| {
            seen.push((room.id, std::sync::Arc::clone(&room.name), room.glance()));
        });
        let rate = |id: &u64, head: u64| match (elapsed, self.heads.get(id)) {
            (Some(elapsed), Some(before)) => head.saturating_sub(*before) as f64 / elapsed.as_secs_f64(),
            _ => 0.0,
        };
        let mut seen: Vec<Seen> = seen
            .into_iter()
            .map(|(id, name, glance)| Seen {
                rate: rate(&id, glance.head),
                id,
                name,
                glance,
            })
            .collect();
        self.heads = seen.iter().map(|seen| (seen.id, seen.glance.head)).collect();
        self.looked = Some(now);
        self.shown = Shown {
            by_members: first(&mut seen, |seen| seen.glance.members as f64),
            by_rate: first(&mut seen, |seen| seen.rate),
        };
        &self.shown
    }
}

/// The first few, without sorting the rest.
fn first(seen: &mut [Seen], size: impl Fn(&Seen) -> f64) -> Vec<Line> {
    let order = |seen: &Seen| {
        // Never negative, so that the bits are in the order of the numbers.
        let size = size(seen).to_bits();
        (Reverse(size), std::sync::Arc::clone(&seen.name))
    };
    if seen.len() > SHOWN {
        seen.select_nth_unstable_by_key(SHOWN, order);
    }
    let mut few: Vec<&Seen> = seen.iter().take(SHOWN).filter(|seen| size(seen) > 0.0).collect();
    few.sort_unstable_by_key(|seen| order(seen));
    let line = |seen: &Seen| Line {
        room: seen.name.to_string(),
        members: seen.glance.members,
        users: seen.glance.users,
        chats_per_second: seen.rate,
    };
    few.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, members: usize, rate: f64) -> Seen {
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
    fn the_first_few_in_order_and_none_that_are_empty() {
        let mut rooms: Vec<Seen> = (0..50).map(|n| seen(&format!("r{n:02}"), n, (50 - n) as f64)).collect();
        let names = |lines: Vec<Line>| lines.into_iter().map(|line| line.room).collect::<Vec<_>>();
        let large = names(first(&mut rooms, |seen| seen.glance.members as f64));
        assert_eq!(large.len(), SHOWN);
        assert_eq!((large[0].as_str(), large[9].as_str()), ("r49", "r40"));
        let busy = names(first(&mut rooms, |seen| seen.rate));
        assert_eq!((busy[0].as_str(), busy[9].as_str()), ("r00", "r09"));
        let mut few = vec![seen("b", 1, 0.0), seen("a", 1, 0.0), seen("c", 0, 0.0)];
        assert_eq!(names(first(&mut few, |seen| seen.glance.members as f64)), ["a", "b"]);
        assert!(first(&mut few, |seen| seen.rate).is_empty());
    }
}
