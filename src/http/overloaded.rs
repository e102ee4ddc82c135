//! `503` with `Retry-After`, for requests that a node with enough to do does not serve.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Version, header};

use crate::runtime::Node;

/// For the plain routes: a page or a sign-in goes before nobody who has a socket, or returns to one.
pub async fn shed(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    match node.admission.overload.serve(node.load()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            node.metrics.admission_refused(refusal);
            answer(node.admission.return_after(), request.version())
        }
    }
}

/// Come back after so long, over a connection of your own: this one is given up for others.
pub fn answer(after: Duration, version: Version) -> Response {
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, "This server has enough to do.\n").into_response();
    let headers = response.headers_mut();
    // Rounded up: who comes back at that second is not too early.
    headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs() + 1));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if version < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
