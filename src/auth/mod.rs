//! Who is there: Origin, then token, then `Admitted`. Nothing else in the program can build an `Admitted`.
//!
//! `origin` reads the Origin header, `extract` finds the token in a request, `token` (pure) judges it with the `keys`,
//! `claims` and `grants` (pure) read what it says, `revocations` (pure) know which no longer count, `denied` says why not,
//! `refusals` counts who is refused too often. `ticket` and `vouched` (pure) are the other two ways to be known: a ticket
//! that stands for a token, and the word of the application, which `forward` asks for.

mod algorithm;
mod amend;
mod claims;
mod denied;
mod diagnose;
mod extract;
#[cfg(test)]
pub(crate) mod fixtures;
mod forward;
mod grants;
mod json;
mod jwk;
pub mod jwks;
pub mod keys;
mod mint;
mod origin;
mod pem;
mod refusals;
pub mod revocations;
pub mod scope;
pub mod ticket;
mod token;
mod vouched;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::http::request::Parts;
use parking_lot::RwLock;

pub use amend::Amendment;
pub use denied::{Denied, DeniedWord, NotVerified};
pub use diagnose::diagnose;
pub use forward::Forward;
pub use grants::{Grants, Verb};
pub use keys::{KeyProblem, Keys};
pub(crate) use mint::Guest;
pub use mint::{MintError, ProviderBroken, mint};
pub use origin::{Allow, Foreign, OriginVerdict, parse_allow};
pub use refusals::{AddressLimiter, Refusals, UserLimiter};
pub use revocations::Revocations;
pub use vouched::NotVouched;

use crate::config::classes::Class;
use crate::config::{self, Config, Who};
use jwks::{Issuer, Waited};

/// Seconds since the Unix epoch.
pub type UnixSeconds = u64;

/// A user as an application names it, held to what a token may say.
///
/// # Errors
/// A token could not say it; what is wrong.
pub fn public_user(
    id: &str,
    name: Option<&str>,
    info: Option<&serde_json::Map<String, serde_json::Value>>,
) -> Result<crate::hub::User, &'static str> {
    claims::public_user(id, name, info)
}

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
    pub grants: Option<Box<Grants>>,
    /// `jti`
    pub token_id: Option<Box<str>>,
    /// `iat`
    pub issued_at: IssuedAt,
    /// A synthetic client (`"probe": true`): it is in shadow rooms only, see [`crate::hub::shadow`].
    pub is_probe: bool,
    /// What the application has changed of it, for as long as the connection.
    pub amendment: Option<Arc<Amendment>>,
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
    fn from_claims(claims: claims::Claims, user_id: String) -> Self {
        Self {
            user_json: claims.user_json(&user_id),
            user_id: user_id.into(),
            grants: claims.rooms.map(Box::new),
            token_id: claims.jti,
            issued_at: claims.iat.into(),
            is_probe: claims.probe,
            amendment: None,
        }
    }

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

    /// Whether the token's `rooms` claim names `verb` for `room`, and the application's answer about the connection does not
    /// take it away; `without` stands for a token that has no such claim.
    pub fn is_granted(&self, room: &str, verb: Verb, without: bool) -> bool {
        let by_token = (self.grants.as_ref()).map_or(without, |grants| grants.allows(room, verb));
        by_token
            && self
                .amendment
                .as_ref()
                .is_none_or(|amendment| amendment.allows(room, verb))
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

    /// Where the token was.
    pub(crate) fn at(self, place: Place) -> Admitted {
        Admitted { verified: self, place }
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

    /// What a ticket may stand for.
    pub fn verified(&self) -> &Verified {
        &self.verified
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
    /// A single-use ticket in the query.
    Ticket,
    /// The application said who it is (`[forward]`).
    Forward,
}

impl Place {
    /// For metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Bearer => "bearer",
            Self::Cookie => "cookie",
            Self::Ticket => "ticket",
            Self::Forward => "forward",
        }
    }
}

