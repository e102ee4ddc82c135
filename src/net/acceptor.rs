//! From a TCP connection to a TLS stream that has its first request, under one deadline. Where a trusted proxy
//! passes the connection on, it begins with the proxy's word on whose it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum_server::accept::Accept;
use tokio::time::{Instant as Deadline, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Networks;
use crate::http::service::{HttpService, Peer as HttpPeer};
use crate::net::admission::{Admission, Meter};
use crate::net::certificates::{Certificates, clients};
use crate::net::client_io::{ClientIo, Stream};
use crate::net::idle::{HttpIdle, InService};
use crate::net::listener::Accepted;
use crate::net::permits::Refused;
use crate::net::plain_io::PlainIo;
use crate::net::proxy_protocol::{self, Malformed};
use crate::net::socket::Socket;
use crate::net::tls_io::{TlsFailure, TlsIo};
use crate::net::{NAMELESS, PeerAddress};
use crate::shard::Shard;
use crate::telemetry::metrics::{ClientCertificate, HandshakeResult, Label, Metrics};

/// The client connection preface of HTTP/2 (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A handshake that takes longer than this waits for its client, not for us: others may have its turn.
const TURN_MAX: Duration = Duration::from_secs(1);

/// One shard's acceptor.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

pub struct Inner {
    pub shard: Arc<Shard>,
    /// None: without TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// Whose requests say whose they are.
    pub forwarders: Arc<Networks>,
    pub admission: Arc<Admission>,
    pub metrics: Arc<Metrics>,
    /// From accept to the first bytes of a request, a proxy's header and TLS included.
    pub handshake_timeout: Duration,
    /// Without a request for so long, an HTTP connection ends.
    pub http_idle: Duration,
    /// Ends handshakes at once when the node stops: axum-server looks at its own shutdown only later.
    pub stop: CancellationToken,
    /// Who is between accept and the first bytes of a request.
    pub arriving: TaskTracker,
}

impl Acceptor {
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl<S: Send + 'static> Accept<Accepted, S> for Acceptor {
    type Stream = ClientIo;
    type Service = HttpService<S>;
    type Future = futures_util::future::BoxFuture<'static, io::Result<(ClientIo, HttpService<S>)>>;

    fn accept(&self, accepted: Accepted, service: S) -> Self::Future {
        let inner = Arc::clone(&self.0);
        let arriving = inner.arriving.token();
        Box::pin(async move {
            let _arriving = arriving;
            let deadline = Deadline::now() + inner.handshake_timeout;
            let meter = Meter::default();
            let opening = (inner.admission).measure(&meter, inner.shard.index, inner.open(accepted, &meter));
            let opened = tokio::select! {
                biased;
                // Nothing is lost: a client in its handshake has said nothing yet.
                () = inner.stop.cancelled() => return Err(io::ErrorKind::ConnectionAborted.into()),
                opened = timeout_at(deadline, opening) => opened,
            };
            let result = match &opened {
                Ok(Ok(_)) => HandshakeResult::Ok,
                Ok(Err(failed)) => failed.result,
                Err(_) => HandshakeResult::TlsTimeout,
            };
            inner.metrics.handshake(result);
            if result == HandshakeResult::Ok && inner.certificates.is_some() {
                inner.admission.learn(meter.spent_ns());
            }
            let (mut io, address) = match opened {
                Ok(Ok(opened)) => opened,
                Ok(Err(failed)) => {
                    tracing::debug!(error = %failed.error, result = failed.result.word(), "handshake ended");
                    return Err(failed.error);
                }
                Err(elapsed) => return Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
            };
            let in_service = InService::default();
            io.set_idle(HttpIdle::new(in_service.clone(), inner.http_idle));
            let forwards = inner.forwarders.trust(address.map(|address| address.ip()));
            let peer = HttpPeer {
                address: PeerAddress(address.unwrap_or(NAMELESS)),
                tls_version: io.tls_version(),
                shard: Arc::clone(&inner.shard),
                in_service,
                forwards: forwards.then(|| Arc::clone(&inner.forwarders)),
            };
            Ok((io, HttpService::new(service, peer)))
        })
    }
}

struct Failed {
    result: HandshakeResult,
    error: io::Error,
}

fn gone(error: io::Error) -> Failed {
    Failed {
        result: HandshakeResult::ClientGone,
        error,
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self {
            result: refused.result(),
            error: io::ErrorKind::QuotaExceeded.into(),
        }
    }
}

impl Inner {
    /// The stream, and the client's address where it is known.
    async fn open(&self, mut accepted: Accepted, meter: &Meter) -> Result<(ClientIo, Option<SocketAddr>), Failed> {
        let early = if accepted.is_proxied {
            self.hear_proxy(&mut accepted).await?
        } else {
            Vec::new()
        };
        let address = accepted.address;
        let io = match &self.certificates {
            Some(certificates) => Stream::Tls(self.shake_hands(certificates, accepted, early, meter).await?),
            None => {
                let mut io = PlainIo::new(accepted.socket, early, accepted.permit);
                io.wait_for_request(version_is_clear).await.map_err(gone)?;
                Stream::Plain(io)
            }
        };
        Ok((ClientIo::new(io, Arc::clone(&self.metrics)), address))
    }

    async fn shake_hands(
        &self,
        certificates: &Certificates,
        accepted: Accepted,
        early: Vec<u8>,
        meter: &Meter,
    ) -> Result<Box<TlsIo>, Failed> {
        let failed = |error| Failed {
            result: blame(&error),
            error,
        };
        let (Socket::Tcp(socket), Some(address)) = (accepted.socket, accepted.address) else {
            // The configuration does not let it come to this.
            return Err(gone(io::ErrorKind::Unsupported.into()));
        };
        let mut io = TlsIo::new(socket, certificates.server_config(), accepted.permit).map_err(|error| Failed {
            result: HandshakeResult::TlsError,
            error: io::Error::other(error),
        })?;
        // A turn is taken only once there is something to compute, so that silent clients hold no place.
        io.wait_for_hello(early).await.map_err(failed)?;
        let is_proxy = self.forwarders.trust(Some(address.ip()));
        let turn = self.admission.turn(self.shard.index, address.ip(), is_proxy).await;
        let turn = turn.map_err(|refused| Failed {
            result: refused.result(),
            error: io::ErrorKind::QuotaExceeded.into(),
        })?;
        // Before anything may end this: what is not spent of the advance is paid back.
        meter.advance(turn.cost_ns);
        if turn.has_waited && io.is_abandoned() {
            return Err(gone(io::ErrorKind::UnexpectedEof.into()));
        }
        let is_challenge = is_challenge(certificates, &mut io).await;
        let started = Instant::now();
        let mut turn = Some(turn);
        loop {
            tokio::select! {
                biased;
                done = io.handshake() => {
                    done.map_err(|error| self.handshake_failed(certificates, error))?;
                    break;
                }
                // Nothing is lost: the handshake goes on, without its turn.
                () = tokio::time::sleep(TURN_MAX), if turn.is_some() => turn = None,
            }
        }
        self.metrics.tls_handshake_seconds(started.elapsed().as_secs_f64());
        drop(turn);
        if is_challenge {
            return Err(answered(io).await);
        }
        self.count_client_certificate(certificates, &io);
        io.wait_for_request(version_is_clear).await.map_err(gone)?;
        Ok(io)
    }

    fn count_client_certificate(&self, certificates: &Certificates, io: &TlsIo) {
        if certificates.asks_clients() {
            self.metrics.client_certificate(if io.has_client_certificate() {
                ClientCertificate::Ok
            } else {
                ClientCertificate::None
            });
        }
    }

    fn handshake_failed(&self, certificates: &Certificates, error: io::Error) -> Failed {
        let flaw = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(TlsFailure::Tls(error)) => clients::refusal(error),
            _ => None,
        };
        let result = match flaw {
            Some(flaw) => {
                self.metrics.client_certificate(flaw);
                HandshakeResult::ClientCertificate
            }
            None if certificates.is_empty() => HandshakeResult::NoCertificate,
            None => blame(&error),
        };
        Failed { result, error }
    }

    /// Reads whose connection this is, and counts it for that address. Returns what the client has said already.
    async fn hear_proxy(&self, accepted: &mut Accepted) -> Result<Vec<u8>, Failed> {
        let heard = proxy_protocol::read(&mut accepted.socket).await;
        let (source, early) = heard.map_err(|error| Failed {
            result: blame(&error),
            error,
        })?;
        accepted.address = source.or(accepted.address);
        // Of a proxy behind that proxy it counts for nobody before its requests say whose they are.
        let address = accepted.address.map(|address| address.ip());
        if let Some(address) = address.filter(|address| !self.forwarders.trust(Some(*address))) {
            accepted.permit.name(address).inspect_err(|refused| {
                self.metrics.limit_hit(refused.limit());
            })?;
        }
        Ok(early)
    }
}

