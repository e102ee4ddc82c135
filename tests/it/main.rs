//! Conclave from outside: the real binary as a child process, spoken to in bytes.
//!
//! One file per behaviour. `harness` starts a node on free loopback ports and has a small WebSocket client of
//! its own, which knows nothing of the server's codec and can say things that no proper client would.

#![allow(
    clippy::pedantic,
    clippy::type_complexity,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "the server's rules are not its tests': what fails here fails a test"
)]

mod harness;

mod acme;
mod activation;
mod admin;
mod admission;
mod api;
mod api_door;
mod backplane;
mod behind;
mod check_config;
mod classes;
mod client_certificates;
mod drain;
mod echo;
mod forward;
mod heartbeat;
mod history;
mod hooks;
mod hostile;
mod http;
mod jwks;
mod limits;
mod presence;
mod probe;
mod proxy;
mod recovery;
mod reload;
mod revocation;
mod rooms;
mod runtime;
mod secrets;
mod shutdown;
mod slow_reader;
mod storm;
mod telemetry;
mod ticket;
mod tls;
mod traces;
