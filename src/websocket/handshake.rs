//! The request that turns an HTTP connection, or one HTTP/2 stream, into a WebSocket.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use hyper::ext::Protocol;

/// The only subprotocol that is spoken; asking for none means the same (PROTOCOL.md section 1).
pub const SUBPROTOCOL: &str = "conclave.v1";

/// RFC 6455 section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key in base64 is 24 characters: 22 that count and two of padding. The last of the 22 has four bits to
/// spare, and clients that make up a key as text may set them.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A request that may become a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// RFC 6455: `accept` proves that the key was understood.
    Http1 { accept: HeaderValue },
    /// RFC 8441: extended CONNECT, which needs no proof.
    Http2,
}

/// Why a request cannot become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Neither GET (HTTP/1.1) nor CONNECT (HTTP/2).
    Method,
    /// An ordinary request for a WebSocket's path.
    NotAnUpgrade,
    /// Another version of the WebSocket protocol than 13, none, or several.
    Version,
    /// No Host or several: RFC 9112 section 3.2 and RFC 6455 section 4.2.1 want exactly one.
    Host,
    /// No key, several, or one that is not 16 bytes in base64.
    Key,
    /// A body is announced where the first frame must follow; whoever is in between may take one for the other.
    Body,
    /// Extended CONNECT for something else than a WebSocket.
    OtherProtocol,
}

impl Refused {
    /// What the request is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAnUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Host | Self::Key | Self::Body => StatusCode::BAD_REQUEST,
            // RFC 9220 section 3.
            Self::OtherProtocol => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// Headers that the answer needs.
    pub fn headers(self) -> HeaderMap {
        let needed: &[(HeaderName, &'static str)] = match self {
            Self::Method => &[(ALLOW, "GET")],
            // RFC 9110 section 15.5.22 wants Upgrade, and section 7.8 Connection with it. HTTP/2 knows neither,
            // and hyper leaves them out there.
            Self::NotAnUpgrade | Self::Version => &[
                (SEC_WEBSOCKET_VERSION, "13"),
                (UPGRADE, "websocket"),
                (CONNECTION, "upgrade"),
            ],
            Self::Host | Self::Key | Self::Body | Self::OtherProtocol => &[],
        };
        needed
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    /// One sentence for the person who sent the request.
    pub fn message(self) -> &'static str {
        match self {
            Self::Method => "A WebSocket begins with GET, or on HTTP/2 with extended CONNECT.",
            Self::NotAnUpgrade => "This path speaks WebSocket only: connect with wss://.",
            Self::Version => "Only version 13 of the WebSocket protocol is spoken here.",
            Self::Host => "Host must be there once.",
            Self::Key => "Sec-WebSocket-Key must be there once, and be 16 bytes in base64.",
            Self::Body => "A WebSocket upgrade has no body.",
            Self::OtherProtocol => "Extended CONNECT is for the protocol websocket only.",
        }
    }

    /// The word for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NotAnUpgrade => "not_an_upgrade",
            Self::Version => "version",
            Self::Host => "host",
            Self::Key => "key",
            Self::Body => "body",
            Self::OtherProtocol => "other_protocol",
        }
    }
}

/// Whether this request's head asks for a WebSocket in a way that can be granted.
///
/// # Errors
/// What to answer instead of upgrading.
pub fn check(parts: &Parts) -> Result<Handshake, Refused> {
    match (parts.version, &parts.method) {
        (Version::HTTP_2, &Method::CONNECT) => check_http2(parts),
        (_, &Method::GET) => check_http1(parts),
        _ => Err(Refused::Method),
    }
}

fn check_http1(parts: &Parts) -> Result<Handshake, Refused> {
    let headers = &parts.headers;
    let asked = lists(headers, CONNECTION, "upgrade") && lists(headers, UPGRADE, "websocket");
    if parts.version != Version::HTTP_11 || !asked {
        return Err(Refused::NotAnUpgrade);
    }
    if only(headers, SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(Refused::Version);
    }
    only(headers, HOST).ok_or(Refused::Host)?;
    let length = headers.get_all(CONTENT_LENGTH);
    if headers.contains_key(TRANSFER_ENCODING) || length.iter().any(|length| length != "0") {
        return Err(Refused::Body);
    }
    let key = only(headers, SEC_WEBSOCKET_KEY).ok_or(Refused::Key)?.as_bytes();
    let mut bytes = [0; 18];
    match KEY_BASE64.decode_slice(key, &mut bytes) {
        Ok(16) => Ok(Handshake::Http1 { accept: accept(key)? }),
        _ => Err(Refused::Key),
    }
}

/// RFC 8441 section 5: no Connection, Upgrade or key; hyper has read `:protocol` into an extension.
fn check_http2(parts: &Parts) -> Result<Handshake, Refused> {
    if parts
        .extensions
        .get::<Protocol>()
        .is_none_or(|protocol| protocol.as_str() != "websocket")
    {
        return Err(Refused::OtherProtocol);
    }
    if parts
        .headers
        .get_all(SEC_WEBSOCKET_VERSION)
        .iter()
        .any(|version| version != "13")
    {
        return Err(Refused::Version);
    }
    Ok(Handshake::Http2)
}

/// RFC 6455 section 4.2.2, step 5.4. The key counts as it was written, not as it decodes.
fn accept(key: &[u8]) -> Result<HeaderValue, Refused> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(ACCEPT_GUID);
    HeaderValue::try_from(STANDARD.encode(hash.finish())).map_err(|_| Refused::Key)
}

/// The subprotocol to answer with, if the client offered it.
pub fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    items(headers, SEC_WEBSOCKET_PROTOCOL)
        .any(|offer| offer == SUBPROTOCOL.as_bytes())
        .then_some(SUBPROTOCOL)
}

/// The answer that opens the WebSocket; `requested` are the request's headers.
pub fn response(handshake: Handshake, requested: &HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    if let Handshake::Http1 { accept } = handshake {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(subprotocol) = subprotocol(requested) {
        response
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    response
}

/// The header's value if it is there exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// All items of a header that is a list, which may be split over several lines.
fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(wanted.as_bytes()))
}

#[cfg(test)]
mod tests;
