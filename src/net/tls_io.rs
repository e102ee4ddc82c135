//! The TLS stream of one connection, on rustls' unbuffered API.
//!
//! A buffered rustls connection keeps about 9 KiB for as long as it lives. This one keeps three vectors
//! that are *freed*, not cleared, when they are empty, and borrows everything else from its thread for the
//! length of one synchronous call. That is most of the difference between 13.4 and 4.5 KiB per idle
//! connection (README, The engine).
//!
//! Until the upgrade hyper drives it as `AsyncRead + AsyncWrite`. After it, the connection's task reads with
//! [`TlsIo::poll_receive`] and the shard's flusher writes with [`TlsIo::try_send`], which never registers a
//! waker.
//!
//! Everything that knows rustls' unbuffered states is in this file.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::idle::HttpIdle;
use crate::net::permits::Permit;

/// Longest undecrypted tail kept between two reads: one TLS record is at most 16 KiB + 2 KiB (RFC 8446
/// section 5.2); a client's handshake message that needs more than this is refused.
const REST_BYTES_MAX: usize = 24 * 1024;
/// Scratch for ciphertext from the socket: the longest tail and one read of 16 KiB.
const RECEIVE_BYTES: usize = REST_BYTES_MAX + 16 * 1024;
/// Longest payload of an encrypted record (RFC 8446 section 5.2; 2 KiB in RFC 5246).
const RECORD_BYTES_MAX: usize = 16 * 1024 + 2048;
/// Plaintext that becomes one TLS record (RFC 8446 section 5.1).
pub const PIECE_BYTES: usize = 16 * 1024;
/// So much that waits may leave in one `send` with what comes next: a ticket, the answer to an upgrade.
pub const JOINABLE_BYTES: usize = 4 * 1024;
/// Records of a TLS 1.2 connection after which it is closed with 1012, a little before rustls refuses to go on.
const WORN_RECORDS: u32 = (1 << 24) - (1 << 16);
/// Scratch for ciphertext to the socket: one piece, its record overhead, and handshake messages
/// (KeyUpdate answers, alerts) that leave in front of it.
const TRANSMIT_BYTES: usize = PIECE_BYTES + 4 * 1024;

/// What plain HTTP on the TLS port is told.
const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
    Content-Length: 50\r\n\r\nThis port speaks HTTPS and wss. Use https:// here.";

struct Scratch {
    receive: Box<[u8]>,
    transmit: Box<[u8]>,
}

thread_local! {
    /// Borrowed only inside synchronous functions of this file, so never twice at once.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        receive: vec![0; RECEIVE_BYTES].into_boxed_slice(),
        transmit: vec![0; TRANSMIT_BYTES].into_boxed_slice(),
    });
}

/// Why the TLS layer gave up on the peer.
#[derive(Debug, thiserror::Error)]
pub enum TlsFailure {
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS 1.2 ran out of record numbers (2^24 records with AES-GCM).
    #[error("tls: keys are used up")]
    KeysUsedUp,
    #[error("tls: a message of more than {REST_BYTES_MAX} bytes")]
    TooLong,
    #[error("tls: the first bytes are not a handshake")]
    NotTls,
    #[error("tls: the peer left during the handshake")]
    LeftEarly,
}

impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        let kind = match failure {
            TlsFailure::LeftEarly => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, failure)
    }
}

/// What became of plaintext given to [`TlsIo::try_send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// In the kernel.
    Whole,
    /// Taken, but part of it waits here for the socket; nothing more is taken until that has left.
    Waiting,
}

/// Where rustls stands after a [`TlsIo::drive`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshaking,
    Established,
    Closed,
}

/// One TLS connection over TCP, server side.
///
/// Always boxed: it is a kilobyte, and changes hands five times before it is upgraded.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four separate facts, each with its own reader"
)]
pub struct TlsIo {
    socket: TcpStream,
    tls: UnbufferedServerConnection,
    /// Undecrypted tail of the last read: an incomplete record. At most `REST_BYTES_MAX` bytes.
    rest: Vec<u8>,
    /// Ciphertext that the socket did not take yet, from `out_sent` on. At most one piece and alerts.
    out: Vec<u8>,
    out_sent: usize,
    /// What only hyper needs: gone after the upgrade.
    http: Option<Box<HttpSide>>,
    peer_closed: bool,
    close_notify_sent: bool,
    /// Records sealed, for TLS 1.2, whose keys last for 2^24 (RFC 9325 section 4.4).
    sealed: u32,
    /// rustls has been given something.
    begun: bool,
    /// Set by the first TLS error; after it nothing is decrypted or encrypted any more.
    failed: bool,
    /// Lives exactly as long as the connection.
    permit: Permit,
}

