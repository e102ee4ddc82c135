//! `/ws` and `/echo`: Origin, then token, then the upgrade (PROTOCOL section 1).

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;

use crate::auth::{self, Admitted, Denied, Place};
use crate::connection::echo::Echo;
use crate::connection::task::{Entrance, Task, greeting};
use crate::connection::transport::{StreamIo, Transport};
use crate::connection::turn_away::turn_away;
use crate::connection::{Conn, NEVER};
use crate::http::overloaded;
use crate::http::service::Peer;
use crate::net::NAMELESS;
use crate::net::admission::Telling;
use crate::net::client_io::{self, ClientIo};
use crate::net::permits::{self, Permit};
use crate::protocol::close::Close;
use crate::runtime::{Node, NotAdmitted};
use crate::shard::inbox::Command;
use crate::telemetry::metrics::{self, Limit, RateLimit, UpgradeResult};
use crate::telemetry::traces::{TraceContext, UpgradeInfo, UpgradeSpan};
use crate::websocket::handshake::{self, Handshake};

/// Which of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rooms,
    Echo,
}

impl Kind {
    const fn route(self) -> &'static str {
        match self {
            Self::Rooms => "/ws",
            Self::Echo => "/echo",
        }
    }
}

/// The socket routes. No middleware: a timeout or compression layer would break an upgrade.
pub fn routes(node: &Arc<Node>) -> Router {
    let mut routes = Router::new().route(Kind::Rooms.route(), any(enter).layer(Extension(Kind::Rooms)));
    if node.config.echo.enabled {
        routes = routes.route(Kind::Echo.route(), any(enter).layer(Extension(Kind::Echo)));
    }
    routes.with_state(Arc::clone(node))
}

/// What is decided about a request that may be upgraded.
enum Verdict {
    Welcome(Admitted),
    TurnAway(Close, Telling),
}

/// Why a request is not even upgraded.
enum Refused {
    Handshake(handshake::Refused),
    ForeignOrigin,
    Throttled,
    /// Too many are being told already; come back after so long.
    Overloaded(Duration),
}

async fn enter(State(node): State<Arc<Node>>, Extension(kind): Extension<Kind>, request: Request) -> Response {
    let started = Instant::now();
    let (mut parts, _) = request.into_parts();
    let Some(peer) = parts.extensions.remove::<Peer>() else {
        // Only our own acceptor serves this router, and it always says who is there.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let span = node.traces.upgrade(
        &parts.headers,
        UpgradeInfo {
            method: parts.method.clone(),
            route: kind.route(),
            http: parts.version,
            tls: peer.tls_version,
        },
    );
    let decided = span.run(decide(&node, &parts, &peer)).await;
    let (response, result, word) = match decided {
        Ok((handshake, verdict)) => {
            let (result, word) = match &verdict {
                Verdict::Welcome(_) => (UpgradeResult::Admitted, "admitted"),
                Verdict::TurnAway(close, _) if *close == Close::OVERLOADED => (UpgradeResult::Overloaded, close.reason),
                Verdict::TurnAway(close, _) => (UpgradeResult::Denied, close.reason),
            };
            // Counted as a session of its own kind, and nowhere else.
            let is_probe = matches!(&verdict, Verdict::Welcome(admitted) if admitted.identity().is_probe);
            let response = handshake::response(handshake, &parts.headers).map(|()| axum::body::Body::empty());
            if parts.version < http::Version::HTTP_2 {
                peer.in_service.cork();
            }
            upgrade(&node, kind, &mut parts, peer, verdict, &span);
            (response, (!is_probe).then_some(result), word)
        }
        Err(refused) => {
            let (response, result, word) = refused.answer(parts.version);
            (response, Some(result), word)
        }
    };
    span.set_result(response.status().as_u16(), word);
    if let Some(result) = result {
        node.metrics.upgrade(result, started.elapsed().as_secs_f64());
    }
    response
}

async fn decide(node: &Node, parts: &Parts, peer: &Peer) -> Result<(Handshake, Verdict), Refused> {
    let handshake = handshake::check(parts).map_err(Refused::Handshake)?;
    let ours = |host: &str| node.names_host(host);
    let origin = node.policy.origin(parts, &ours).map_err(|_| {
        tracing::info!(address = %peer.address.0.ip(), "upgrade refused: foreign origin");
        Refused::ForeignOrigin
    })?;
    if node.drain.is_draining() {
        return Ok((handshake, turned_away(node, Close::OVERLOADED)?));
    }
    let is_returning = says_resume(parts);
    // Only a good token makes a client one that returns; of a newcomer not even the token is looked at in vain.
    if !is_returning && let Err(refusal) = node.admission.overload.serve(node.load()) {
        node.metrics.admission_refused(refusal);
        return Ok((handshake, turned_away(node, Close::OVERLOADED)?));
    }
    let verdict = match node.admit(parts, origin, peer.address.0.ip()).await {
        Ok(admitted) => welcome(node, admitted, is_returning)?,
        Err(NotAdmitted::Denied(denied)) => refuse(node, denied, peer)?,
        Err(NotAdmitted::Unavailable) => turned_away(node, Close::OVERLOADED)?,
    };
    Ok((handshake, verdict))
}

