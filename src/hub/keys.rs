//! Which keyed messages one room has taken lately, so that a retry is kept once. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Keys of one room that are remembered at a time; a room that needs more answers `unavailable` until some
/// are old enough. About 150 bytes each.
pub const KEYS_PER_ROOM_MAX: usize = 100_000;

/// Keys by user, each with the seq of the message that first carried it.
#[derive(Debug, Default)]
pub struct Keys {
    taken: HashMap<Arc<str>, u64>,
    /// In the order in which they were taken.
    ages: VecDeque<(u64, Arc<str>)>,
}

/// The window has no room for another key.
#[derive(Debug, PartialEq, Eq)]
pub struct WindowFull;

impl Keys {
    /// The seq under which this key of this user was first taken, within the window.
    #[must_use]
    pub fn seq_of(&self, user: &str, key: &str) -> Option<u64> {
        if self.taken.is_empty() {
            return None;
        }
        self.taken.get(&*joined(user, key)).copied()
    }

    /// Whether another key can be taken.
    ///
    /// # Errors
    /// [`WindowFull`]
    pub fn check_room(&self) -> Result<(), WindowFull> {
        if self.taken.len() < KEYS_PER_ROOM_MAX {
            Ok(())
        } else {
            Err(WindowFull)
        }
    }

    /// Remembers a key.
    pub fn take(&mut self, user: &str, key: &str, seq: u64, now_ms: u64) {
        let joined: Arc<str> = joined(user, key).into();
        self.ages.push_back((now_ms, Arc::clone(&joined)));
        self.taken.insert(joined, seq);
    }

    /// Forgets what is older than `window`.
    pub fn trim(&mut self, now_ms: u64, window: Duration) {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        while self
            .ages
            .front()
            .is_some_and(|(taken_ms, _)| taken_ms + window_ms <= now_ms)
        {
            if let Some((_, key)) = self.ages.pop_front() {
                self.taken.remove(&key);
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

/// User ids hold no control characters, so the joint cannot be forged.
fn joined(user: &str, key: &str) -> String {
    [user, "\0", key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_its_user_and_is_forgotten_after_the_window() {
        let mut keys = Keys::default();
        keys.take("ann", "k", 7, 1_000);
        assert_eq!(keys.seq_of("ann", "k"), Some(7));
        assert_eq!(keys.seq_of("bob", "k"), None);
        keys.trim(1_999, Duration::from_secs(1));
        assert_eq!(keys.seq_of("ann", "k"), Some(7));
        keys.trim(2_000, Duration::from_secs(1));
        assert!(keys.is_empty());
    }
}
