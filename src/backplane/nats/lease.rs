//! Leases: a message per incarnation that its node stores again and again. All times are the server's.
//!
//! A burial is a message of its own that no renewal can overwrite: whoever renews looks for it afterwards, so of a renewal
//! and a burial at the same time the burial wins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::backplane::contract::{Advertised, Failed, Incarnation, Renewal};

use super::api::Info;
use super::clock::{local_ms, millis};
use super::link::Link;
use super::names::STREAMS;
use super::problem::Problem;
use super::stored::Stored;
use super::{Nats, TOGETHER};

/// How long a burial is kept: what a dead node had on its way has arrived by then, or never will.
const BURIAL_AGE: Duration = Duration::from_secs(3_600);

/// As stored: `{"lease_ms":10000}`
#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    lease_ms: u64,
}

impl Nats {
    pub(super) async fn renew_lease(
        &self,
        own: &Incarnation,
        begin: bool,
        lease: Duration,
    ) -> Result<Renewal, Problem> {
        let link = self.link()?;
        let (stream, subject) = self.lease_of(own);
        let before = link.newest(&stream, &subject).await?;
        if !begin
            && before
                .as_ref()
                .is_none_or(|before| has_ended(before, self.clock.now_ms()))
        {
            return Ok(Renewal::Expired);
        }
        let body = serde_json::to_vec(&Lease {
            lease_ms: millis(lease),
        })
        .map_err(|_| Problem::BROKEN)?;
        let sent_ms = local_ms();
        let last = before.as_ref().map_or(0, |before| before.seq);
        let stored = link.store_after(subject.clone(), last, body.into()).await;
        let acknowledged_ms = local_ms();
        match stored {
            Ok(_) => {}
            // An earlier renewal whose answer was lost: whether it came in time is for the next one to say.
            Err(problem) if problem.is_conflict() => return Err(Failed::Unknown.into()),
            Err(problem) => return Err(problem),
        }
        let Some(now) = link.newest(&stream, &subject).await? else {
            return Ok(Renewal::Expired);
        };
        self.clock.learn(sent_ms, acknowledged_ms, now.stored_ms);
        // This node's idea of the server's clock was only an idea: the two times are the server's own.
        let ended = !begin && before.is_some_and(|before| has_ended(&before, now.stored_ms));
        if ended || self.is_buried(&link, own).await? {
            return Ok(Renewal::Expired);
        }
        self.peers(&link, now.stored_ms).await
    }

    /// Who else has a lease, at this time of the server.
    async fn peers(&self, link: &Link, now_ms: u64) -> Result<Renewal, Problem> {
        let names = &self.settings.names;
        let stream = names.stream("state");
        let (burials, _) = link.subjects(&stream, &names.burial("*")).await?;
        self.hear_burials(burials.iter().filter_map(|subject| last_word(subject)));
        self.exhume(link).await?;
        let (leases, info) = link.subjects(&stream, &names.lease("*")).await?;
        let asked: Vec<_> = leases.iter().map(|subject| link.newest(&stream, subject)).collect();
        let asked: Vec<_> = futures_util::stream::iter(asked).buffered(TOGETHER).collect().await;
        let (mut nodes, mut expired) = (Vec::new(), Vec::new());
        for lease in asked {
            let Some((lease, incarnation)) = lease?.and_then(|lease| Some((last_word(&lease.subject)?, lease))) else {
                continue;
            };
            let is_dead = has_ended(&incarnation, now_ms) || self.buried.lock().contains_key(&lease);
            if is_dead { &mut expired } else { &mut nodes }.push(lease);
        }
        Ok(Renewal::Alive {
            server: server_of(link, &info),
            nodes,
            expired,
        })
    }

    pub(super) async fn advertise_facts(&self, own: &Incarnation, facts: &[u8]) -> Result<Vec<Advertised>, Problem> {
        let link = self.link()?;
        let names = &self.settings.names;
        let stream = names.stream("state");
        let lease = link.newest(&stream, &names.lease(own)).await?;
        let is_alive = lease.is_some_and(|lease| !has_ended(&lease, self.clock.now_ms()));
        if is_alive && !self.buried.lock().contains_key(own) {
            let facts = Bytes::copy_from_slice(facts);
            link.store(names.facts(own), HeaderMap::new(), facts).await?;
        }
        let (known, _) = link.subjects(&stream, &names.facts("*")).await?;
        let asked: Vec<_> = known.iter().map(|subject| link.newest(&stream, subject)).collect();
        let asked: Vec<_> = futures_util::stream::iter(asked).buffered(TOGETHER).collect().await;
        let mut advertised = Vec::with_capacity(asked.len());
        for facts in asked {
            let Some((incarnation, facts)) = facts?.and_then(|facts| Some((last_word(&facts.subject)?, facts))) else {
                continue;
            };
            if self.buried.lock().contains_key(&incarnation) {
                // It was written while its node was buried.
                link.purge(&stream, &names.facts(&incarnation)).await?;
            } else {
                advertised.push((incarnation, facts.payload));
            }
        }
        Ok(advertised)
    }

