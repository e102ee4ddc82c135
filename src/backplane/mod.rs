//! Rooms across nodes: one contract, three engines, and what is the same for all of them.

pub mod contract;
pub mod envelope;
pub mod lineage;
pub mod partition;
pub mod redis;
