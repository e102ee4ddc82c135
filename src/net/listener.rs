//! Listening sockets: one per shard over SO_REUSEPORT, and what to do when accept fails.
//!
//! axum-server swallows accept errors behind a 50 ms sleep, so our own listener type counts them and keeps
//! a reserve descriptor: with every descriptor used, a waiting client is taken and closed at once instead
//! of hanging in the backlog until its own timeout.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum_server::{AddrListener, Address};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Limits, Listen, Networks};
use crate::net::permits::{Permit, Permits};
use crate::net::socket::Socket;
use crate::net::{NAMELESS, unix_socket};
use crate::telemetry::metrics::{AcceptError, Metrics};

/// Connections that the kernel finishes while we are busy; it cuts this down to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;
/// Connections taken in a row before this thread does other work: each is some 20 microseconds of system calls.
const ACCEPTS_PER_YIELD: u32 = 2;
/// After an error that only time can mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Why no socket listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{0} is in use by another process: stop it, or choose another port with --listen")]
    InUse(SocketAddr),
    #[error(
        "{0} needs more rights: ports below 1024 take CAP_NET_BIND_SERVICE; listen on 8443 and map the port, or `setcap cap_net_bind_service=+ep` the binary"
    )]
    Forbidden(SocketAddr),
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, io::Error),
}

/// A socket that listens, not yet registered with any runtime.
#[derive(Debug)]
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(StdUnixListener),
}

impl From<std::net::TcpListener> for Bound {
    fn from(socket: std::net::TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

impl Bound {
    /// Where it listens, the port that the system chose included.
    ///
    /// # Errors
    /// The system does not say.
    pub fn place(&self, asked: &Listen) -> io::Result<Listen> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Listen::Tcp),
            Self::Unix(_) => Ok(asked.clone()),
        }
    }
}

/// Opens `count` sockets where clients are served; those of a path are one socket, shared.
///
/// # Errors
/// The place is taken, forbidden, or not ours.
pub fn listen_at(place: &Listen, mode: u32, count: usize) -> anyhow::Result<Vec<Bound>> {
    match place {
        Listen::Tcp(address) => Ok(listen(*address, count)?.into_iter().map(Bound::Tcp).collect()),
        Listen::Unix(path) => {
            let socket = unix_socket::listen(path, mode)?;
            let clones = (1..count).map(|_| socket.try_clone().map(Bound::Unix));
            let mut sockets = clones.collect::<Result<Vec<_>, _>>()?;
            sockets.push(Bound::Unix(socket));
            Ok(sockets)
        }
    }
}

/// Opens `count` sockets on `address`, all on the same port.
///
/// SO_REUSEPORT would let a second instance take a share of the connections without any error, so the
/// address is first bound without it.
///
/// # Errors
/// The address is taken, forbidden, or not ours.
pub fn listen(address: SocketAddr, count: usize) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address),
        io::ErrorKind::PermissionDenied => ListenError::Forbidden(address),
        _ => ListenError::Other(address, error),
    };
    let probe = open(address, false).map_err(explain)?;
    if count == 1 {
        return Ok(vec![probe]);
    }
    let address = probe.local_addr().map_err(explain)?;
    drop(probe);
    (0..count).map(|_| open(address, true).map_err(explain)).collect()
}

