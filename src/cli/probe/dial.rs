//! The way to a server: name, TCP, TLS, upgrade. What each failure likely means is said here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use rustls::client::Resumption;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, handshake::client::Response};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::place::Place;
use super::stage::{Certificate, Kind, Trouble, plain};
use super::witness::Witness;
use super::{Plan, Trust};
use crate::cli::trust;

/// A WebSocket over TLS.
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Longer than anything that is said to a probe.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The addresses of a name: `--resolve` first, then DNS.
pub async fn resolve(plan: &Plan, place: &Place) -> Result<(Vec<SocketAddr>, String), Trouble> {
    if let Some(address) = plan.resolve.iter().find_map(|resolve| resolve.of(place)) {
        return Ok((vec![address], format!("{} by --resolve", address.ip())));
    }
    if let Ok(ip) = place.host.parse() {
        return Ok((vec![SocketAddr::new(ip, place.port)], "an address".to_owned()));
    }
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
    let mut found: Vec<SocketAddr> = found
        .map_err(|error| {
            Trouble::new(
                Kind::Unreachable,
                format!("{} has no address: {error}", place.host),
                "is the name right, and does this machine's DNS (/etc/resolv.conf) answer? --resolve HOST:PORT:ADDRESS goes around it",
            )
        })?
        .collect();
    found.dedup();
    if found.is_empty() {
        return Err(Trouble::new(
            Kind::Unreachable,
            format!("{} has no address", place.host),
            "does its DNS record have an A or AAAA entry?",
        ));
    }
    let shown: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
    Ok((found, shown.join(", ")))
}

/// The first of the addresses that answers; each has its share of the time.
pub async fn connect(addresses: &[SocketAddr], time: Duration) -> Result<(TcpStream, String), Trouble> {
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        // The last may take what is left: then the whole probe ends with it.
        let share = if left == 1 { Duration::MAX } else { time / left };
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Only the time of small frames depends on it.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address.to_string()));
            }
            Ok(Err(error)) => last = Some((*address, error)),
            Err(_) => last = Some((*address, io::ErrorKind::TimedOut.into())),
        }
    }
    let (address, error) = last.unwrap_or_else(|| (([0, 0, 0, 0], 0).into(), io::ErrorKind::AddrNotAvailable.into()));
    Err(unreachable(address, &error))
}

fn unreachable(address: SocketAddr, error: &io::Error) -> Trouble {
    let (what, help) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            format!("{address} refused the connection"),
            "nothing listens there: is the server (or balancer) running, and is the port right? A draining node listens no more",
        ),
        io::ErrorKind::TimedOut => (
            format!("{address} did not answer"),
            "a firewall that drops, a machine that is gone, or a full accept queue",
        ),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => (
            format!("no way to {address}: {error}"),
            "this machine has no route there; with an IPv6 address, has it IPv6 at all?",
        ),
        _ => (
            format!("{address}: {error}"),
            "the connection could not be made from here",
        ),
    };
    Trouble::new(Kind::Unreachable, what, help)
}

/// What a TLS handshake showed.
pub struct Handshake {
    pub stream: TlsStream<TcpStream>,
    pub version: String,
}

/// TLS, with the certificate checked. What was shown is told in any case.
pub async fn handshake(
    plan: &Plan,
    place: &Place,
    stream: TcpStream,
) -> (Result<Handshake, Trouble>, Option<Certificate>) {
    let here = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
    let (config, witness) = match client_config(&plan.trust, here, plan) {
        Ok(made) => made,
        Err(trouble) => return (Err(trouble), None),
    };
    let Some(name) = place.server_name() else {
        let trouble = Trouble::new(Kind::Tls, "the host cannot be named in TLS", "check the URL");
        return (Err(trouble), None);
    };
    let made = TlsConnector::from(config).connect(name, stream).await;
    let seen = witness.seen();
    let made = made
        .map_err(|error| tls_trouble(place, &error, seen.as_ref()))
        .map(|stream| {
            let version = stream.get_ref().1.protocol_version();
            let version = version.map_or_else(String::new, |version| format!("{version:?}").replace('_', "."));
            Handshake { stream, version }
        });
    (made, seen)
}

