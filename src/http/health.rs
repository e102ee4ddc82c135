//! Whether the process lives (`/livez`) and whether it wants new connections (`/readyz`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

/// The node's own opinion, shared by everyone who may change or show it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    /// What is broken now, in words of ours; a set, so that the answer does not depend on order.
    broken: Mutex<BTreeSet<&'static str>>,
}

impl Health {
    /// Starting: alive, not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything is up. A node that drains stays so.
    pub fn ready(&self) {
        let _ = self
            .0
            .phase
            .compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The node is about to stop; there is no way back.
    pub fn draining(&self) {
        self.0.phase.store(DRAINING, Ordering::Release);
    }

    /// Not ready for as long as `reason` (a word or a short phrase of ours) holds.
    pub fn fail(&self, reason: &'static str) {
        self.0.broken.lock().insert(reason);
    }

    /// `reason` does not hold any more.
    pub fn ok(&self, reason: &'static str) {
        self.0.broken.lock().remove(reason);
    }

    /// Whether the node wants new connections.
    pub fn is_ready(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) == READY && self.0.broken.lock().is_empty()
    }

    /// Whether `draining` was called.
    pub fn is_draining(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) == DRAINING
    }

    /// Why the node is not ready; empty when it is.
    pub fn reasons(&self) -> Vec<&'static str> {
        let phase = match self.0.phase.load(Ordering::Acquire) {
            STARTING => Some("starting"),
            DRAINING => Some("draining"),
            _ => None,
        };
        phase.into_iter().chain(self.0.broken.lock().iter().copied()).collect()
    }
}

/// `/livez` and `/readyz`, plain text, never cached.
pub fn routes(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|| async { text(StatusCode::OK, "ok\n".to_owned()) }))
        .route("/readyz", get(readyz))
        .with_state(health)
}

async fn readyz(State(health): State<Health>) -> Response {
    match health.reasons().as_slice() {
        [] => text(StatusCode::OK, "ready\n".to_owned()),
        reasons => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))),
    }
}

fn text(status: StatusCode, body: String) -> Response {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let plain = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    (status, [no_store, plain], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn check(health: &Health, path: &str, status: StatusCode, body: &str) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = routes(health.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let read = to_bytes(response.into_body(), 1024).await.unwrap();
        assert_eq!(std::str::from_utf8(&read).unwrap(), body);
    }

    #[tokio::test]
    async fn readiness_follows_the_phase_and_names_what_is_broken() {
        let health = Health::new();
        check(&health, "/readyz", StatusCode::SERVICE_UNAVAILABLE, "starting\n").await;
        health.ready();
        check(&health, "/readyz", StatusCode::OK, "ready\n").await;
        health.fail("disk full");
        health.fail("backplane");
        check(
            &health,
            "/readyz",
            StatusCode::SERVICE_UNAVAILABLE,
            "backplane\ndisk full\n",
        )
        .await;
        assert!(!health.is_ready());
        health.ok("disk full");
        health.ok("backplane");
        assert!(health.is_ready());
        health.draining();
        health.ready();
        assert!(health.is_draining() && !health.is_ready());
        check(&health, "/readyz", StatusCode::SERVICE_UNAVAILABLE, "draining\n").await;
        check(&health, "/livez", StatusCode::OK, "ok\n").await;
    }
}
