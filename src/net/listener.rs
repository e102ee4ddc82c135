//! Listening sockets: one per shard over SO_REUSEPORT, and what to do when accept fails.
//!
//! axum-server swallows accept errors behind a 50 ms sleep, so our own listener type counts them and keeps
//! a reserve descriptor: with every descriptor used, a waiting client is taken and closed at once instead
//! of hanging in the backlog until its own timeout.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum_server::{AddrListener, Address};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::config;
use crate::net::permits::{Permit, Permits, Refused};
use crate::telemetry::metrics::{AcceptError, HandshakeResult, Limit, Metrics};

/// Connections that the kernel finishes while we are busy; it cuts this down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
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
    let socket = Socket::new(
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

/// A TCP connection with the right to be there.
#[derive(Debug)]
pub struct Accepted {
    pub socket: TcpStream,
    pub address: SocketAddr,
    pub permit: Permit,
}

impl Address for Peer {
    type Stream = Accepted;
    type Listener = Listener;
}

/// One shard's listening socket.
pub struct Listener {
    socket: TcpListener,
    permits: Arc<Permits>,
    metrics: Arc<Metrics>,
    /// Given up for a moment when descriptors run out.
    reserve: Mutex<Option<File>>,
}

impl Listener {
    /// # Errors
    /// The socket cannot be registered with this thread's runtime.
    pub fn new(
        socket: std::net::TcpListener,
        limits: &config::Limits,
        permits: Arc<Permits>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        tune(&socket, limits)?;
        Ok(Self {
            socket: TcpListener::from_std(socket)?,
            permits,
            metrics,
            reserve: Mutex::new(reserve()),
        })
    }

    /// Waits for a connection within the limits; what is over them is closed and counted here.
    ///
    /// # Cancel safety
    /// Cancel safe: a connection is either returned or closed.
    async fn accept_one(&self) -> io::Result<(Accepted, Peer)> {
        loop {
            let (socket, address) = self.socket.accept().await?;
            match self.permits.admit(address.ip()) {
                Ok(permit) => {
                    return Ok((
                        Accepted {
                            socket,
                            address,
                            permit,
                        },
                        Peer(address),
                    ));
                }
                Err(Refused::Node) => {
                    self.metrics.limit_hit(Limit::Connections);
                    self.metrics.handshake(HandshakeResult::OverLimit);
                }
                Err(Refused::Address) => {
                    self.metrics.limit_hit(Limit::ConnectionsPerAddress);
                    self.metrics.handshake(HandshakeResult::PerAddressLimit);
                }
            }
        }
    }

    /// Makes room for one descriptor, takes the next waiting client with it, and closes both.
    fn shed_one(&self) {
        let mut reserve_file = self.reserve.lock();
        *reserve_file = None;
        let waker = std::task::Waker::noop();
        // Pending or failed: then nobody waits, or the descriptor went to somebody else.
        drop(self.socket.poll_accept(&mut std::task::Context::from_waker(waker)));
        *reserve_file = reserve();
    }
}

/// Set on the listening socket, and inherited by every connection before its first byte: no Nagle delay, and
/// small kernel queues, so that a reader that stops costs 64 KiB there and not megabytes (50 stalled readers:
/// 8 MB against 195 MB).
fn tune(listener: &std::net::TcpListener, limits: &config::Limits) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    if limits.send_buffer > 0 {
        socket.set_send_buffer_size(limits.send_buffer)?;
    }
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
            match self.accept_one().await {
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
        self.socket.local_addr().map(Peer)
    }
}
