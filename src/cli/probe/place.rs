//! Where a probe goes: a URL, and what `--resolve` says of its name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use rustls::pki_types::ServerName;

/// A server's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Lower case, without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl Place {
    /// Reads `wss://host[:port][/path]`. What is refused is not repeated: somebody may have put a token into it.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| "this is no URL")?;
        match uri.scheme_str() {
            Some("wss") => {}
            Some("ws" | "http") => return Err("expected wss://: Conclave speaks TLS only, and so does its probe"),
            _ => return Err("expected wss://"),
        }
        if uri.query().is_some() {
            return Err("no query here; a token belongs into --token-file");
        }
        let authority = uri.authority().ok_or("the host is missing")?;
        if authority.as_str().contains('@') {
            return Err("no user or password here; a token belongs into --token-file");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if ServerName::try_from(host).is_err() {
            return Err("the host is neither a name nor an address");
        }
        let port = match authority.port_u16() {
            Some(port @ 1..) => port,
            None if authority.as_str() == authority.host() => 443,
            _ => return Err("the port is not one of 1 to 65535"),
        };
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
            path: match uri.path() {
                "" | "/" => "/ws".to_owned(),
                path => path.to_owned(),
            },
        })
    }

    /// `host`, or `host:port` where the port is not 443.
    pub fn authority(&self) -> String {
        let host = match self.host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        };
        if self.port == 443 {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// For the TLS handshake.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wss://{}{}", self.authority(), self.path)
    }
}

/// One `--resolve HOST:PORT:ADDRESS`, as curl has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    host: String,
    port: u16,
    address: IpAddr,
}

impl Resolve {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.splitn(3, ':');
        let (Some(host), Some(port), Some(address)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("expected HOST:PORT:ADDRESS, such as chat.example.com:443:10.0.0.7");
        };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port: port.parse().map_err(|_| "the port is no number of 1 to 65535")?,
            address: address.parse().map_err(|_| "the last part is no IP address")?,
        })
    }

    /// The address for this place, if it is about it.
    pub fn of(&self, place: &Place) -> Option<SocketAddr> {
        (self.host == place.host && self.port == place.port).then_some(SocketAddr::new(self.address, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_people_write_them() {
        for (url, shown) in [
            ("wss://Chat.Example.com", "wss://chat.example.com/ws"),
            ("wss://chat.example.com:443/", "wss://chat.example.com/ws"),
            ("wss://127.0.0.1:8443/ws", "wss://127.0.0.1:8443/ws"),
            ("wss://[::1]:8443/a/ws", "wss://[::1]:8443/a/ws"),
        ] {
            assert_eq!(Place::parse(url).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "chat.example.com",
            "ws://chat.example.com/ws",
            "https://chat.example.com/ws",
            "wss://chat.example.com/ws?token=canary",
            "wss://user:canary@chat.example.com/ws",
            "wss://a_b c/ws",
            "wss://chat.example.com:0/ws",
            "wss://chat.example.com:99999/ws",
        ] {
            assert!(!Place::parse(bad).unwrap_err().contains("canary"), "{bad}");
        }
    }

    #[test]
    fn a_name_may_be_resolved_by_hand() {
        let place = Place::parse("wss://chat.example.com/ws").unwrap();
        let four = Resolve::parse("chat.example.com:443:127.0.0.1").unwrap();
        assert_eq!(four.of(&place), Some("127.0.0.1:443".parse().unwrap()));
        let six = Resolve::parse("CHAT.example.com:443:[::1]").unwrap();
        assert_eq!(six.of(&place), Some("[::1]:443".parse().unwrap()));
        assert_eq!(Resolve::parse("chat.example.com:8443:::1").unwrap().of(&place), None);
        for bad in ["x", "a:1", "a:x:1.2.3.4", "a:1:b"] {
            assert!(Resolve::parse(bad).is_err(), "{bad}");
        }
    }
}