/// What a request shows of who it is from.
#[derive(Debug)]
pub enum Shown<'r> {
    /// A token, which [`Policy::verify`] judges, and where it was.
    Token(Cow<'r, str>, Place),
    /// A ticket in the query.
    Ticket(Cow<'r, str>),
    /// Nothing in any place.
    Nothing(Denied),
}

/// Who may come in: the allowed origins, the keys, and what is asked of a token. Built once.
#[derive(Debug)]
pub struct Policy {
    allow: Allow,
    keys: Keys,
    cookie: String,
    query_token: bool,
    rules: token::Rules,
    forward: config::Forward,
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
            query_token: config.auth.query_token,
            rules,
            forward: config.auth.forward.clone(),
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

    /// The Origin of a request that passed [`Policy::origin`], as a ticket is bound to it.
    pub fn origin_of(parts: &Parts) -> Option<String> {
        origin::of(parts)
    }

    /// The second: what it shows, in the first place that has something.
    ///
    /// # Errors
    /// It may not be shown there, or not like that; no other place rescues it.
    pub fn shown<'r>(&self, parts: &'r Parts, origin: OriginVerdict) -> Result<Shown<'r>, Denied> {
        let found = match extract::token(parts, &self.cookie) {
            Ok(found) => found,
            Err(denied) if denied.word() == DeniedWord::TokenMissing => return Ok(Shown::Nothing(denied)),
            Err(denied) => return Err(denied),
        };
        if found.place == Place::Query {
            if ticket::is_ticket(&found.token) {
                return Ok(Shown::Ticket(found.token));
            }
            if !self.query_token {
                return Err(Denied::malformed(
                    "auth.query_token is off: a token in the query is not looked at",
                ));
            }
        }
        if found.place == Place::Cookie {
            require_named(origin)?;
        }
        Ok(Shown::Token(found.token, found.place))
    }

    /// The third, of a token.
    ///
    /// # Errors
    /// No good token: upgrade, then close 1008 with the word.
    pub fn admit_token(&self, token: &str, place: Place, now: UnixSeconds) -> Result<Admitted, Denied> {
        let verified = self.verify(token, now)?;
        Ok(Admitted { verified, place })
    }

    /// Who comes with a ticket: `taken` is what was kept under its name, if anything was.
    ///
    /// # Errors
    /// It is not good, or what it stands for is not any more.
    pub fn redeem(&self, taken: Option<&[u8]>, origin: Option<&str>, now: UnixSeconds) -> Result<Admitted, Denied> {
        let verified = ticket::redeem(taken, origin, self.rules, now)?;
        self.unrevoked(verified, now, Place::Ticket)
    }

    /// Whom the application named in `body`.
    ///
    /// # Errors
    /// Nobody.
    pub fn vouched(&self, body: &[u8], now: UnixSeconds) -> Result<Verified, NotVouched> {
        let terms = vouched::Terms {
            rules: self.rules,
            lifetime_max: self.forward.lifetime_max,
            user_prefix: &self.forward.user_prefix,
            guests: self.keys.have_session(),
        };
        vouched::read(body, terms, now)
    }

    /// Lets somebody in whom the application named, at least a moment ago.
    ///
    /// # Errors
    /// It is over, or revoked.
    pub fn admit_vouched(&self, verified: Verified, now: UnixSeconds) -> Result<Admitted, Denied> {
        if verified.ends_at().is_some_and(|ends_at| now >= ends_at) {
            return Err(Denied::new(
                DeniedWord::TokenExpired,
                "what the application said is over",
            ));
        }
        self.unrevoked(verified, now, Place::Forward)
    }

    fn unrevoked(&self, verified: Verified, now: UnixSeconds, place: Place) -> Result<Admitted, Denied> {
        if self.is_revoked(verified.identity(), now) {
            return Err(REVOKED);
        }
        Ok(Admitted { verified, place })
    }

    /// The verdict on a token by itself, as for the `auth` message.
    ///
    /// # Errors
    /// It is not good.
    pub fn verify(&self, token: &str, now: UnixSeconds) -> Result<Verified, Denied> {
        let verified = token::verify(token, &self.keys, self.rules, now)?;
        if self.is_revoked(verified.identity(), now) {
            return Err(REVOKED);
        }
        Ok(verified)
    }

    /// As [`Policy::verify`], now; a token whose key is not known yet waits for it (see [`jwks`]), so that no rotation
    /// refuses a good one. Bounded in number and time.
    ///
    /// # Errors
    /// It is not good, or nobody can say.
    /// # Cancel safety
    /// Cancel safe.
    pub async fn verify_patiently(
        &self,
        token: &str,
        waiter: impl Into<jwks::Waiter>,
    ) -> Result<Verified, NotVerified> {
        let denied = match self.verify(token, now()) {
            Err(denied) if denied.word() == DeniedWord::TokenSignature => denied,
            verdict => return Ok(verdict?),
        };
        let Some((issuer, kid)) = self.awaited(token) else {
            return Err(denied.into());
        };
        match issuer.wait_for(kid.as_deref(), &waiter.into()).await {
            Waited::Again => Ok(self.verify(token, now())?),
            Waited::Unknown => Err(denied.into()),
            Waited::Unanswered => Err(NotVerified::Unavailable),
        }
    }

    /// Whether [`Policy::verify_patiently`] would wait where [`Policy::verify`] came to `denied`.
    pub fn would_wait(&self, token: &str, denied: Denied) -> bool {
        denied.word() == DeniedWord::TokenSignature && self.awaited(token).is_some()
    }

    /// Whose keys, and which of them, could yet vouch for a token for which no known key does.
    fn awaited(&self, token: &str) -> Option<(&Arc<Issuer>, Option<String>)> {
        if self.keys.issuers().is_empty() {
            return None;
        }
        let token = token::Unverified::parse(token, self.rules).ok()?;
        let issuer = token.awaited(&self.keys, self.rules, now())?;
        Some((issuer, token.header.kid))
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
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

const REVOKED: Denied = Denied::new(DeniedWord::TokenRevoked, "the user or the token is revoked");

/// PROTOCOL.md section 1, rule 3.
///
/// # Errors
/// The browser may have been made to send its cookie by anybody's page.
pub fn require_named(origin: OriginVerdict) -> Result<(), Denied> {
    if origin.allows_cookie() {
        return Ok(());
    }
    Err(Denied::new(
        DeniedWord::CookieOrigin,
        "a cookie needs an Origin that is ours or listed exactly",
    ))
}

#[cfg(test)]
mod tests;
