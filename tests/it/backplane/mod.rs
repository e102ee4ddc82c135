//! Rooms across nodes: every engine under one suite, on real servers.

mod servers;
