//! Who a request is from, where that may take somebody else's word: bounded in number and in time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::request::Parts;
use tokio::time::timeout;

use crate::auth::{self, Admitted, Denied, DeniedWord, NotVerified, OriginVerdict, Policy, Shown};
use crate::config::Limits;
use crate::hooks::{About, Event, Outcome};
use crate::runtime::Node;
use crate::telemetry::metrics::{AdmissionRefusal, Limit};

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// 1008: it is known that they may not.
    Denied(Denied),
    /// 1013: whoever knows does not answer, or too many wait for an answer.
    Unavailable,
}

impl From<Denied> for NotAdmitted {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<NotVerified> for NotAdmitted {
    fn from(not: NotVerified) -> Self {
        match not {
            NotVerified::Denied(denied) => Self::Denied(denied),
            NotVerified::Unavailable => Self::Unavailable,
        }
    }
}

impl Node {
    /// The verdict on a request for a socket whose Origin was found good. At once, unless somebody else has to be asked.
    ///
    /// # Cancel safety
    /// Dropping it ends the waiting. A ticket may be used up then.
    pub async fn admit(&self, parts: &Parts, origin: OriginVerdict, address: IpAddr) -> Result<Admitted, NotAdmitted> {
        let admitted = self.identify(parts, origin, address).await?;
        self.asked_to_open(parts, admitted).await
    }

    /// Who a request is from, whatever it is for.
    ///
    /// # Cancel safety
    /// As [`Node::admit`].
    pub async fn identify(
        &self,
        parts: &Parts,
        origin: OriginVerdict,
        address: IpAddr,
    ) -> Result<Admitted, NotAdmitted> {
        match self.policy.shown(parts, origin)? {
            // A token is judged at once, or waits for keys, in a line and a time of its own.
            Shown::Token(token, place) => {
                let verified = match self.policy.verify(&token, auth::now()) {
                    Err(denied) if self.policy.would_wait(&token, denied) => {
                        self.require_patience(address, denied.word())?;
                        self.policy.verify_patiently(&token, address).await?
                    }
                    verdict => verdict?,
                };
                Ok(verified.at(place))
            }
            Shown::Ticket(ticket) => {
                self.require_patience(address, DeniedWord::TicketUsed)?;
                let origin = Policy::origin_of(parts);
                let redeemed = self.tickets.redeem(&ticket, origin.as_deref(), &self.policy);
                self.in_line(&self.tickets_waiting, redeemed).await
            }
            Shown::Nothing(denied) => {
                let Some(forward) = &self.forward else {
                    return Err(denied.into());
                };
                let Some(question) = forward.question(parts, origin)? else {
                    return Err(denied.into());
                };
                self.require_patience(address, DeniedWord::TokenMissing)?;
                let vouched = async {
                    let verified = forward.ask(question, &self.policy).await?;
                    Ok(self.policy.admit_vouched(verified, auth::now())?)
                };
                self.in_line(&self.forward_waiting, vouched).await
            }
        }
    }

    /// Waits for somebody else's word, while there are not too many who do, and not for long.
    async fn in_line(
        &self,
        line: &Waiting,
        verdict: impl Future<Output = Result<Admitted, NotAdmitted>>,
    ) -> Result<Admitted, NotAdmitted> {
        let Some(_place) = line.enter() else {
            self.metrics.limit_hit(Limit::AdmissionsWaiting);
            return Err(NotAdmitted::Unavailable);
        };
        timeout(line.time_max, verdict).await.unwrap_or_else(|_| {
            self.metrics.admission_refused(AdmissionRefusal::Unanswered);
            Err(NotAdmitted::Unavailable)
        })
    }

    /// What the application says to a client with a good token, where it is asked.
    async fn asked_to_open(&self, parts: &Parts, admitted: Admitted) -> Result<Admitted, NotAdmitted> {
        let Some(asking) = &self.hooks.asking else {
            return Ok(admitted);
        };
        let Some(hook) = asking.of_open().filter(|_| !admitted.identity().is_probe) else {
            return Ok(admitted);
        };
        let about = About {
            user_json: &admitted.identity().user_json,
            session: None,
            upgrade: None,
            // The span of the upgrade is the current one.
            traceparent: None,
        };
        let origin = Policy::origin_of(parts);
        let place = admitted.place().as_str();
        let question = asking.question(hook, Event::Open, &about, |event| {
            event.optional("origin", origin.as_deref()).text("place", place)
        });
        match question.answer().await {
            Outcome::Allowed(changes) => Ok(match changes.amendment {
                Some(amendment) => admitted.amended(Arc::new(amendment)),
                None => admitted,
            }),
            Outcome::Denied(_) => {
                let detail = "the application does not let it in";
                Err(Denied::new(DeniedWord::Kicked, detail).into())
            }
            Outcome::Unavailable(_) => Err(NotAdmitted::Unavailable),
        }
    }

    /// Nobody else is bothered for an address that is refused too often: as if it were refused once more.
    fn require_patience(&self, address: IpAddr, word: DeniedWord) -> Result<(), NotAdmitted> {
        if self.refusals.are_used_up(address) {
            return Err(Denied::new(word, "refused too often to be looked up").into());
        }
        Ok(())
    }
}

/// Those of whom it is not known yet who they are, by whoever knows: who does not answer is in nobody else's way.
#[derive(Debug)]
pub struct Waiting {
    count: AtomicUsize,
    /// `limits.admissions_waiting`
    count_max: usize,
    /// `limits.admission_time`
    time_max: Duration,
}

/// A place among them, free again when this is dropped.
struct Place<'a>(&'a Waiting);

impl Waiting {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            count: AtomicUsize::new(0),
            count_max: limits.admissions_waiting,
            time_max: limits.admission_time,
        }
    }

    fn enter(&self) -> Option<Place<'_>> {
        let place = Place(self);
        (self.count.fetch_add(1, Relaxed) < self.count_max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::default_config;

    #[test]
    fn places_are_bounded_and_come_back() {
        let waiting = Waiting::new(&Limits {
            admissions_waiting: 2,
            ..default_config().limits
        });
        let (one, _two) = (waiting.enter(), waiting.enter());
        assert!(waiting.enter().is_none());
        assert!(waiting.enter().is_none(), "who was not let in holds nothing");
        drop(one);
        assert!(waiting.enter().is_some());
    }
}
