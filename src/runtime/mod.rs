//! The process: what all its parts share, its threads and tasks, and the phases of its end.

mod admit;
mod cluster;
pub mod drain;
mod node;
mod rates;
mod serve;
pub mod supervisor;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;
mod top_rooms;

pub use crate::backplane::directory::{NodeFacts, TopRoom};
pub use admit::{NotAdmitted, Waiting};
pub use cluster::Cluster;
pub use drain::Drain;
pub use node::Node;
pub use rates::{Ceilings, Exceeded, Rate};
pub use serve::{Ready, Start, run};
pub use tasks::Tasks;
pub use top_rooms::{TOP_ROOMS, TopRooms};

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch: the clock that clients see.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