fn client_config(trust: &Trust, here: bool, plan: &Plan) -> Result<(Arc<ClientConfig>, Arc<Witness>), Trouble> {
    let cannot = |why: String| Trouble::new(Kind::Tls, why, "check --ca");
    let roots = match trust {
        Trust::Anybody => None,
        Trust::Authority(file) => Some(trust::roots(file.as_deref(), here, &plan.environment)),
    };
    let roots = roots
        .transpose()
        .map_err(|_| cannot("no certificate authority to trust could be read".to_owned()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let witness = Witness::new(roots, &provider).map_err(cannot)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| cannot(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as _)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each probe is a stranger, as each new client is.
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), witness))
}

fn tls_trouble(place: &Place, error: &io::Error, seen: Option<&Certificate>) -> Trouble {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let (what, help) = match cause {
        Some(rustls::Error::InvalidCertificate(flaw)) => certificate_trouble(place, flaw, seen),
        Some(rustls::Error::InvalidMessage(_)) => (
            "no TLS is spoken there".to_owned(),
            "another service's port, or plain HTTP behind a proxy that should end TLS? Is the port right?".to_owned(),
        ),
        Some(rustls::Error::AlertReceived(alert)) => (
            format!("the server ended the handshake: {alert:?}"),
            match alert {
                AlertDescription::CertificateRequired | AlertDescription::BadCertificate => {
                    "it wants a client certificate, which this probe has none of"
                }
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
                    "it shares no version or cipher with us; Conclave takes TLS 1.2 and 1.3"
                }
                AlertDescription::NoApplicationProtocol => "it does not speak HTTP/1.1 over this port",
                AlertDescription::UnrecognisedName => "it has no certificate for this name",
                _ => "its log says why",
            }
            .to_owned(),
        ),
        Some(other) => (other.to_string(), "its log says why".to_owned()),
        None if is_cut(error) => (
            "the server closed the connection in the middle of the handshake".to_owned(),
            "it may be at a limit of connections (conclave_refused_total), or want a PROXY header (server.proxy_from); \
             or the port is another service's"
                .to_owned(),
        ),
        None => (error.to_string(), "the connection broke in the middle of the handshake".to_owned()),
    };
    Trouble::new(Kind::Tls, what, help)
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
    )
}

fn certificate_trouble(place: &Place, flaw: &CertificateError, seen: Option<&Certificate>) -> (String, String) {
    let names = seen.map_or_else(String::new, |seen| seen.names.join(", "));
    let issuer = seen.map_or_else(String::new, |seen| seen.issuer.clone());
    match flaw {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            format!("the certificate expired {}", when(seen.map(|seen| seen.not_after))),
            "renew it; Conclave loads a new file by itself (conclave_tls_reloads_total), a balancer may need a reload".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            format!("the certificate is good only from {}", when(seen.map(|seen| seen.not_before))),
            "is this machine's clock right?".to_owned(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("the certificate is not for {}, but for {names}", place.host),
            "use one of its names, with --resolve if DNS does not know it here; or get a certificate for this name".to_owned(),
        ),
        // A bad signature: somebody of that name is trusted, but has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            format!("the certificate comes from {issuer}, whom nobody here trusts"),
            "pass --ca FILE with that authority; if it is a public one, the server's tls.certificate lacks the intermediate \
             certificates (it must hold the whole chain)"
                .to_owned(),
        ),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => (
            "the certificate is an authority's own (CA:TRUE), which strict clients refuse as a server's".to_owned(),
            "have one issued by it; of a self-signed one: openssl req -x509 … -addext basicConstraints=critical,CA:FALSE".to_owned(),
        ),
        other => (
            format!("the certificate is not good: {other:?}"),
            "look at it with: openssl s_client -connect HOST:PORT -servername HOST".to_owned(),
        ),
    }
}

/// `2026-01-01T00:00:00Z`, or nothing that would be wrong.
pub fn when(unix_seconds: Option<i64>) -> String {
    let time = unix_seconds.and_then(|at| u64::try_from(at).ok());
    time.and_then(|at| std::time::UNIX_EPOCH.checked_add(Duration::from_secs(at)))
        .map_or_else(
            || "at an unknown time".to_owned(),
            |at| humantime::format_rfc3339_seconds(at).to_string(),
        )
}

