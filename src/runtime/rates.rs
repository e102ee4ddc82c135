//! Message rates that several connections share: those of a user, and those of an address.

use std::hash::Hash;
use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

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
