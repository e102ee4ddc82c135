//! Which node's life holds which users, and until when. Pure: rooms and times are given.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::backplane::contract::{Advertised, Counted, Incarnation, Presented, Renewal, Tally};

/// How long a buried incarnation is remembered, ms: far longer than a call can be on its way.
const TOMBSTONE_MS: u64 = 600_000;

/// Users of an incarnation that one call of `reap` moves out.
pub const PIECE_USERS: usize = 256;

/// A user in a room.
pub type Held = (Arc<str>, Arc<str>);

#[derive(Debug, Default, Clone)]
struct Life {
    /// 0: it never took one.
    lease_ends_ms: u64,
    /// What it says of itself.
    facts: Option<Bytes>,
    /// Connections of users.
    tallies: HashMap<Arc<str>, Tally>,
    held: HashSet<Held>,
}

/// All incarnations.
#[derive(Debug, Clone)]
pub struct Lives {
    /// As in [`Renewal::Alive`].
    pub server: Arc<str>,
    lives: HashMap<Incarnation, Life>,
    /// With the time at which each may be forgotten.
    buried: HashMap<Incarnation, u64>,
}

impl Lives {
    pub fn new(server: Arc<str>) -> Self {
        Self {
            server,
            lives: HashMap::new(),
            buried: HashMap::new(),
        }
    }

    pub fn is_buried(&self, incarnation: &Incarnation) -> bool {
        self.buried.contains_key(incarnation)
    }

    /// False if it is held already.
    pub fn hold(&mut self, incarnation: &Incarnation, held: Held) -> bool {
        let life = self.lives.entry(Arc::clone(incarnation)).or_default();
        life.held.insert(held)
    }

    /// False if it is not held.
    pub fn release(&mut self, incarnation: &Incarnation, held: &Held) -> bool {
        let life = self.lives.get_mut(incarnation);
        life.is_some_and(|life| life.held.remove(held))
    }

    /// What it holds beside `wanted`.
    pub fn surplus(&self, incarnation: &Incarnation, wanted: &HashSet<Held>) -> Vec<Held> {
        let held = self.lives.get(incarnation).map(|life| life.held.iter());
        held.into_iter()
            .flatten()
            .filter(|held| !wanted.contains(*held))
            .cloned()
            .collect()
    }

    /// As [`crate::backplane::contract::Backplane::renew`].
    pub fn renew(&mut self, incarnation: &Incarnation, begin: bool, lease_ms: u64, now_ms: u64) -> Renewal {
        self.buried.retain(|_, forget_ms| *forget_ms > now_ms);
        let ends_ms = self.lives.get(incarnation).map_or(0, |life| life.lease_ends_ms);
        let is_new = begin && ends_ms == 0;
        if self.is_buried(incarnation) || (!is_new && ends_ms <= now_ms) {
            return Renewal::Expired;
        }
        let life = self.lives.entry(Arc::clone(incarnation)).or_default();
        life.lease_ends_ms = now_ms.saturating_add(lease_ms);
        let (mut nodes, mut expired) = (Vec::new(), Vec::new());
        for (incarnation, life) in &self.lives {
            if life.lease_ends_ms > now_ms {
                nodes.push(Arc::clone(incarnation));
            } else if life.lease_ends_ms > 0 || self.is_buried(incarnation) {
                expired.push(Arc::clone(incarnation));
            }
        }
        Renewal::Alive {
            server: Arc::clone(&self.server),
            nodes,
            expired,
        }
    }

    /// As [`crate::backplane::contract::Backplane::advertise`].
    pub fn advertise(&mut self, incarnation: &Incarnation, facts: &[u8], now_ms: u64) -> Vec<Advertised> {
        let is_alive = |life: &Life| life.lease_ends_ms > now_ms;
        if let Some(life) = self.lives.get_mut(incarnation).filter(|life| is_alive(life)) {
            life.facts = Some(Bytes::copy_from_slice(facts));
        }
        let living = self.lives.iter().filter(|(_, life)| is_alive(life));
        living
            .filter_map(|(incarnation, life)| Some((Arc::clone(incarnation), life.facts.clone()?)))
            .collect()
    }

