//! Where sign-ins wait whose key is not known yet: bounded, and nobody waits twice for a key that is not there.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::net::limit_key;
use crate::telemetry::metrics::Counter;

/// How long an address is refused at once that has waited for a key in vain, unless the set changes.
const VAIN_FOR: Duration = Duration::from_secs(30);
/// Addresses and keys that are remembered for that; some 300 KiB.
const VAIN_MAX: usize = 4096;

/// Places that one waiter may always take, and its share of more: what comes from one address may be many people, but
/// never takes the line from everybody else.
const PLACES_PER_WAITER_MIN: usize = 16;
const WAITER_SHARE: usize = 16;

/// One for all issuers of a node.
#[derive(Debug)]
pub struct Line {
    state: Mutex<State>,
    /// `auth.jwks_waiting`
    places_max: usize,
    /// Of those, for one waiter.
    places_per_waiter: usize,
    /// `auth.jwks_kids_per_address`
    kids_max: usize,
    hasher: RandomState,
    /// Refused because the line, or their address's share of it, was full.
    pub full: Counter,
    /// Refused because their address waits for as many keys as it may.
    pub over_kids: Counter,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// For which keys, and how many for each.
    waiters: HashMap<Waiter, Vec<(u64, usize)>>,
    /// Who has waited for what in vain: since when, and what the set was then.
    vain: HashMap<(Waiter, u64), (Instant, u64)>,
}

/// Who waits: whom nobody knows yet by the address, who is connected by the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Waiter {
    /// An IPv4 address or a /64.
    Address(IpAddr),
    User(Arc<str>),
}

impl From<IpAddr> for Waiter {
    fn from(address: IpAddr) -> Self {
        Self::Address(limit_key(address))
    }
}

/// Why somebody may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// They have waited for this key already.
    KnownUnknown,
    /// For as many other keys as they may.
    Kids,
    /// The line, or their share of it.
    Full,
}

/// A place in the line, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place<'l> {
    line: &'l Line,
    waiter: Waiter,
    kid: u64,
}

impl Line {
    /// `places_max` in all, `kids_max` different keys for each address.
    #[must_use]
    pub fn new(places_max: usize, kids_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            places_max,
            places_per_waiter: (places_max / WAITER_SHARE).max(PLACES_PER_WAITER_MIN),
            kids_max,
            hasher: RandomState::new(),
            full: Counter::default(),
            over_kids: Counter::default(),
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// `changes`: of the issuer's set, as [`Line::remember`] was told it.
    pub(super) fn enter(
        &self,
        issuer: &str,
        kid: Option<&str>,
        waiter: &Waiter,
        changes: u64,
    ) -> Result<Place<'_>, NoPlace> {
        let (waiter, kid) = (waiter.clone(), self.hasher.hash_one((issuer, kid)));
        let mut state = self.state.lock();
        let asked = (waiter.clone(), kid);
        if let Some((since, then)) = state.vain.get(&asked) {
            if *then == changes && since.elapsed() < VAIN_FOR {
                return Err(NoPlace::KnownUnknown);
            }
            state.vain.remove(&asked);
        }
        let held = state.waiters.get(&waiter);
        let held = held.map_or(0, |kids| kids.iter().map(|(_, count)| count).sum());
        if state.waiting >= self.places_max || held >= self.places_per_waiter {
            self.full.inc();
            return Err(NoPlace::Full);
        }
        let kids = state.waiters.entry(waiter.clone()).or_default();
        match kids.iter().position(|(known, _)| *known == kid) {
            Some(index) => kids[index].1 += 1,
            None if kids.len() >= self.kids_max => {
                self.over_kids.inc();
                return Err(NoPlace::Kids);
            }
            None => kids.push((kid, 1)),
        }
        state.waiting += 1;
        Ok(Place {
            line: self,
            waiter,
            kid,
        })
    }

