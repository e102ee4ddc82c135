//! Where tickets are kept until they are used: in the backplane, so that they are good on every node and once; or here, on
//! a node that is alone.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use governor::Quota;
use parking_lot::Mutex;

use crate::auth::ticket::{self, Ticket};
use crate::auth::{self, AddressLimiter, Admitted, Policy, UserLimiter, Verified};
use crate::backplane::contract::{Backplane, Failed};
use crate::config;
use crate::runtime::NotAdmitted;
use crate::telemetry::metrics::{Limit, Metrics, TicketResult};

/// Tickets of one node.
pub struct Tickets {
    lifetime: Duration,
    /// `tickets.outstanding`
    outstanding_max: usize,
    given: Mutex<Given>,
    /// None: they are kept here.
    backplane: Option<Arc<dyn Backplane>>,
    pub(super) users: Option<UserLimiter>,
    pub(super) addresses: Option<AddressLimiter>,
    metrics: Arc<Metrics>,
}

/// What was given out within one lifetime.
#[derive(Default)]
struct Given {
    /// In the order in which they expire, which is that in which they were given.
    ends: VecDeque<(Instant, Box<str>)>,
    /// Kept here: the record of each that was not used.
    kept: HashMap<Box<str>, Bytes>,
}

/// Why there is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotIssued {
    /// So many are outstanding.
    Full,
    /// The backplane does not answer.
    Unavailable,
    /// No randomness: our own fault.
    Internal,
}

impl Tickets {
    pub fn new(config: &config::Tickets, backplane: Option<Arc<dyn Backplane>>, metrics: Arc<Metrics>) -> Self {
        let per_minute = |count| NonZeroU32::new(count).map(Quota::per_minute);
        Self {
            lifetime: config.lifetime,
            outstanding_max: config.outstanding,
            given: Mutex::default(),
            backplane,
            users: per_minute(config.per_minute).map(UserLimiter::new),
            addresses: per_minute(config.address_per_minute).map(AddressLimiter::new),
            metrics,
        }
    }

    /// How long a ticket may wait for its use.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Forgets what has expired. To be called every few seconds.
    pub fn sweep(&self) {
        self.given.lock().expire(Instant::now());
        if let Some(users) = &self.users {
            users.sweep();
        }
        if let Some(addresses) = &self.addresses {
            addresses.sweep();
        }
    }

    /// A ticket for whoever `verified` is, good for pages of this Origin.
    ///
    /// # Errors
    /// There is none, and nothing was given.
    ///
    /// # Cancel safety
    /// Dropping it leaves at most a ticket that nobody knows, which expires.
    pub async fn issue(&self, verified: &Verified, origin: Option<&str>) -> Result<Ticket, NotIssued> {
        let ticket = Ticket::random().map_err(|_| NotIssued::Internal)?;
        let name = ticket::name(ticket.as_str()).map_err(|_| NotIssued::Internal)?;
        let record = ticket::record(verified, origin);
        self.note(&name, &record)?;
        if let Some(backplane) = &self.backplane {
            match backplane.put(&name, &record, self.lifetime).await {
                Ok(true) => {}
                answer => {
                    tracing::warn!(?answer, "a ticket could not be kept");
                    self.metrics.ticket(TicketResult::Unavailable);
                    return Err(NotIssued::Unavailable);
                }
            }
        }
        self.metrics.ticket(TicketResult::Issued);
        Ok(ticket)
    }

    /// Who comes with `ticket`, which is used up by that.
    ///
    /// # Errors
    /// It was never one, was used, has expired, or is not for this Origin; or nobody knows because the backplane does not
    /// answer, and then it may be used up.
    ///
    /// # Cancel safety
    /// Dropping it may use the ticket up.
    pub async fn redeem(&self, ticket: &str, origin: Option<&str>, policy: &Policy) -> Result<Admitted, NotAdmitted> {
        let admitted = match self.take(ticket).await {
            Ok(taken) => policy.redeem(taken.as_deref(), origin, auth::now()),
            Err(Taking::Never(denied)) => Err(denied),
            Err(Taking::Failed(why)) => {
                tracing::debug!(%why, "a ticket could not be looked up");
                self.metrics.ticket(TicketResult::Unavailable);
                return Err(NotAdmitted::Unavailable);
            }
        };
        self.metrics.ticket(match admitted {
            Ok(_) => TicketResult::Redeemed,
            Err(_) => TicketResult::Refused,
        });
        Ok(admitted?)
    }

