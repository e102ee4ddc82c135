//! What an issuer vouches with at a moment. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::keys::{Key, Terms, fitting};
use super::super::token::Header;
use crate::auth::jwk::Listed;

/// Names of keys that have gone for good, remembered so that nobody waits for their return.
const RETIRED_MAX: usize = 64;

/// Its keys, those that have just gone included.
#[derive(Debug)]
pub(in crate::auth) struct Set {
    held: Vec<Held>,
    retired: VecDeque<Box<str>>,
    /// When the issuer last said that this is it.
    read_at: Option<Instant>,
    maximum_age: Duration,
    /// How often it has become another.
    changes: u64,
}

#[derive(Debug, Clone)]
struct Held {
    key: Arc<Key>,
    /// Of the whole entry.
    digest: [u8; 32],
    /// When it ceases to vouch, since it is in the set no more.
    until: Option<Instant>,
}

/// How a set differs from the one before; names for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl Change {
    pub fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Set {
    /// Of an issuer that has not been heard of.
    pub fn new(maximum_age: Duration) -> Self {
        Self {
            held: Vec::new(),
            retired: VecDeque::new(),
            read_at: None,
            maximum_age,
            changes: 0,
        }
    }

    /// Whether the issuer has been heard of, and recently enough.
    pub fn vouches(&self, now: Instant) -> bool {
        self.read_at
            .is_some_and(|at| self.maximum_age.is_zero() || now.saturating_duration_since(at) < self.maximum_age)
    }

    /// When the issuer was last heard of.
    pub fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many keys vouch.
    pub fn count(&self, now: Instant) -> usize {
        self.vouching(now).count()
    }

    /// Whether there is a key of this name, or was.
    pub fn knows(&self, kid: &str) -> bool {
        self.held.iter().any(|held| held.key.kid() == Some(kid)) || self.retired.iter().any(|known| **known == *kid)
    }

    /// Keys that may have signed a token with this header.
    pub fn candidates<'s>(&'s self, header: &'s Header, now: Instant) -> impl Iterator<Item = &'s Key> {
        fitting(self.vouching(now), header)
    }

    /// Every key that vouches.
    pub fn vouching(&self, now: Instant) -> impl Iterator<Item = &Key> + Clone {
        let counts = self.vouches(now);
        self.held
            .iter()
            .filter(move |held| counts && held.until.is_none_or(|until| now < until))
            .map(|held| &*held.key)
    }

    /// As it is, heard of again.
    pub fn again(&self, now: Instant) -> Self {
        Self {
            held: self.held.clone(),
            retired: self.retired.clone(),
            read_at: Some(now),
            ..*self
        }
        .without_gone(now)
    }

    /// What it becomes when the issuer says `listed`. A key that it does not name any more vouches for `grace`.
    pub(super) fn next(
        &self,
        listed: Vec<Listed>,
        terms: &Arc<Terms>,
        grace: Duration,
        now: Instant,
    ) -> (Self, Change) {
        let mut change = Change::default();
        let mut held = Vec::with_capacity(listed.len());
        for listed in listed {
            let known = self
                .held
                .iter()
                .find(|held| held.digest == listed.digest && held.key.algorithm() == listed.loaded.algorithm);
            if known.is_none_or(|known| known.until.is_some()) {
                change.added.push(named(listed.loaded.kid.as_deref()));
            }
            held.push(Held {
                digest: listed.digest,
                key: known.map_or_else(
                    || Arc::new(Key::of_issuer(listed.loaded, terms)),
                    |known| Arc::clone(&known.key),
                ),
                until: None,
            });
        }
        for old in &self.held {
            if held.iter().any(|kept| Arc::ptr_eq(&kept.key, &old.key)) {
                continue;
            }
            if old.until.is_none() {
                change.removed.push(named(old.key.kid()));
            }
            held.push(Held {
                until: Some(old.until.unwrap_or(now + grace)),
                ..old.clone()
            });
        }
        let next = Self {
            held,
            retired: self.retired.clone(),
            read_at: Some(now),
            maximum_age: self.maximum_age,
            changes: self.changes + u64::from(!change.is_none()),
        };
        (next.without_gone(now), change)
    }

    /// Keys whose grace is over become names.
    fn without_gone(mut self, now: Instant) -> Self {
        let (gone, held) = self
            .held
            .into_iter()
            .partition(|held| held.until.is_some_and(|until| until <= now));
        self.held = held;
        for kid in gone.iter().filter_map(|held: &Held| held.key.kid()) {
            if !self.retired.iter().any(|known| **known == *kid) {
                self.retired.push_back(kid.into());
            }
        }
        self.retired.drain(..self.retired.len().saturating_sub(RETIRED_MAX));
        self
    }
}

/// A name for the log, which the issuer chose: short, and in one line.
fn named(kid: Option<&str>) -> String {
    kid.map_or_else(
        || "(no kid)".to_owned(),
        |kid| kid.chars().take(64).collect::<String>().escape_debug().to_string(),
    )
}
