//! What is said in words: the JSON of PROTOCOL.md, in both directions, and nothing else.
//!
//! Pure: no I/O, no clock, no task. [`client::parse`] runs once per message that comes in and [`server::Chat`] is
//! written once per broadcast, so neither allocates where it can borrow.

pub mod client;
pub mod close;
pub mod error;
pub mod room;
pub mod server;
