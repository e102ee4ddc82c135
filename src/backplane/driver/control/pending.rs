//! What is still to be carried out on this node. Pure.

use std::collections::HashMap;

use crate::backplane::contract::{Revocation, Subject};
use crate::shard::ending::Batch;

/// Kicks older than this no longer count: whom they were about may have come back for good reason.
const KICK_AGE_MAX_MS: u64 = 60_000;

/// Kicks that may wait, and that are remembered.
const KICKS_MAX: usize = 10_000;

/// Times of revocations that are kept for the metric; of more in one batch the first count, which waited longest.
const TIMES_MAX: usize = 1_024;

/// Gathers until somebody takes it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    batch: Option<Batch>,
    /// Kicks that were heard of, with the time at which that was: the log may say things twice.
    heard: HashMap<(Subject, u64), u64>,
}

/// What becomes of a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kicked {
    Waits,
    /// It was heard before.
    Again,
    TooLate,
    TooMany,
}

impl Pending {
    /// Something is revoked that was not; told at this time (ms since the Unix epoch), if that is known.
    pub fn revoke(&mut self, told_ms: Option<u64>) {
        let times = &mut self.batch.get_or_insert_default().told_ms;
        if times.len() < TIMES_MAX {
            times.extend(told_ms);
        }
    }

    pub fn kick(&mut self, subject: Subject, time_ms: u64, now_ms: u64) -> Kicked {
        if now_ms.saturating_sub(time_ms) > KICK_AGE_MAX_MS {
            return Kicked::TooLate;
        }
        let kick = (subject, time_ms);
        if self.heard.contains_key(&kick) {
            return Kicked::Again;
        }
        let batch = self.batch.get_or_insert_default();
        let hits_once = Revocation {
            subject: kick.0.clone(),
            issued_before: u64::MAX,
            forget_after: u64::MAX,
        };
        if self.heard.len() >= KICKS_MAX || batch.kicked.add_at_most(&hits_once, 0, KICKS_MAX).is_err() {
            return Kicked::TooMany;
        }
        if batch.told_ms.len() < TIMES_MAX {
            batch.told_ms.push(time_ms);
        }
        self.heard.insert(kick, now_ms);
        Kicked::Waits
    }

    /// What is to be carried out now.
    pub fn take(&mut self) -> Option<Batch> {
        self.batch.take()
    }

    /// Drops what cannot be said again.
    pub fn forget(&mut self, now_ms: u64) {
        self.heard
            .retain(|_, heard_ms| now_ms.saturating_sub(*heard_ms) <= 2 * KICK_AGE_MAX_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    fn user(id: &str) -> Subject {
        Subject::User(id.into())
    }

    #[test]
    fn what_comes_meanwhile_is_one_batch() {
        let mut pending = Pending::default();
        assert!(pending.take().is_none());
        pending.revoke(Some(5));
        pending.revoke(None);
        assert_eq!(pending.kick(user("ann"), NOW_MS, NOW_MS), Kicked::Waits);
        assert_eq!(pending.kick(user("bob"), NOW_MS, NOW_MS), Kicked::Waits);
        let batch = pending.take().unwrap();
        assert_eq!((batch.told_ms, batch.kicked.len()), (vec![5, NOW_MS, NOW_MS], 2));
        assert!(pending.take().is_none());
    }

    #[test]
    fn a_kick_counts_once_and_for_a_minute() {
        let mut pending = Pending::default();
        assert_eq!(pending.kick(user("ann"), NOW_MS - 60_001, NOW_MS), Kicked::TooLate);
        assert_eq!(pending.kick(user("ann"), NOW_MS - 60_000, NOW_MS), Kicked::Waits);
        assert_eq!(pending.kick(user("ann"), NOW_MS - 60_000, NOW_MS), Kicked::Again);
        assert_eq!(
            pending.kick(user("ann"), NOW_MS - 59_999, NOW_MS),
            Kicked::Waits,
            "another kick"
        );
        // The teller's clock may be ahead.
        assert_eq!(pending.kick(user("ann"), NOW_MS + 30_000, NOW_MS), Kicked::Waits);
        pending.forget(NOW_MS + 90_000);
        assert_eq!(
            pending.kick(user("ann"), NOW_MS + 30_000, NOW_MS + 90_000),
            Kicked::Again
        );
        pending.forget(NOW_MS + 120_001);
        assert!(pending.heard.is_empty());
    }

    #[test]
    fn kicks_are_bounded_however_fast_they_come() {
        let mut pending = Pending::default();
        for number in 0..KICKS_MAX {
            assert_eq!(pending.kick(user(&number.to_string()), NOW_MS, NOW_MS), Kicked::Waits);
        }
        assert_eq!(pending.kick(user("one more"), NOW_MS, NOW_MS), Kicked::TooMany);
        let batch = pending.take().unwrap();
        assert_eq!((batch.kicked.len(), batch.told_ms.len()), (KICKS_MAX, TIMES_MAX));
    }
}
