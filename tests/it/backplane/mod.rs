//! Rooms across nodes: every engine under one suite, on real servers.

mod contract;
mod engines;
mod nats_faults;
mod peer;
mod servers;
