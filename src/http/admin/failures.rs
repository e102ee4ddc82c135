//! How often an address may be wrong: guesses beyond it are not even looked at.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::net::limit_key;

/// Wrong tokens at once.
const BURST: f64 = 20.0;
/// Wrong tokens per second, after those.
const PER_SECOND: f64 = 5.0;
/// Addresses remembered; when there are more, newcomers count as one.
const ADDRESSES_MAX: usize = 4_096;
/// Whom newcomers count as.
const NEWCOMERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Wrong tokens of each address, running out at [`PER_SECOND`].
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<IpAddr, Level>>);

#[derive(Debug, Clone, Copy)]
struct Level {
    wrong: f64,
    at: Instant,
}

impl Level {
    fn now(self, now: Instant) -> f64 {
        (self.wrong - now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND).max(0.0)
    }
}

impl Failures {
    /// Whether a token of this address is looked at now.
    ///
    /// # Errors
    /// When to come again.
    pub fn may_try(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let levels = self.0.lock();
        let key = key(&levels, address);
        let wrong = levels.get(&key).map_or(0.0, |level| level.now(now));
        if wrong + 1.0 <= BURST {
            return Ok(());
        }
        Err(Duration::from_secs_f64((wrong + 1.0 - BURST) / PER_SECOND))
    }

    /// One was wrong.
    pub fn count(&self, address: IpAddr, now: Instant) {
        let mut levels = self.0.lock();
        if levels.len() >= ADDRESSES_MAX {
            levels.retain(|_, level| level.now(now) > 0.0);
        }
        let key = key(&levels, address);
        let level = levels.entry(key).or_insert(Level { wrong: 0.0, at: now });
        *level = Level {
            wrong: level.now(now) + 1.0,
            at: now,
        };
    }
}

fn key(levels: &HashMap<IpAddr, Level>, address: IpAddr) -> IpAddr {
    let key = limit_key(address);
    if levels.len() >= ADDRESSES_MAX && !levels.contains_key(&key) {
        NEWCOMERS
    } else {
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_a_few_a_second_and_others_are_untouched() {
        let failures = Failures::default();
        let (ann, eve): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        let mut tried = 0;
        while failures.may_try(eve, start).is_ok() {
            failures.count(eve, start);
            tried += 1;
        }
        assert_eq!(tried, 20);
        let wait = failures.may_try(eve, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(200));
        assert!(failures.may_try(eve, start + wait).is_ok());
        assert!(failures.may_try(ann, start).is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let failures = Failures::default();
        let now = Instant::now();
        for address in 1..10_000_u32 {
            failures.count(Ipv4Addr::from(address).into(), now);
        }
        assert_eq!(failures.0.lock().len(), ADDRESSES_MAX + 1);
        assert!(failures.may_try("198.51.100.9".parse().unwrap(), now).is_err());
        failures.count("198.51.100.9".parse().unwrap(), now + Duration::from_secs(3_600));
        assert_eq!(failures.0.lock().len(), 1);
    }
}
