//! http
pub mod pages;
