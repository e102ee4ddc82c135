//! Every HTTP route of the one port.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use axum::{Router, middleware};
use http::StatusCode;
use tower::util::MapResponseLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;

use crate::api;
use crate::http::{health, overloaded, pages, session, ticket, upgrade};
use crate::runtime::Node;
use crate::telemetry::metrics::{self, RateLimit};

/// A plain route that has not answered by then never will.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The router that every connection is served with.
pub fn router(node: &Arc<Node>) -> Router {
    let mut plain = pages::routes(node.config.server.page);
    if node.config.session.enabled {
        plain = plain.merge(session::routes(Arc::clone(&node.sessions)).layer(count_refused_sign_ins(node)));
    }
    if node.config.tickets.enabled {
        plain = plain.merge(ticket::routes(node));
    }
    // Not for health: a balancer that is told 503 sends everybody to the next node, which has no less to do.
    let shed = middleware::from_fn_with_state(Arc::clone(node), overloaded::shed);
    let plain = plain.route_layer(shed).merge(health::routes(node.health.clone()));
    // Nor for the server API: when there is much to do it is what ends some of it.
    let plain = plain.merge(api::routes(node));
    // One of our own: axum would merge its own with that of the sockets, and then nobody counts those who are lost.
    let plain = plain.fallback(async || StatusCode::NOT_FOUND);
    let plain = metrics::http::measured(plain, Arc::clone(&node.metrics))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            ANSWER_TIMEOUT,
        ))
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::new());
    plain.merge(upgrade::routes(node))
}

/// `session.per_minute` is the only reason for this status there.
fn count_refused_sign_ins(
    node: &Arc<Node>,
) -> MapResponseLayer<impl FnMut(Response) -> Response + Clone + Send + Sync + 'static> {
    let metrics = Arc::clone(&node.metrics);
    MapResponseLayer::new(move |answer: Response| {
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            metrics.rate_limited(RateLimit::SignIns);
        }
        answer
    })
}
