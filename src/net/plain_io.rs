//! The stream of one connection without TLS, for `tls.mode = "off"` behind a proxy on this machine. It is used exactly as
//! [`super::tls_io::TlsIo`]: by hyper until the upgrade, by the connection's task and the flusher after it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::idle::HttpIdle;
use crate::net::permits::Permit;
use crate::net::socket::Socket;
use crate::net::tls_io::{JOINABLE_BYTES, PIECE_BYTES, Sent};

/// Read at a time.
const READ_BYTES: usize = 16 * 1024;

/// One connection, server side.
pub struct PlainIo {
    socket: Socket,
    /// What the socket did not take yet, from `out_sent` on. At most one piece, and the head of an answer.
    out: Vec<u8>,
    out_sent: usize,
    /// What only hyper needs: gone after the upgrade.
    http: Option<Box<HttpSide>>,
    peer_closed: bool,
    /// Lives exactly as long as the connection.
    permit: Permit,
}

/// Bytes that hyper has not read yet, and when to stop waiting for a request.
#[derive(Default)]
struct HttpSide {
    unread: Vec<u8>,
    idle: Option<HttpIdle>,
}

impl std::fmt::Debug for PlainIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainIo")
            .field("out", &self.unsent())
            .finish_non_exhaustive()
    }
}

impl PlainIo {
    /// `early` has been read from the socket already.
    #[must_use]
    pub fn new(socket: Socket, early: Vec<u8>, permit: Permit) -> Box<Self> {
        let http = HttpSide {
            unread: early,
            idle: None,
        };
        Box::new(Self {
            socket,
            out: Vec::new(),
            out_sent: 0,
            http: Some(Box::new(http)),
            peer_closed: false,
            permit,
        })
    }

    /// Waits until `enough` says yes to the bytes that hyper will read first; see [`super::tls_io::TlsIo`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Errors
    /// The peer left.
    pub async fn wait_for_request(&mut self, enough: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while !enough(&self.http().unread) {
                if ready!(self.poll_unread(cx))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// While hyper drives the connection, ends it when no request was served for so long.
    pub fn set_idle(&mut self, idle: HttpIdle) {
        self.http().idle = Some(idle);
    }

    /// Its right to be there, which may be named late.
    pub fn permit(&mut self) -> &mut Permit {
        &mut self.permit
    }

    /// Hyper is done: gives up what only it needed, and returns the bytes that it left.
    pub fn into_upgraded(mut self: Box<Self>) -> (Box<Self>, Vec<u8>) {
        let unread = self.http.take().map_or_else(Vec::new, |http| http.unread);
        (self, unread)
    }

    /// Reads once and appends to `plain`. `Ok(0)`: the peer is done.
    ///
    /// # Errors
    /// The socket broke.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        if let Some(http) = &mut self.http
            && !http.unread.is_empty()
        {
            let unread = http.unread.len();
            plain.append(&mut std::mem::take(&mut http.unread));
            return Poll::Ready(Ok(unread));
        }
        if self.peer_closed {
            return Poll::Ready(Ok(0));
        }
        let start = plain.len();
        plain.resize(start + READ_BYTES, 0);
        let mut space = ReadBuf::new(&mut plain[start..]);
        let read = Pin::new(&mut self.socket)
            .poll_read(cx, &mut space)
            .map_ok(|()| space.filled().len());
        plain.truncate(start + if let Poll::Ready(Ok(read)) = read { read } else { 0 });
        self.peer_closed = matches!(read, Poll::Ready(Ok(0)));
        read
    }

    /// Takes `plain` and offers it to the socket; see [`super::tls_io::TlsIo::try_send`].
    ///
    /// # Errors
    /// The socket failed.
    pub fn try_send(&mut self, plain: &[u8]) -> io::Result<Sent> {
        if self.unsent() > 0 {
            self.out.extend_from_slice(plain);
            return self.try_drain();
        }
        let sent = match self.socket.try_write(plain) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        if sent == plain.len() {
            return Ok(Sent::Whole);
        }
        self.out.extend_from_slice(&plain[sent..]);
        Ok(Sent::Waiting)
    }

    /// Offers what waits, without a waker.
    ///
    /// # Errors
    /// The socket failed.
    pub fn try_drain(&mut self) -> io::Result<Sent> {
        while self.unsent() > 0 {
            match self.socket.try_write(&self.out[self.out_sent..]) {
                Ok(sent) => self.out_sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Waiting),
                Err(error) => return Err(error),
            }
        }
        self.free_out();
        Ok(Sent::Whole)
    }

