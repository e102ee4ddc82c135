//! A proxy's header: read without a panic, with one verdict however it is cut; written anew, it says the same.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use conclave::net::proxy_protocol::{Header, Malformed, parse};
use libfuzzer_sys::fuzz_target;

/// Longest headers of version 1, and of version 2 as far as it is read.
const LINE_BYTES_MAX: usize = 107;
const BINARY_BYTES_MAX: usize = 16 + 4096;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fuzz_target!(|data: &[u8]| {
    let mut verdict = Ok(None);
    for end in 0..=data.len() {
        let now = parse(&data[..end]);
        assert!(
            verdict == Ok(None) || verdict == now,
            "{verdict:?} became {now:?}"
        );
        verdict = now;
    }
    let is_line = data.first() == Some(&b'P');
    let most = if is_line { LINE_BYTES_MAX } else { BINARY_BYTES_MAX };
    match verdict {
        Ok(Some(header)) => {
            assert!(header.length <= data.len().min(most));
            assert_eq!(parse(&data[..header.length - 1]), Ok(None));
            if let Some(source) = header.source {
                same(&line(source), source);
                same(&binary(source, &data[header.length..]), source);
            }
        }
        Ok(None) => assert!(data.len() < most, "waits for too much"),
        Err(Malformed::Missing) => {
            let begins = |start: &[u8]| start.iter().zip(data).all(|(due, byte)| due == byte);
            assert!(!begins(b"PROXY ") && !begins(SIGNATURE));
        }
        Err(Malformed::Broken | Malformed::TooLong) => {}
    }
});

fn same(bytes: &[u8], source: SocketAddr) {
    let header = Header {
        source: Some(source),
        length: bytes.len(),
    };
    assert_eq!(parse(bytes), Ok(Some(header)));
}

fn line(source: SocketAddr) -> Vec<u8> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (ip, port) = (source.ip(), source.port());
    format!("PROXY {family} {ip} {ip} {port} {port}\r\n").into_bytes()
}

fn binary(source: SocketAddr, extensions: &[u8]) -> Vec<u8> {
    let (family, ip) = match source.ip() {
        IpAddr::V4(v4) => (0x11, v4.octets().to_vec()),
        IpAddr::V6(v6) => (0x21, v6.octets().to_vec()),
    };
    let port = source.port().to_be_bytes();
    let rest = [&ip[..], &ip, &port, &port, extensions].concat();
    let length = (rest.len() as u16).to_be_bytes();
    [SIGNATURE, &[0x21, family], &length, &rest].concat()
}
