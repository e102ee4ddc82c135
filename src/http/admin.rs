//! Metrics and health for operators: plain HTTP on a thread and a runtime of its own, so that it
//! answers while the runtimes that serve clients are stuck.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::health::{self, Health};
use crate::telemetry::metrics::Metrics;

/// Connections served at once; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// From accept to the last byte of the answer. Each connection carries one request, so that this
/// one deadline bounds everything a caller can do.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// From accept to the end of the request head, so that silent callers soon make room.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest request head.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Request headers.
const HEADERS_MAX: usize = 64;
/// Pause after an accept that failed, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const INDEX: &str = "conclave: operators' listener\n\n\
    /metrics  Prometheus text format\n\
    /livez    200 while the process lives\n\
    /readyz   200 while the node wants new connections, else 503 and why\n";

/// Serves `listen` until `stop` is cancelled, on a thread named `conclave-admin`.
///
/// # Errors
/// The thread, its runtime or the listener cannot be set up.
pub fn spawn(
    listen: TcpListener,
    metrics: Arc<Metrics>,
    health: Health,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    listen.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || runtime.block_on(serve(listen, routes(metrics, health), stop));
    thread::Builder::new().name("conclave-admin".to_owned()).spawn(serve)
}

fn routes(metrics: Arc<Metrics>, health: Health) -> Router {
    let nosniff =
        SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(exposition))
        .with_state(metrics)
        .merge(health::routes(health))
        .layer(CompressionLayer::new())
        .layer(nosniff)
}

async fn exposition(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
}

async fn serve(listen: TcpListener, routes: Router, stop: CancellationToken) {
    let listen = match tokio::net::TcpListener::from_std(listen) {
        Ok(listen) => listen,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be served");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listen.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, routes.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, routes: Router) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(routes.oneshot(request.map(Body::new)).await.into_response()) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false);
    // Whoever is too slow or speaks no HTTP is simply let go; nobody else is concerned.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
}

#[cfg(test)]
mod tests;
