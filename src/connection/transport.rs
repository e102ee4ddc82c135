//! The stream under a WebSocket: our TLS stream taken out of hyper, or whatever HTTP/2 hands us.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::idle::{InService, Serving};
use crate::net::permits::Permit;
use crate::net::plain_io::PlainIo;
use crate::net::tls_io::{Sent, TlsIo};

/// Read at a time from an HTTP/2 stream.
const READ_BYTES: usize = 16 * 1024;

/// What a connection reads from and writes to.
pub enum Transport {
    Tls(Box<TlsIo>),
    /// `tls.mode = "off"`
    Plain(Box<PlainIo>),
    /// RFC 8441: one stream of an HTTP/2 connection; same rules, about 27 KiB more memory.
    Stream(Box<StreamIo>),
}

impl Transport {
    /// Reads once; appends to `plain`. `Ok(0)`: the peer is done.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(tls) => tls.poll_receive(cx, plain),
            Self::Plain(io) => io.poll_receive(cx, plain),
            Self::Stream(stream) => stream.poll_receive(cx, plain),
        }
    }

    /// Takes `plain`, at most one piece, and offers it to the socket. Call only while `unsent` is 0.
    ///
    /// # Errors
    /// The stream broke.
    pub fn try_send(&mut self, plain: &[u8]) -> io::Result<Sent> {
        match self {
            Self::Tls(tls) => tls.try_send(plain),
            Self::Plain(io) => io.try_send(plain),
            Self::Stream(stream) => {
                stream.out.extend_from_slice(plain);
                Ok(Sent::Waiting)
            }
        }
    }

    /// Offers what waits, without a waker.
    ///
    /// # Errors
    /// The stream broke.
    pub fn try_drain(&mut self) -> io::Result<Sent> {
        match self {
            Self::Tls(tls) => tls.try_drain(),
            Self::Plain(io) => io.try_drain(),
            Self::Stream(stream) => Ok(if stream.unsent() == 0 {
                Sent::Whole
            } else {
                Sent::Waiting
            }),
        }
    }

    /// Offers what waits, and has the task woken when more is taken.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => tls.poll_drain(cx),
            Self::Plain(io) => io.poll_drain(cx),
            Self::Stream(stream) => stream.poll_drain(cx),
        }
    }

    /// Whether its keys are nearly used up.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.is_worn())
    }

    /// Bytes taken that the socket has not.
    #[must_use]
    pub fn unsent(&self) -> usize {
        match self {
            Self::Tls(tls) => tls.unsent(),
            Self::Plain(io) => io.unsent(),
            Self::Stream(stream) => stream.unsent(),
        }
    }

    /// Ends the stream in order.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => tls.poll_close(cx),
            Self::Plain(io) => io.poll_close(cx),
            Self::Stream(stream) => {
                ready!(stream.poll_drain(cx))?;
                Pin::new(&mut stream.io).poll_shutdown(cx)
            }
        }
    }

    /// Makes the coming drop a reset, where the stream has one of its own; else it is counted against the connection.
    pub fn reset_on_drop(&self) {
        match self {
            Self::Tls(tls) => tls.reset_on_drop(),
            Self::Plain(io) => io.reset_on_drop(),
            Self::Stream(stream) => stream.in_service.cut(),
        }
    }
}

/// One HTTP/2 stream.
pub struct StreamIo {
    io: TokioIo<Upgraded>,
    out: Vec<u8>,
    out_sent: usize,
    /// The socket counts against the limits of its own: several share one TCP connection.
    _permit: Permit,
    in_service: InService,
    /// Keeps the connection under it from being idle.
    _serving: Serving,
}

impl StreamIo {
    #[must_use]
    pub fn new(io: Upgraded, permit: Permit, in_service: InService) -> Self {
        Self {
            io: TokioIo::new(io),
            out: Vec::new(),
            out_sent: 0,
            _permit: permit,
            _serving: in_service.begin(),
            in_service,
        }
    }

    /// The stream alone, for who is turned away; it no longer counts.
    #[must_use]
    pub fn into_inner(self) -> TokioIo<Upgraded> {
        self.io
    }

    fn unsent(&self) -> usize {
        self.out.len() - self.out_sent
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let start = plain.len();
        plain.resize(start + READ_BYTES, 0);
        let mut space = ReadBuf::new(&mut plain[start..]);
        let read = Pin::new(&mut self.io)
            .poll_read(cx, &mut space)
            .map_ok(|()| space.filled().len());
        plain.truncate(start + if let Poll::Ready(Ok(read)) = read { read } else { 0 });
        read
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent() > 0 {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.out_sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out_sent += sent;
        }
        if self.out.capacity() > 0 {
            self.out = Vec::new();
            self.out_sent = 0;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}
