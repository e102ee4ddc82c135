//! Revocations and kicks.

use super::super::contract::{Control, Failed, Refusal, Revocation};
use super::Redis;

impl Redis {
    /// [`super::Backplane::tell`]
    pub(super) async fn tell_all(&self, _: &Control) -> Result<(), Failed> {
        Err(Refusal::Away.into())
    }

    /// [`super::Backplane::revocations`]
    pub(super) async fn read_revocations(&self) -> Result<Vec<Revocation>, Failed> {
        Err(Refusal::Away.into())
    }

    /// [`super::Backplane::merge_revocations`]
    pub(super) async fn write_revocations(&self, _: &[Revocation]) -> Result<(), Failed> {
        Err(Refusal::Away.into())
    }

    /// The control log, read on a link of its own from the start on. Cancel safe.
    pub(super) async fn follow_control(self: std::sync::Arc<Self>) {}
}