/// Has an authority's challenge answered with what answers it, instead of the certificate.
async fn is_challenge(certificates: &Certificates, io: &mut TlsIo) -> bool {
    let Some(acme) = certificates.acme() else {
        return false;
    };
    match acme.challenge(io.hello()).await {
        Some(config) => io.serve_with(config).is_ok(),
        None => false,
    }
}

/// RFC 8737 section 3: the authority has seen what it wanted, and nothing is said over this connection.
async fn answered(mut io: Box<TlsIo>) -> Failed {
    // The certificate is what counts; the end may get lost.
    let _ = std::future::poll_fn(|cx| io.poll_close(cx)).await;
    Failed {
        result: HandshakeResult::AcmeChallenge,
        error: io::ErrorKind::ConnectionAborted.into(),
    }
}

fn blame(error: &io::Error) -> HandshakeResult {
    let Some(inner) = error.get_ref() else {
        return HandshakeResult::ClientGone;
    };
    if inner.is::<Malformed>() {
        return HandshakeResult::BadProxyHeader;
    }
    match inner.downcast_ref::<TlsFailure>() {
        Some(TlsFailure::NotTls) => HandshakeResult::NotTls,
        Some(TlsFailure::LeftEarly) | None => HandshakeResult::ClientGone,
        Some(_) => HandshakeResult::TlsError,
    }
}

/// Whether these first bytes are the whole HTTP/2 preface, or cannot become it.
fn version_is_clear(first: &[u8]) -> bool {
    let known = first.len().min(H2_PREFACE.len());
    known == H2_PREFACE.len() || first[..known] != H2_PREFACE[..known]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_is_given_no_half_preface() {
        assert!(!version_is_clear(b""));
        assert!(!version_is_clear(b"P"));
        assert!(!version_is_clear(&H2_PREFACE[..23]));
        assert!(version_is_clear(H2_PREFACE));
        assert!(version_is_clear(b"G"));
        assert!(version_is_clear(b"PO"));
    }
}
