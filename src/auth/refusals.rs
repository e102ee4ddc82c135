//! Limits per address and per user: how often one may be refused, sign in, or be given a ticket, before it gets 429.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

/// Addresses remembered between two sweeps; about 10 MiB. Beyond it newcomers share one bucket.
const ADDRESSES_MAX: usize = 100_000;

/// Users remembered between two sweeps. Beyond it newcomers share one bucket.
const USERS_MAX: usize = 100_000;

/// A token bucket for each IPv4 address and IPv6 /64: whoever has one IPv6 address has its whole /64.
pub struct AddressLimiter {
    buckets: DefaultKeyedRateLimiter<Bucket>,
    clock: DefaultClock,
    addresses_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bucket {
    V4(u32),
    /// The upper 64 bits.
    V6(u64),
    Newcomers,
}

impl AddressLimiter {
    /// As many as `quota` says, each.
    pub fn new(quota: Quota) -> Self {
        Self {
            buckets: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            addresses_max: ADDRESSES_MAX,
        }
    }

    /// Takes one from the address's bucket.
    ///
    /// # Errors
    /// The bucket is empty: how long until it is not.
    pub fn check(&self, address: IpAddr) -> Result<(), Duration> {
        let full = self.buckets.len() >= self.addresses_max;
        let bucket = if full { Bucket::Newcomers } else { Bucket::of(address) };
        self.buckets
            .check_key(&bucket)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Forgets addresses whose bucket is full again. To be called every few seconds.
    pub fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

impl Bucket {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// A token bucket for each user: of a hash that nobody outside knows, so that all are of one size.
pub struct UserLimiter {
    buckets: DefaultKeyedRateLimiter<u64>,
    hashes: RandomState,
    clock: DefaultClock,
}

impl UserLimiter {
    /// As many as `quota` says, each.
    pub fn new(quota: Quota) -> Self {
        Self {
            buckets: RateLimiter::keyed(quota),
            hashes: RandomState::new(),
            clock: DefaultClock::default(),
        }
    }

    /// Takes one from the user's bucket.
    ///
    /// # Errors
    /// The bucket is empty: how long until it is not.
    pub fn check(&self, user: &str) -> Result<(), Duration> {
        let full = self.buckets.len() >= USERS_MAX;
        let bucket = if full { 0 } else { self.hashes.hash_one(user) };
        self.buckets
            .check_key(&bucket)
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Forgets users whose bucket is full again. To be called every few seconds.
    pub fn sweep(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
}

/// Refused tokens per address.
pub struct Refusals(Option<Counted>);

struct Counted {
    limiter: AddressLimiter,
    /// Addresses whose bucket was found empty, until it is not.
    throttled: Mutex<HashMap<Bucket, Instant>>,
}

impl Refusals {
    /// 0 per second means no limit; a burst of 0 means one second's worth.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let quota = NonZeroU32::new(per_second)
            .map(|per_second| Quota::per_second(per_second).allow_burst(NonZeroU32::new(burst).unwrap_or(per_second)));
        Self(quota.map(|quota| Counted {
            limiter: AddressLimiter::new(quota),
            throttled: Mutex::default(),
        }))
    }

    /// Counts one refused token; whether the address may still be told why by an upgrade. False: 429.
    pub fn check(&self, address: IpAddr) -> bool {
        let Some(counted) = &self.0 else { return true };
        let Err(wait) = counted.limiter.check(address) else {
            return true;
        };
        let mut throttled = counted.throttled.lock();
        if throttled.len() < ADDRESSES_MAX {
            throttled.insert(Bucket::of(address), Instant::now() + wait);
        }
        false
    }

    /// Whether the next refusal of this address would be one too many, as far as is known. It counts nothing: to be asked
    /// before somebody else is bothered.
    pub fn are_used_up(&self, address: IpAddr) -> bool {
        self.0.as_ref().is_some_and(|counted| {
            let throttled = counted.throttled.lock();
            let until = throttled.get(&Bucket::of(address));
            until.is_some_and(|until| *until > Instant::now())
        })
    }

    /// Forgets addresses that were quiet. To be called every few seconds.
    pub fn sweep(&self) {
        if let Some(counted) = &self.0 {
            counted.limiter.sweep();
            let now = Instant::now();
            let mut throttled = counted.throttled.lock();
            throttled.retain(|_, until| *until > now);
            throttled.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_no_more_and_others_are_untouched() {
        let refusals = Refusals::new(1, 3);
        let passed = (0..10).filter(|_| refusals.check(ip("192.0.2.1"))).count();
        assert_eq!(passed, 3);
        assert!(refusals.check(ip("192.0.2.2")));
    }

    #[test]
    fn ipv6_counts_by_64_and_mapped_ipv4_as_ipv4() {
        let refusals = Refusals::new(1, 1);
        assert!(refusals.check(ip("2001:db8::1")));
        assert!(!refusals.check(ip("2001:db8::ffff:2")));
        assert!(refusals.check(ip("2001:db8:0:1::1")));
        assert!(refusals.check(ip("192.0.2.1")));
        assert!(!refusals.check(ip("::ffff:192.0.2.1")));
    }

    #[test]
    fn nought_is_no_limit() {
        let refusals = Refusals::new(0, 0);
        assert!((0..1000).all(|_| refusals.check(ip("192.0.2.1"))));
    }

    #[test]
    fn whose_refusals_are_used_up_is_known_until_there_is_one_again() {
        let refusals = Refusals::new(1_000, 2);
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert!(!refusals.are_used_up(one));
        while refusals.check(one) {}
        assert!(!refusals.are_used_up(other));
        while refusals.are_used_up(one) {}
        assert!(refusals.check(one));
        assert!(!Refusals::new(0, 0).are_used_up(one));
    }

    #[test]
    fn each_user_has_a_bucket() {
        let limiter = UserLimiter::new(Quota::per_hour(NonZeroU32::MIN));
        assert!(limiter.check("ann").is_ok());
        assert!(limiter.check("ann").is_err());
        assert!(limiter.check("bob").is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let quota = Quota::per_hour(NonZeroU32::MIN);
        let limiter = AddressLimiter {
            addresses_max: 100,
            ..AddressLimiter::new(quota)
        };
        for address in 0..10_000u32 {
            let _ = limiter.check(IpAddr::V4(address.into()));
        }
        assert_eq!(limiter.buckets.len(), 101);
    }

    #[test]
    fn a_sweep_forgets_the_quiet() {
        let limiter = AddressLimiter::new(Quota::per_second(NonZeroU32::new(1_000_000).unwrap()));
        limiter.check(ip("192.0.2.1")).unwrap();
        // Its bucket is full again after a microsecond.
        while !limiter.buckets.is_empty() {
            limiter.sweep();
        }
    }
}
