//! How many connections a user has on all nodes: a message per user and incarnation, among the places of a room that nobody
//! can name, so that they go with the incarnation.
//!
//! A node writes its own count first and reads the others' then. So two at once see each other, and the limit holds; both may
//! be refused.

use std::sync::Arc;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::backplane::contract::{Counted, Incarnation, Presented, Tally};

use super::link::Link;
use super::problem::Problem;
use super::{Nats, TOGETHER};

/// As stored: `{"connections":3}`
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    connections: u32,
}

impl Nats {
    pub(super) async fn count_one(
        &self,
        own: &Incarnation,
        user: &str,
        tally: Tally,
        max: u32,
    ) -> Result<Counted, Problem> {
        let link = self.link()?;
        if self.buried.lock().contains_key(own) {
            return Ok(Counted::Fenced);
        }
        self.note(&link, own, user, tally.connections).await?;
        let names = &self.settings.names;
        let (stream, all) = (names.tallies_stream(user), names.tally("*", user));
        let (subjects, _) = link.subjects(&stream, &all).await?;
        let mut sum = tally.connections;
        for subject in subjects {
            let holder = subject.rsplit('.').nth(1).unwrap_or_default();
            if holder == &**own || self.buried.lock().contains_key(holder) {
                continue;
            }
            let found = link.newest(&stream, &subject).await?;
            let found = found.and_then(|found| serde_json::from_slice::<Stored>(&found.payload).ok());
            sum = sum.saturating_add(found.unwrap_or_default().connections);
        }
        Ok(if sum > max { Counted::Over } else { Counted::Within })
    }

    pub(super) async fn count_again(
        &self,
        own: &Incarnation,
        users: &[(Arc<str>, Tally)],
    ) -> Result<Presented, Problem> {
        let link = self.link()?;
        if self.is_buried(&link, own).await? {
            return Ok(Presented::Fenced);
        }
        let noted = users
            .iter()
            .map(|(user, tally)| self.note(&link, own, user, tally.connections));
        let noted: Vec<_> = futures_util::stream::iter(noted.collect::<Vec<_>>())
            .buffer_unordered(TOGETHER)
            .collect()
            .await;
        noted.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(Presented::Done)
    }

    async fn note(&self, link: &Link, own: &str, user: &str, connections: u32) -> Result<(), Problem> {
        let names = &self.settings.names;
        let subject = names.tally(own, user);
        if connections == 0 {
            return link.purge(&names.tallies_stream(user), &subject).await.map(drop);
        }
        let body = serde_json::to_vec(&Stored { connections }).map_err(|_| Problem::BROKEN)?;
        link.store(subject, HeaderMap::new(), body.into()).await.map(drop)
    }
}
