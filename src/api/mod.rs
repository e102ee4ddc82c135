//! The server API: what an application's backend may ask for and do, over HTTPS on the port of the clients, under
//! `/api/v1`. Off unless somebody may call it (`[[api.keys]]`, `api.jwt`).
//!
//! A request enters by the [`door`]: Origin, key or token ([`caller`], [`keys`]), rate, room among those in flight, body,
//! whether it was done before (`idempotency`).
//! Then its handler asks [`caller::Caller::needs`] for the scope, and does it. Whatever is no success is a
//! [`problem::Problem`]. [`openapi`] describes it all, made from the handlers themselves.

pub mod audit;
pub mod batch;
pub mod caller;
pub mod door;
mod enter;
pub mod extract;
mod idempotency;
pub mod keys;
pub mod nodes;
pub mod openapi;
pub mod problem;
pub mod revocations;
pub mod rooms;
pub mod speak;
pub mod users;

use std::any::Any;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router, middleware};
use http::StatusCode;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::runtime::Node;
use crate::telemetry::metrics::{Metrics, PanicPlace};
use door::Door;
use openapi::Document;
use problem::Problem;

/// Where everything of it is.
pub const PATH: &str = "/api/v1";

/// Every operation, with what describes it; paths are relative to [`PATH`].
fn operations() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(rooms::chat))
        .routes(routes!(rooms::users))
        .routes(routes!(rooms::history))
        .routes(routes!(rooms::remove))
        .routes(routes!(rooms::rooms))
        .routes(routes!(users::message))
        .routes(routes!(users::kick))
        .routes(routes!(revocations::revoke))
        .routes(routes!(nodes::nodes))
        .routes(routes!(batch::batch))
        .routes(routes!(openapi::openapi))
}

/// The routes, if anybody may call them.
pub fn routes(node: &Arc<Node>) -> Router {
    let Some(door) = &node.api else {
        return Router::new();
    };
    let (operations, document) = operations().split_for_parts();
    let api = operations
        .fallback(async || nothing())
        .layer(Extension(Document::new(&document)))
        .layer(CatchPanicLayer::custom(panicked(Arc::clone(&node.metrics))))
        .layer(middleware::from_fn_with_state(
            (Arc::clone(node), Arc::clone(door)),
            enter::enter,
        ))
        .with_state(Arc::clone(node));
    // The one path below it that is not the nested router's.
    Router::new().nest(PATH, api).route("/api/v1/", any(async || nothing()))
}

fn nothing() -> Problem {
    Problem::not_found("there is nothing at this path", "/api/v1/openapi.json has all paths")
}

/// What the door needs, if anybody may come in.
#[must_use]
pub fn door(config: &crate::config::Api) -> Option<Arc<Door>> {
    config.is_on().then(|| Arc::new(Door::new(config)))
}

/// The panic itself is in the log.
fn panicked(metrics: Arc<Metrics>) -> impl Fn(Box<dyn Any + Send>) -> Response + Clone {
    move |_| {
        metrics.panic_caught(PanicPlace::Http);
        let problem = Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "a fault of the server: it may have been done or not",
            "the node's log says more",
        );
        problem.into_response()
    }
}
