//! Values that are to be used once. The store itself refuses a second value of a name, and removes a message once: both
//! on every copy of the stream alike, so of two who put and of two who take one succeeds.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::backplane::contract::{Failed, Refusal};

use super::Nats;
use super::clock::millis;
use super::layout::ONCE_AGE_S;
use super::problem::Problem;

/// Times that a value is put while others come and go under its name.
const TRIES: usize = 4;

/// Before each value: when its life ends, in ms since the Unix epoch, big-endian.
const UNTIL_BYTES: usize = 8;

impl Nats {
    /// A life of more than a day is one of a day.
    pub(super) async fn put_once(&self, name: &str, value: &[u8], lifetime: Duration) -> Result<bool, Problem> {
        let link = self.link()?;
        let names = &self.settings.names;
        let (stream, subject) = (names.stream("once"), names.once(name));
        let life_ms = millis(lifetime.min(Duration::from_secs(ONCE_AGE_S)));
        let mut body = BytesMut::with_capacity(UNTIL_BYTES + value.len());
        body.put_u64(self.clock.now_ms().saturating_add(life_ms));
        body.put_slice(value);
        let body = body.freeze();
        for _ in 0..TRIES {
            match link.store(subject.clone(), HeaderMap::new(), body.clone()).await {
                Ok(_) => return Ok(true),
                Err(Problem::Api(error)) if error.is_taken() => {}
                Err(problem) => return Err(problem),
            }
            match link.newest(&stream, &subject).await? {
                Some(old) if self.is_over(&old.payload) => drop(link.remove(&stream, old.seq).await?),
                Some(_) => return Ok(false),
                None => {}
            }
        }
        Err(Failed::Refused(Refusal::Away).into())
    }

    pub(super) async fn get_kept(&self, name: &str) -> Result<Option<Bytes>, Problem> {
        let link = self.link()?;
        let names = &self.settings.names;
        let found = link.newest(&names.stream("once"), &names.once(name)).await?;
        let alive = found.filter(|found| !self.is_over(&found.payload));
        Ok(alive.map(|found| found.payload.slice(UNTIL_BYTES..)))
    }

    /// An answer that is lost takes the value with it.
    pub(super) async fn take_once(&self, name: &str) -> Result<Option<Bytes>, Problem> {
        let link = self.link()?;
        let names = &self.settings.names;
        let stream = names.stream("once");
        let Some(found) = link.newest(&stream, &names.once(name)).await? else {
            return Ok(None);
        };
        let taken = link.remove(&stream, found.seq).await?;
        let alive = taken && !self.is_over(&found.payload);
        Ok(alive.then(|| found.payload.slice(UNTIL_BYTES..)))
    }

    fn is_over(&self, stored: &Bytes) -> bool {
        // What is too short was written by something else.
        stored.len() < UNTIL_BYTES || stored.clone().get_u64() < self.clock.now_ms()
    }
}