/// Whoever has a good token still needs a node that has room, and that knows who is revoked.
fn welcome(node: &Node, admitted: Admitted, is_returning: bool) -> Result<Verdict, Refused> {
    // Who is already known to be revoked was told so; nobody else can be vouched for.
    if node.warden.turns_away() {
        return turned_away(node, Close::OVERLOADED);
    }
    if let Err(refusal) = node.admission.overload.admit(node.load(), is_returning) {
        node.metrics.admission_refused(refusal);
        return turned_away(node, Close::OVERLOADED);
    }
    if !admitted.identity().is_probe {
        if is_returning {
            node.metrics.socket_resumed();
        }
        node.metrics.admitted(place_label(node, &admitted));
    }
    Ok(Verdict::Welcome(admitted))
}

fn refuse(node: &Node, denied: Denied, peer: &Peer) -> Result<Verdict, Refused> {
    let word = denied.word();
    let address = peer.address.0.ip();
    node.metrics.auth_failure(word.as_str());
    if !node.refusals.check(address) {
        node.metrics.rate_limited(RateLimit::Refusals);
        return Err(Refused::Throttled);
    }
    tracing::info!(reason = word.as_str(), detail = denied.detail(), %address, "connection refused");
    turned_away(node, word.close())
}

/// Upgraded only to be told why it may not stay, while there are not too many of those.
fn turned_away(node: &Node, close: Close) -> Result<Verdict, Refused> {
    let telling = node.admission.overload.tell();
    telling
        .map(|telling| Verdict::TurnAway(close, telling))
        .ok_or_else(|| Refused::Overloaded(node.admission.return_after()))
}

/// `resume=1`: the client was here before and comes back for what it has missed.
fn says_resume(parts: &Parts) -> bool {
    let query = parts.uri.query().unwrap_or("");
    query.split('&').any(|pair| pair == "resume=1")
}

fn place_label(node: &Node, admitted: &Admitted) -> metrics::Place {
    match admitted.place() {
        Place::Query => metrics::Place::Query,
        Place::Bearer => metrics::Place::Bearer,
        Place::Cookie if node.config.session.enabled && admitted.is_guest() => metrics::Place::Session,
        Place::Cookie => metrics::Place::Cookie,
        Place::Ticket => metrics::Place::Ticket,
        Place::Forward => metrics::Place::Forward,
    }
}

/// Waits, in a task of its own, for hyper to hand over the stream, and begins the connection on it.
fn upgrade(node: &Arc<Node>, kind: Kind, parts: &mut Parts, peer: Peer, verdict: Verdict, span: &UpgradeSpan) {
    let Some(upgrading) = parts.extensions.remove::<OnUpgrade>() else {
        return;
    };
    let (node, trace) = (Arc::clone(node), span.context());
    // Boxed parts would outlive the upgrade in this task's memory; the connection gets a task of its own.
    let tasks = node.tasks.clone();
    tasks.spawn_here(async move {
        let Ok(upgraded) = upgrading.await else { return };
        match downcast::<TokioIo<ClientIo>>(upgraded) {
            Ok(parts) => {
                let (mut io, mut early) = parts.io.into_inner().into_upgraded();
                early.splice(..0, parts.read_buf.iter().copied());
                let Some(verdict) = placed(&node, kind, &peer, verdict, Some(io.permit())).await else {
                    return;
                };
                begin(node, kind, peer, verdict, trace, Stream::Own(io), early);
            }
            Err(upgraded) => match permit(&node, &peer) {
                Ok(permit) => {
                    let Some(verdict) = placed(&node, kind, &peer, verdict, None).await else {
                        return;
                    };
                    let stream = Stream::Http2(StreamIo::new(upgraded, permit, peer.in_service.clone()));
                    begin(node, kind, peer, verdict, trace, stream, Vec::new());
                }
                Err(refused) => {
                    node.metrics.limit_hit(refused.limit());
                    if let Some(_telling) = node.admission.overload.tell() {
                        turn_away(TokioIo::new(upgraded), Close::OVERLOADED, Some(return_after_ms(&node))).await;
                    }
                }
            },
        }
    });
}

fn return_after_ms(node: &Node) -> u64 {
    u64::try_from(node.admission.return_after().as_millis()).unwrap_or(u64::MAX)
}

/// Somebody who came just before the node stopped looks again after so long.
const OVERLOADED_RECONNECT_MS: u64 = 2_000;

/// Of a socket that shares its TCP connection with others.
fn permit(node: &Node, peer: &Peer) -> Result<Permit, permits::Refused> {
    match peer.address.0 {
        NAMELESS if peer.forwards.is_none() => node.permits.admit_nameless(),
        // What a proxy does not say, or says in two ways, is one address: nobody gets around the limit like that.
        address => node.permits.admit(address.ip()),
    }
}

