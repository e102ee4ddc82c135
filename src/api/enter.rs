//! What every request passes before and after its handler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::RequestExt;
use axum::body::Body;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit as Room, oneshot};

use super::audit::Audit;
use super::caller::Caller;
use super::door::Door;
use super::idempotency::{self, Begun, Claim};
use super::problem::{self, Problem, Word};
use crate::runtime::{Cluster, Node};
use crate::telemetry::metrics::{AdminResult, ApiOperation, Label, Limit, RateLimit};

/// How long an operation may take; what surrounds it gives up a little later.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(14);
/// When one whose operation took too long may come again.
const TIMEOUT_RETRY: Duration = Duration::from_secs(1);

/// Every request comes through here.
pub async fn enter(State((node, door)): State<(Arc<Node>, Arc<Door>)>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let operation = operation(request.method(), path.unwrap_or_default());
    let served = serve(&node, &door, operation, request, next).await;
    let mut response = uniform(served.unwrap_or_else(Problem::into_response));
    // What it says is for this caller, at this moment.
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    let (result, seconds) = (result(response.status()), begun.elapsed().as_secs_f64());
    node.metrics.api_request(operation, result, seconds);
    response
}

async fn serve(
    node: &Arc<Node>,
    door: &Arc<Door>,
    operation: ApiOperation,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let params = request.extract_parts::<RawPathParams>().await.ok();
    let (parts, body) = request.into_parts();
    check_origin(node, &parts)?;
    if operation == ApiOperation::Openapi {
        return Ok(next.run(Request::from_parts(parts, Body::empty())).await);
    }
    let caller = door.admit(node, &parts, operation).await?;
    for (name, value) in params.iter().flat_map(RawPathParams::iter) {
        caller.about(&format!("{name} {value}"));
    }
    let audit = Audit::begin(caller.clone(), operation.word());
    let served = perform(node, door, operation, caller, parts, body, next).await;
    let response = served.unwrap_or_else(Problem::into_response);
    audit.done(response.status().as_u16(), word(&response));
    Ok(response)
}

async fn perform(
    node: &Arc<Node>,
    door: &Arc<Door>,
    operation: ApiOperation,
    mut caller: Caller,
    mut parts: Parts,
    body: Body,
    next: Next,
) -> Result<Response, Problem> {
    // A batch pays for its parts, all at once, as soon as it is known how many they are.
    if operation != ApiOperation::Batch {
        spend(node, &caller, 1)?;
    }
    let room = door.room(&node.metrics)?;
    let body = door.body(body, &node.metrics).await?;
    let claim = Claim::of(&parts, &body, &caller, operation)?;
    if let Some(claim) = &claim {
        caller.retries_as(claim.retries());
    }
    let replayed_to = (operation == ApiOperation::Batch).then(|| caller.clone());
    parts.extensions.insert(caller);
    let request = Request::from_parts(parts, Body::from(body));
    match claim {
        None => Ok(timely(next.run(request)).await),
        Some(claim) => once(node, door, claim, replayed_to, room, request, next).await,
    }
}

/// Takes `requests` from what the caller may ask.
///
/// # Errors
/// It may not now, or never so many at once.
pub(super) fn spend(node: &Node, caller: &Caller, requests: usize) -> Result<(), Problem> {
    let spent = caller.spend(u32::try_from(requests).unwrap_or(u32::MAX));
    spent.inspect_err(|problem| {
        if problem.status == StatusCode::TOO_MANY_REQUESTS {
            node.metrics.rate_limited(RateLimit::ApiRequests);
        }
    })
}

/// Does it unless it was done before. To its end, even if the caller goes away: what comes after that is a retry, which
/// is to be told how it ended. `replayed_to`: who has not paid yet.
async fn once(
    node: &Arc<Node>,
    door: &Arc<Door>,
    claim: Claim,
    replayed_to: Option<Caller>,
    room: Room,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let backplane = node.cluster.as_ref().map(Cluster::backplane);
    let claim = match door.replays.begin(backplane, claim).await {
        Ok(Begun::Claimed(claim)) => claim,
        Ok(Begun::Replayed(response)) => {
            replayed_to.map_or(Ok(()), |caller| spend(node, &caller, 1))?;
            return Ok(response);
        }
        Err(problem) => {
            replayed_to.map_or(Ok(()), |caller| spend(node, &caller, 1))?;
            if problem.code == idempotency::FULL {
                node.metrics.limit_hit(Limit::ApiIdempotencyBytes);
            }
            return Err(problem);
        }
    };
    let (answered, answer) = oneshot::channel();
    let (keeper, keeping) = (Arc::clone(node), Arc::clone(door));
    node.tasks.spawn("api", async move {
        let response = timely(next.run(request)).await;
        let backplane = keeper.cluster.as_ref().map(Cluster::backplane);
        let response = keeping.replays.end(backplane, claim, response).await;
        drop(room);
        // Nobody may be there any more to hear it.
        drop(answered.send(response));
    });
    answer.await.map_err(|_| {
        Problem::unavailable(
            "stopping",
            "this node stops: it may have been done or not",
            "come again after Retry-After, with the same Idempotency-Key",
            TIMEOUT_RETRY,
        )
    })
}

async fn timely(answer: impl Future<Output = Response>) -> Response {
    let answer = tokio::time::timeout(OPERATION_TIME_MAX, answer).await;
    answer.unwrap_or_else(|_| {
        Problem::unavailable(
            "timeout",
            "it took too long: it may have been done or not",
            "come again after Retry-After; a `key` or an Idempotency-Key makes that harmless",
            TIMEOUT_RETRY,
        )
        .into_response()
    })
}

/// The problem's word, or what there is to say of a success.
fn word(response: &Response) -> &'static str {
    let is_replayed = response.headers().contains_key(idempotency::REPLAYED);
    match response.extensions().get::<Word>() {
        Some(Word(word)) => word,
        None if is_replayed => "replayed",
        None => "",
    }
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
pub(super) fn operation(method: &Method, path: &str) -> ApiOperation {
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
