//! Who is where.

use std::time::Duration;

use super::super::contract::{Change, Failed, Incarnation, Presented, Refusal, Renewal, RoomKey, Users};
use super::Redis;

impl Redis {
    /// [`super::Backplane::users`]
    pub(super) async fn read_users(&self, _room: &RoomKey) -> Result<Users, Failed> {
        Ok(Users::default())
    }

    /// [`super::Backplane::present`]
    pub(super) async fn move_users(&self, _: &Incarnation, _: &[Change]) -> Result<Presented, Failed> {
        Err(Refusal::Away.into())
    }

    /// [`super::Backplane::assert_held`]
    pub(super) async fn move_users_to(&self, _: &Incarnation, _: &[Change]) -> Result<Presented, Failed> {
        Err(Refusal::Away.into())
    }

    /// [`super::Backplane::renew`]
    pub(super) async fn renew_lease(&self, _: &Incarnation, _: bool, _: Duration) -> Result<Renewal, Failed> {
        Err(Refusal::Away.into())
    }

    /// [`super::Backplane::reap`]
    pub(super) async fn bury(&self, _: &Incarnation) -> Result<bool, Failed> {
        Err(Refusal::Away.into())
    }

    /// [`super::Backplane::resign`]
    pub(super) async fn give_back(&self, _: &Incarnation) -> Result<(), Failed> {
        Err(Refusal::Away.into())
    }
}
