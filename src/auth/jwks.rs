//! Keys that issuers serve by URL, read by the clock.
//!
//! `set` (pure) is what an issuer vouches with at a moment, `refresh` reads it again and again, `line` is where sign-ins
//! wait whose key is not known yet.
//!
//! A rotation must refuse no good login, and nothing that an unverified token says may cause a packet. So a token with
//! an unknown key id causes no reading: it waits for the next one, which comes in any case. At verification a set is
//! looked at without a lock.

mod line;
mod refresh;
mod set;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::algorithm::{Algorithm, Family};
use super::keys::{Flaw, Terms, unknown_algorithm};
use crate::config;
use line::NoPlace;
pub use line::{Line, Waiter};
pub use refresh::Jwks;
pub(super) use set::Set;

/// Longest time that a sign-in waits for keys. Where the next reading is further away it is refused at once.
/// Shorter than the 15 s that our client gives a connection, which shall hear why it may not stay.
const WAIT_MAX: Duration = Duration::from_secs(14);

/// One issuer with a `jwks_url`.
pub struct Issuer {
    /// `iss`
    name: String,
    terms: Arc<Terms>,
    source: config::JwksUrl,
    /// None named: what set.rs says.
    algorithms: Vec<Algorithm>,
    set: ArcSwap<Set>,
    progress: watch::Sender<Progress>,
    line: Arc<Line>,
}

/// How far the readings have come. They are numbered from 1.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// The last that began.
    begun: u64,
    /// The last that is over, well or not.
    ended: u64,
    /// The last that brought a set, or that there is nothing new.
    succeeded: u64,
    /// When the next begins.
    next_at: Instant,
}

/// What waiting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// There has been a reading that began afterwards, or the key is there: look again.
    Again,
    /// There is no such key as far as anybody can know now.
    Unknown,
    /// The issuer has not been heard of since, or too many wait for it.
    Unanswered,
}

impl Issuer {
    /// From its entry, which names an issuer.
    pub(super) fn new(source: &config::JwksUrl, terms: Arc<Terms>, line: Arc<Line>) -> Result<Self, Flaw> {
        let name = terms.issuer.clone().ok_or_else(|| {
            let remedy = "set it to the \"iss\" of this issuer's tokens";
            Flaw::new("a jwks_url without issuer", remedy)
        })?;
        let algorithms = source
            .algorithms
            .iter()
            .map(|name| by_name(name))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            terms,
            algorithms,
            set: ArcSwap::from_pointee(Set::new(source.maximum_age)),
            progress: watch::Sender::new(Progress {
                begun: 0,
                ended: 0,
                succeeded: 0,
                next_at: Instant::now(),
            }),
            source: source.clone(),
            line,
        })
    }

    /// `iss`, from the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// What it vouches with now.
    pub(super) fn set(&self) -> Guard<Arc<Set>> {
        self.set.load()
    }

    /// Keys that vouch now.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.set().count(Instant::now())
    }

    /// Whether a token of `algorithm` that names `kid` may be signed with a key that the next reading brings.
    pub(super) fn may_learn(&self, algorithm: &str, kid: Option<&str>) -> bool {
        let is_allowed = |allowed: &Algorithm| allowed.as_str() == algorithm;
        let by_anybody = || {
            Algorithm::ALL
                .iter()
                .filter(|known| known.family() != Family::Secret)
                .any(is_allowed)
        };
        let is_good = if self.algorithms.is_empty() {
            by_anybody()
        } else {
            self.algorithms.iter().any(is_allowed)
        };
        let set = self.set();
        is_good && (!set.vouches(Instant::now()) || kid.is_some_and(|kid| !set.knows(kid)))
    }

    /// Waits until a reading is over that begins after now, or the key is there; bounded in number and time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn wait_for(&self, kid: Option<&str>, waiter: &Waiter) -> Waited {
        let mut progress = self.progress.subscribe();
        let seen = *progress.borrow_and_update();
        let set = Arc::clone(&self.set());
        let vouches = set.vouches(Instant::now());
        if vouches && kid.is_some_and(|kid| set.knows(kid)) {
            return Waited::Again;
        }
        let hopeless = if vouches { Waited::Unknown } else { Waited::Unanswered };
        let _place = match self.line.enter(&self.name, kid, waiter, set.changes()) {
            Ok(place) => place,
            Err(NoPlace::KnownUnknown) => return Waited::Unknown,
            // Nobody has looked: it may well be good, and may come again.
            Err(NoPlace::Kids | NoPlace::Full) => return Waited::Unanswered,
        };
        let until = Instant::now() + WAIT_MAX;
        if seen.next_at > until {
            return hopeless;
        }
        loop {
            match tokio::time::timeout_at(until.into(), progress.changed()).await {
                // Time is up, or the node ends.
                Err(_) | Ok(Err(_)) => return Waited::Unanswered,
                Ok(Ok(())) => {}
            }
            let succeeded = progress.borrow_and_update().succeeded;
            let set = self.set();
            if set.vouches(Instant::now()) && kid.is_some_and(|kid| set.knows(kid)) {
                return Waited::Again;
            }
            // One that was under way may have been answered before the issuer had the key.
            if succeeded > seen.begun {
                self.line.remember(&self.name, kid, waiter, set.changes());
                return Waited::Again;
            }
        }
    }

    /// Waits for the end of the first reading, well or not.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn tried(&self) {
        let mut progress = self.progress.subscribe();
        drop(progress.wait_for(|progress| progress.ended > 0).await);
    }
}

fn by_name(name: &str) -> Result<Algorithm, Flaw> {
    let algorithm = Algorithm::parse(name).ok_or_else(|| unknown_algorithm(name))?;
    if algorithm.family() == Family::Secret {
        let what = format!("{name} needs a secret, and no secret is taken from a URL");
        return Err(Flaw::new(what, "name asymmetric ones, such as RS256, ES256 or EdDSA"));
    }
    Ok(algorithm)
}