    async fn take(&self, ticket: &str) -> Result<Option<Bytes>, Taking> {
        let name = ticket::name(ticket).map_err(Taking::Never)?;
        match &self.backplane {
            Some(backplane) => backplane.take(&name).await.map_err(Taking::Failed),
            None => Ok(self.given.lock().take(&name, Instant::now())),
        }
    }

    /// Counts a ticket as outstanding, and keeps its record if it is kept here.
    fn note(&self, name: &str, record: &[u8]) -> Result<(), NotIssued> {
        let now = Instant::now();
        let mut given = self.given.lock();
        given.expire(now);
        if given.ends.len() >= self.outstanding_max {
            self.metrics.limit_hit(Limit::TicketsOutstanding);
            return Err(NotIssued::Full);
        }
        given.ends.push_back((now + self.lifetime, name.into()));
        if self.backplane.is_none() {
            given.kept.insert(name.into(), Bytes::copy_from_slice(record));
        }
        Ok(())
    }
}

/// Why nothing could be taken.
enum Taking {
    /// It was never a ticket.
    Never(auth::Denied),
    Failed(Failed),
}

impl Given {
    fn expire(&mut self, now: Instant) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, name)) = self.ends.pop_front() {
                self.kept.remove(&name);
            }
        }
        if self.ends.is_empty() {
            *self = Self::default();
        }
    }

    fn take(&mut self, name: &str, now: Instant) -> Option<Bytes> {
        self.expire(now);
        self.kept.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::fixtures::*;
    use crate::auth::{DeniedWord, Keys};
    use crate::config::default_config;
    use crate::telemetry::metrics::BuildInfo;

    const PAGE: Option<&str> = Some("https://app.example.com");

    fn tickets(change: impl FnOnce(&mut config::Tickets)) -> Tickets {
        let mut config = default_config().tickets;
        change(&mut config);
        let metrics = Metrics::install(BuildInfo {
            version: "0",
            revision: "0",
            rustc: "0",
            backplane: "memory",
        });
        Tickets::new(&config, None, metrics)
    }

    fn word(redeemed: Result<Admitted, NotAdmitted>) -> DeniedWord {
        match redeemed {
            Err(NotAdmitted::Denied(denied)) => denied.word(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_ticket_is_good_once() {
        let policy = policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[]);
        let exp = auth::now() + 60;
        let verified = policy.verify(&hs256(format!(r#"{{"sub":"u1","exp":{exp}}}"#)), auth::now());
        let verified = verified.unwrap();
        let tickets = tickets(|_| {});
        let ticket = tickets.issue(&verified, PAGE).await.unwrap();
        let admitted = tickets.redeem(ticket.as_str(), PAGE, &policy).await.unwrap();
        assert_eq!(&*admitted.identity().user_id, "u1");
        assert_eq!(admitted.place(), auth::Place::Ticket);
        assert_eq!(
            word(tickets.redeem(ticket.as_str(), PAGE, &policy).await),
            DeniedWord::TicketUsed
        );
        let ticket = tickets.issue(&verified, PAGE).await.unwrap();
        assert_eq!(
            word(tickets.redeem(ticket.as_str(), None, &policy).await),
            DeniedWord::TicketUsed
        );
        assert_eq!(
            word(tickets.redeem(ticket.as_str(), PAGE, &policy).await),
            DeniedWord::TicketUsed
        );
    }

    #[tokio::test]
    async fn those_outstanding_are_bounded_and_what_has_expired_is_gone() {
        let policy = policy(Keys::load(&[secret("HS256", SECRET)]).unwrap(), &[]);
        let exp = auth::now() + 60;
        let verified = policy.verify(&hs256(format!(r#"{{"sub":"u1","exp":{exp}}}"#)), auth::now());
        let verified = verified.unwrap();
        let tickets = tickets(|config| {
            config.outstanding = 2;
            config.lifetime = Duration::from_secs(3_600);
        });
        let first = tickets.issue(&verified, PAGE).await.unwrap();
        tickets.issue(&verified, PAGE).await.unwrap();
        assert_eq!(tickets.issue(&verified, PAGE).await.unwrap_err(), NotIssued::Full);
        // Used or not, it counts until it would have expired: the bound is on what is given out in a lifetime.
        tickets.redeem(first.as_str(), PAGE, &policy).await.unwrap();
        assert_eq!(tickets.issue(&verified, PAGE).await.unwrap_err(), NotIssued::Full);
        tickets.given.lock().expire(Instant::now() + Duration::from_secs(3_601));
        assert!(tickets.issue(&verified, PAGE).await.is_ok());
        assert_eq!(tickets.given.lock().kept.len(), 1);
    }
}
