//! Limits per address: how often an address may be refused, or sign in, before it gets 429.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Addresses remembered between two sweeps; about 10 MiB. Beyond it newcomers share one bucket.
const ADDRESSES_MAX: usize = 100_000;

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

/// Refused tokens per address.
pub struct Refusals(Option<AddressLimiter>);

impl Refusals {
    /// 0 per second means no limit; a burst of 0 means one second's worth.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let quota = NonZeroU32::new(per_second)
            .map(|per_second| Quota::per_second(per_second).allow_burst(NonZeroU32::new(burst).unwrap_or(per_second)));
        Self(quota.map(AddressLimiter::new))
    }

    /// Counts one refused token; whether the address may still be told why by an upgrade. False: 429.
    pub fn check(&self, address: IpAddr) -> bool {
        self.0.as_ref().is_none_or(|limiter| limiter.check(address).is_ok())
    }

    /// Forgets addresses that were quiet. To be called every few seconds.
    pub fn sweep(&self) {
        if let Some(limiter) = &self.0 {
            limiter.sweep();
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
