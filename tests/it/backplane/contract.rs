//! Every promise of `backplane::contract`, one function each, kept by every engine.
//!
//! A promise that an engine cannot give is left out by its [`Capabilities`], never by its name. One test is a group of
//! promises on one set of servers.
//!
//! [`Capabilities`]: conclave::backplane::contract::Capabilities

mod away;
mod control;
mod counts;
mod directory;
mod keys;

mod lives;
mod log;
mod once;
mod outbox;
mod presence;
mod repair;
mod trim;

use super::engines::{Engine, Kind};

/// Tests of one engine, a group of promises each.
macro_rules! engine {
    ($name:ident, $kind:expr) => {
        mod $name {
            use super::*;

            engine! { groups $kind; log keys repair trim presence lives directory counts control once outbox away }
        }
    };
    (groups $kind:expr; $($group:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $group() {
                let mut engine = Engine::start($kind).await;
                super::$group::all(&mut engine).await;
            }
        )*
    };
}

engine!(memory, Kind::Memory);
engine!(redis, Kind::Redis);
engine!(redis_locked, Kind::RedisLocked);
engine!(sentinel, Kind::Sentinel);
engine!(cluster, Kind::Cluster);
engine!(nats, Kind::Nats);

/// Runs promises in turn, and says which one is tried, so that a failure names it.
macro_rules! promises {
    ($($promise:ident)*) => {
        pub async fn all(engine: &mut super::Engine) {
            $(
                eprintln!("promise: {}", stringify!($promise));
                $promise(engine).await;
            )*
        }
    };
}
use promises;
