//! Which tokens and connections no longer count. Pure: entries only ever add, so nodes that tell each other what they
//! know come to know the same, in whatever order they hear of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Identity, UnixSeconds};
use crate::backplane::contract::{Revocation, Subject};

/// Entries kept at a time: some 100 MB. A node that cannot keep them all must not let anybody in on what it knows.
const ENTRIES_MAX: usize = 1_000_000;

/// How long a revocation is kept if nobody says: longer than any token lives that its operator bounds at all.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The same where tokens need not expire.
const KEPT_WITHOUT_EXPIRY: Duration = Duration::from_secs(20 * 365 * 24 * 3_600);

/// How long a revocation is kept if nobody says.
#[must_use]
pub const fn kept(require_expiry: bool) -> Duration {
    if require_expiry { KEPT } else { KEPT_WITHOUT_EXPIRY }
}

/// Everything that is revoked, as far as this node knows.
#[derive(Debug, Default, Clone)]
pub struct Revocations {
    users: Entries,
    sessions: Entries,
    tokens: Entries,
}

type Entries = HashMap<Arc<str>, Times>;

/// Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    issued_before: UnixSeconds,
    forget_after: UnixSeconds,
}

/// What hit somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    User,
    Session,
    Token,
}

/// There are as many entries as may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {ENTRIES_MAX} revocations")]
pub struct Full;

impl Times {
    /// The later of each.
    fn merge(&mut self, other: Self) -> bool {
        let before = *self;
        self.issued_before = self.issued_before.max(other.issued_before);
        self.forget_after = self.forget_after.max(other.forget_after);
        *self != before
    }

    fn counts(self, now: UnixSeconds) -> bool {
        self.forget_after >= now
    }
}

impl From<&Revocation> for Times {
    fn from(revocation: &Revocation) -> Self {
        Self {
            issued_before: revocation.issued_before,
            forget_after: revocation.forget_after,
        }
    }
}

impl Revocations {
    /// Keeps the later of each time; whether that says anything new. What may be forgotten already is not kept.
    ///
    /// # Errors
    /// [`Full`]: it is not kept.
    pub fn add(&mut self, revocation: &Revocation, now: UnixSeconds) -> Result<bool, Full> {
        self.add_at_most(revocation, now, ENTRIES_MAX)
    }

    /// As [`Revocations::add`], with a bound of the caller's.
    ///
    /// # Errors
    /// [`Full`]: it is not kept.
    pub fn add_at_most(&mut self, revocation: &Revocation, now: UnixSeconds, most: usize) -> Result<bool, Full> {
        let times = Times::from(revocation);
        if !times.counts(now) {
            return Ok(false);
        }
        let is_full = self.len() >= most;
        let (entries, id) = match &revocation.subject {
            Subject::User(id) => (&mut self.users, id),
            Subject::Session(id) => (&mut self.sessions, id),
            Subject::Token(id) => (&mut self.tokens, id),
        };
        match entries.get_mut(id) {
            Some(known) => Ok(known.merge(times)),
            None if is_full => Err(Full),
            None => {
                entries.insert(Arc::clone(id), times);
                Ok(true)
            }
        }
    }

    /// Whether this token, or the connection that it was used for, no longer counts. A user's entry hits tokens issued at
    /// or before its second and those that do not say when; a session's and a token's hit just that one.
    #[must_use]
    pub fn judge(&self, identity: &Identity, session: Option<&str>, now: UnixSeconds) -> Option<Hit> {
        // Most nodes know of nothing: nobody is hashed for nothing.
        let find = |entries: &Entries, id: &str| {
            let times = if entries.is_empty() { None } else { entries.get(id) };
            times.copied().filter(|times| times.counts(now))
        };
        if let Some(times) = find(&self.users, &identity.user_id)
            && identity
                .issued_at
                .seconds()
                .is_none_or(|issued_at| issued_at <= times.issued_before)
        {
            return Some(Hit::User);
        }
        if session.is_some_and(|session| find(&self.sessions, session).is_some()) {
            return Some(Hit::Session);
        }
        let token = identity.token_id.as_deref();
        token.and_then(|token| find(&self.tokens, token)).map(|_| Hit::Token)
    }

    /// Whether [`Revocations::judge`] looks at sessions at all.
    #[must_use]
    pub fn names_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// All of these: what somebody else keeps already is not bounded anew.
    #[must_use]
    pub fn of(entries: &[Revocation], now: UnixSeconds) -> Self {
        let mut known = Self::default();
        for revocation in entries {
            let _ = known.add_at_most(revocation, now, usize::MAX);
        }
        known
    }

    /// What is known here and lacks there, in whole or in part.
    #[must_use]
    pub fn lacking_in(&self, mut there: Self, now: UnixSeconds) -> Vec<Revocation> {
        self.iter()
            .filter(|revocation| matches!(there.add_at_most(revocation, now, usize::MAX), Ok(true)))
            .collect()
    }

    /// Drops what may be forgotten.
    pub fn forget(&mut self, now: UnixSeconds) {
        for entries in [&mut self.users, &mut self.sessions, &mut self.tokens] {
            entries.retain(|_, times| times.counts(now));
            if entries.len() < entries.capacity() / 4 {
                entries.shrink_to_fit();
            }
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len() + self.sessions.len() + self.tokens.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Revocation> + '_ {
        let users = self
            .users
            .iter()
            .map(|(id, times)| (Subject::User(Arc::clone(id)), times));
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|(id, times)| (Subject::Session(Arc::clone(id)), times));
        let tokens = self.tokens.iter();
        let tokens = tokens.map(|(id, times)| (Subject::Token(Arc::clone(id)), times));
        users.chain(sessions).chain(tokens).map(|(subject, times)| Revocation {
            subject,
            issued_before: times.issued_before,
            forget_after: times.forget_after,
        })
    }
}

#[cfg(test)]
mod tests;
