//! http

pub mod session;
