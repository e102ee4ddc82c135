//! What every request passes before and after its handler.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::RequestExt;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::audit;
use super::caller::{Budget, Caller, Reach, Scopes, Via};
use super::keys::{self, Keys};
use super::problem::{self, Problem};
use crate::auth::{self, AddressLimiter};
use crate::config;
use crate::net::PeerAddress;
use crate::runtime::Node;
use crate::telemetry::metrics::{AdminResult, ApiOperation, Label};

/// How long the body may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take, body included; the routes around it give up a little later.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(14);
/// Wrong keys per second and address that are told so, after a burst; then it is 429.
const WRONG_PER_SECOND: NonZeroU32 = NonZeroU32::new(5).expect("not nought");
const WRONG_BURST: NonZeroU32 = NonZeroU32::new(20).expect("not nought");
/// Users of tokens whose rate is remembered; beyond them newcomers share one.
const USERS_MAX: usize = 10_000;
/// When a request that found no room among those in flight may come again.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Who may come in, and how many.
pub struct Door {
    keys: Keys,
    /// Whether tokens may, and where their scopes are.
    tokens: Option<Tokens>,
    wrong: AddressLimiter,
    in_flight: Semaphore,
    body_bytes: usize,
}

struct Tokens {
    scope_claim: String,
    scope_prefix: String,
    users: Arc<DefaultKeyedRateLimiter<Arc<str>>>,
    burst: NonZeroU32,
}

impl Door {
    pub(super) fn new(config: &config::Api) -> Self {
        let tokens = config.jwt.then(|| {
            let (quota, burst) = keys::quota(config.requests_per_second, config.requests_burst);
            Tokens {
                scope_claim: config.scope_claim.clone(),
                scope_prefix: config.scope_prefix.clone(),
                users: Arc::new(RateLimiter::keyed(quota)),
                burst,
            }
        });
        Self {
            keys: Keys::new(config),
            tokens,
            wrong: AddressLimiter::new(Quota::per_second(WRONG_PER_SECOND).allow_burst(WRONG_BURST)),
            in_flight: Semaphore::new(config.in_flight),
            body_bytes: config.body_bytes,
        }
    }

    /// Forgets addresses and users that were quiet. To be called every few seconds.
    pub fn sweep(&self) {
        self.wrong.sweep();
        if let Some(tokens) = &self.tokens {
            tokens.users.retain_recent();
            tokens.users.shrink_to_fit();
        }
    }

    /// The bearer's name and rights.
    fn admit(&self, node: &Node, parts: &Parts, operation: ApiOperation) -> Result<Caller, Problem> {
        let address = address(parts);
        let presented = bearer(parts)?;
        let found = match presented.starts_with(keys::PREFIX) {
            true => self.by_key(presented, address),
            false => self.by_token(node, presented, address),
        };
        found.map_err(|refused| self.count_wrong(address, operation, refused))
    }

    fn by_key(&self, presented: &str, address: IpAddr) -> Result<Caller, Problem> {
        let key = self.keys.find(presented).ok_or_else(|| {
            invalid(
                "key_wrong",
                "that is no key of [[api.keys]]",
                "was it replaced, or is it that of another server? \"conclave api-key new\" makes a key",
            )
        })?;
        if key.expires_at.is_some_and(|expires_at| auth::now() >= expires_at) {
            return Err(invalid(
                "key_expired",
                "the key has expired",
                "make a new one with \"conclave api-key new\"",
            ));
        }
        Ok(Caller::new(
            Arc::clone(&key.name),
            Via::Key,
            address,
            key.scopes,
            key.reach.clone(),
            key.budget.clone(),
        ))
    }

    fn by_token(&self, node: &Node, presented: &str, address: IpAddr) -> Result<Caller, Problem> {
        let Some(tokens) = &self.tokens else {
            return Err(invalid(
                "key_wrong",
                "that is no API key: one begins with ck_",
                "send a key, or set api.jwt = true for tokens with scopes",
            ));
        };
        let verified = node.policy.verify(presented, auth::now()).map_err(|denied| {
            invalid(
                denied.word().as_str(),
                "the token is not good, for the reason in `code`",
                "\"conclave token check\" says why",
            )
        })?;
        let identity = Arc::clone(verified.identity());
        let mut scopes = Scopes::default();
        for word in auth::scope::words(presented, &tokens.scope_claim) {
            if let Some(word) = word.strip_prefix(tokens.scope_prefix.as_str()) {
                scopes.add(word);
            }
        }
        // Probes are in rooms of their own, and nobody else is to notice them.
        if scopes.is_empty() || identity.is_probe {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "scope_missing",
                "the token is good, but has no scope for this API",
                "have it made with one, in the claim that api.scope_claim names, such as conclave:publish",
            ));
        }
        let known = tokens.users.len() < USERS_MAX;
        let user: Arc<str> = if known {
            Arc::clone(&identity.user_id)
        } else {
            Arc::from("")
        };
        Ok(Caller::new(
            Arc::clone(&identity.user_id),
            Via::Jwt,
            address,
            scopes,
            Reach::Token(identity),
            Budget::User(Arc::clone(&tokens.users), user, tokens.burst),
        ))
    }

    /// Only what is wrong is counted: whoever has a good key is served, wrong ones from the same address or not.
    fn count_wrong(&self, address: IpAddr, operation: ApiOperation, refused: Problem) -> Problem {
        if refused.status != StatusCode::UNAUTHORIZED {
            return refused;
        }
        match self.wrong.check(address) {
            Ok(()) => {
                audit::bad_key(address, operation.word(), refused.code);
                refused
            }
            Err(wait) => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "throttled",
                "too many wrong keys came from this address",
                "come again after Retry-After, with a good one",
            )
            .retry_after(wait),
        }
    }

    fn room(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.in_flight.try_acquire().map_err(|_| {
            Problem::unavailable(
                "busy",
                "api.in_flight requests are being served already",
                "come again after Retry-After",
                BUSY_RETRY,
            )
        })
    }

    /// The whole body, so that no handler waits for one.
    async fn body(&self, body: Body) -> Result<Body, Problem> {
        let whole = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, self.body_bytes)).await;
        match whole {
            Ok(Ok(bytes)) => Ok(Body::from(bytes)),
            Ok(Err(_)) => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is longer than api.body_bytes, {} bytes", self.body_bytes),
                "send less at once",
            )),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "the body took too long",
                "send it at once",
            )),
        }
    }
}

