//! What is used once.

use std::time::Duration;

use bytes::Bytes;

use super::super::contract::{Failed, Refusal};
use super::Redis;

impl Redis {
    /// [`super::Backplane::put`]
    pub(super) async fn put_once(&self, _: &str, _: &[u8], _: Duration) -> Result<bool, Failed> {
        Err(Refusal::Away.into())
    }

    /// [`super::Backplane::take`]
    pub(super) async fn take_once(&self, _: &str) -> Result<Option<Bytes>, Failed> {
        Err(Refusal::Away.into())
    }
}
