//! What is used once: a value under the hash of its name, so that no secret name is stored.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use super::super::contract::Failed;
use super::script::{Script, script};
use super::{Redis, reply};

static PUT: Script = script!("put");
static GET: Script = script!("get");
static TAKE: Script = script!("take");

impl Redis {
    /// [`super::Backplane::put`]
    pub(super) async fn put_once(&self, name: &str, value: &[u8], lifetime: Duration) -> Result<bool, Failed> {
        let life = lifetime.as_millis().max(1).to_string();
        let answer = self
            .call_ctl(&PUT, &[&self.keys.once(name)], &[value, life.as_bytes()])
            .await?;
        Ok(reply::integer(Some(answer))? == 1)
    }

    /// [`super::Backplane::get`]
    pub(super) async fn get_kept(&self, name: &str) -> Result<Option<Bytes>, Failed> {
        optional(self.call_ctl(&GET, &[&self.keys.once(name)], &[]).await?)
    }

    /// [`super::Backplane::take`]. When the answer is lost, so is the value.
    pub(super) async fn take_once(&self, name: &str) -> Result<Option<Bytes>, Failed> {
        optional(self.call_ctl(&TAKE, &[&self.keys.once(name)], &[]).await?)
    }
}

fn optional(answer: Value) -> Result<Option<Bytes>, Failed> {
    match answer {
        Value::Nil => Ok(None),
        value => reply::bytes(Some(value)).map(Some),
    }
}
