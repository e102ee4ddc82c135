//! Any headers, in any number and order: never a panic, and nothing is accepted that the RFC forbids.
#![no_main]

use conclave::websocket::Handshake;
use conclave::websocket::handshake::{check, response, subprotocol};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Version};
use hyper::ext::Protocol;
use libfuzzer_sys::fuzz_target;
use tungstenite::handshake::derive_accept_key;

const NAMES: [&str; 8] = [
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "content-length",
    "transfer-encoding",
    "host",
];

/// Taken whole by a line of one byte, so that the way to an accepted request is short.
const VALUES: [&str; 8] = [
    "Upgrade",
    "websocket",
    "dGhlIHNhbXBsZSBub25jZQ==",
    "13",
    "conclave.v1",
    "0",
    "chunked",
    "example.com",
];

/// The first byte chooses method, version and protocol; then each line is a header: a byte for its
/// name, the rest its value.
fn parts(data: &[u8]) -> Option<Parts> {
    let (choice, lines) = data.split_first()?;
    let mut request = Request::new(());
    *request.method_mut() = match choice & 3 {
        0 | 1 => Method::GET,
        2 => Method::CONNECT,
        _ => Method::POST,
    };
    *request.version_mut() = match choice >> 2 & 3 {
        0 | 1 => Version::HTTP_11,
        2 => Version::HTTP_2,
        _ => Version::HTTP_10,
    };
    match choice >> 4 & 3 {
        0 => {}
        1 => drop(
            request
                .extensions_mut()
                .insert(Protocol::from_static("connect-udp")),
        ),
        _ => drop(
            request
                .extensions_mut()
                .insert(Protocol::from_static("websocket")),
        ),
    }
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((name, value)) = line.split_first() else {
            continue;
        };
        let name = usize::from(name % 8);
        let value = if value.is_empty() {
            VALUES[name].as_bytes()
        } else {
            value
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            request
                .headers_mut()
                .append(HeaderName::from_static(NAMES[name]), value);
        }
    }
    Some(request.into_parts().0)
}

fuzz_target!(|data: &[u8]| {
    let Some(parts) = parts(data) else { return };
    let headers = &parts.headers;
    match check(&parts) {
        Err(refused) => {
            assert!(refused.status().is_client_error() || refused.status() == 501);
            assert_eq!(
                refused.status() == 426,
                refused.headers().contains_key("sec-websocket-version")
            );
            assert!(!refused.message().is_empty() && !refused.label().is_empty());
        }
        Ok(handshake) => {
            let wanted = match &handshake {
                Handshake::Http1 { accept } => {
                    granted_http1(&parts, accept);
                    101
                }
                Handshake::Http2 => {
                    assert_eq!(
                        (&parts.method, parts.version),
                        (&Method::CONNECT, Version::HTTP_2)
                    );
                    200
                }
            };
            let answer = response(handshake, headers);
            assert_eq!(answer.status(), wanted);
            let echoed = answer.headers().get("sec-websocket-protocol");
            assert_eq!(
                echoed.map(|value| value.to_str().unwrap()),
                subprotocol(headers)
            );
        }
    }
});

/// RFC 6455 section 4.2.1, in other words than ours.
fn granted_http1(parts: &Parts, accept: &HeaderValue) {
    assert_eq!(
        (&parts.method, parts.version),
        (&Method::GET, Version::HTTP_11)
    );
    let all = |name| {
        let values = parts.headers.get_all(name).iter();
        let lines: Vec<_> = values
            .map(|it| String::from_utf8_lossy(it.as_bytes()))
            .collect();
        lines.join(",").to_lowercase()
    };
    let has = |name, wanted| all(name).split(',').any(|it| it.trim() == wanted);
    assert!(has("connection", "upgrade") && has("upgrade", "websocket"));
    assert_eq!(all("sec-websocket-version"), "13");
    assert!(!parts.headers.contains_key("transfer-encoding"));
    assert!(
        parts
            .headers
            .get_all("content-length")
            .iter()
            .all(|length| length == "0")
    );
    let key = &parts.headers["sec-websocket-key"];
    assert_eq!(key.len(), 24);
    assert_eq!(accept, &derive_accept_key(key.as_bytes()));
}
