//! Good answers of the application, for a moment. Pure: the clock is the caller's.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ::http::HeaderMap;
use aws_lc_rs::digest::{Context, SHA256};

use super::Verified;

/// What a client showed, as SHA-256: no cookie is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Of everything that is passed on, each part with its length before it.
    pub fn of(passed: &HeaderMap) -> Self {
        let mut context = Context::new(&SHA256);
        for (name, value) in passed {
            for part in [name.as_str().as_bytes(), value.as_bytes()] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }
}

/// The newest answers.
pub(super) struct Cache {
    /// How long one counts.
    life: Duration,
    entries_max: usize,
    entries: HashMap<Key, (Instant, Verified)>,
    /// In the order in which they were put, with when; one that was put again is here twice.
    order: VecDeque<(Instant, Key)>,
}

impl Cache {
    pub fn new(life: Duration, entries_max: usize) -> Self {
        Self {
            life,
            entries_max,
            entries: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// What was answered to the same question, if that still counts. Whether its own life has ended is for others to say.
    pub fn get(&self, key: &Key, now: Instant) -> Option<Verified> {
        let (put_at, verified) = self.entries.get(key)?;
        (now.saturating_duration_since(*put_at) < self.life).then(|| verified.clone())
    }

    pub fn put(&mut self, key: Key, verified: Verified, now: Instant) {
        self.sweep(now);
        while self.order.len() >= self.entries_max {
            self.drop_oldest();
        }
        self.entries.insert(key, (now, verified));
        self.order.push_back((now, key));
    }

    /// Forgets what no longer counts.
    pub fn sweep(&mut self, now: Instant) {
        while let Some((put_at, _)) = self.order.front()
            && now.saturating_duration_since(*put_at) >= self.life
        {
            self.drop_oldest();
        }
        if self.order.is_empty() {
            (self.entries, self.order) = Default::default();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((put_at, key)) = self.order.pop_front() else {
            return;
        };
        if self.entries.get(&key).is_some_and(|(newest, _)| *newest == put_at) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::super::super::fixtures::*;
    use super::super::super::{Keys, Verified};
    use super::*;

    fn ann() -> Verified {
        let policy = policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[]);
        policy.verify(&hs256(claims("")), NOW).unwrap()
    }

    fn key(n: usize) -> Key {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", HeaderValue::from(n));
        Key::of(&headers)
    }

    #[test]
    fn an_answer_counts_for_its_time_and_for_its_question() {
        let (ann, now) = (ann(), Instant::now());
        let mut cache = Cache::new(Duration::from_secs(10), 10);
        cache.put(key(1), ann.clone(), now);
        assert!(cache.get(&key(1), now + Duration::from_secs(9)).is_some());
        assert!(cache.get(&key(1), now + Duration::from_secs(10)).is_none());
        assert!(cache.get(&key(2), now).is_none());
        // Asked again meanwhile: the newer one has a time of its own.
        cache.put(key(1), ann, now + Duration::from_secs(5));
        cache.sweep(now + Duration::from_secs(12));
        assert!(cache.get(&key(1), now + Duration::from_secs(12)).is_some());
        cache.sweep(now + Duration::from_secs(15));
        assert!(cache.entries.is_empty() && cache.order.is_empty());
    }

    #[test]
    fn the_oldest_go_first() {
        let (ann, now) = (ann(), Instant::now());
        let mut cache = Cache::new(Duration::from_secs(10), 3);
        for n in 0..5 {
            cache.put(key(n), ann.clone(), now + Duration::from_millis(n as u64));
        }
        let known: Vec<usize> = (0..5).filter(|n| cache.get(&key(*n), now).is_some()).collect();
        assert_eq!(known, [2, 3, 4]);
        for _ in 0..1_000 {
            cache.put(key(9), ann.clone(), now);
        }
        assert!(cache.entries.len() <= 3 && cache.order.len() <= 3);
    }

    #[test]
    fn parts_cannot_flow_into_each_other() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            Key::of(&headers)
        };
        let all = [
            of(&[("cookie", "a=1")]),
            of(&[("cookie", "a=1"), ("x-conclave-origin", "https://a")]),
            of(&[("cookie", "a=1"), ("x-conclave-origin", "https://b")]),
            of(&[("x-session", "a=1")]),
            of(&[("x", "ab"), ("y", "c")]),
            of(&[("x", "a"), ("y", "bc")]),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
