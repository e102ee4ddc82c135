//! What hyper drives: a client's stream with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::idle::HttpIdle;
use crate::net::permits::Permit;
use crate::net::plain_io::PlainIo;
use crate::net::tls_io::TlsIo;

/// One connection, until it is upgraded.
#[derive(Debug)]
pub enum ClientIo {
    Tls(Box<TlsIo>),
    Plain(Box<PlainIo>),
}

impl ClientIo {
    /// Ends the connection when no request was served for so long.
    pub fn set_idle(&mut self, idle: HttpIdle) {
        match self {
            Self::Tls(tls) => tls.set_idle(idle),
            Self::Plain(plain) => plain.set_idle(idle),
        }
    }

    /// `1.2` or `1.3`; none without TLS.
    #[must_use]
    pub fn tls_version(&self) -> Option<&'static str> {
        match self {
            Self::Tls(tls) => Some(tls.version()),
            Self::Plain(_) => None,
        }
    }

    /// Its right to be there, which may be named late.
    pub fn permit(&mut self) -> &mut Permit {
        match self {
            Self::Tls(tls) => tls.permit(),
            Self::Plain(plain) => plain.permit(),
        }
    }

    /// Hyper is done: gives up what only it needed, and returns the bytes that it left.
    #[must_use]
    pub fn into_upgraded(self) -> (Self, Vec<u8>) {
        match self {
            Self::Tls(tls) => {
                let (tls, left) = tls.into_upgraded();
                (Self::Tls(tls), left)
            }
            Self::Plain(plain) => {
                let (plain, left) = plain.into_upgraded();
                (Self::Plain(plain), left)
            }
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Plain(plain) => Pin::new(plain).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientIo {
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
