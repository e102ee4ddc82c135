//! TCP and TLS: from a listening socket to a decrypted byte stream that hyper can drive.

pub mod acceptor;
pub mod acme;
pub mod admission;
pub mod certificates;
pub mod idle;
pub mod inherited;
pub mod listener;
pub mod permits;
pub mod proxy_protocol;
pub mod tls_io;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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

/// What counts as one address in limits: an IPv4 address, or an IPv6 /64, since that is what one
/// subscriber is given (RFC 6177).
#[must_use]
pub fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}
