//! Who is there: Origin, then token, then `Admitted`. Nothing else in the program can build an `Admitted`.
//!
//! `origin` reads the Origin header, `extract` finds the token in a request, `token` (pure) judges it with the `keys`,
//! `claims` and `grants` (pure) read what it says, `revocations` (pure) know which no longer count, `denied` says why not,
//! `refusals` counts who is refused too often.

mod algorithm;
mod claims;
mod denied;
mod diagnose;
mod extract;
#[cfg(test)]
pub(crate) mod fixtures;
mod grants;
mod json;
mod jwk;
pub mod keys;
mod mint;
mod origin;
mod pem;
mod refusals;
pub mod revocations;
mod token;

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::request::Parts;
use parking_lot::RwLock;

pub use denied::{Denied, DeniedWord};
pub use diagnose::diagnose;
pub use grants::{Grants, Verb};
pub use keys::{KeyProblem, Keys};
pub(crate) use mint::Guest;
pub use mint::{MintError, ProviderBroken, mint};
pub use origin::{Allow, Foreign, OriginVerdict, parse_allow};
pub use refusals::{AddressLimiter, Refusals};
pub use revocations::Revocations;

use crate::config::classes::Class;
use crate::config::{Config, Who};

/// Seconds since the Unix epoch.
pub type UnixSeconds = u64;

/// The clock as `Policy` wants it.
pub fn now() -> UnixSeconds {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The public user and what its token allows. Shared by everything that names the user.
pub struct Identity {
    pub user_id: Arc<str>,
    /// `{"id":"u7","name":"Ann","info":{…}}`
    pub user_json: Arc<str>,
    /// None: what the class of a room gives to all.
    pub grants: Option<Grants>,
    /// `jti`
    pub token_id: Option<Box<str>>,
    /// `iat`
    pub issued_at: IssuedAt,
    /// A synthetic client (`"probe": true`): it is in shadow rooms only, see [`crate::hub::shadow`].
    pub is_probe: bool,
}

/// `iat`, or that there is none, in the room of a number: there is one per connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssuedAt(Option<NonZeroU64>);

impl From<Option<UnixSeconds>> for IssuedAt {
    fn from(at: Option<UnixSeconds>) -> Self {
        // One more, so that the second 0 is not none.
        Self(at.and_then(|at| NonZeroU64::new(at.saturating_add(1))))
    }
}

impl IssuedAt {
    /// The second, if the token says one.
    pub fn seconds(self) -> Option<UnixSeconds> {
        self.0.map(|one_more| one_more.get() - 1)
    }
}

impl Identity {
    /// Whether its holder may do this in `room`, which is of this class.
    ///
    /// A token with a `rooms` claim decides by itself, one without has what the class gives to all, and what it gives to
    /// nobody nobody has. Guests have none of what a class is closed to them for.
    pub fn may(&self, room: &str, verb: Verb, class: &Class) -> bool {
        let is_let_in = verb != Verb::Join || class.guests || !self.is_guest();
        is_let_in
            && match verb.who(class) {
                Who::All => self.is_granted(room, verb, true),
                Who::Granted => self.is_granted(room, verb, false),
                Who::None => false,
            }
    }

    /// Whether what a room tells of itself unasked is for its holder: who is there ([`Verb::List`]), what was said before
    /// ([`Verb::History`]).
    ///
    /// Where the class gives it to all, a claim that does not name the verb only keeps its holder from asking.
    pub fn sees(&self, room: &str, verb: Verb, class: &Class) -> bool {
        match verb.who(class) {
            Who::All => true,
            Who::Granted => self.is_granted(room, verb, false),
            Who::None => false,
        }
    }

    /// Whether the token's `rooms` claim names `verb` for `room`; `without` is the answer of a token that has no such claim.
    pub fn is_granted(&self, room: &str, verb: Verb, without: bool) -> bool {
        self.grants.as_ref().map_or(without, |grants| grants.allows(room, verb))
    }

    /// Whether it is one of our own guests, where there can be any.
    pub fn is_guest(&self) -> bool {
        self.user_id.starts_with(keys::GUEST_PREFIX)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("user_id", &self.user_id)
            .finish_non_exhaustive()
    }
}

/// What a good token says, wherever it was found.
#[derive(Debug, Clone)]
pub struct Verified {
    identity: Arc<Identity>,
    expires_at: Option<UnixSeconds>,
    leeway_s: u64,
}

impl Verified {
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// `exp`, as clients are told.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.expires_at
    }

    /// When the token stops being good: `exp` and the leeway. A connection that stays longer is closed.
    pub fn ends_at(&self) -> Option<UnixSeconds> {
        self.expires_at
            .map(|expires_at| expires_at.saturating_add(self.leeway_s))
    }
}

