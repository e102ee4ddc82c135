//! Rates that several connections share: those of a user, an address, a room and the node, in messages and in bytes.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

use crate::config::Limits;
use crate::config::classes::{Class, Classes};
use crate::connection::limits::Bucket;
use crate::telemetry::metrics::RateLimit;

/// Maps of a [`Flow`], so that threads seldom meet.
const MAPS: usize = 16;

/// A token bucket per key; `None` when there is no limit, so that the common case costs nothing.
pub struct Rate<K: Hash + Eq + Clone>(Option<(DefaultKeyedRateLimiter<K>, DefaultClock)>);

impl<K: Hash + Eq + Clone> Rate<K> {
    /// 0 means no limit. As many may come at once as in a second.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self(NonZeroU32::new(per_second).map(|n| (RateLimiter::keyed(Quota::per_second(n)), DefaultClock::default())))
    }

    /// Takes one.
    ///
    /// # Errors
    /// Nanoseconds until there is one.
    pub fn check(&self, key: &K) -> Result<(), u64> {
        let Some((buckets, clock)) = &self.0 else { return Ok(()) };
        buckets
            .check_key(key)
            .map_err(|until| u64::try_from(until.wait_time_from(clock.now()).as_nanos()).unwrap_or(u64::MAX))
    }

    /// Forgets keys whose bucket is full again.
    pub fn sweep(&self) {
        if let Some((buckets, _)) = &self.0 {
            buckets.retain_recent();
        }
    }
}

/// A bucket of bytes per key; `None` when there is no limit.
pub struct Flow<K: Hash + Eq + Clone>(Option<Buckets<K>>);

struct Buckets<K> {
    full: Bucket,
    hasher: RandomState,
    maps: [Mutex<HashMap<K, Bucket>>; MAPS],
}

impl<K: Hash + Eq + Clone> Flow<K> {
    /// 0 means no limit. As many may come at once as in a second.
    #[must_use]
    pub fn new(per_second: u64) -> Self {
        Self((per_second > 0).then(|| Buckets {
            full: Bucket::new(per_second, per_second),
            hasher: RandomState::new(),
            maps: std::array::from_fn(|_| Mutex::default()),
        }))
    }

    /// Takes `bytes`; `now_ns` is of one clock for all callers.
    ///
    /// # Errors
    /// Nanoseconds until there are so many; none is taken then.
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash do")]
    pub fn check(&self, key: &K, bytes: u64, now_ns: u64) -> Result<(), u64> {
        let Some(buckets) = &self.0 else { return Ok(()) };
        let mut map = buckets.maps[buckets.hasher.hash_one(key) as usize % MAPS].lock();
        if let Some(bucket) = map.get_mut(key) {
            return bucket.take(bytes, now_ns);
        }
        map.entry(key.clone()).or_insert(buckets.full).take(bytes, now_ns)
    }

    /// Forgets keys whose bucket is full again.
    pub fn sweep(&self, now_ns: u64) {
        for map in self.0.iter().flat_map(|buckets| &buckets.maps) {
            let mut map = map.lock();
            map.retain(|_, bucket| !bucket.is_full(now_ns));
            map.shrink_to_fit();
        }
    }
}

/// How much may come per second under one key.
pub struct Ceiling<K: Hash + Eq + Clone> {
    messages: Rate<K>,
    bytes: Flow<K>,
    words: [RateLimit; 2],
}

/// Which rate is exceeded, and for how many nanoseconds.
pub type Exceeded = (RateLimit, u64);

impl<K: Hash + Eq + Clone> Ceiling<K> {
    fn new(messages_per_second: u32, bytes_per_second: u64, words: [RateLimit; 2]) -> Self {
        Self {
            messages: Rate::new(messages_per_second),
            bytes: Flow::new(bytes_per_second),
            words,
        }
    }

    /// Takes one message of so many bytes.
    ///
    /// # Errors
    /// It is one too many, or too many bytes.
    pub fn check(&self, key: &K, bytes: usize, now_ns: u64) -> Result<(), Exceeded> {
        let [messages, flow] = self.words;
        self.messages.check(key).map_err(|wait_ns| (messages, wait_ns))?;
        self.bytes
            .check(key, bytes as u64, now_ns)
            .map_err(|wait_ns| (flow, wait_ns))
    }

