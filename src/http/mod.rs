//! The HTTP side of the one port, and the operators' listener.

pub mod admin;
pub mod health;
pub mod overloaded;
pub mod pages;
pub mod routes;
pub mod service;
pub mod session;
pub mod ticket;
pub mod upgrade;
