//! The operators' listener: metrics and health for whoever reaches it, and the operator's page with its API for whoever
//! has a token ([`guard`]). Plain HTTP on a thread and a runtime of its own, so that it answers while the runtimes that
//! serve clients are stuck.

mod answer;
pub mod audit;
pub mod drain;
mod exposition;
mod failures;
mod files;
mod guard;
mod kick;
mod overview;
mod sessions;
mod sign_in;
mod taps;
mod top;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, State};
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use self::answer::Problem;
use self::guard::{Ends, Guard, Refused};
use self::top::Top;
use super::health;
use crate::config::Effective;
use crate::runtime::Node;
use crate::telemetry::metrics::{AdminAction, AdminResult, Label, Metrics};

/// Connections served at once; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// From accept to the last byte of the answer. Each connection carries one request, so that this
/// one deadline bounds everything a caller can do.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// From accept to the end of the request head, so that silent callers soon make room.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// How often taps that nobody looks at are looked for.
const TICK: Duration = Duration::from_secs(2);
/// Longest request head.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Request headers.
const HEADERS_MAX: usize = 64;
/// Pause after an accept that failed, so that a lack of descriptors does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest body of a request.
const BODY_BYTES_MAX: usize = 8 * 1024;

const INDEX: &str = "conclave: operators' listener\n\n\
    /metrics  Prometheus text format\n\
    /livez    200 while the process lives\n\
    /readyz   200 while the node wants new connections, else 503 and why\n\n\
    The operator's page needs admin.token_file.\n";

/// What the page and the API work with.
pub struct Admin {
    pub node: Arc<Node>,
    pub guard: Guard,
    /// The configuration as it holds, secrets masked.
    effective: Vec<Effective>,
    top: Mutex<Top>,
    taps: taps::Open,
}

/// Serves `listen` until `stop` is cancelled, on a thread named `conclave-admin`.
///
/// # Errors
/// The thread, its runtime or the listener cannot be set up.
pub fn spawn(
    listen: TcpListener,
    node: Arc<Node>,
    effective: Vec<Effective>,
    stop: CancellationToken,
) -> io::Result<JoinHandle<()>> {
    listen.set_nonblocking(true)?;
    let guard = Guard::new(&node.config.admin, listen.local_addr()?.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Arc::new(Admin {
        node,
        guard,
        effective,
        top: Mutex::default(),
        taps: taps::Open::default(),
    });
    let serve = move || runtime.block_on(serve(listen, admin, stop));
    thread::Builder::new().name("conclave-admin".to_owned()).spawn(serve)
}

fn routes(admin: Arc<Admin>) -> Router {
    let nosniff =
        SetResponseHeaderLayer::overriding(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let open = Router::new()
        .route("/metrics", get(exposition))
        .with_state(Arc::clone(&admin.node.metrics))
        .merge(health::routes(admin.node.health.clone()));
    let rest = if admin.node.config.admin.tokens.is_empty() {
        Router::new().route("/", get(async || INDEX))
    } else {
        operators(admin)
    };
    open.merge(rest)
        .layer(CompressionLayer::new())
        .layer(nosniff)
        .layer(CatchPanicLayer::new())
}

/// The page and its API, behind the guard. A handler of the API finds in its extensions who asks: `Extension<Caller>`; a
/// change tells `caller.begin(…)` what it is about to do and the audit what came of it.
fn operators(admin: Arc<Admin>) -> Router {
    let guarded = Router::new()
        .route("/sign-out", post(sign_in::sign_out))
        .route("/api/overview", get(overview::overview))
        .route("/api/config", get(config))
        .route("/api/tap", post(taps::begin))
        .route("/api/tap/{id}", get(taps::fetch).delete(taps::end))
        .route("/api/kick", post(kick::kick))
        .merge(files::guarded())
        .merge(drain::routes())
        .fallback(async || {
            Problem::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "nothing is here",
                "ops/operators-page.md lists what is",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), admit));
    Router::new()
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .merge(files::public())
        .merge(guarded)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&admin), receive))
        .with_state(admin)
}

/// Everything passes here: names that are not ours go no further, and what became of the rest is counted.
async fn receive(State(admin): State<Arc<Admin>>, request: Request<Body>, next: Next) -> Response {
    let action = action(request.extensions().get::<MatchedPath>().map(MatchedPath::as_str));
    let (parts, body) = request.into_parts();
    let refused = match parts.extensions.get::<Ends>() {
        Some(ends) => admin.guard.check_origin(&parts, *ends).err(),
        None => Some(Refused::Host),
    };
    let mut response = match refused {
        Some(refused) => refused.into_response(),
        None => next.run(Request::from_parts(parts, body)).await,
    };
    files::seal(response.headers_mut());
    admin.node.metrics.admin_request(action, result(response.status()));
    response
}

/// Who has no token goes no further; a browser that wants the page is asked for one.
async fn admit(State(admin): State<Arc<Admin>>, request: Request<Body>, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(ends) = parts.extensions.get::<Ends>().copied() else {
        return Refused::Host.into_response();
    };
    match admin.guard.admit(&parts, ends, Instant::now()) {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(Refused::NoToken) if parts.method == Method::GET && parts.uri.path() == "/" => {
            files::sign_in(StatusCode::UNAUTHORIZED, "")
        }
        Err(refused) => refused.into_response(),
    }
}

fn action(path: Option<&str>) -> AdminAction {
    match path.unwrap_or_default() {
        "/" => AdminAction::Page,
        "/sign-in" | "/sign-out" => AdminAction::SignIn,
        path => {
            let word = path.strip_prefix("/api/").unwrap_or_default().split('/').next();
            let known = |action: &&AdminAction| Some(action.word()) == word;
            AdminAction::ALL
                .iter()
                .find(known)
                .copied()
                .unwrap_or(AdminAction::Other)
        }
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

/// `GET /api/config`: every key with its value, secrets as `***`, and who set it.
async fn config(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let row = |row: &Effective| json!({"key": row.key, "value": row.value_shown, "source": row.source});
    Json(admin.effective.iter().map(row).collect())
}

async fn exposition(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        metrics.render(),
    )
}

async fn serve(listen: TcpListener, admin: Arc<Admin>, stop: CancellationToken) {
    let listen = match tokio::net::TcpListener::from_std(listen) {
        Ok(listen) => listen,
        Err(error) => {
            tracing::error!(%error, "the admin listener cannot be served");
            return;
        }
    };
    let routes = routes(Arc::clone(&admin));
    let mut connections = JoinSet::new();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            _ = ticks.tick() => admin.end_old_taps(Instant::now()),
            accepted = listen.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, routes.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, routes: Router) {
    let Ok(local) = stream.local_addr() else { return };
    let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
        let routes = routes.clone();
        request.extensions_mut().insert(Ends { peer, local });
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