/// Takes the places that a connection needs which is only now known to be one: of its address, where a proxy may share its
/// connections, and of its user. None: there is no place for it, and too many are being told so already.
async fn placed(
    node: &Node,
    kind: Kind,
    peer: &Peer,
    verdict: Verdict,
    permit: Option<&mut Permit>,
) -> Option<Verdict> {
    let Verdict::Welcome(admitted) = &verdict else {
        return Some(verdict);
    };
    if let Some(permit) =
        permit.filter(|permit| permit.is_nameless() && (peer.address.0 != NAMELESS || peer.forwards.is_some()))
        && let Err(refused) = permit.name(peer.address.0.ip())
    {
        node.metrics.limit_hit(refused.limit());
        return turned_away(node, Close::OVERLOADED).ok();
    }
    // From here on it is counted until its task ends.
    if kind == Kind::Rooms && !node.seat(admitted.identity()).await {
        node.metrics.limit_hit(Limit::ConnectionsPerUser);
        return turned_away(node, Close::OVERLOADED).ok();
    }
    Some(verdict)
}

enum Stream {
    Own(client_io::Stream),
    Http2(StreamIo),
}

fn begin(
    node: Arc<Node>,
    kind: Kind,
    peer: Peer,
    verdict: Verdict,
    trace: Option<TraceContext>,
    stream: Stream,
    early: Vec<u8>,
) {
    let tasks = node.tasks.clone();
    let admitted = match verdict {
        Verdict::Welcome(admitted) => admitted,
        Verdict::TurnAway(close, telling) => {
            let back = (close == Close::OVERLOADED).then(|| return_after_ms(&node));
            node.metrics
                .disconnected(close.code, close.reason, metrics::Initiator::Server, 0.0);
            tasks.spawn_here(async move {
                let _telling = telling;
                match stream {
                    Stream::Own(io) => turn_away(io, close, back).await,
                    Stream::Http2(stream) => turn_away(stream.into_inner(), close, back).await,
                }
            });
            return;
        }
    };
    let transport = match stream {
        Stream::Own(client_io::Stream::Tls(tls)) => Transport::Tls(tls),
        Stream::Own(client_io::Stream::Plain(io)) => Transport::Plain(io),
        Stream::Http2(stream) => Transport::Stream(Box::new(stream)),
    };
    let shard = peer.shard;
    let identity = (kind != Kind::Echo).then(|| Arc::clone(admitted.identity()));
    let is_probe = admitted.identity().is_probe;
    let first_word = |conn: &Conn| {
        // Only now can it be found by who ends revoked connections. The close is queued before anything else is.
        if node.policy.is_revoked(admitted.identity(), auth::now()) {
            return Some(Command::Close {
                member: conn.member,
                close: Close::TOKEN_REVOKED,
                reconnect_after_ms: 0,
            });
        }
        (kind == Kind::Rooms).then(|| greeting(&node, conn, admitted.identity(), admitted.expires_at()))
    };
    let ends_at = admitted.ends_at().unwrap_or(NEVER);
    let conn = shard.register(transport, identity, is_probe, ends_at, first_word);
    if kind == Kind::Echo {
        return tasks.spawn_here(Echo::new(node, shard, conn, early));
    }
    let (draining, member) = (node.drain.is_draining(), conn.member);
    let served_by = Arc::clone(&shard);
    tasks.spawn_here(Task::new(Entrance {
        identity: Arc::clone(admitted.identity()),
        address: peer.address.0.ip(),
        node,
        shard,
        conn,
        trace,
        early,
    }));
    if draining {
        // It was admitted before the drain began, and came too late to be among those who are told.
        served_by.close_for_restart(member, OVERLOADED_RECONNECT_MS);
    }
}

impl Refused {
    fn answer(self, version: http::Version) -> (Response, UpgradeResult, &'static str) {
        let (status, result, word, text) = match self {
            Self::Handshake(refused) => {
                let mut response = (refused.status(), refused.message()).into_response();
                response.headers_mut().extend(refused.headers());
                return (response, UpgradeResult::BadRequest, refused.label());
            }
            Self::Overloaded(after) => {
                return (
                    overloaded::answer(after, version),
                    UpgradeResult::Overloaded,
                    "overloaded",
                );
            }
            Self::ForeignOrigin => (
                StatusCode::FORBIDDEN,
                UpgradeResult::ForeignOrigin,
                "foreign_origin",
                "This origin is not on the allow-list.",
            ),
            Self::Throttled => (
                StatusCode::TOO_MANY_REQUESTS,
                UpgradeResult::Throttled,
                "throttled",
                "Too many refused tokens from this address.",
            ),
        };
        let mut response = (status, text).into_response();
        if matches!(self, Self::Throttled) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        (response, result, word)
    }
}
