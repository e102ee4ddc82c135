//! Who calls the server API, and what that caller may do.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter};
use http::request::Parts;
use parking_lot::Mutex;
use serde_json::Value;

use super::idempotency::Retries;
use super::problem::Problem;
use crate::auth::{Identity, Verb};

/// Something that a key or a token may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Say something into rooms.
    Publish = 1,
    /// Say something to users, wherever they are.
    Message = 2,
    /// See who is in rooms, and what was said there.
    Read = 4,
    /// Remove users from rooms, end their connections, keep them out for a while.
    Kick = 8,
    /// Take back tokens for good.
    Revoke = 16,
    /// See the nodes.
    Nodes = 32,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [
        Self::Publish,
        Self::Message,
        Self::Read,
        Self::Kick,
        Self::Revoke,
        Self::Nodes,
    ];

    /// The word in the configuration, and after `api.scope_prefix` in a token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Message => "message",
            Self::Read => "read",
            Self::Kick => "kick",
            Self::Revoke => "revoke",
            Self::Nodes => "nodes",
        }
    }
}

/// Some scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// The word for all of them.
    pub const EVERY_WORD: &'static str = "*";

    /// Adds what `word` stands for; false if that is nothing.
    pub fn add(&mut self, word: &str) -> bool {
        if word == Self::EVERY_WORD {
            for scope in Scope::ALL {
                self.0 |= scope as u8;
            }
            return true;
        }
        let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        self.0 |= found.map_or(0, |scope| scope as u8);
        found.is_some()
    }

    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// In which rooms.
#[derive(Clone)]
pub enum Reach {
    Everywhere,
    /// Names, or beginnings of names with a `*` after them.
    Patterns(Arc<[String]>),
    /// Where the token's own `rooms` claim allows the like.
    Token(Arc<Identity>),
}

/// How many requests are left, shared by all that a key or a token's user sends.
#[derive(Clone)]
pub enum Budget {
    /// Of a key, with the largest burst.
    Key(Arc<DefaultDirectRateLimiter>, NonZeroU32),
    /// Of a token's user, with the largest burst.
    User(Arc<DefaultKeyedRateLimiter<Arc<str>>>, Arc<str>, NonZeroU32),
}

/// How a caller showed who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    Key,
    Jwt,
}

impl Via {
    /// For the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Jwt => "jwt",
        }
    }
}

/// Proof that a request carried a good key or token. Handlers take it as an argument.
#[derive(Clone)]
pub struct Caller {
    /// The name of the key, or the id of the token's user.
    pub name: Arc<str>,
    pub via: Via,
    pub address: IpAddr,
    scopes: Scopes,
    reach: Reach,
    budget: Budget,
    /// What the request is about, as the audit log has it.
    subject: Arc<Mutex<String>>,
    /// Of its Idempotency-Key.
    retries: Option<Retries>,
}

impl Caller {
    pub(super) fn new(name: Arc<str>, via: Via, address: IpAddr, scopes: Scopes, reach: Reach, budget: Budget) -> Self {
        Self {
            name,
            via,
            address,
            scopes,
            reach,
            budget,
            subject: Arc::default(),
            retries: None,
        }
    }

    /// What it may do and where, in one text: the same for two callers of one name who may do the same.
    pub(super) fn rights(&self) -> String {
        let reach = match &self.reach {
            Reach::Everywhere => String::new(),
            Reach::Patterns(patterns) => patterns.join(" "),
            Reach::Token(identity) => {
                let grants = identity.grants.as_ref();
                grants.map_or_else(String::new, |grants| Value::Object(grants.to_claim()).to_string())
            }
        };
        format!("{} {reach}", self.scopes.0)
    }

    /// From now on what is said without a `key` has one that is the same in a retry.
    pub(super) fn retries_as(&mut self, retries: Retries) {
        self.retries = Some(retries);
    }

    /// The `key` of what is said as the `index`th operation of the request: its own, or one by which it is said once, however
    /// often the request comes under its Idempotency-Key.
    pub(super) fn key_of(&self, own: Option<String>, index: usize) -> Option<String> {
        own.or_else(|| self.retries.as_ref().map(|retries| retries.key(index)))
    }

