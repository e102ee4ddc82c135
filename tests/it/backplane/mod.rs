//! Rooms across nodes: every engine under one suite, on real servers.

mod contract;
mod engines;
mod nats_faults;
mod peer;
mod redis_links;
mod redis_log;
mod schedules;
mod servers;
