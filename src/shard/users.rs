//! Which connections a user has on this shard. Per connection eight bytes and a share of the table, 10 to 20 bytes in all: a
//! message to a user must not look at everybody.

use std::hash::BuildHasher;

use hashbrown::HashTable;

/// Slots by user. The users themselves are with the connections.
#[derive(Default)]
pub(super) struct Users {
    /// Half of the hash of the user, so that growing asks no connection, and the slot.
    slots: HashTable<(u32, u32)>,
    hasher: std::hash::RandomState,
}

impl Users {
    /// Notes a connection of `user`.
    pub fn add(&mut self, user: &str, slot: u32) {
        let half = self.half(user);
        self.slots
            .insert_unique(u64_of(half), (half, slot), |(half, _)| u64_of(*half));
    }

    /// Forgets it.
    pub fn remove(&mut self, user: &str, slot: u32) {
        let half = self.half(user);
        if let Ok(entry) = self.slots.find_entry(u64_of(half), |known| *known == (half, slot)) {
            entry.remove();
        }
        if self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(self.slots.len() * 2, |(half, _)| u64_of(*half));
        }
    }

    /// The slots of `user`, and perhaps some of others: two hashes may be the same.
    pub fn slots(&self, user: &str) -> impl Iterator<Item = u32> {
        let half = self.half(user);
        let same = self.slots.iter_hash(u64_of(half));
        same.filter(move |(known, _)| *known == half).map(|(_, slot)| *slot)
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash do")]
    fn half(&self, user: &str) -> u32 {
        self.hasher.hash_one(user) as u32
    }
}

/// The table looks at the highest bits and the lowest.
fn u64_of(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(users: &Users, user: &str) -> Vec<u32> {
        let mut slots: Vec<u32> = users.slots(user).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn each_user_has_its_slots_until_they_go() {
        let mut users = Users::default();
        for slot in 0..10_000 {
            users.add(&format!("u{}", slot % 5_000), slot);
        }
        assert_eq!(sorted(&users, "u7"), [7, 5_007]);
        users.remove("u7", 7);
        users.remove("u7", 4_711);
        assert_eq!(sorted(&users, "u7"), [5_007]);
        for slot in 0..10_000 {
            users.remove(&format!("u{}", slot % 5_000), slot);
        }
        assert!(users.slots.is_empty() && users.slots.capacity() < 64);
        assert_eq!(sorted(&users, "u7"), [0; 0]);
    }

    #[test]
    fn a_connection_costs_a_few_bytes() {
        let mut users = Users::default();
        for slot in 0..100_000 {
            users.add(&slot.to_string(), slot);
        }
        assert!(users.slots.allocation_size() < 25 * 100_000);
    }
}
