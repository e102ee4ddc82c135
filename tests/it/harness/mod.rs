//! What the tests stand on: a node as a child process, and clients that speak bytes.
//!
//! ```ignore
//! let node = harness::node().set("limits.messages_per_second", "5").start().await;
//! let mut ann = node.client("ann").await;
//! ann.join("lobby").await;
//! ann.send(json!({"type": "chat", "room": "lobby", "content": "hi"})).await;
//! assert_eq!(ann.until("chat").await["content"], "hi");
//! ```
//!
//! Nothing here sleeps: every wait is for an event, and fails loudly after [`PATIENCE`].

#![allow(dead_code, reason = "a toolbox: not every tool is in use at all times")]

pub mod backend;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod frames;
pub mod http2;
pub mod metrics;
pub mod nats;
pub mod node;
pub mod pebble;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod records;
pub mod redis;
pub mod request;
pub mod sentinel;
pub mod tls;
pub mod token;
pub mod wire;

use std::future::Future;
use std::time::Duration;

pub use client::{Client, Frame};
pub use cluster::RedisCluster;
pub use nats::NatsServer;
pub use node::{Builder, Node, node};
pub use pebble::Pebble;
pub use redis::{Redis, redis};
pub use request::{Answer, Ask};
pub use sentinel::Sentinels;
pub use wire::{Tamper, Wire};

/// How long any event is waited for: long, because the machine may be busy, and a pass never takes it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `event`, which `what` names in the panic.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", PATIENCE.as_secs()),
    }
}

/// Fails the test when a server that it starts is not installed.
pub fn needs(command: &str, package: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(command).is_file());
    assert!(found, "{command} is not in PATH: apt-get install {package}");
}