fn open(address: SocketAddr, share: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A peer's address, under which axum-server knows our listener.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A connection with the right to be there.
#[derive(Debug)]
pub struct Accepted {
    pub socket: Socket,
    /// None of a peer on our unix socket.
    pub address: Option<SocketAddr>,
    /// Of a proxy it has no address yet.
    pub permit: Permit,
    /// The peer is a proxy, which says first whose connection it is.
    pub is_proxied: bool,
}

impl Address for Peer {
    type Stream = Accepted;
    type Listener = Listener;
}

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    fn new(socket: Bound) -> io::Result<Self> {
        Ok(match socket {
            Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Bound::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// # Cancel safety
    /// Cancel safe.
    async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(socket) => {
                let (socket, address) = socket.accept().await?;
                Ok((Socket::Tcp(socket), Some(address)))
            }
            Self::Unix(socket) => Ok((Socket::Unix(socket.accept().await?.0), None)),
        }
    }

    /// Takes one that waits, and closes it.
    fn turn_one_away(&self) {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        // Pending or failed: then nobody waits, or the descriptor went to somebody else.
        match self {
            Self::Tcp(socket) => drop(socket.poll_accept(&mut cx)),
            Self::Unix(socket) => drop(socket.poll_accept(&mut cx)),
        }
    }
}

/// One shard's listening socket.
pub struct Listener {
    socket: Door,
    /// Proxies that say whose connection it is.
    proxies: Networks,
    /// Proxies that say of each request whose it is.
    forwarders: Networks,
    permits: Arc<Permits>,
    metrics: Arc<Metrics>,
    /// Accepts so far, for [`ACCEPTS_PER_YIELD`].
    accepts: AtomicU32,
    /// Given up for a moment when descriptors run out.
    reserve: Mutex<Option<File>>,
    /// Once cancelled, whoever comes stays in the kernel's queue.
    closed: CancellationToken,
}

impl Listener {
    /// # Errors
    /// The socket cannot be registered with this thread's runtime.
    pub fn new(socket: Bound, config: &Config, permits: Arc<Permits>, metrics: Arc<Metrics>) -> io::Result<Self> {
        match &socket {
            Bound::Tcp(tcp) => {
                tune(&SockRef::from(tcp), &config.limits)?;
                tune_tcp(&SockRef::from(tcp), &config.limits)?;
            }
            Bound::Unix(unix) => tune(&SockRef::from(unix), &config.limits)?,
        }
        Ok(Self {
            socket: Door::new(socket)?,
            forwarders: config.server.forwarded_from.clone(),
            proxies: config.server.proxy_from.clone(),
            permits,
            metrics,
            accepts: AtomicU32::new(0),
            reserve: Mutex::new(reserve()),
            closed: CancellationToken::new(),
        })
    }

    /// Takes nobody any more once `closed` is cancelled; whoever comes then is left for the next one who holds this
    /// socket.
    #[must_use]
    pub fn until(self, closed: CancellationToken) -> Self {
        Self { closed, ..self }
    }

    /// Waits for a connection within the limits; what is over them is closed and counted here.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection is either returned or closed.
    async fn accept_one(&self) -> io::Result<(Accepted, Peer)> {
        loop {
            let before = self.accepts.fetch_add(1, Ordering::Relaxed);
            if before % ACCEPTS_PER_YIELD == ACCEPTS_PER_YIELD - 1 {
                tokio::task::yield_now().await;
            }
            let (socket, address) = self.socket.accept().await?;
            let ip = address.map(|address| address.ip());
            let is_proxied = self.proxies.trust(ip);
            let permit = match ip {
                Some(ip) if !is_proxied && !self.forwarders.trust(Some(ip)) => self.permits.admit(ip),
                _ => self.permits.admit_nameless(),
            };
            match permit {
                Ok(permit) => {
                    let accepted = Accepted {
                        socket,
                        address,
                        permit,
                        is_proxied,
                    };
                    return Ok((accepted, Peer(address.unwrap_or(NAMELESS))));
                }
                Err(refused) => {
                    self.metrics.limit_hit(refused.limit());
                    self.metrics.handshake(refused.result());
                }
            }
        }
    }

    /// Makes room for one descriptor, takes the next waiting client with it, and closes both.
    fn shed_one(&self) {
        let mut reserve_file = self.reserve.lock();
        *reserve_file = None;
        self.socket.turn_one_away();
        *reserve_file = reserve();
    }
}

/// Set on the listening socket, and inherited by every connection before its first byte: no Nagle delay, and
/// small kernel queues, so that a reader that stops costs 64 KiB there and not megabytes (50 stalled readers:
/// 8 MB against 195 MB).
fn tune(socket: &SockRef<'_>, limits: &Limits) -> io::Result<()> {
    if limits.send_buffer > 0 {
        socket.set_send_buffer_size(limits.send_buffer)?;
    }
    Ok(())
}

fn tune_tcp(socket: &SockRef<'_>, limits: &Limits) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if limits.unsent_low_water > 0 {
        socket.set_tcp_notsent_lowat(u32::try_from(limits.unsent_low_water).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

impl AddrListener<Accepted, Peer> for Listener {
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "listeners are opened by `listen`",
        ))
    }

    /// Never fails: a failed accept is counted and tried again.
    async fn accept_stream(&self) -> io::Result<(Accepted, Peer)> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.closed.cancelled() => std::future::pending().await,
                accepted = self.accept_one() => accepted,
            };
            match accepted {
                Ok(accepted) => return Ok(accepted),
                Err(error) if is_out_of_descriptors(&error) => {
                    self.metrics.accept_error(AcceptError::FdLimit);
                    self.shed_one();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // The peer gave up in the backlog: nothing is wrong here.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    self.metrics.accept_error(AcceptError::Other);
                }
                Err(error) => {
                    self.metrics.accept_error(AcceptError::Other);
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        match &self.socket {
            Door::Tcp(socket) => socket.local_addr().map(Peer),
            Door::Unix(_) => Ok(Peer(NAMELESS)),
        }
    }
}
