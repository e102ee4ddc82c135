//! Realtime rooms for any web application. The modules, in the order of a message's way:
//!
//! ```text
//! TCP ─ net       accept, permits, deadlines, TLS
//!     ─ http      routes, upgrade          ─ auth        Origin, token → Admitted
//!     ─ websocket frames → messages        ─ protocol    JSON → ClientMessage
//!     ─ connection limits, permissions     ─ hub         a room: order, history, presence
//!     ─ backplane other nodes              ─ shard       inbox → flusher, one per core
//!     ─ connection outbox                  ─ net         encrypt, one send()
//! ```
//!
//! Beside the way: `api` (what an application may ask and say), `hooks` (what we ask and tell it) over `outbound` (how we
//! call anybody), `config` (what the operator decided), `limits` (what nobody decides), `telemetry`, `runtime` (threads,
//! tasks, stopping) and `cli`. README's "How it is built" has the invariants and the reasons.

pub mod api;
pub mod auth;
pub mod backplane;
pub mod cli;
pub mod config;
pub mod connection;
pub mod hooks;
pub mod http;
pub mod hub;
pub mod limits;
pub mod net;
pub mod outbound;
pub mod protocol;
pub mod runtime;
pub mod shard;
pub mod telemetry;
pub mod websocket;
