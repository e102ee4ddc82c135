//! What the engine is told, in its own terms.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::super::url::Form;
use super::kept::Wait;
use crate::config::classes::Classes;
use crate::config::{self, Config};

/// A server's address, as it was given or told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl Host {
    /// Reads `127.0.0.1:6379`, `[::1]:6379` or, as Redis writes it, `::1:6379`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (name, port) = text.rsplit_once(':')?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        Some(Self {
            name: name.to_owned(),
            port: port.parse().ok().filter(|port| *port > 0)?,
        })
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// Where to look for the servers.
#[derive(Debug, Clone)]
pub(super) enum Places {
    /// One server; one that says `cluster_enabled:1` is asked for the others.
    One(Host),
    /// Sentinels that know where the master of this name is.
    Sentinels { hosts: Vec<Host>, master: String },
    /// Some nodes of a Cluster.
    Cluster(Vec<Host>),
}

/// What an acknowledged message has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Async,
    /// AOF with `appendfsync always`.
    Disk,
    /// So many replicas have it, or it is not acknowledged after this time.
    Replica(Wait),
}

/// The configuration of the engine.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) places: Places,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) sentinel_password: Option<SecretString>,
    pub(super) db: i64,
    pub(super) tls: bool,
    /// PEM roots; none: the system's.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) prefix: String,
    pub(super) kept: Kept,
    pub(super) connect_timeout: Duration,
    pub(super) call_timeout: Duration,
    /// What each room's log keeps, and how long a `key` is remembered.
    pub(super) classes: Classes,
}

impl Settings {
    /// Takes over what was checked already.
    pub(super) fn of(config: &Config) -> Self {
        let backplane = &config.backplane;
        let url = &backplane.url;
        let mut hosts = url.hosts.iter().map(|host| Host {
            name: host.name.clone(),
            port: host.port,
        });
        let places = match &url.form {
            Form::Single => Places::One(hosts.next().expect("a URL has a host")),
            Form::Sentinel { master } => Places::Sentinels {
                hosts: hosts.collect(),
                master: master.clone(),
            },
            Form::Cluster => Places::Cluster(hosts.collect()),
        };
        Self {
            places,
            user: url.user.clone(),
            password: url.password.clone(),
            sentinel_password: backplane.sentinel_password.clone(),
            db: i64::from(url.database),
            tls: url.tls,
            ca_file: backplane.ca_file.clone(),
            prefix: backplane.prefix.clone(),
            kept: match backplane.kept {
                config::Kept::Memory | config::Kept::Async => Kept::Async,
                config::Kept::Disk => Kept::Disk,
                config::Kept::Replica => Kept::Replica(Wait {
                    replicas: backplane.replicas,
                    timeout: backplane.wait_timeout,
                }),
            },
            connect_timeout: backplane.connect_timeout,
            call_timeout: backplane.call_timeout,
            classes: Classes::new(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_they_are_written() {
        for (text, shown) in [
            ("127.0.0.1:6379", Some("127.0.0.1:6379")),
            ("[::1]:6379", Some("[::1]:6379")),
            ("::1:6379", Some("[::1]:6379")),
            ("redis:1", Some("redis:1")),
            ("redis", None),
            ("redis:0", None),
            ("redis:65536", None),
            ("", None),
        ] {
            assert_eq!(
                Host::parse(text).map(|host| host.to_string()).as_deref(),
                shown,
                "{text}"
            );
        }
    }
}