/// Decrypted bytes that hyper has not read yet, and when to stop waiting for a request.
#[derive(Default)]
struct HttpSide {
    plain: Vec<u8>,
    /// Bytes of `plain` that hyper has.
    read: usize,
    idle: Option<HttpIdle>,
}

impl HttpSide {
    fn unread(&self) -> &[u8] {
        &self.plain[self.read..]
    }

    fn take(&mut self) -> Vec<u8> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.drain(..std::mem::take(&mut self.read));
        plain
    }
}

impl std::fmt::Debug for TlsIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIo")
            .field("rest", &self.rest.len())
            .field("out", &self.unsent())
            .finish_non_exhaustive()
    }
}

impl TlsIo {
    /// # Errors
    /// When `config` cannot serve at all (no certificate, no cipher suite).
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>, permit: Permit) -> Result<Box<Self>, rustls::Error> {
        Ok(Box::new(Self {
            socket,
            tls: UnbufferedServerConnection::new(config)?,
            rest: Vec::new(),
            out: Vec::new(),
            out_sent: 0,
            http: Some(Box::default()),
            peer_closed: false,
            close_notify_sent: false,
            sealed: 0,
            begun: false,
            failed: false,
            permit,
        }))
    }

    /// What [`TlsIo::wait_for_hello`] has read, until the handshake begins.
    #[must_use]
    pub fn hello(&self) -> &[u8] {
        &self.rest
    }

    /// Serves this client with another configuration. Only before the handshake begins.
    ///
    /// # Errors
    /// As [`TlsIo::new`].
    pub fn serve_with(&mut self, config: Arc<ServerConfig>) -> Result<(), rustls::Error> {
        debug_assert!(self.is_new(), "a handshake keeps its configuration");
        self.tls = UnbufferedServerConnection::new(config)?;
        Ok(())
    }

    /// Whether the client has shown a certificate of its own, and a good one.
    #[must_use]
    pub fn has_client_certificate(&self) -> bool {
        self.tls.peer_certificates().is_some()
    }

    /// Drives the handshake to its end. `Ok` means that application data may flow both ways; some of the
    /// client's may already be here.
    ///
    /// # Cancel safety
    /// Cancel safe: the state is in `self`.
    ///
    /// # Errors
    /// A TLS failure (an alert was sent where the socket took it) or an I/O error.
    pub async fn handshake(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await
    }

    /// Waits for the client's first record, whole: until then a handshake costs nothing and need not be counted.
    /// `early` has been read from the socket already.
    ///
    /// # Cancel safety
    /// Cancel safe, but for `early`, which is given once.
    ///
    /// # Errors
    /// The peer left, or does not speak TLS.
    pub async fn wait_for_hello(&mut self, early: Vec<u8>) -> io::Result<()> {
        if let Some(first) = early.first() {
            self.check_first_byte(*first)?;
            self.rest = early;
        }
        std::future::poll_fn(|cx| {
            while !is_whole_record(&self.rest) {
                ready!(self.poll_hello(cx))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn poll_hello(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut space = ReadBuf::new(&mut scratch.receive[..REST_BYTES_MAX]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
            let read = space.filled();
            if read.is_empty() {
                return Poll::Ready(Err(TlsFailure::LeftEarly.into()));
            }
            self.check_first_byte(read[0])?;
            self.rest.extend_from_slice(read);
            Poll::Ready(Ok(()))
        })
    }

    /// Whether the client, which has said hello and must wait for the answer, has gone instead: then there is nobody to
    /// compute for.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match SockRef::from(&self.socket).peek(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx))?;
            let mut plain = std::mem::take(&mut self.http().plain);
            let filled = if self.is_new() {
                Poll::Ready(self.drive_rest(&mut plain))
            } else {
                self.poll_fill(cx, &mut plain)
            };
            let waiting_for_request = plain.is_empty();
            self.http().plain = plain;
            // An alert or the server's flight must leave before we wait or fail. A ticket may wait for the answer to
            // a request that is here already.
            if waiting_for_request {
                drop(self.try_drain());
            }
            match ready!(filled)?.stage {
                Stage::Established => return Poll::Ready(Ok(())),
                Stage::Handshaking if !self.peer_closed => {}
                Stage::Handshaking | Stage::Closed => return Poll::Ready(Err(TlsFailure::LeftEarly.into())),
            }
        }
    }

    /// Waits until at least `enough` says yes to the decrypted bytes that hyper will read first.
    ///
    /// hyper-util waits without a timer while up to 23 bytes could still be the HTTP/2 preface, so this is
    /// called, under the acceptor's deadline, until they cannot.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Errors
    /// The peer left, or broke TLS.
    pub async fn wait_for_request(&mut self, enough: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            while !enough(self.http().unread()) {
                if self.peer_closed {
                    return Poll::Ready(Err(TlsFailure::LeftEarly.into()));
                }
                ready!(self.poll_plain(cx))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// While hyper drives the connection, ends it when no request was served for `after`.
    pub fn set_idle(&mut self, idle: HttpIdle) {
        self.http().idle = Some(idle);
    }

    /// Its right to be there, which may be named late.
    pub fn permit(&mut self) -> &mut Permit {
        &mut self.permit
    }

    /// Hyper is done: gives up what only it needed, and returns the decrypted bytes that it left.
    pub fn into_upgraded(mut self: Box<Self>) -> (Box<Self>, Vec<u8>) {
        let plain = self.http.take().map_or_else(Vec::new, |mut http| http.take());
        (self, plain)
    }

    /// Reads once from the socket and appends what it decrypts to `plain`. `Ok(0)`: the peer is done.
    ///
    /// May leave answers to the peer (KeyUpdate, alerts) in `out`: the caller looks at [`TlsIo::unsent`].
    ///
    /// # Errors
    /// The peer broke TLS, or the socket did.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let before = plain.len();
        if let Some(http) = &mut self.http
            && !http.unread().is_empty()
        {
            plain.append(&mut http.take());
            return Poll::Ready(Ok(plain.len() - before));
        }
        loop {
            if self.peer_closed || self.failed {
                return Poll::Ready(Ok(plain.len() - before));
            }
            ready!(self.poll_fill(cx, plain))?;
            if plain.len() > before {
                return Poll::Ready(Ok(plain.len() - before));
            }
        }
    }

    /// Encrypts `plain` (at most [`PIECE_BYTES`]) into one record and offers it to the socket.
    ///
    /// Call only while [`TlsIo::unsent`] is at most [`JOINABLE_BYTES`], so that a blocked connection holds one
    /// encrypted piece and otherwise only shared frames.
    ///
    /// # Errors
    /// TLS is over (`KeysUsedUp`, an earlier failure), or the socket failed.
    pub fn try_send(&mut self, plain: &[u8]) -> io::Result<Sent> {
        debug_assert!(plain.len() <= PIECE_BYTES, "a piece must fit the scratch");
        SCRATCH.with_borrow_mut(|scratch| {
            let sealed = self.seal(plain, &mut scratch.transmit)?;
            // Answers that arose meanwhile leave first: they were encrypted before this record.
            if self.unsent() > 0 {
                self.out.extend_from_slice(&scratch.transmit[..sealed]);
                return self.try_drain();
            }
            let sent = self.send(&scratch.transmit[..sealed])?;
            if sent == sealed {
                return Ok(Sent::Whole);
            }
            self.out.extend_from_slice(&scratch.transmit[sent..sealed]);
            Ok(Sent::Waiting)
        })
    }

    /// Offers bytes to the socket; returns how many it took.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        // Past tokio, whose readiness is one more cache line per delivery. Only when the socket refuses is tokio asked
        // to try, and so to notice that it must wait.
        let sent = match SockRef::from(&self.socket).send_with_flags(bytes, libc::MSG_NOSIGNAL) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.try_write(bytes),
            sent => sent,
        };
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    /// Encrypts `plain` behind what waits already, and leaves it there.
    fn queue(&mut self, plain: &[u8]) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let sealed = self.seal(plain, &mut scratch.transmit)?;
            self.out.extend_from_slice(&scratch.transmit[..sealed]);
            Ok(())
        })
    }

    fn is_corked(&self) -> bool {
        self.http
            .as_ref()
            .and_then(|http| http.idle.as_ref())
            .is_some_and(HttpIdle::is_corked)
    }

    /// Offers waiting ciphertext to the socket, without a waker.
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

    /// As [`TlsIo::try_drain`], and has the task woken when the socket takes more.
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

    /// Whether the keys are nearly used up and cannot be renewed: time to send the client elsewhere while it can
    /// still be told.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.sealed >= WORN_RECORDS && self.version() == "1.2"
    }

    /// Bytes of ciphertext that wait for the socket.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.out.len() - self.out_sent
    }

    /// Queues close_notify and lets it leave.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.close_notify_sent && !self.failed {
            self.close_notify_sent = true;
            self.queue_close_notify();
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Makes the coming drop answer with a reset: what the kernel still holds for this peer is given up.
    pub fn reset_on_drop(&self) {
        // A failure leaves the ordinary close, which is only slower to free the kernel's memory.
        drop(SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)));
    }

    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// `1.2` or `1.3`, as the OpenTelemetry attribute `tls.protocol.version` has it.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        }
    }

    fn free_out(&mut self) {
        if self.out.capacity() > 0 {
            self.out = Vec::new();
        }
        self.out_sent = 0;
    }

    /// One read from the socket through rustls into `plain`.
    fn poll_fill(&mut self, cx: &mut Context<'_>, plain: &mut Vec<u8>) -> Poll<io::Result<Filled>> {
        SCRATCH
            .with_borrow_mut(|scratch| {
                let held = self.rest.len();
                let buffer = &mut scratch.receive[..];
                buffer[..held].copy_from_slice(&self.rest);
                let mut space = ReadBuf::new(&mut buffer[held..]);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut space))?;
                let read = space.filled().len();
                if read == 0 {
                    self.peer_closed = true;
                    return Poll::Ready(Ok(Filled { stage: Stage::Closed }));
                }
                let driven = self.drive(&mut buffer[..held + read], plain);
                Poll::Ready(driven.map(|(stage, used)| {
                    self.keep_rest(&buffer[used..held + read]);
                    Filled { stage }
                }))
            })
            .map(|filled| {
                let filled = filled?;
                if self.rest.len() > REST_BYTES_MAX {
                    self.failed = true;
                    return Err(TlsFailure::TooLong.into());
                }
                Ok(filled)
            })
    }

    /// Nothing has been given to rustls yet.
    fn is_new(&self) -> bool {
        !self.begun
    }

    /// Gives rustls what [`TlsIo::wait_for_hello`] has read.
    fn drive_rest(&mut self, plain: &mut Vec<u8>) -> io::Result<Filled> {
        self.begun = true;
        let mut hello = std::mem::take(&mut self.rest);
        let (stage, used) = self.drive(&mut hello, plain)?;
        self.keep_rest(&hello[used..]);
        Ok(Filled { stage })
    }

    /// A TLS connection begins with a handshake record (type 22), or an alert (21).
    fn check_first_byte(&mut self, first: u8) -> io::Result<()> {
        if !self.rest.is_empty() || matches!(first, 21 | 22) {
            return Ok(());
        }
        self.failed = true;
        self.answer_plain_http(first);
        Err(TlsFailure::NotTls.into())
    }

    /// Whoever speaks plain HTTP here (its methods begin with a capital letter) is told so, once.
    fn answer_plain_http(&self, first: u8) {
        if first.is_ascii_uppercase() {
            // Offered once: the answer is a courtesy, the close that follows is the rule.
            drop(self.socket.try_write(PLAIN_HTTP_ANSWER));
        }
    }

    fn keep_rest(&mut self, tail: &[u8]) {
        if tail.is_empty() {
            self.rest = Vec::new();
        } else {
            self.rest.clear();
            self.rest.extend_from_slice(tail);
        }
    }

    /// Hands `incoming` to rustls until it wants more; answers gather in `out`, plaintext in `plain`.
    /// Returns where rustls stands and how much of `incoming` it has used.
    fn drive(&mut self, incoming: &mut [u8], plain: &mut Vec<u8>) -> io::Result<(Stage, usize)> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut incoming[used..]);
            let stage = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(TlsFailure::from)?;
                        plain.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.out, |space| data.encode(space).map_err(encode_needs));
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    None
                }
                Ok(ConnectionState::WriteTraffic(_)) => Some(Stage::Established),
                Ok(ConnectionState::BlockedHandshake) => Some(Stage::Handshaking),
                // `Closed`, and early data, which is never offered.
                Ok(_) => Some(Stage::Closed),
                Err(error) => {
                    used += discard;
                    self.fail(&mut incoming[used..]);
                    return Err(TlsFailure::from(error).into());
                }
            };
            used += discard;
            if let Some(stage) = stage {
                return Ok((stage, used));
            }
        }
    }

    /// After an error rustls is called only for the alert that it may have to say.
    fn fail(&mut self, incoming: &mut [u8]) {
        self.failed = true;
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(incoming);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
            append(&mut self.out, |space| data.encode(space).map_err(encode_needs));
            // Offered once: nobody waits for a broken peer to read why.
            drop(self.try_drain());
        }
    }

    /// Encrypts `plain` into `space`; returns the length of the ciphertext.
    ///
    /// rustls is given `rest`, never an empty slice: with half a KeyUpdate in it an empty one would make it
    /// slice out of bounds. Whatever else it has to say first goes to `out`.
    fn seal(&mut self, plain: &[u8], space: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut self.rest);
            let sealed = match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => Some(match traffic.encrypt(plain, space) {
                    Ok(sealed) => Ok(sealed),
                    Err(EncryptError::EncryptExhausted) => Err(TlsFailure::KeysUsedUp.into()),
                    Err(EncryptError::InsufficientSize(_)) => Err(io::ErrorKind::OutOfMemory.into()),
                }),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(TlsFailure::from)?;
                        self.http
                            .get_or_insert_default()
                            .plain
                            .extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.out, |space| data.encode(space).map_err(encode_needs));
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_closed = true;
                    None
                }
                Ok(_) => Some(Err(io::ErrorKind::BrokenPipe.into())),
                Err(error) => {
                    self.failed = true;
                    Some(Err(TlsFailure::from(error).into()))
                }
            };
            if discard > 0 {
                self.rest.drain(..discard.min(self.rest.len()));
            }
            if let Some(sealed) = sealed {
                self.sealed = self.sealed.saturating_add(1);
                return sealed;
            }
        }
    }

    fn queue_close_notify(&mut self) {
        let Self { tls, rest, out, .. } = self;
        let UnbufferedStatus { state, .. } = tls.process_tls_records(rest);
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            append(out, |space| traffic.queue_close_notify(space).map_err(encrypt_needs));
        }
    }

    /// For hyper: more decrypted bytes; the buffer is empty before.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut plain = self.http().take();
        let held = plain.len();
        let received = self.poll_receive(cx, &mut plain).map_ok(|_| plain.len() - held);
        self.http().plain = plain;
        if self.unsent() > 0 && !self.is_corked() {
            // A KeyUpdate answer or an alert: offered now, left to the next write otherwise.
            if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
                return Poll::Ready(Err(error));
            }
        }
        received
    }

    fn http(&mut self) -> &mut HttpSide {
        self.http.get_or_insert_default()
    }
}