/// The upgrade request, and 101.
pub async fn upgrade(
    plan: &Plan,
    place: &Place,
    stream: TlsStream<TcpStream>,
    token: &SecretString,
) -> Result<Socket, Trouble> {
    let mut request = format!("{place}")
        .into_client_request()
        .map_err(|_| Trouble::new(Kind::Refused, "this URL cannot be asked for", "check the URL"))?;
    let headers = request.headers_mut();
    let token = token.expose_secret();
    let secret = match &plan.cookie {
        Some(name) => HeaderValue::try_from(format!("{name}={token}")),
        None => HeaderValue::try_from(format!("Bearer {token}")),
    };
    let mut secret = secret.map_err(|_| {
        Trouble::new(
            Kind::Auth,
            "the token has characters that no header may have",
            "does the file hold the token alone?",
        )
    })?;
    secret.set_sensitive(true);
    let name = if plan.cookie.is_some() {
        header::COOKIE
    } else {
        header::AUTHORIZATION
    };
    headers.insert(name, secret);
    let own = plan.cookie.as_ref().map(|_| format!("https://{}", place.authority()));
    if let Some(origin) = plan.origin.clone().or(own) {
        let origin = HeaderValue::try_from(origin).map_err(|_| {
            Trouble::new(
                Kind::Refused,
                "--origin cannot be said",
                "such as https://app.example.com",
            )
        })?;
        headers.insert(header::ORIGIN, origin);
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    // Boxed: it is larger than everything else of a probe.
    match Box::pin(client_async_with_config(request, stream, Some(config))).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(refused(plan, &response)),
        Err(Error::Io(error)) if is_cut(&error) => Err(cut()),
        Err(Error::Protocol(error)) => Err(Trouble::new(
            Kind::Refused,
            format!("the answer is no WebSocket's: {error}"),
            "is this the path of Conclave's socket (/ws), and does a proxy in between pass upgrades on?",
        )),
        Err(Error::ConnectionClosed | Error::AlreadyClosed) => Err(cut()),
        Err(error) => Err(Trouble::new(
            Kind::Refused,
            error.to_string(),
            "what answers there is not HTTP as Conclave speaks it",
        )),
    }
}

fn cut() -> Trouble {
    Trouble::new(
        Kind::Refused,
        "the connection was closed instead of an answer",
        "the node is at a limit or stopping, or a balancer has no node to pass it to",
    )
}

fn refused(plan: &Plan, response: &Response) -> Trouble {
    let status = response.status();
    let body = response.body().as_deref().map(String::from_utf8_lossy);
    let said = body
        .map(|body| plain(&body))
        .filter(|body| !body.is_empty() && !body.starts_with('<'));
    let said = said.map_or_else(String::new, |body| format!(": {body}"));
    let retry = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let retry = retry.map_or_else(String::new, |after| format!(" (Retry-After: {})", plain(after)));
    let help = match status {
        StatusCode::FORBIDDEN if plan.origin.is_some() || plan.cookie.is_some() => {
            "the Origin is foreign: add it to origin.allow, or probe without --origin"
        }
        StatusCode::FORBIDDEN => {
            "a proxy or firewall in between forbids it; Conclave itself refuses foreign origins only"
        }
        StatusCode::NOT_FOUND => "Conclave's socket is at /ws; does a proxy in between route this path?",
        StatusCode::UPGRADE_REQUIRED | StatusCode::BAD_REQUEST => {
            "a proxy in between dropped the Upgrade header: see the nginx and HAProxy examples"
        }
        StatusCode::TOO_MANY_REQUESTS => {
            "this address had too many refused tokens (auth.refusals_per_second): who else is behind it?"
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            "the node is full or draining, or the balancer has no healthy node; try again later"
        }
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            "the proxy in between does not reach a node: is it up, and does the proxy speak TLS to it?"
        }
        status if status.is_redirection() => "it redirects, and sockets do not follow: use the final address",
        StatusCode::OK => "something else answers there: is this the path of Conclave's socket (/ws)?",
        _ => "its log says why",
    };
    Trouble::new(Kind::Refused, format!("HTTP {status}{retry}{said}"), help)
}
