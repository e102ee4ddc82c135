//! What keys were used for, on a node that has no others to share it with.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Print;
use crate::api::problem::Problem;

/// What an entry takes besides its answer.
const ENTRY_BYTES: usize = 160;
/// When there may be room again.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// It is being used, for this.
    Running(Print),
    /// It was used for this, and answered so.
    Answer(Print, Bytes),
}

/// Keys of this node, as many as fit.
pub struct Here {
    bytes_max: usize,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    entries: HashMap<Print, Entry>,
    bytes: usize,
}

struct Entry {
    used_for: Print,
    answer: Option<Bytes>,
    until: Instant,
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.answer.as_ref().map_or(0, Bytes::len)
    }
}

impl Here {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            keys: Mutex::default(),
        }
    }

    /// Claims `name` for a time, unless something is known of it.
    ///
    /// # Errors
    /// There is no room: to forget another key early would be to do something twice.
    pub fn claim(&self, name: &Print, used_for: &Print, now: Instant, time: Duration) -> Result<Found, Problem> {
        let mut keys = self.keys.lock();
        if let Some(entry) = keys.entries.get(name).filter(|entry| entry.until > now) {
            return Ok(match &entry.answer {
                Some(answer) => Found::Answer(entry.used_for, answer.clone()),
                None => Found::Running(entry.used_for),
            });
        }
        if keys.bytes + ENTRY_BYTES > self.bytes_max {
            return Err(Problem::unavailable(
                super::FULL,
                "as many answers are kept for Idempotency-Keys as fit into api.idempotency_bytes: nothing was done",
                "come again later, raise api.idempotency_bytes, or lower api.idempotency",
                FULL_RETRY,
            ));
        }
        keys.insert(
            name,
            Entry {
                used_for: *used_for,
                answer: None,
                until: now + time,
            },
        );
        Ok(Found::Nothing)
    }

    /// Keeps the answer to a key that was claimed; false if there is no room for it, and the key is free again.
    pub fn keep(&self, name: &Print, answer: Bytes, now: Instant, time: Duration) -> bool {
        let mut keys = self.keys.lock();
        if let Some(mut entry) = keys.remove(name) {
            entry.answer = Some(answer);
            entry.until = now + time;
            // When it was claimed nobody knew how long the answer would be.
            if keys.bytes + entry.bytes() > self.bytes_max {
                return false;
            }
            keys.insert(name, entry);
        }
        true
    }

    /// Gives a claim back.
    pub fn free(&self, name: &Print) {
        self.keys.lock().remove(name);
    }

    pub fn sweep(&self, now: Instant) {
        let mut keys = self.keys.lock();
        keys.entries.retain(|_, entry| entry.until > now);
        keys.bytes = keys.entries.values().map(Entry::bytes).sum();
        if keys.entries.capacity() > 4 * keys.entries.len() {
            keys.entries.shrink_to_fit();
        }
    }
}

impl Keys {
    fn insert(&mut self, name: &Print, entry: Entry) {
        self.bytes += entry.bytes();
        if let Some(old) = self.entries.insert(*name, entry) {
            self.bytes -= old.bytes();
        }
    }

    fn remove(&mut self, name: &Print) -> Option<Entry> {
        let old = self.entries.remove(name)?;
        self.bytes -= old.bytes();
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_key_is_claimed_answered_and_forgotten() {
        let here = Here::new(10_000);
        let (name, used_for, now) = ([1; 32], [2; 32], Instant::now());
        let claim = |now| here.claim(&name, &used_for, now, SECOND).unwrap();
        assert_eq!(claim(now), Found::Nothing);
        assert_eq!(claim(now), Found::Running(used_for));
        assert!(here.keep(&name, Bytes::from_static(b"ok"), now, 10 * SECOND));
        assert_eq!(
            claim(now + 9 * SECOND),
            Found::Answer(used_for, Bytes::from_static(b"ok"))
        );
        assert_eq!(claim(now + 10 * SECOND), Found::Nothing);
        here.free(&name);
        assert_eq!(claim(now), Found::Nothing);
        here.sweep(now + 2 * SECOND);
        assert_eq!(here.keys.lock().bytes, 0);
    }

    #[test]
    fn a_claim_that_nobody_ended_runs_out() {
        let here = Here::new(10_000);
        let now = Instant::now();
        here.claim(&[1; 32], &[2; 32], now, SECOND).unwrap();
        assert_eq!(
            here.claim(&[1; 32], &[3; 32], now + SECOND, SECOND).unwrap(),
            Found::Nothing
        );
    }

    #[test]
    fn an_answer_that_does_not_fit_is_not_kept() {
        let here = Here::new(2 * ENTRY_BYTES + 10);
        let now = Instant::now();
        let claim = |name| here.claim(&[name; 32], &[0; 32], now, SECOND).unwrap();
        assert_eq!((claim(1), claim(2)), (Found::Nothing, Found::Nothing));
        assert!(!here.keep(&[1; 32], Bytes::from_static(b"eleven more"), now, SECOND));
        assert_eq!(claim(1), Found::Nothing);
        assert!(here.keep(&[2; 32], Bytes::from_static(b"ten bytes."), now, SECOND));
        assert_eq!(claim(2), Found::Answer([0; 32], Bytes::from_static(b"ten bytes.")));
    }

    #[test]
    fn when_it_is_full_nobody_is_forgotten() {
        let here = Here::new(3 * ENTRY_BYTES);
        let now = Instant::now();
        for name in 0..3 {
            here.claim(&[name; 32], &[0; 32], now, SECOND).unwrap();
        }
        assert_eq!(here.claim(&[3; 32], &[0; 32], now, SECOND).unwrap_err().status, 503);
        assert_eq!(
            here.claim(&[2; 32], &[0; 32], now, SECOND).unwrap(),
            Found::Running([0; 32])
        );
        here.sweep(now + SECOND);
        assert_eq!(
            here.claim(&[3; 32], &[0; 32], now + SECOND, SECOND).unwrap(),
            Found::Nothing
        );
    }
}
