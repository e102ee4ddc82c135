//! HTTP/1.1 requests, written out byte by byte.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::client::Client;
use super::tls::Tls;
use super::within;

/// Anything that a client can run over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The key of RFC 6455 section 1.3, and what it is answered with.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request in the making.
#[derive(Clone)]
pub struct Ask {
    pub tls: Tls,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Ask {
    /// A plain request.
    pub fn new(tls: Tls, method: &str, path: &str) -> Self {
        let headers = vec![("Host".to_owned(), "localhost".to_owned())];
        Self {
            tls,
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            body: Vec::new(),
        }
    }

    /// Adds the headers of a WebSocket upgrade.
    pub fn upgrade(self) -> Self {
        self.header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", KEY)
    }

    /// Adds a header, also if it is there already.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts another value, or `None`, in the place of a header.
    pub fn replace(mut self, name: &str, value: Option<&str>) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = method.to_owned();
        self
    }

    /// Adds `?token=` or `&token=`.
    pub fn query_token(mut self, token: &str) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path.push_str(&format!("{separator}token={token}"));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub fn cookie(self, token: &str) -> Self {
        self.header("Cookie", &format!("conclave_token={token}"))
    }

    pub fn origin(self, origin: &str) -> Self {
        self.header("Origin", origin)
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.replace("Content-Length", Some(&length))
    }

    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends it on a connection of its own, and reads the head of the answer.
    pub async fn send(&self) -> (Answer, Box<dyn Stream>, Vec<u8>) {
        self.send_on(Box::new(self.tls.connect().await)).await
    }

    pub async fn send_on(&self, mut stream: Box<dyn Stream>) -> (Answer, Box<dyn Stream>, Vec<u8>) {
        stream
            .write_all(&self.bytes())
            .await
            .expect("the server takes the request");
        stream.flush().await.unwrap();
        let (answer, early) = read_head(&mut stream).await;
        (answer, stream, early)
    }

    /// The whole answer, body included.
    pub async fn answer(&self) -> Answer {
        let (mut answer, mut stream, mut body) = self.send().await;
        read_body(&mut answer, &mut stream, &mut body).await;
        answer
    }

    /// A WebSocket; panics unless the server upgrades.
    pub async fn open(&self) -> Client {
        self.try_open()
            .await
            .unwrap_or_else(|answer| panic!("no upgrade: {answer:?}"))
    }

    /// A WebSocket, or what was answered instead.
    pub async fn try_open(&self) -> Result<Client, Answer> {
        let (mut answer, mut stream, mut early) = self.send().await;
        if answer.status != 101 {
            // RFC 9110 section 9.3.2: the length that it announces is of a body that it does not have.
            if self.method != "HEAD" {
                read_body(&mut answer, &mut stream, &mut early).await;
            }
            return Err(answer);
        }
        Ok(Client::over(stream, early, answer))
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes()))
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The header's value, if it is there exactly once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        value
    }
}

/// Reads up to the empty line; what came behind it is given back.
pub async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> (Answer, Vec<u8>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        let read = within("the head of an answer", stream.read_buf(&mut bytes))
            .await
            .expect("an answer");
        assert!(
            read > 0,
            "the connection ended before an answer: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    };
    let rest = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).expect("a head of ASCII");
    let mut lines = head.trim_end().split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .expect("a status line");
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.to_owned(), value.trim().to_owned())
    });
    let answer = Answer {
        status: status.parse().expect("a status"),
        headers: headers.collect(),
        body: String::new(),
    };
    (answer, rest)
}

/// Reads what Content-Length announces, or up to the end of the connection.
pub async fn read_body(answer: &mut Answer, stream: &mut (impl AsyncRead + Unpin), body: &mut Vec<u8>) {
    let length = answer
        .header("content-length")
        .map(|length| length.parse::<usize>().expect("a length"));
    while length.is_none_or(|length| body.len() < length) {
        match within("the body of an answer", stream.read_buf(body)).await {
            Ok(1..) => {}
            // Without close_notify, too: the length has been checked, or there is none.
            Ok(0) | Err(_) => break,
        }
    }
    assert!(
        length.is_none_or(|length| body.len() >= length),
        "the body was cut: {answer:?}"
    );
    answer.body = String::from_utf8_lossy(body).into_owned();
}
