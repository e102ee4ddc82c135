//! TCP and TLS: from a listening socket to a decrypted byte stream that hyper can drive.

pub mod acceptor;
pub mod acme;
pub mod admission;
pub mod certificates;
pub mod client_io;
pub mod forwarded;
pub mod idle;
pub mod inherited;
pub mod listener;
pub mod permits;
pub mod plain_io;
pub mod proxy_protocol;
pub mod socket;
pub mod tls_io;
pub mod unix_socket;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where systems keep the certificates of the authorities that they trust, in PEM.
pub const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// The client's address, as a request extension: the peer's, or what a trusted proxy said that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// Stands for the address of a client whom nobody has named: on a unix socket, without word of a proxy.
pub const NAMELESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What counts as one address in limits: an IPv4 address, or an IPv6 /64, since that is what one
/// subscriber is given (RFC 6177).
#[must_use]
pub fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}
