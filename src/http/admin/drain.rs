//! `/api/drain`: what a drain would do or is doing, and its beginning.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Admin;
use super::audit::Caller;
use crate::runtime::Node;
use crate::runtime::drain::{self, plan::Plan};
use crate::telemetry::metrics::{DrainPhase, Label};

/// `{"phase":"closing","left":120,"connections":131,"plan":{"clients":3000,…}}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// As in `conclave_drain_phase`.
    pub phase: String,
    /// Sockets that have not been told yet; 0 while nobody stops the node.
    pub left: usize,
    /// Sockets that are open.
    pub connections: u64,
    /// What happens, or would happen if a drain began now.
    pub plan: Plan,
}

impl Shown {
    fn of(node: &Node) -> Self {
        Self {
            phase: node.drain.phase().word().to_owned(),
            left: node.drain.left(),
            connections: node.connections(),
            plan: node.drain.plan().unwrap_or_else(|| drain::plan(node)),
        }
    }
}

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/api/drain", get(show).post(begin))
}

async fn show(State(admin): State<Arc<Admin>>) -> Json<Shown> {
    Json(Shown::of(&admin.node))
}

/// As SIGTERM; a second time changes nothing.
async fn begin(State(admin): State<Arc<Admin>>, Extension(caller): Extension<Caller>) -> (StatusCode, Json<Shown>) {
    let audit = caller.begin("drain", "this node");
    let node = &admin.node;
    let is_first = node.drain.phase() == DrainPhase::Serving;
    // Before it begins: its plan may be a moment away.
    let shown = Shown::of(node);
    node.drain.begin();
    audit.done(if is_first { "begun" } else { "had begun before" });
    (StatusCode::ACCEPTED, Json(shown))
}
