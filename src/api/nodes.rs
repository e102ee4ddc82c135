//! The nodes, as they describe themselves to each other.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::{Caller, Scope};
use super::problem::{self, Problem};
use crate::backplane::directory::NodeFacts;
use crate::runtime::{Cluster, Node};

/// `{"nodes":[{"name":"a:8443","version":"0.1.0","connections":7,…}]}`
#[derive(Debug, Serialize, ToSchema)]
pub struct Nodes {
    /// The one that answers first, then the others by their names.
    pub nodes: Vec<NodeLine>,
}

/// One node.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeLine {
    /// `server.name`
    pub name: String,
    /// Of the program.
    pub version: String,
    /// Sockets that are open.
    pub connections: u64,
    /// Sockets that it takes at most.
    pub connections_max: u64,
    /// New connections that it can take per second; 0 when it does not say.
    pub accepts_per_second: u32,
    /// It wants new connections.
    pub is_ready: bool,
    /// It is on its way out.
    pub is_draining: bool,
}

impl From<NodeFacts> for NodeLine {
    fn from(facts: NodeFacts) -> Self {
        Self {
            name: facts.name,
            version: facts.version,
            connections: facts.connections,
            connections_max: facts.connections_max,
            accepts_per_second: facts.accepts_per_second,
            is_ready: facts.is_ready,
            is_draining: facts.is_draining,
        }
    }
}

/// The nodes there are
///
/// Others as they were a few seconds ago; while the backplane is away only the one that answers.
#[utoipa::path(get, path = "/nodes", operation_id = "nodes", tag = "nodes",
    responses(
        (status = 200, description = "All that live", body = Nodes),
        (status = "4XX", description = "Not allowed", body = problem::Body, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = problem::Body, content_type = "application/problem+json"),
    ),
    security(("key" = ["nodes"])))]
pub async fn nodes(State(node): State<Arc<Node>>, caller: Caller) -> Result<Answer<Nodes>, Problem> {
    all(&node, &caller).map(Answer)
}

/// Every node.
///
/// # Errors
/// Not allowed.
pub fn all(node: &Node, caller: &Caller) -> Result<Nodes, Problem> {
    caller.needs(Scope::Nodes)?;
    let others = node.cluster.as_ref().map(Cluster::others);
    let others = others.iter().flat_map(|others| others.iter().cloned());
    let nodes = std::iter::once(node.facts()).chain(others);
    Ok(Nodes {
        nodes: nodes.map(NodeLine::from).collect(),
    })
}
