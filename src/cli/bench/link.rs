//! One connection to the server under test, as any client opens it.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::target::Target;

/// A WebSocket over TLS.
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// From the first SYN to the answer to `join`.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Small, because ten thousand of them are open at a time.
const BUFFER_BYTES: usize = 4 * 1_024;
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Why a connection could not be opened, or did not stay open.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS handshake: {0}")]
    Tls(#[source] io::Error),
    #[error("upgrade refused: HTTP {0}")]
    Refused(http::StatusCode),
    #[error("closed by the server: {0}")]
    Closed(String),
    #[error("cut without a close frame")]
    Cut,
    #[error("not open within {} s", OPEN_LIMIT.as_secs())]
    Timeout,
    #[error("cannot make a token: {0}")]
    Token(String),
    #[error("server said: {0}")]
    Said(String),
    #[error("{0}")]
    Protocol(Box<Error>),
}

impl Lost {
    /// What a person can do about it, where that is known.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            // EMFILE and ENFILE, Linux errno 24 and 23.
            Self::Connect(error) if matches!(error.raw_os_error(), Some(23 | 24)) => {
                Some("raise the limit of open files: ulimit -n 65536")
            }
            Self::Connect(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                Some("no free local port is left: fewer connections, or widen net.ipv4.ip_local_port_range")
            }
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Some("is the server running, and is --url right?")
            }
            Self::Tls(_) => Some(
                "pass --ca FILE with the authority of its certificate, or --insecure; or it is at a limit of connections",
            ),
            Self::Refused(http::StatusCode::NOT_FOUND) => Some("bench echo needs echo.enabled = true there"),
            Self::Closed(reason) if reason.starts_with("1008") => {
                Some("conclave token --check TOKEN --config FILE says what is wrong with a token")
            }
            _ => None,
        }
    }
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        match error {
            Error::Http(response) => Self::Refused(response.status()),
            Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) => Self::Cut,
            Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Cut
            }
            other => Self::Protocol(Box::new(other)),
        }
    }
}

/// TCP, TLS, upgrade; and, given a room, the welcome and a `join` that is answered.
pub async fn open(target: &Target, token: &str, room: Option<&str>) -> Result<Socket, Lost> {
    let opening = async {
        let mut socket = upgrade(target, token).await?;
        if let Some(room) = room {
            expect(&mut socket, "connected").await?;
            let join = serde_json::json!({"type": "join", "room": room, "ref": 1}).to_string();
            socket.send(Message::text(join)).await?;
            expect(&mut socket, "list").await?;
        }
        Ok(socket)
    };
    tokio::time::timeout(OPEN_LIMIT, opening)
        .await
        .unwrap_or(Err(Lost::Timeout))
}

async fn upgrade(target: &Target, token: &str) -> Result<Socket, Lost> {
    let stream = TcpStream::connect(target.address).await.map_err(Lost::Connect)?;
    stream.set_nodelay(true).map_err(Lost::Connect)?;
    let connector = TlsConnector::from(target.tls.clone());
    let stream = connector
        .connect(target.name.clone(), stream)
        .await
        .map_err(Lost::Tls)?;
    let mut request = (&target.uri).into_client_request()?;
    let bearer = format!("Bearer {token}")
        .parse()
        .map_err(|_| Lost::Token("it has characters that no header may have".to_owned()))?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    Ok(socket)
}

/// Reads until a message of this type comes; others may come before it.
async fn expect(socket: &mut Socket, kind: &str) -> Result<(), Lost> {
    loop {
        let Some(text) = text_of(socket.next().await)? else {
            continue;
        };
        let found = kind_of(&text);
        if found.as_deref() == Some("error") {
            return Err(Lost::Said(error_code(&text)));
        }
        if found.as_deref() == Some(kind) {
            return Ok(());
        }
    }
}

/// The text of what was read; `None` for pings and pongs.
pub fn text_of(
    read: Option<Result<Message, Error>>,
) -> Result<Option<tokio_tungstenite::tungstenite::Utf8Bytes>, Lost> {
    match read {
        None => Err(Lost::Cut),
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Close(frame))) => Err(Lost::Closed(shown(frame.as_ref()))),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(error.into()),
    }
}

fn shown(frame: Option<&CloseFrame>) -> String {
    frame.map_or_else(
        || "without a code".to_owned(),
        |frame| format!("{} {}", u16::from(frame.code), frame.reason),
    )
}

fn kind_of(text: &str) -> Option<String> {
    let message: serde_json::Value = serde_json::from_str(text).ok()?;
    message.get("type")?.as_str().map(str::to_owned)
}

/// The `code` of an `error` message.
pub fn error_code(text: &str) -> String {
    let message: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let code = message.as_ref().and_then(|message| message.get("code")?.as_str());
    code.unwrap_or("error").to_owned()
}
