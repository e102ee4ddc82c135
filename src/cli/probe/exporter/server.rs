//! The exporter's HTTP: plain, for Prometheus, bounded.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::{Exporter, Outcome};

/// Connections at once; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// From accept to the end of the request head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Life of a connection: several scrapes, the longest of which has two minutes.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest request head.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Request headers.
const HEADERS_MAX: usize = 64;
/// Pause after an accept that failed, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What Prometheus says of its patience.
const SCRAPE_TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// Serves until SIGTERM or SIGINT.
pub async fn serve(listen: TcpListener, exporter: Arc<Exporter>) -> io::Result<()> {
    let listen = tokio::net::TcpListener::from_std(listen)?;
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let routes = routes(exporter);
    let mut connections = JoinSet::new();
    loop {
        // Nothing is lost: who is not accepted waits in the kernel, and ended connections are forgotten later.
        tokio::select! {
            biased;
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listen.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, routes.clone()));
                }
                Err(error) => {
                    eprintln!("a connection could not be accepted: {error}");
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
        .max_headers(HEADERS_MAX);
    // Whoever is too slow or speaks no HTTP is simply let go.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
}

fn routes(exporter: Arc<Exporter>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/probe", get(probe))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(|| async { "ok\n" }))
        .with_state(exporter)
}

#[derive(Deserialize)]
struct Asked {
    target: Option<String>,
    module: Option<String>,
}

async fn probe(State(exporter): State<Arc<Exporter>>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    let scrape = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok());
    let scrape = scrape
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|scrape| !scrape.is_zero());
    let probed = exporter
        .probe(asked.target.as_deref(), asked.module.as_deref(), scrape)
        .await;
    match probed {
        Ok(text) => exposition(text),
        Err(refused) => {
            let status = match refused.outcome {
                Outcome::Forbidden => StatusCode::FORBIDDEN,
                Outcome::Busy => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, format!("{}\n", refused.why)).into_response()
        }
    }
}

async fn metrics(State(exporter): State<Arc<Exporter>>) -> Response {
    exposition(exporter.metrics())
}

fn exposition(text: String) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], text).into_response()
}

async fn index(State(exporter): State<Arc<Exporter>>) -> Html<String> {
    let mut rows = String::new();
    for (name, module) in &exporter.modules {
        for target in &module.targets {
            let (name, target) = (escaped(name), escaped(target.as_str()));
            let shown = if target.contains('*') {
                target.clone()
            } else {
                format!("<a href=\"/probe?module={name}&amp;target={target}\">{target}</a>")
            };
            rows.push_str(&format!("<tr><td>{name}</td><td>{shown}</td></tr>\n"));
        }
    }
    Html(format!(
        "<!doctype html><html lang=\"en\"><title>conclave probe</title><h1>conclave probe</h1>\n\
         <p>/probe?target=wss://…&amp;module=… probes, <a href=\"/metrics\">/metrics</a> is the exporter itself.</p>\n\
         <table><tr><th>module</th><th>targets</th></tr>\n{rows}</table></html>\n"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
