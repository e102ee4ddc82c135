//! The PROXY protocol, versions 1 and 2: a balancer that passes TCP on says first whose connection it is.
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>; sections below are those of that text.
//!
//! Whoever may say so can claim any address, so the header is read from `server.proxy_from` only. There it is
//! required: a missing one would make every client the balancer, and its limits theirs together.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line of version 1, line end included (section 2.1).
const LINE_BYTES_MAX: usize = 107;
/// Before the addresses of version 2: signature, command, family, length (section 2.2).
const PREFIX_BYTES: usize = 16;
/// Longest rest of a version 2 header, addresses and extensions. The protocol has 64 KiB; known extensions (a
/// name, a certificate's subject) take some hundred bytes, and more would only be skipped.
const REST_BYTES_MAX: usize = 4096;
/// What the usual header and the ClientHello behind it take; longer headers make the buffer grow.
const READ_BYTES: usize = 1024;

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a proxy said about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whose connection it is. `None`: the proxy's own (its health check), or of a kind that has no IP address.
    pub source: Option<SocketAddr>,
    /// Bytes that the header takes; what follows is the client's.
    pub length: usize,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("proxy: the connection does not begin with a PROXY header")]
    Missing,
    #[error("proxy: the PROXY header is malformed")]
    Broken,
    #[error("proxy: the PROXY header is too long")]
    TooLong,
}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// Reads the header with which `socket` has to begin. Returns the address in it, and the client's first bytes
/// where they came along.
///
/// # Cancel safety
/// Not cancel safe: what has been read is lost, and the connection with it.
///
/// # Errors
/// [`Malformed`], or the peer left before the header was whole.
pub async fn read(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<(Option<SocketAddr>, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(header) = parse(&bytes)? {
            return Ok((header.source, bytes.split_off(header.length)));
        }
    }
}

/// Reads a header of either version. `Ok(None)`: it may become one, and there is more to come; at most
/// `PREFIX_BYTES + REST_BYTES_MAX` bytes decide.
///
/// # Errors
/// It is none, whatever follows.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if begins(bytes, V1_START) {
        parse_line(bytes)
    } else if begins(bytes, V2_SIGNATURE) {
        parse_binary(bytes)
    } else {
        Err(Malformed::Missing)
    }
}

/// Whether `bytes` begin with `start`, or with as much of it as they could.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let known = bytes.len().min(start.len());
    bytes[..known] == start[..known]
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n`.
fn parse_line(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return match within.len() {
            LINE_BYTES_MAX => Err(Malformed::TooLong),
            _ => Ok(None),
        };
    };
    let line = std::str::from_utf8(&bytes[V1_START.len()..end]).ok();
    let line = line.and_then(|line| line.strip_suffix('\r')).ok_or(Malformed::Broken)?;
    let (family, addresses) = line.split_once(' ').unwrap_or((line, ""));
    let source = match family {
        // Section 2.1: whatever follows is to be ignored.
        "UNKNOWN" => None,
        _ => Some(source_in_line(family, addresses).ok_or(Malformed::Broken)?),
    };
    Ok(Some(Header {
        source,
        length: end + 1,
    }))
}

/// The source, if the destination is well formed too.
fn source_in_line(family: &str, addresses: &str) -> Option<SocketAddr> {
    let address: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return None,
    };
    let mut words = addresses.split(' ');
    let [source, _destination] = [address(words.next()?)?, address(words.next()?)?];
    let [source_port, _destination_port] = [port(words.next()?)?, port(words.next()?)?];
    words.next().is_none().then(|| SocketAddr::new(source, source_port))
}

/// Digits without a zero in front (section 2.1); `parse` alone would take `+80` too.
fn port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    is_plain.then(|| text.parse().ok())?
}

/// Version 2: signature, version and command, family and protocol, length, addresses, extensions.
fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let after_signature = bytes.get(V2_SIGNATURE.len()..).unwrap_or_default();
    let &[command, family, high, low, ref rest @ ..] = after_signature else {
        return Ok(None);
    };
    let rest_bytes = usize::from(u16::from_be_bytes([high, low]));
    if rest_bytes > REST_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let addresses = addresses(command, family)?;
    if rest_bytes < addresses.bytes() {
        return Err(Malformed::Broken);
    }
    if rest.len() < rest_bytes {
        return Ok(None);
    }
    Ok(Some(Header {
        source: addresses.source(rest),
        length: PREFIX_BYTES + rest_bytes,
    }))
}

/// Which addresses follow.
#[derive(Clone, Copy)]
enum Addresses {
    V4,
    V6,
    /// None, or none that means anything here; they are skipped with the extensions.
    Other,
}

fn addresses(command: u8, family: u8) -> Result<Addresses, Malformed> {
    match (command, family) {
        // LOCAL: the family is to be ignored.
        (0x20, _) => Ok(Addresses::Other),
        (0x21, 0x11) => Ok(Addresses::V4),
        (0x21, 0x21) => Ok(Addresses::V6),
        // UNSPEC; and datagrams and unix sockets, which a receiver that does not support them takes as UNSPEC.
        (0x21, 0x00 | 0x12 | 0x22 | 0x31 | 0x32) => Ok(Addresses::Other),
        // "Receivers must drop connections presenting unexpected values here" (section 2.2).
        _ => Err(Malformed::Broken),
    }
}

impl Addresses {
    /// Both addresses, then both ports.
    fn bytes(self) -> usize {
        match self {
            Self::V4 => 2 * (4 + 2),
            Self::V6 => 2 * (16 + 2),
            Self::Other => 0,
        }
    }

    fn source(self, rest: &[u8]) -> Option<SocketAddr> {
        let (address, ports): (IpAddr, _) = match self {
            Self::V4 => (rest.first_chunk::<4>().copied()?.into(), rest.get(8..)?),
            Self::V6 => (rest.first_chunk::<16>().copied()?.into(), rest.get(32..)?),
            Self::Other => return None,
        };
        let port = ports.first_chunk::<2>().copied().map(u16::from_be_bytes)?;
        Some(SocketAddr::new(address, port))
    }
}

#[cfg(test)]
mod tests;
