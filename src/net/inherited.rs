//! Listening sockets that somebody else opened and keeps: systemd's socket activation (sd_listen_fds(3)).
//!
//! While the service restarts, connections wait in the kernel's queue instead of being refused. All shards take from
//! that one queue: sockets of our own beside it (SO_REUSEPORT) would be closed with whoever waits there.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::net::listener::BACKLOG;

/// Name of the socket for clients (`FileDescriptorName=`).
pub const MAIN: &str = "main";
/// Name of the socket for operators.
pub const ADMIN: &str = "admin";

/// Why what was handed over cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InheritedError {
    #[error(
        "LISTEN_FDS: two sockets named {0} were handed over, and only one is served\n  help: one ListenStream= per socket unit; \"443\" alone serves IPv4 and IPv6"
    )]
    Twice(&'static str),
    #[error(
        "LISTEN_FDS: {0} sockets without the names \"main\" and \"admin\" were handed over, and at most two are served\n  help: FileDescriptorName=main and FileDescriptorName=admin, each in a socket unit of its own"
    )]
    TooMany(usize),
    #[error("LISTEN_FDS: socket {number} ({name}) cannot be served: {reason}\n  help: ListenStream= with a TCP port")]
    Unusable {
        number: usize,
        name: String,
        reason: String,
    },
}

/// What was handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For clients, instead of `server.listen`.
    pub main: Option<TcpListener>,
    /// For operators, instead of `server.admin_listen`.
    pub admin: Option<TcpListener>,
}

impl Inherited {
    /// Takes the sockets that the environment announces. Call once, before there are threads: the announcement is
    /// removed from the environment, so that no child takes it for its own.
    ///
    /// `names` is the value of `$LISTEN_FDNAMES`. Without the names above the first socket is for clients and the second
    /// one for operators.
    ///
    /// # Errors
    /// What was handed over cannot be served.
    pub fn take(names: Option<&str>) -> Result<Self, InheritedError> {
        let mut sockets = ListenFd::from_env();
        let names: Vec<&str> = names.into_iter().flat_map(|names| names.split(':')).collect();
        let mut inherited = Self::default();
        for (number, place) in assign(sockets.len(), &names)?.into_iter().enumerate() {
            let name = names.get(number).copied().unwrap_or_default();
            let unusable = |error: io::Error| InheritedError::Unusable {
                number,
                name: name.to_owned(),
                reason: error.to_string(),
            };
            let socket = sockets.take_tcp_listener(number).map_err(unusable)?;
            let Some(socket) = socket else { continue };
            prepare(&socket).map_err(unusable)?;
            match place {
                MAIN => inherited.main = Some(socket),
                _ => inherited.admin = Some(socket),
            }
        }
        Ok(inherited)
    }
}

/// What each of `count` sockets is for.
fn assign(count: usize, names: &[&str]) -> Result<Vec<&'static str>, InheritedError> {
    let known = |name: &&str| [MAIN, ADMIN].into_iter().find(|known| known == name);
    let named: Vec<_> = names.iter().take(count).map(known).collect();
    if named.iter().any(Option::is_some) || count > 2 {
        let places: Vec<_> = named.iter().copied().flatten().collect();
        if places.len() != count {
            return Err(InheritedError::TooMany(count));
        }
        for place in [MAIN, ADMIN] {
            if places.iter().filter(|other| **other == place).count() > 1 {
                return Err(InheritedError::Twice(place));
            }
        }
        return Ok(places);
    }
    Ok([MAIN, ADMIN].into_iter().take(count).collect())
}

/// As a socket that we open ourselves.
fn prepare(socket: &TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Again, for the length of its queue: whoever opened it may have thought of fewer.
    SockRef::from(socket).listen(BACKLOG)
}

/// The same socket `count` times, one for each shard.
///
/// # Errors
/// No descriptor is left.
pub fn share(socket: TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut shared = (1..count).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    shared.push(socket);
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(count: usize, names: &[&str], expected: Result<&[&'static str], InheritedError>) {
        let expected = expected.map(<[_]>::to_vec);
        assert_eq!(assign(count, names), expected, "{count} {names:?}");
    }

    #[test]
    fn names_say_what_a_socket_is_for_and_without_them_the_order_does() {
        check(0, &[], Ok(&[]));
        check(1, &[], Ok(&["main"]));
        check(2, &[], Ok(&["main", "admin"]));
        check(1, &["conclave.socket"], Ok(&["main"]));
        check(2, &["unknown", "unknown"], Ok(&["main", "admin"]));
        check(1, &["admin"], Ok(&["admin"]));
        check(2, &["admin", "main"], Ok(&["admin", "main"]));
        check(2, &["main", "main"], Err(InheritedError::Twice("main")));
        check(2, &["main", "metrics"], Err(InheritedError::TooMany(2)));
        check(3, &["a", "b", "c"], Err(InheritedError::TooMany(3)));
        check(3, &["main", "admin", "admin"], Err(InheritedError::Twice("admin")));
    }

    #[test]
    fn a_shared_socket_has_one_queue() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let shared = share(socket, 3).unwrap();
        assert!(shared.len() == 3 && shared.iter().all(|one| one.local_addr().unwrap() == address));
        let _client = std::net::TcpStream::connect(address).unwrap();
        assert!(shared[1].accept().is_ok());
    }
}