    fn is_none(&self) -> bool {
        self.messages.0.is_none() && self.bytes.0.is_none()
    }

    fn sweep(&self, now_ns: u64) {
        self.messages.sweep();
        self.bytes.sweep(now_ns);
    }
}

/// What all connections of a user, an address, a room and the node may say together.
pub struct Ceilings {
    pub user: Ceiling<Arc<str>>,
    /// As limits count addresses.
    pub address: Ceiling<IpAddr>,
    /// Chats of a room, by name; by the index of its class.
    rooms: Box<[Ceiling<Arc<str>>]>,
    pub node: Ceiling<()>,
}

impl Ceilings {
    #[must_use]
    pub fn new(limits: &Limits, classes: &Classes) -> Self {
        let room = |class: &Arc<Class>| {
            Ceiling::new(
                class.messages_per_second,
                class.bytes_per_second,
                [RateLimit::RoomMessages, RateLimit::RoomBytes],
            )
        };
        Self {
            user: Ceiling::new(
                limits.user_messages_per_second,
                limits.user_bytes_per_second,
                [RateLimit::UserMessages, RateLimit::UserBytes],
            ),
            address: Ceiling::new(
                limits.address_messages_per_second,
                limits.address_bytes_per_second,
                [RateLimit::AddressMessages, RateLimit::AddressBytes],
            ),
            rooms: classes.all().iter().map(room).collect(),
            node: Ceiling::new(
                limits.node_messages_per_second,
                limits.node_bytes_per_second,
                [RateLimit::NodeMessages, RateLimit::NodeBytes],
            ),
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn are_none(&self) -> bool {
        let are_rooms_free = self.rooms.iter().all(Ceiling::is_none);
        self.user.is_none() && self.address.is_none() && are_rooms_free && self.node.is_none()
    }

    /// Takes one chat of so many bytes in a room of this class, whoever says it.
    ///
    /// # Errors
    /// It is one too many, or too many bytes.
    pub fn check_room(&self, class: &Class, name: &Arc<str>, bytes: usize, now_ns: u64) -> Result<(), Exceeded> {
        self.rooms[class.index].check(name, bytes, now_ns)
    }

    /// Forgets what is full again.
    pub fn sweep(&self, now_ns: u64) {
        self.user.sweep(now_ns);
        self.address.sweep(now_ns);
        self.rooms.iter().for_each(|room| room.sweep(now_ns));
        self.node.sweep(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn bytes_of_a_key_are_counted_together_and_forgotten() {
        let flow = Flow::new(1_000);
        assert_eq!(flow.check(&"ann", 600, SECOND_NS), Ok(()));
        assert_eq!(flow.check(&"ann", 600, SECOND_NS), Err(SECOND_NS / 5));
        assert_eq!(flow.check(&"bob", 1_000, SECOND_NS), Ok(()));
        assert_eq!(flow.check(&"ann", 600, SECOND_NS + SECOND_NS / 5), Ok(()));
        let kept = |flow: &Flow<&str>| {
            let maps = flow.0.as_ref().expect("a limit").maps.iter();
            maps.map(|map| map.lock().len()).sum::<usize>()
        };
        flow.sweep(2 * SECOND_NS);
        assert_eq!(kept(&flow), 1, "bob's is full again");
        flow.sweep(9 * SECOND_NS);
        assert_eq!(kept(&flow), 0);
        assert_eq!(Flow::new(0).check(&"ann", u64::MAX, 0), Ok(()));
    }

    #[test]
    fn a_ceiling_says_which_of_its_limits_is_passed() {
        let words = [RateLimit::RoomMessages, RateLimit::RoomBytes];
        let ceiling = Ceiling::new(2, 1_000, words);
        assert!(ceiling.check(&"lobby", 900, SECOND_NS).is_ok());
        assert_eq!(
            ceiling.check(&"lobby", 200, SECOND_NS).map_err(|(word, _)| word),
            Err(RateLimit::RoomBytes)
        );
        assert_eq!(
            ceiling.check(&"lobby", 1, SECOND_NS).map_err(|(word, _)| word),
            Err(RateLimit::RoomMessages)
        );
        assert!(Ceiling::<()>::new(0, 0, words).is_none());
    }
}
