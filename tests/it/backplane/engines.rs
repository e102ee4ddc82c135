//! The engines, each with the servers that it needs, made for one test.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use conclave::backplane::connect;
use conclave::backplane::contract::{Backplane, RoomKey};
use conclave::backplane::memory::Memory;
use conclave::backplane::url::BackplaneUrl;
use conclave::config::{BackplaneKind, Config, Kept, default_config};
use conclave::telemetry::metrics::{BuildInfo, Metrics};
use tempfile::TempDir;

use super::peer::{LONG, Peer, eventually};
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
            Kind::Sentinel => Servers::Sentinels(Sentinels::with(|server| server.aof("always")).await),
            Kind::Cluster => Servers::Cluster(RedisCluster::with(|server| server.aof("always")).await),
            Kind::Nats => Servers::Nats(NatsServer::start().await),
        };
        Self {
            servers,
            pairs: AtomicU64::new(0),
        }
    }

    /// Whether servers lie between its nodes.
    pub fn has_servers(&self) -> bool {
        !matches!(self.servers, Servers::None)
    }

    /// Nothing is answered, nothing is lost.
    pub fn freeze(&self) {
        match &self.servers {
            Servers::None => {}
            Servers::Redis(server) | Servers::Locked { server, .. } => server.freeze(),
            Servers::Sentinels(sentinels) => sentinels.servers.iter().for_each(Redis::freeze),
            Servers::Cluster(cluster) => cluster.masters.iter().for_each(Redis::freeze),
            Servers::Nats(server) => server.freeze(),
        }
    }

    pub fn thaw(&self) {
        match &self.servers {
            Servers::None => {}
            Servers::Redis(server) | Servers::Locked { server, .. } => server.thaw(),
            Servers::Sentinels(sentinels) => sentinels.servers.iter().for_each(Redis::thaw),
            Servers::Cluster(cluster) => cluster.masters.iter().for_each(Redis::thaw),
            Servers::Nats(server) => server.thaw(),
        }
    }

    /// Kills what serves `room`, after everything that it took is where it must be.
    pub async fn kill(&mut self, room: &RoomKey) {
        match &mut self.servers {
            Servers::None => {}
            Servers::Redis(server) | Servers::Locked { server, .. } => server.kill(),
            Servers::Sentinels(sentinels) => {
                let master = sentinels.master().await;
                let offset = sentinels.servers[master]
                    .info("replication", "master_repl_offset")
                    .await;
                let caught_up = async |server: &Redis| server.info("replication", "slave_repl_offset").await >= offset;
                eventually("the replica to have it all", async || {
                    caught_up(&sentinels.servers[1 - master]).await.then_some(())
                })
                .await;
                sentinels.servers[master].kill();
            }
            Servers::Cluster(cluster) => {
                let owner = cluster
                    .owner(cluster.slot_of(&format!("{{{}}}", room.partition)).await)
                    .await;
                cluster.masters[owner].kill();
            }
            Servers::Nats(server) => server.kill(),
        }
    }

    /// Has it served again, with everything: by the killed one, or by who takes its place.
    pub async fn revive(&mut self) {
        match &mut self.servers {
            Servers::None => {}
            Servers::Redis(server) | Servers::Locked { server, .. } => server.restart().await,
            Servers::Sentinels(sentinels) => {
                let dead = sentinels.servers.iter().position(|server| !server.is_running());
                let dead = dead.expect("one was killed");
                sentinels.promoted(1 - dead).await;
                sentinels.servers[dead].restart().await;
            }
            Servers::Cluster(cluster) => {
                for master in &mut cluster.masters {
                    if !master.is_running() {
                        master.restart().await;
                    }
                }
                cluster.whole().await;
            }
            Servers::Nats(server) => server.restart().await,
        }
    }

    /// A node that begins, wherever the servers may be; two of one configuration share rooms.
    pub async fn begin(&self, config: &Config) -> Peer {
        Peer::begin(node(config)).await
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
    let mut server = redis().aof("always").tls(certificate).start().await;
    let rules = "~suite-*:* &suite-*:* +@all -@dangerous +info +role +config|get +client +cluster|slots +cluster|info";
    let mut words = vec!["ACL", "SETUSER", "rooms", "reset", "on", ">s@cret"];
    words.extend(rules.split(' '));
    server.cli(&words).await;
    server.lock("of the operator").await;
    Servers::Locked { server, folder }
}
