//! Which keyed messages one room has taken lately, so that a retry is kept once. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Keys of one room that are remembered at a time; a room that needs more refuses chats until some are old enough.
/// About 150 bytes each.
pub const KEYS_PER_ROOM_MAX: usize = 100_000;

/// Keys by user, each with the place of the message that first carried it: a seq where one epoch is all there is, else a
/// position.
#[derive(Debug, Clone)]
pub struct Keys<P> {
    taken: HashMap<Arc<str>, P>,
    /// In the order in which they were taken.
    ages: VecDeque<(u64, Arc<str>)>,
}

impl<P> Default for Keys<P> {
    fn default() -> Self {
        Self {
            taken: HashMap::new(),
            ages: VecDeque::new(),
        }
    }
}

impl<P: Clone> Keys<P> {
    /// Where this key of this user was first taken, within the window.
    #[must_use]
    pub fn place_of(&self, user: &str, key: &str) -> Option<P> {
        if self.taken.is_empty() {
            return None;
        }
        self.taken.get(&*joined(user, key)).cloned()
    }

    /// Whether no other key can be taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.taken.len() >= KEYS_PER_ROOM_MAX
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Remembers a key.
    pub fn take(&mut self, user: &str, key: &str, place: P, now_ms: u64) {
        let joined: Arc<str> = joined(user, key).into();
        self.ages.push_back((now_ms, Arc::clone(&joined)));
        self.taken.insert(joined, place);
    }

    /// Forgets what is older than `window`.
    pub fn trim(&mut self, now_ms: u64, window: Duration) {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        while let Some((taken_ms, _)) = self.ages.front()
            && taken_ms.saturating_add(window_ms) <= now_ms
        {
            if let Some((_, key)) = self.ages.pop_front() {
                self.taken.remove(&key);
            }
        }
    }
}

/// User ids hold no control characters, so the joint cannot be forged.
fn joined(user: &str, key: &str) -> String {
    [user, "\0", key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::contract::Position;

    #[test]
    fn a_key_belongs_to_its_user_and_is_forgotten_after_the_window() {
        let place = |seq| Position { epoch: "E".into(), seq };
        let mut keys = Keys::default();
        keys.take("ann", "k", place(7), 1_000);
        assert_eq!(keys.place_of("ann", "k"), Some(place(7)));
        assert_eq!(keys.place_of("bob", "k"), None);
        keys.trim(1_999, Duration::from_secs(1));
        assert_eq!(keys.place_of("ann", "k"), Some(place(7)));
        keys.trim(2_000, Duration::from_secs(1));
        assert!(keys.is_empty() && !keys.is_full());
    }
}
