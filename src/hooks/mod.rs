//! What we call on a backend: questions whose answer decides (`open`, `join`, `chat`, `call`), and what it is told.
//!
//! `event` is what is sent, `sign` vouches for it, `endpoint` sends it, bounded in time, number and size, and leaves a
//! backend alone that keeps failing (`circuit`). `pattern` says which hook is for which room or call.

pub mod circuit;
pub mod endpoint;
pub mod event;
pub mod pattern;
pub mod sign;

pub use endpoint::{Endpoint, HookFailed};
pub use event::Event;