    /// # Errors
    /// 403, which names the scope that is missing.
    pub fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.has(scope) {
            Ok(())
        } else {
            Err(Problem::scope_missing(scope))
        }
    }

    /// As [`Caller::needs`], in this room.
    ///
    /// # Errors
    /// 403: the scope is missing, or is not for this room.
    pub fn needs_in(&self, scope: Scope, room: &str) -> Result<(), Problem> {
        self.needs(scope)?;
        if self.reaches(scope, room) {
            Ok(())
        } else {
            Err(Problem::room_forbidden())
        }
    }

    /// Whether what is allowed at all is allowed in this room, for lists of rooms.
    #[must_use]
    pub fn reaches(&self, scope: Scope, room: &str) -> bool {
        match &self.reach {
            Reach::Everywhere => true,
            Reach::Patterns(patterns) => patterns.iter().any(|pattern| matches(pattern, room)),
            Reach::Token(identity) => verbs(scope).iter().all(|verb| identity.is_granted(room, *verb, true)),
        }
    }

    /// Takes `requests` more from what this caller may ask per second, all or none: a batch is as dear as its parts.
    ///
    /// # Errors
    /// 429, with the time to wait; 400 if they could never pass, however long one waits.
    pub fn spend(&self, requests: u32) -> Result<(), Problem> {
        let Some(requests) = NonZeroU32::new(requests) else {
            return Ok(());
        };
        let clock = DefaultClock::default();
        let wait = |until: governor::NotUntil<_>| until.wait_time_from(clock.now());
        let (spent, burst) = match &self.budget {
            Budget::Key(limiter, burst) => (limiter.check_n(requests), burst),
            Budget::User(limiter, user, burst) => (limiter.check_key_n(user, requests), burst),
        };
        let spent = spent.map_err(|_| {
            Problem::bad_request(
                format!("{requests} operations are more than may come at once: {burst}, by api.requests_burst or requests_per_second"),
                "send smaller batches, or raise api.requests_burst",
            )
        })?;
        spent.map_err(wait).map_err(Problem::rate_limited)
    }

    /// Adds to what the audit log says that the request is about, for operations that name it in their body:
    /// `user ann`. Never content.
    pub fn about(&self, subject: &str) {
        let mut about = self.subject.lock();
        if !about.is_empty() {
            about.push(' ');
        }
        about.push_str(subject);
    }

    pub(super) fn subject(&self) -> String {
        self.subject.lock().clone()
    }
}

/// What a token must allow in a room for a scope to count there.
fn verbs(scope: Scope) -> &'static [Verb] {
    match scope {
        Scope::Publish => &[Verb::Chat],
        Scope::Read => &[Verb::List, Verb::History],
        // The claim has no word for these: whoever was given the scope has it everywhere.
        Scope::Message | Scope::Kick | Scope::Revoke | Scope::Nodes => &[],
    }
}

fn matches(pattern: &str, room: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => room.starts_with(beginning),
        None => room == pattern,
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("name", &self.name)
            .field("via", &self.via)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // The door puts it there; a route that was added outside of it lets nobody in.
        parts.extensions.get().cloned().ok_or_else(Problem::key_missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_paid_for_at_once_and_one_that_never_could_be_is_told_so() {
        let (one, burst) = (NonZeroU32::MIN, NonZeroU32::new(5).unwrap());
        let quota = governor::Quota::per_hour(one).allow_burst(burst);
        let users = Arc::new(governor::RateLimiter::keyed(quota));
        let key = Arc::new(governor::RateLimiter::direct(quota));
        for budget in [Budget::Key(key, burst), Budget::User(users, "ann".into(), burst)] {
            let (scopes, address) = (Scopes::default(), [127, 0, 0, 1].into());
            let caller = Caller::new("ann".into(), Via::Key, address, scopes, Reach::Everywhere, budget);
            let status = |requests| caller.spend(requests).err().map(|problem| problem.status.as_u16());
            assert_eq!(status(6), Some(400));
            assert_eq!(status(5), None, "the whole burst, which the one before left as it was");
            assert_eq!(status(1), Some(429));
        }
    }
}
