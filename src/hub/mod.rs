//! The rooms on this node: who numbers, keeps and hands on what is said.
//!
//! Knows no socket and no connection: a member is a [`MemberId`], and what is for members goes to the inbox
//! of the shard that has them, under the room's lock, so that all shards see one order.

pub mod directory;
pub mod errands;
pub mod history;
pub mod post;
pub mod presence;
pub mod room;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use directory::Hub;
pub use room::{Glance, Joined, Room};

/// One connection, as the hub knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemberId {
    /// Its number in its shard; used again only after the shard has been told that it is gone.
    pub slot: u32,
    /// Index of the shard that serves it.
    pub shard: u16,
    /// Which of the connections that have had this slot: an answer that comes late finds nobody rather than a stranger.
    pub life: u16,
}

/// The user behind a member.
#[derive(Debug, Clone)]
pub struct User {
    pub id: Arc<str>,
    /// `{"id":…,"name":…,"info":…}`
    pub json: Arc<str>,
}

/// Where a client stood: PROTOCOL.md section 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position<'a> {
    pub epoch: &'a str,
    pub seq: u64,
}
