//! The server API: what an application's backend may ask for and do, over HTTPS on the port of the clients, under
//! `/api/v1`. Off unless somebody may call it (`[[api.keys]]`, `api.jwt`).
//!
//! A request passes the [`door`]: Origin, key or token ([`caller`], [`keys`]), rate, room among those in flight, body.
//! Then its handler asks [`caller::Caller::needs`] for the scope, and does it. Whatever is no success is a
//! [`problem::Problem`]. [`openapi`] describes it all, made from the handlers themselves.

pub mod audit;
pub mod caller;
pub mod door;
pub mod extract;
pub mod keys;
pub mod openapi;
pub mod problem;

use std::sync::Arc;

use axum::{Router, middleware};
use http::StatusCode;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::runtime::Node;
use door::Door;
use problem::Problem;

/// Where everything of it is.
pub const PATH: &str = "/api/v1";

/// Every operation, with what describes it; paths are relative to [`PATH`].
fn operations() -> OpenApiRouter<Arc<Node>> {
    OpenApiRouter::with_openapi(openapi::base())
}

/// The routes, if anybody may call them.
pub fn routes(node: &Arc<Node>) -> Router {
    let Some(door) = &node.api else {
        return Router::new();
    };
    let (operations, document) = operations().split_for_parts();
    let api = operations
        .merge(openapi::routes(document))
        .fallback(async || Problem::not_found("there is nothing at this path", "/api/v1/openapi.json has all paths"))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(
            (Arc::clone(node), Arc::clone(door)),
            door::enter,
        ))
        .with_state(Arc::clone(node));
    Router::new().nest(PATH, api)
}

/// What the door needs, if anybody may come in.
#[must_use]
pub fn door(config: &crate::config::Api) -> Option<Arc<Door>> {
    config.is_on().then(|| Arc::new(Door::new(config)))
}

/// The panic itself is in the log.
fn panicked(_: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let problem = Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "a fault of the server: it may have been done or not",
        "the node's log says more",
    );
    axum::response::IntoResponse::into_response(problem)
}
