//! The engines, each with the servers that it needs, made for one test.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use conclave::backplane::connect;
use conclave::backplane::contract::Backplane;
use conclave::backplane::memory::Memory;
use conclave::backplane::url::BackplaneUrl;
use conclave::config::{BackplaneKind, Config, Kept, default_config};
use conclave::telemetry::metrics::{BuildInfo, Metrics};
use tempfile::TempDir;

use super::peer::{LONG, Peer};
use crate::harness::tls::Certificate;
use crate::harness::{NatsServer, Redis, RedisCluster, Sentinels, redis};

/// Which engine, on which servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    /// One server.
    Redis,
    /// One server, over TLS, as a user who may do no more than it must, in a database of its own.
    RedisLocked,
    Sentinel,
    Cluster,
    Nats,
}

/// An engine with its servers, which end with it.
pub struct Engine {
    pub servers: Servers,
    /// Every pair of nodes has a prefix of its own.
    pairs: AtomicU64,
}

pub enum Servers {
    None,
    Redis(Redis),
    Locked { server: Redis, folder: TempDir },
    Sentinels(Sentinels),
    Cluster(RedisCluster),
    Nats(NatsServer),
}

impl Engine {
    pub async fn start(kind: Kind) -> Self {
        let servers = match kind {
            Kind::Memory => Servers::None,
            Kind::Redis => Servers::Redis(redis().aof("always").start().await),
            Kind::RedisLocked => locked().await,
            Kind::Sentinel => Servers::Sentinels(Sentinels::start().await),
            Kind::Cluster => Servers::Cluster(RedisCluster::start().await),
            Kind::Nats => Servers::Nats(NatsServer::start().await),
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
        let [first, second] = self.planes(&config);
        [Peer::start(first).await, Peer::start(second).await]
    }

    /// For nodes that share rooms with no others.
    pub fn config(&self) -> Config {
        let mut config = default_config();
        let pair = self.pairs.fetch_add(1, Ordering::Relaxed);
        let backplane = &mut config.backplane;
        backplane.prefix = format!("suite-{pair}");
        backplane.connect_timeout = LONG;
        backplane.call_timeout = LONG;
        let url = match &self.servers {
            Servers::None => return config,
            Servers::Redis(server) => server.url(),
            Servers::Locked { server, folder } => {
                backplane.ca_file = Some(folder.path().join("ca.crt"));
                format!("rediss://rooms:s%40cret@{}/3", server.tls_address())
            }
            Servers::Sentinels(sentinels) => sentinels.url(),
            Servers::Cluster(cluster) => cluster.url(),
            Servers::Nats(server) => server.url(),
        };
        backplane.kind = match &self.servers {
            Servers::Nats(_) => BackplaneKind::Nats,
            _ => BackplaneKind::Redis,
        };
        backplane.kept = Kept::Async;
        backplane.url = BackplaneUrl::parse(&url).expect("a URL of ours");
        config
    }

    fn planes(&self, config: &Config) -> [Arc<dyn Backplane>; 2] {
        if let Servers::None = self.servers {
            let memory = Memory::new(config);
            return [memory.node(), memory.node()];
        }
        [(); 2].map(|()| node(config))
    }
}

/// A node's engine, as the server makes it.
pub fn node(config: &Config) -> Arc<dyn Backplane> {
    connect(config, metrics())
        .expect("it can be set up")
        .expect("it spans nodes")
}

/// One for all tests: nobody reads them here.
fn metrics() -> &'static Arc<Metrics> {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    METRICS.get_or_init(|| {
        Metrics::install(BuildInfo {
            version: "test",
            revision: "test",
            rustc: "test",
            backplane: "memory",
        })
    })
}

/// The user `rooms` has exactly the permissions that a refusal at the start tells the operator to give.
async fn locked() -> Servers {
    let (certificate, folder) = (Certificate::new(), tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("ca.crt"), &certificate.pem).expect("a file");
    let mut server = redis().tls(certificate).start().await;
    let rules = "~suite-*:* &suite-*:* +@all -@dangerous +info +role +config|get +client +cluster|slots +cluster|info";
    let mut words = vec!["ACL", "SETUSER", "rooms", "reset", "on", ">s@cret"];
    words.extend(rules.split(' '));
    server.cli(&words).await;
    server.lock("of the operator").await;
    Servers::Locked { server, folder }
}