    /// As [`PlainIo::try_drain`], and has the task woken when the socket takes more.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out_sent < self.out.len() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.out[self.out_sent..]))?;
            self.out_sent += sent;
        }
        self.free_out();
        Poll::Ready(Ok(()))
    }

    /// Bytes that wait for the socket.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.out.len() - self.out_sent
    }

    /// Lets what waits leave, and ends our side.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Makes the coming drop answer with a reset, where there is such a thing.
    pub fn reset_on_drop(&self) {
        self.socket.reset_on_drop();
    }

    fn free_out(&mut self) {
        if self.out.capacity() > 0 {
            self.out = Vec::new();
        }
        self.out_sent = 0;
    }

    fn is_corked(&self) -> bool {
        let idle = self.http.as_ref().and_then(|http| http.idle.as_ref());
        idle.is_some_and(HttpIdle::is_corked)
    }

    /// For hyper: more bytes behind those that it has not read.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut unread = std::mem::take(&mut self.http().unread);
        let received = self.poll_receive(cx, &mut unread);
        self.http().unread = unread;
        received
    }

    fn http(&mut self) -> &mut HttpSide {
        self.http.get_or_insert_default()
    }
}

impl AsyncRead for PlainIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.http().unread.is_empty() {
            match this.poll_unread(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let over = this.http().idle.as_mut().is_some_and(|idle| idle.is_over(cx));
                    return if over { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
            }
        }
        let unread = &mut this.http().unread;
        let taken = unread.len().min(buf.remaining());
        buf.put_slice(&unread[..taken]);
        if taken == unread.len() {
            *unread = Vec::new();
        } else {
            unread.drain(..taken);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PlainIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent() > JOINABLE_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        let piece = &buf[..buf.len().min(PIECE_BYTES)];
        if this.is_corked() {
            this.out.extend_from_slice(piece);
        } else if !piece.is_empty() {
            this.try_send(piece)?;
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_corked() {
            return Poll::Ready(Ok(()));
        }
        this.poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::idle::InService;
    use crate::net::permits::Permits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    fn pair(early: &[u8]) -> (UnixStream, Box<PlainIo>) {
        let (theirs, ours) = UnixStream::pair().expect("a pair");
        let permit = Permits::new(0, 0).admit_nameless().expect("no limit");
        (theirs, PlainIo::new(Socket::Unix(ours), early.to_vec(), permit))
    }

    #[tokio::test]
    async fn what_came_early_is_read_first() {
        let (mut theirs, mut io) = pair(b"GE");
        theirs.write_all(b"T /").await.unwrap();
        io.wait_for_request(|first| first.len() >= 3).await.unwrap();
        let mut read = [0; 5];
        io.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"GET /");
        drop(theirs);
        assert_eq!(io.read(&mut read).await.unwrap(), 0);
        let (theirs, mut io) = pair(b"");
        drop(theirs);
        assert!(io.wait_for_request(|first| !first.is_empty()).await.is_err());
    }

    #[tokio::test]
    async fn an_answer_to_an_upgrade_leaves_with_the_first_frame() {
        let (mut theirs, mut io) = pair(b"");
        let in_service = InService::default();
        io.set_idle(HttpIdle::new(in_service.clone(), std::time::Duration::from_secs(60)));
        in_service.cork();
        io.write_all(b"101").await.unwrap();
        io.flush().await.unwrap();
        assert_eq!(io.unsent(), 3);
        let (mut io, left) = io.into_upgraded();
        assert!(left.is_empty());
        assert_eq!(io.try_send(b" frame").unwrap(), Sent::Whole);
        let mut read = [0; 9];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"101 frame");
    }

    /// More than the kernel holds waits, is counted, and comes whole.
    #[tokio::test]
    async fn what_the_socket_refuses_waits() {
        let (mut theirs, mut io) = pair(b"");
        let piece = vec![7; PIECE_BYTES];
        let mut sent = 0_usize;
        while io.unsent() == 0 {
            io.try_send(&piece).unwrap();
            sent += piece.len();
        }
        assert_eq!(io.try_drain().unwrap(), Sent::Waiting);
        let reader = async {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all.len()
        };
        let writer = async {
            std::future::poll_fn(|cx| io.poll_close(cx)).await.unwrap();
            drop(io);
        };
        let (read, ()) = tokio::join!(reader, writer);
        assert_eq!(read, sent);
    }
}
