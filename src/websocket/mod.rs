//! Bytes to messages and back, RFC 6455 as a server sees it (RFC 8441 for the handshake on HTTP/2).
//!
//! Nothing in here reads a socket, a clock or the configuration: `handshake` looks at a request's head,
//! `assembler` turns what was read into [`Event`]s, `frame` writes what will be sent. No extension is
//! offered, so a frame that uses one is a [`Violation`].

pub mod assembler;
pub mod encoded;
pub mod frame;
pub mod handshake;

pub use assembler::{Assembler, Bounds, Event};
pub use frame::{Opcode, Violation, close_frame, write_frame, write_header};
pub use handshake::{Handshake, Refused};
