//! The admin listener as the verbs ask it: plain HTTP, a few seconds, no proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;

/// From the start of the connection to the end of the answer.
pub const LIMIT: Duration = Duration::from_secs(3);

/// Where it listens by default.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9464";

/// A listener on every address is asked over loopback.
pub fn url(admin_listen: SocketAddr) -> String {
    let address = match admin_listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(address, admin_listen.port()))
}

/// What asks it.
///
/// # Errors
/// The system lacks something that every HTTP client needs.
pub fn client() -> anyhow::Result<reqwest::blocking::Client> {
    reqwest::blocking::Client::builder()
        .timeout(LIMIT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // No TLS here, and an image without a certificate store must not fail on loading one.
        .tls_certs_only([])
        .build()
        .context("the HTTP client could not be built")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_over_loopback() {
        assert_eq!(url("0.0.0.0:9464".parse().unwrap()), DEFAULT_URL);
        assert_eq!(url("[::]:1".parse().unwrap()), "http://[::1]:1");
        assert_eq!(url("10.0.0.1:1".parse().unwrap()), "http://10.0.0.1:1");
    }
}
