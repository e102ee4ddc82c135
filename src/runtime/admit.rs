//! Who a request is from, where that may take somebody else's word: bounded in number and in time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::request::Parts;
use tokio::time::timeout;

use crate::auth::{self, Admitted, Denied, NotVerified, OriginVerdict, Shown};
use crate::config::Limits;
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
    /// The verdict on a request whose Origin was found good. At once, unless somebody else has to be asked.
    ///
    /// # Cancel safety
    /// Dropping it ends the waiting. A ticket may be used up then.
    pub async fn admit(&self, parts: &Parts, origin: OriginVerdict, address: IpAddr) -> Result<Admitted, NotAdmitted> {
        // A token is judged at once, or waits for keys, in a line and a time of its own.
        let shown = self.policy.shown(parts, origin)?;
        if let Shown::Token(token, place) = shown {
            return Ok(self.policy.verify_patiently(&token, address).await?.at(place));
        }
        let Some(_place) = self.waiting.enter() else {
            self.metrics.limit_hit(Limit::AdmissionsWaiting);
            return Err(NotAdmitted::Unavailable);
        };
        match timeout(self.waiting.time_max, self.decided(parts, origin, address)).await {
            Ok(verdict) => verdict,
            Err(_) => {
                self.metrics.admission_refused(AdmissionRefusal::Unanswered);
                Err(NotAdmitted::Unavailable)
            }
        }
    }

    async fn decided(&self, parts: &Parts, origin: OriginVerdict, _address: IpAddr) -> Result<Admitted, NotAdmitted> {
        Ok(self.policy.admit(parts, origin, auth::now())?)
    }
}

/// Those of whom it is not known yet who they are.
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