/// Proof that a request carried a good token.
#[derive(Debug)]
pub struct Admitted {
    verified: Verified,
    place: Place,
}

impl Admitted {
    pub fn identity(&self) -> &Arc<Identity> {
        self.verified.identity()
    }

    /// `exp`, as clients are told.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.verified.expires_at()
    }

    /// When the token stops being good: `exp` and the leeway.
    pub fn ends_at(&self) -> Option<UnixSeconds> {
        self.verified.ends_at()
    }

    /// Whether it is one of our own guests.
    pub fn is_guest(&self) -> bool {
        self.identity().is_guest()
    }

    /// Where the token was.
    pub fn place(&self) -> Place {
        self.place
    }
}

/// Where in a request a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Query,
    Bearer,
    Cookie,
}

impl Place {
    /// For metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
        }
    }
}

/// Who may come in: the allowed origins, the keys, and what is asked of a token. Built once.
#[derive(Debug)]
pub struct Policy {
    allow: Allow,
    keys: Keys,
    cookie: String,
    rules: token::Rules,
    /// Read at every sign-in, written when something is revoked.
    revoked: Arc<RwLock<Revocations>>,
}

impl Policy {
    /// # Errors
    /// One sentence for each entry of `origin.allow` that cannot be used.
    pub fn new(config: &Config, keys: Keys) -> Result<Self, Vec<String>> {
        let rules = token::Rules {
            leeway: config.auth.leeway,
            require_expiry: config.auth.require_expiry,
        };
        Ok(Self {
            allow: parse_allow(&config.origin.allow)?,
            keys,
            cookie: config.auth.cookie.clone(),
            rules,
            revoked: Arc::default(),
        })
    }

    /// The first question to a request. `host_is_ours` knows the names of the certificate.
    ///
    /// # Errors
    /// The Origin is foreign: 403, no upgrade.
    pub fn origin(&self, parts: &Parts, host_is_ours: &dyn Fn(&str) -> bool) -> Result<OriginVerdict, Foreign> {
        self.allow.judge(parts, host_is_ours)
    }

    /// The second: the token, from the first place that has one.
    ///
    /// # Errors
    /// No good token: upgrade, then close 1008 with the word.
    pub fn admit(&self, parts: &Parts, origin: OriginVerdict, now: UnixSeconds) -> Result<Admitted, Denied> {
        let found = extract::token(parts, &self.cookie)?;
        if found.place == Place::Cookie && !origin.allows_cookie() {
            return Err(Denied::new(
                DeniedWord::CookieOrigin,
                "a cookie needs an Origin that is ours or listed exactly",
            ));
        }
        Ok(Admitted {
            verified: self.verify(&found.token, now)?,
            place: found.place,
        })
    }

    /// The verdict on a token by itself, as for the `auth` message.
    ///
    /// # Errors
    /// It is not good.
    pub fn verify(&self, token: &str, now: UnixSeconds) -> Result<Verified, Denied> {
        let verified = token::verify(token, &self.keys, self.rules, now)?;
        if self.is_revoked(verified.identity(), now) {
            return Err(Denied::new(
                DeniedWord::TokenRevoked,
                "the user or the token is revoked",
            ));
        }
        Ok(verified)
    }

    /// Whether a token that was good is revoked by now.
    ///
    /// To be asked again once its connection can be found by those who end revoked ones: a revocation that came between
    /// the verdict and that moment would miss it.
    pub fn is_revoked(&self, identity: &Identity, now: UnixSeconds) -> bool {
        self.revoked.read().judge(identity, None, now).is_some()
    }

    /// What is revoked, shared with who hears of it.
    pub fn revoked(&self) -> &Arc<RwLock<Revocations>> {
        &self.revoked
    }

    /// The session cookie's user, if the request has a good one. The caller has looked at the Origin.
    pub(crate) fn verify_cookie(&self, parts: &Parts, now: UnixSeconds) -> Result<Verified, Denied> {
        self.verify(extract::cookie(parts, &self.cookie)?, now)
    }

    /// The name of the cookie that may carry the token.
    pub(crate) fn cookie_name(&self) -> &str {
        &self.cookie
    }
}

#[cfg(test)]
mod tests;
