//! `POST /ticket`: whoever shows a token in a header or a cookie, or has a session of the application, gets a single-use
//! ticket for `/ws?token=…`, so that no URL holds anything of worth.
//!
//! The Origin rules are those of `/ws`, the cookie rule too. A page on another origin that is listed may ask by CORS.

mod refused;
mod store;

use std::net::IpAddr;
use std::sync::Arc;

use ::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, ORIGIN, VARY,
};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use crate::auth::ticket::Ticket;
use crate::auth::{Admitted, Denied, OriginVerdict, Place, Policy};
use crate::http::service::Peer;
use crate::runtime::{Node, NotAdmitted};
use crate::telemetry::metrics::RateLimit;
use refused::Refused;
pub use store::{NotIssued, Tickets};

/// How long browsers may remember what they were told before a request: seconds.
const PREFLIGHT_AGE_S: &str = "600";

/// `/ticket`
pub fn routes(node: &Arc<Node>) -> Router {
    Router::new()
        .route("/ticket", post(issue).options(preflight))
        .with_state(Arc::clone(node))
}

async fn issue(State(node): State<Arc<Node>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let Some(peer) = parts.extensions.remove::<Peer>() else {
        // Only our own acceptor serves this router, and it always says who is there.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let ours = |host: &str| node.names_host(host);
    let Ok(origin) = node.policy.origin(&parts, &ours) else {
        return (no_store(), Refused::ForeignOrigin).into_response();
    };
    let headers = (no_store(), readable_by(&parts, origin));
    match give(&node, &parts, origin, peer.address.0.ip()).await {
        Ok(ticket) => {
            let expires_in = node.tickets.lifetime().as_secs();
            let shown = json!({"ticket": ticket.as_str(), "expires_in": expires_in});
            (headers, Json(shown)).into_response()
        }
        Err(refused) => (headers, refused).into_response(),
    }
}

async fn give(node: &Node, parts: &Parts, origin: OriginVerdict, address: IpAddr) -> Result<Ticket, Refused> {
    if let Some(addresses) = &node.tickets.addresses
        && let Err(wait) = addresses.check(address)
    {
        node.metrics.rate_limited(RateLimit::AddressTickets);
        return Err(Refused::RateLimited(wait));
    }
    let admitted = match node.identify(parts, origin, address).await {
        Ok(admitted) => admitted,
        Err(NotAdmitted::Denied(denied)) => return Err(denied_to(node, denied, address)),
        Err(NotAdmitted::Unavailable) => return Err(Refused::Unavailable),
    };
    require_header_or_cookie(&admitted)?;
    // Nobody can be vouched for.
    if node.warden.turns_away() {
        return Err(Refused::Unavailable);
    }
    if let Some(users) = &node.tickets.users
        && let Err(wait) = users.check(&admitted.identity().user_id)
    {
        node.metrics.rate_limited(RateLimit::Tickets);
        return Err(Refused::RateLimited(wait));
    }
    let origin = Policy::origin_of(parts);
    let ticket = node.tickets.issue(admitted.verified(), origin.as_deref()).await;
    ticket.map_err(|not_issued| match not_issued {
        NotIssued::Full | NotIssued::Unavailable => Refused::Unavailable,
        NotIssued::Internal => Refused::Internal,
    })
}

/// What is in a URL already gains nothing, and a ticket for a ticket would live for ever.
fn require_header_or_cookie(admitted: &Admitted) -> Result<(), Refused> {
    match admitted.place() {
        Place::Bearer | Place::Cookie | Place::Forward => Ok(()),
        Place::Query | Place::Ticket => Err(Refused::InTheQuery),
    }
}

fn denied_to(node: &Node, denied: Denied, address: IpAddr) -> Refused {
    let word = denied.word();
    node.metrics.auth_failure(word.as_str());
    if !node.refusals.check(address) {
        node.metrics.rate_limited(RateLimit::Refusals);
        return Refused::Throttled;
    }
    tracing::info!(reason = word.as_str(), detail = denied.detail(), %address, "ticket refused");
    Refused::Denied(word)
}

/// What a browser asks before a page of another origin may ask for a ticket.
async fn preflight(State(node): State<Arc<Node>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let ours = |host: &str| node.names_host(host);
    let Ok(origin) = node.policy.origin(&parts, &ours) else {
        return (no_store(), Refused::ForeignOrigin).into_response();
    };
    let mut headers = readable_by(&parts, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE_S));
    let forwarded = &node.config.auth.forward.headers;
    let named = ["authorization", "content-type"].into_iter();
    let named: Vec<&str> = named.chain(forwarded.iter().map(String::as_str)).collect();
    if let Ok(named) = HeaderValue::try_from(named.join(", ")) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, named);
    }
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Lets a page of another origin read the answer; with its cookies only if it is listed exactly.
fn readable_by(parts: &Parts, origin: OriginVerdict) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(VARY, HeaderValue::from_static("origin"));
    if !matches!(
        origin,
        OriginVerdict::Listed | OriginVerdict::Wildcard | OriginVerdict::Any
    ) {
        return headers;
    }
    if let Some(own) = parts.headers.get(ORIGIN) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, own.clone());
    }
    if origin.allows_cookie() {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    headers
}

fn no_store() -> [(::http::HeaderName, HeaderValue); 1] {
    [(CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}
