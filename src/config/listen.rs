//! Where clients are served, and whose word is taken for who they are.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

/// How a path is told from an address: `unix:/run/conclave/conclave.sock`.
pub const UNIX_PREFIX: &str = "unix:";

/// What stands for the peers of a unix socket in a list of networks.
pub const UNIX_WORD: &str = "unix";

/// Longest path of a unix socket (`sun_path` in unix(7), without its final zero byte).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// `server.listen`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    /// The address; none of a unix socket.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether no other machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().is_loopback())
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// Peers that are trusted with something: networks, and whoever may open our unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    pub networks: Vec<IpNet>,
    pub unix: bool,
}

impl Networks {
    /// Whether it names nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether a peer is one of them; `None` is one of the unix socket. An IPv4 peer of an IPv6 socket is known by its
    /// IPv4 address.
    #[must_use]
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|peer| peer.to_canonical()) {
            Some(peer) => self.networks.iter().any(|network| network.contains(&peer)),
            None => self.unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_known_by_network_and_kind() {
        let trusted = Networks {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            unix: false,
        };
        for (peer, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("fd01::1", true),
            ("11.0.0.1", false),
        ] {
            assert_eq!(trusted.trust(Some(peer.parse().unwrap())), expected, "{peer}");
        }
        assert!(!trusted.trust(None));
        assert!(Networks { unix: true, ..trusted }.trust(None));
    }

    #[test]
    fn only_this_machine_reaches_loopback_and_a_path() {
        assert!(Listen::Unix("/run/c.sock".into()).is_local());
        assert!(Listen::Tcp("[::1]:1".parse().unwrap()).is_local());
        assert!(!Listen::Tcp("0.0.0.0:1".parse().unwrap()).is_local());
        assert_eq!(Listen::Unix("/run/c.sock".into()).to_string(), "unix:/run/c.sock");
    }
}
