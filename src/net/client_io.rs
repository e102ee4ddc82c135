//! What hyper drives: a client's stream with or without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::idle::HttpIdle;
use crate::net::permits::Permit;
use crate::net::plain_io::PlainIo;
use crate::net::tls_io::TlsIo;
use crate::telemetry::metrics::{Limit, Metrics};

/// How hyper answers a head of more than `server.header_bytes`, before anybody else hears of it.
const HEAD_TOO_LONG: &[u8] = b"HTTP/1.1 431 ";

/// With or without TLS.
#[derive(Debug)]
pub enum Stream {
    Tls(Box<TlsIo>),
    Plain(Box<PlainIo>),
}

/// One connection, until it is upgraded.
pub struct ClientIo {
    stream: Stream,
    metrics: Arc<Metrics>,
}

impl ClientIo {
    #[must_use]
    pub fn new(stream: Stream, metrics: Arc<Metrics>) -> Self {
        Self { stream, metrics }
    }

    /// Ends the connection when no request was served for so long.
    pub fn set_idle(&mut self, idle: HttpIdle) {
        match &mut self.stream {
            Stream::Tls(tls) => tls.set_idle(idle),
            Stream::Plain(plain) => plain.set_idle(idle),
        }
    }

    /// `1.2` or `1.3`; none without TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        match &self.stream {
            Stream::Tls(tls) => Some(tls.version()),
            Stream::Plain(_) => None,
        }
    }

    /// Hyper is done: gives up what only it needed, and returns the bytes that it left.
    #[must_use]
    pub fn into_upgraded(self) -> (Stream, Vec<u8>) {
        match self.stream {
            Stream::Tls(tls) => {
                let (tls, left) = tls.into_upgraded();
                (Stream::Tls(tls), left)
            }
            Stream::Plain(plain) => {
                let (plain, left) = plain.into_upgraded();
                (Stream::Plain(plain), left)
            }
        }
    }
}

impl Stream {
    /// Its right to be there, which may be named late.
    pub fn permit(&mut self) -> &mut Permit {
        match self {
            Self::Tls(tls) => tls.permit(),
            Self::Plain(plain) => plain.permit(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Plain(plain) => Pin::new(plain).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Plain(plain) => Pin::new(plain).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Plain(plain) => Pin::new(plain).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Plain(plain) => Pin::new(plain).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        if buf.starts_with(HEAD_TOO_LONG) && written.is_ready() {
            this.metrics.limit_hit(Limit::HeaderBytes);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
