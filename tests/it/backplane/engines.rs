//! The engines, each with the servers that it needs, made for one test.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use conclave::backplane::contract::Backplane;
use conclave::backplane::memory::Memory;
use conclave::config::{Config, default_config};

use super::peer::{LONG, Peer};

/// Which engine, on which servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
}

/// An engine with its servers, which end with it.
pub struct Engine {
    servers: Servers,
    /// Every pair of nodes has a prefix of its own.
    pairs: AtomicU64,
}

enum Servers {
    None,
}

impl Engine {
    pub async fn start(kind: Kind) -> Self {
        let servers = match kind {
            Kind::Memory => Servers::None,
        };
        Self {
            servers,
            pairs: AtomicU64::new(0),
        }
    }

    /// Two nodes that share rooms with each other and with no other pair.
    pub async fn pair(&self) -> [Peer; 2] {
        self.pair_with(|_| {}).await
    }

    /// As [`Engine::pair`], with another configuration than the default one.
    pub async fn pair_with(&self, change: impl FnOnce(&mut Config)) -> [Peer; 2] {
        let mut config = self.config();
        change(&mut config);
        let planes = self.planes(&config);
        let [first, second] = planes;
        [Peer::start(first).await, Peer::start(second).await]
    }

    fn config(&self) -> Config {
        let mut config = default_config();
        let pair = self.pairs.fetch_add(1, Ordering::Relaxed);
        config.backplane.prefix = format!("suite-{pair}");
        config.backplane.connect_timeout = LONG;
        config.backplane.call_timeout = LONG;
        config
    }

    fn planes(&self, config: &Config) -> [Arc<dyn Backplane>; 2] {
        match &self.servers {
            Servers::None => {
                let memory = Memory::new(config);
                [memory.node(), memory.node()]
            }
        }
    }
}