/// Whether `bytes` hold a whole TLS record (RFC 8446 section 5.1), or one that is too long to ever be whole.
fn is_whole_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, payload @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            payload.len() >= length || length > RECORD_BYTES_MAX
        }
        _ => false,
    }
}

struct Filled {
    stage: Stage,
}

/// Appends to `out` what `write` puts into the space it is given; it answers how much, or how much it needs.
fn append(out: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    let start = out.len();
    let mut space = 1024;
    loop {
        out.resize(start + space, 0);
        match write(&mut out[start..]) {
            Ok(written) => return out.truncate(start + written),
            Err(0) => return out.truncate(start),
            Err(needed) => space = needed,
        }
    }
}

fn encode_needs(error: EncodeError) -> usize {
    match error {
        EncodeError::InsufficientSize(size) => size.required_size,
        EncodeError::AlreadyEncoded => 0,
    }
}

fn encrypt_needs(error: EncryptError) -> usize {
    match error {
        EncryptError::InsufficientSize(size) => size.required_size,
        EncryptError::EncryptExhausted => 0,
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.http().unread().is_empty() {
            match this.poll_plain(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let over = this.http().idle.as_mut().is_some_and(|idle| idle.is_over(cx));
                    return if over { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
            }
        }
        let http = this.http();
        let unread = http.unread();
        let taken = unread.len().min(buf.remaining());
        buf.put_slice(&unread[..taken]);
        http.read += taken;
        if http.read == http.plain.len() {
            http.plain = Vec::new();
            http.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent() > JOINABLE_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        let piece = &buf[..buf.len().min(PIECE_BYTES)];
        if piece.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.is_corked() {
            this.queue(piece)?;
        } else {
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