/// Every request comes through here.
pub async fn enter(State((node, door)): State<(Arc<Node>, Arc<Door>)>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let operation = operation(request.method(), path.unwrap_or_default());
    let mut response = match serve(&node, &door, operation, request, next).await {
        Ok(response) => uniform(response),
        Err(problem) => problem.into_response(),
    };
    // What it says is for this caller, at this moment.
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    node.metrics
        .api_request(operation, result(response.status()), begun.elapsed().as_secs_f64());
    response
}

async fn serve(
    node: &Arc<Node>,
    door: &Door,
    operation: ApiOperation,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let params = request.extract_parts::<RawPathParams>().await.ok();
    let (mut parts, body) = request.into_parts();
    check_origin(node, &parts)?;
    if operation == ApiOperation::Openapi {
        return Ok(next.run(Request::from_parts(parts, Body::empty())).await);
    }
    let caller = door.admit(node, &parts, operation)?;
    let audit = audit::Audit::begin(caller.clone(), operation.word());
    for (name, value) in params.iter().flat_map(|params| params.iter()) {
        caller.about(&format!("{name} {value}"));
    }
    let served = async {
        caller.spend(1)?;
        let _room = door.room()?;
        let body = door.body(body).await?;
        parts.extensions.insert(caller);
        Ok(next.run(Request::from_parts(parts, body)).await)
    };
    let served = tokio::time::timeout(ANSWER_TIME_MAX, served).await.unwrap_or_else(|_| {
        Err(Problem::unavailable(
            "timeout",
            "it took too long: it may have been done or not",
            "do it again to be sure, with the same key or Idempotency-Key",
            BUSY_RETRY,
        ))
    });
    match &served {
        Ok(response) => audit.done(response.status().as_u16(), ""),
        Err(problem) => audit.done(problem.status.as_u16(), problem.code),
    }
    served
}

/// Pages of other sites have no business here, whatever they carry along.
fn check_origin(node: &Node, parts: &Parts) -> Result<(), Problem> {
    match node.policy.origin(parts, &|host| node.names_host(host)) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "origin",
            "the request comes from a web page that may not call this API",
            "call it from your backend: a key in a page is everybody's",
        )),
    }
}

/// The one bearer of the one Authorization header. Never of the query, which logs keep, nor of a cookie, which browsers
/// send along for other pages.
fn bearer(parts: &Parts) -> Result<&str, Problem> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(Problem::key_missing)?;
    if values.next().is_some() {
        return Err(Problem::bad_request("two Authorization headers", "send one"));
    }
    let text = value.to_str().map_err(|_| Problem::key_missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(Problem::key_missing)?;
    let token = token.trim();
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(Problem::key_missing())
    }
}

fn invalid(code: &'static str, detail: &'static str, fix: &'static str) -> Problem {
    Problem::unauthorized(code, detail, fix, ", error=\"invalid_token\"")
}

fn address(parts: &Parts) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let peer = parts.extensions.get::<PeerAddress>();
    peer.map_or(unknown, |peer| peer.0.ip())
}

/// What axum itself refuses, a wrong method for one, becomes a problem as all others, and keeps its headers (`Allow`).
fn uniform(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !is_error || kind.is_some_and(|kind| kind == problem::MEDIA_TYPE) {
        return response;
    }
    let (parts, _) = response.into_parts();
    let problem = match status {
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            status,
            "method",
            "there is something at this path, but not for this method",
            "the header Allow has those there are",
        ),
        _ => Problem::new(
            status,
            "refused",
            "the request was refused",
            "/api/v1/openapi.json has all operations",
        ),
    };
    let mut response = problem.into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// The name of what a route does.
fn operation(method: &Method, path: &str) -> ApiOperation {
    let path = path.strip_prefix(super::PATH).unwrap_or(path);
    match (method.as_str(), path) {
        ("POST", "/rooms/{room}/chat") => ApiOperation::Chat,
        ("POST", "/users/{user}/message") => ApiOperation::Message,
        ("GET" | "HEAD", "/rooms/{room}/users") => ApiOperation::Users,
        ("GET" | "HEAD", "/rooms/{room}/history") => ApiOperation::History,
        ("DELETE", "/rooms/{room}/users/{user}") => ApiOperation::Remove,
        ("POST", "/users/{user}/kick") => ApiOperation::Kick,
        ("POST", "/revocations") => ApiOperation::Revoke,
        ("GET" | "HEAD", "/rooms") => ApiOperation::Rooms,
        ("GET" | "HEAD", "/nodes") => ApiOperation::Nodes,
        ("POST", "/batch") => ApiOperation::Batch,
        ("GET" | "HEAD", "/openapi.json") => ApiOperation::Openapi,
        _ => ApiOperation::Other,
    }
}

fn result(status: StatusCode) -> AdminResult {
    match status.as_u16() {
        ..400 => AdminResult::Ok,
        401 | 403 => AdminResult::Denied,
        429 => AdminResult::Throttled,
        400..500 => AdminResult::Refused,
        _ => AdminResult::Failed,
    }
}