    /// Buries only whose lease has ended, however it was asked for.
    pub(super) async fn reap_dead(&self, dead: &Incarnation) -> Result<bool, Problem> {
        let link = self.link()?;
        let (stream, subject) = self.lease_of(dead);
        let lease = link.newest(&stream, &subject).await?;
        let ended = lease.is_none_or(|lease| has_ended(&lease, self.clock.now_ms()));
        if ended || self.is_buried(&link, dead).await? {
            let users = self.bury(dead).await?;
            self.metrics.presence().reaped(users);
        }
        Ok(true)
    }

    /// The burial first, so that nobody counts what is still there or comes late; the lease last, so that another node
    /// goes on if this one cannot. How many users were held.
    async fn bury(&self, dead: &Incarnation) -> Result<u64, Problem> {
        let link = self.link()?;
        let names = &self.settings.names;
        link.store(names.burial(dead), HeaderMap::new(), Bytes::new()).await?;
        self.hear_burials([Arc::clone(dead)]);
        let users = self.clear(&link, dead).await?;
        let (stream, lease) = self.lease_of(dead);
        link.purge(&stream, &names.facts(dead)).await?;
        link.purge(&stream, &lease).await?;
        Ok(users)
    }

    async fn clear(&self, link: &Link, dead: &str) -> Result<u64, Problem> {
        let mut users = 0;
        for stream in 0..STREAMS {
            let names = &self.settings.names;
            users += link
                .purge(&names.users_stream(stream), &names.held(stream, dead))
                .await?;
        }
        Ok(users)
    }

    pub(super) async fn resign_lease(&self, own: &Incarnation) -> Result<(), Problem> {
        self.bury(own).await.map(drop)
    }

    /// Forgets a burial that is old enough, and whatever came to that incarnation after all.
    async fn exhume(&self, link: &Link) -> Result<(), Problem> {
        let old = {
            let buried = self.buried.lock();
            let old = buried.iter().find(|(_, since)| since.elapsed() > BURIAL_AGE);
            old.map(|(incarnation, _)| Arc::clone(incarnation))
        };
        let Some(old) = old else {
            return Ok(());
        };
        self.clear(link, &old).await?;
        let names = &self.settings.names;
        link.purge(&names.stream("state"), &names.burial(&old)).await?;
        self.buried.lock().remove(&old);
        Ok(())
    }

    /// Incarnations that were buried before this link was made.
    pub(super) async fn read_burials(&self, link: &Link) -> Result<(), Problem> {
        let names = &self.settings.names;
        let (burials, _) = link.subjects(&names.stream("state"), &names.burial("*")).await?;
        // Those that somebody forgot meanwhile: an incarnation is never used again.
        let forgotten = |since: &Instant| since.elapsed() > 2 * BURIAL_AGE;
        self.buried.lock().retain(|_, since| !forgotten(since));
        self.hear_burials(burials.iter().filter_map(|subject| last_word(subject)));
        Ok(())
    }

    fn lease_of(&self, incarnation: &str) -> (String, String) {
        let names = &self.settings.names;
        (names.stream("state"), names.lease(incarnation))
    }
}

/// Whether a lease had run out at this time of the server.
fn has_ended(lease: &Stored, now_ms: u64) -> bool {
    // One that cannot be read is nobody's.
    let lease_ms = serde_json::from_slice(&lease.payload).map_or(0, |lease: Lease| lease.lease_ms);
    now_ms.saturating_sub(lease.stored_ms) > lease_ms
}

/// Who numbered it: where one server stands alone, its start; else the leader of the stream.
fn server_of(link: &Link, info: &Info) -> Arc<str> {
    let leader = info.cluster.as_ref().and_then(|cluster| cluster.leader.as_deref());
    match leader {
        Some(leader) if link.clustered => leader.into(),
        _ => Arc::clone(&link.server),
    }
}

pub(super) fn last_word(subject: &str) -> Option<Incarnation> {
    subject.rsplit('.').next().map(Into::into)
}