    /// The key did not come.
    pub(super) fn remember(&self, issuer: &str, kid: Option<&str>, waiter: &Waiter, changes: u64) {
        let kid = self.hasher.hash_one((issuer, kid));
        let mut state = self.state.lock();
        if state.vain.len() >= VAIN_MAX {
            state.vain.retain(|_, (since, _)| since.elapsed() < VAIN_FOR);
        }
        // Forgetting costs a wait, not a wrong verdict.
        if state.vain.len() >= VAIN_MAX {
            state.vain.clear();
        }
        state.vain.insert((waiter.clone(), kid), (Instant::now(), changes));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state.lock();
        state.waiting -= 1;
        let Some(kids) = state.waiters.get_mut(&self.waiter) else {
            return;
        };
        if let Some((_, count)) = kids.iter_mut().find(|(kid, _)| *kid == self.kid) {
            *count -= 1;
        }
        kids.retain(|(_, count)| *count > 0);
        if kids.is_empty() {
            state.waiters.remove(&self.waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Waiter {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn many_may_wait_for_one_key_and_few_keys_may_be_waited_for() {
        let line = Line::new(5, 2);
        let (here, there) = (at("192.0.2.1"), at("192.0.2.2"));
        let enter = |kid: &'static str, waiter: &Waiter| line.enter("a", Some(kid), waiter, 0);
        let places: Vec<_> = (0..3).map(|_| enter("x", &here).unwrap()).collect();
        let other = enter("y", &here).unwrap();
        assert_eq!(enter("z", &here).unwrap_err(), NoPlace::Kids);
        let elsewhere = enter("z", &there).unwrap();
        assert_eq!(line.waiting(), 5);
        assert_eq!(enter("x", &there).unwrap_err(), NoPlace::Full);
        drop(other);
        drop(enter("z", &here).unwrap());
        drop((places, elsewhere));
        assert_eq!(line.waiting(), 0);
        assert!(line.state.lock().waiters.is_empty());
        assert_eq!((line.full.value(), line.over_kids.value()), (1, 1));
    }

    #[test]
    fn one_address_never_takes_the_whole_line() {
        for (places_max, share) in [(32, 16), (2_048, 128)] {
            let line = Line::new(places_max, 2);
            let (here, there) = (at("192.0.2.1"), at("192.0.2.2"));
            let enter = |kid, waiter| line.enter("a", Some(kid), waiter, 0);
            let mut places: Vec<_> = (0..share).map(|_| enter("x", &here).unwrap()).collect();
            assert_eq!(enter("x", &here).unwrap_err(), NoPlace::Full);
            // Another key is no way around it, and nobody else is in the way.
            assert_eq!(enter("y", &here).unwrap_err(), NoPlace::Full);
            assert!(enter("x", &there).is_ok());
            places.pop();
            assert!(enter("y", &here).is_ok());
        }
    }

    #[test]
    fn nobody_waits_twice_for_what_is_not_there_until_the_set_changes() {
        let line = Line::new(5, 2);
        let (here, there) = (at("2001:db8::1"), at("2001:db8:1::1"));
        line.remember("a", Some("x"), &here, 7);
        // The same /64.
        let again = line.enter("a", Some("x"), &at("2001:db8::2"), 7);
        assert_eq!(again.unwrap_err(), NoPlace::KnownUnknown);
        for (issuer, kid, waiter, changes) in [
            ("a", Some("x"), &there, 7),
            ("b", Some("x"), &here, 7),
            ("a", Some("y"), &here, 7),
            ("a", None, &here, 7),
            ("a", Some("x"), &here, 8),
        ] {
            assert!(
                line.enter(issuer, kid, waiter, changes).is_ok(),
                "{issuer} {kid:?} {waiter:?} {changes}"
            );
        }
    }

    #[test]
    fn memory_is_bounded() {
        let line = Line::new(5, 2);
        for address in 0..3 * VAIN_MAX {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(address).unwrap());
            line.remember("a", Some("x"), &IpAddr::from(address).into(), 0);
        }
        assert!(line.state.lock().vain.len() <= VAIN_MAX);
    }
}