    /// As [`crate::backplane::contract::Backplane::count`].
    pub fn count(&mut self, own: &Incarnation, user: &str, tally: Tally, max: u32, now_ms: u64) -> Counted {
        let others = self
            .lives
            .iter()
            .filter(|(incarnation, life)| *incarnation != own && life.lease_ends_ms > now_ms);
        let others: u32 = others
            .filter_map(|(_, life)| life.tallies.get(user))
            .map(|tally| tally.connections)
            .sum();
        if self.recount(own, &[], now_ms) == Presented::Fenced {
            return Counted::Fenced;
        }
        if others.saturating_add(tally.connections) > max {
            return Counted::Over;
        }
        self.recount(own, &[(user.into(), tally)], now_ms);
        Counted::Within
    }

    /// As [`crate::backplane::contract::Backplane::recount`].
    pub fn recount(&mut self, own: &Incarnation, users: &[(Arc<str>, Tally)], now_ms: u64) -> Presented {
        let Some(life) = self.lives.get_mut(own).filter(|life| life.lease_ends_ms > now_ms) else {
            return Presented::Fenced;
        };
        for (user, tally) in users {
            let known = life.tallies.entry(Arc::clone(user)).or_insert(*tally);
            if known.version < tally.version {
                *known = *tally;
            }
        }
        Presented::Done
    }

    /// Ends a life whose lease is over, or any if `anyway`; false if it goes on.
    pub fn bury(&mut self, incarnation: &Incarnation, anyway: bool, now_ms: u64) -> bool {
        let ends_ms = self.lives.get(incarnation).map_or(0, |life| life.lease_ends_ms);
        if ends_ms > now_ms && !anyway {
            return false;
        }
        if let Some(life) = self.lives.get_mut(incarnation) {
            life.lease_ends_ms = 0;
        }
        self.buried.insert(Arc::clone(incarnation), now_ms + TOMBSTONE_MS);
        true
    }

    /// Whether anything is left of a life.
    pub fn holds(&self, incarnation: &Incarnation) -> bool {
        self.lives.contains_key(incarnation)
    }

    /// Takes some of what a buried life still holds; with the last of it the life is gone.
    pub fn piece(&mut self, incarnation: &Incarnation) -> Vec<Held> {
        let Some(life) = self.lives.get_mut(incarnation) else {
            return Vec::new();
        };
        let piece: Vec<_> = life.held.iter().take(PIECE_USERS).cloned().collect();
        for held in &piece {
            life.held.remove(held);
        }
        if life.held.is_empty() {
            self.lives.remove(incarnation);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renew(lives: &mut Lives, name: &str, begin: bool, now_ms: u64) -> Option<(usize, usize)> {
        match lives.renew(&name.into(), begin, 10_000, now_ms) {
            Renewal::Alive { nodes, expired, .. } => Some((nodes.len(), expired.len())),
            Renewal::Expired => None,
        }
    }

    #[test]
    fn an_ended_lease_is_never_renewed() {
        let mut lives = Lives::new("server".into());
        assert_eq!(renew(&mut lives, "a", false, 1), None, "it never began");
        assert_eq!(renew(&mut lives, "a", true, 1), Some((1, 0)));
        assert_eq!(renew(&mut lives, "b", true, 5_000), Some((2, 0)));
        assert_eq!(renew(&mut lives, "a", false, 10_001), None);
        assert_eq!(renew(&mut lives, "a", true, 10_001), None, "nor begun again");
        assert_eq!(renew(&mut lives, "b", false, 10_001), Some((1, 1)));
    }

    #[test]
    fn only_the_dead_are_buried_and_they_stay_buried() {
        let mut lives = Lives::new("server".into());
        renew(&mut lives, "a", true, 1);
        let a = Incarnation::from("a");
        assert!(lives.hold(&a, ("r".into(), "u".into())));
        assert!(!lives.bury(&a, false, 9_000) && !lives.is_buried(&a));
        assert!(lives.bury(&a, false, 11_000));
        assert_eq!(lives.piece(&a).len(), 1);
        assert!(!lives.holds(&a));
        assert_eq!(renew(&mut lives, "a", true, 11_001), None);
        assert_eq!(renew(&mut lives, "b", true, 11_000 + TOMBSTONE_MS), Some((1, 0)));
        assert!(!lives.is_buried(&a));
    }
}
