//! What the parts of one node share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::door::Door;
use crate::auth::jwks::Jwks;
use crate::auth::{Forward, Identity, Policy, Refusals};
use crate::backplane::directory::NodeFacts;
use crate::backplane::driver::{self, Seats, Warden};
use crate::config::Config;
use crate::hooks::Hooks;
use crate::hooks::tell::Teller;
use crate::http::health::Health;
use crate::http::session::Sessions;
use crate::http::ticket::Tickets;
use crate::hub::Hub;
use crate::net::admission::{Admission, Load};
use crate::net::certificates::Certificates;
use crate::net::permits::Permits;
use crate::outbound::Outbound;
use crate::runtime::{Ceilings, Cluster, Drain, Tasks, TopRoom, TopRooms, Waiting, top_rooms};
use crate::shard::Shard;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;

/// One node, built once, never changed.
pub struct Node {
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    pub traces: Traces,
    /// The one way to call somebody else.
    pub outbound: Outbound,
    /// What is asked of the application and told to it.
    pub hooks: Hooks,
    /// Issuers whose keys come by URL.
    pub jwks: Jwks,
    pub health: Health,
    pub policy: Arc<Policy>,
    pub sessions: Arc<Sessions>,
    pub tickets: Tickets,
    /// Who else knows who a client is; none: nobody does.
    pub forward: Option<Forward>,
    /// Who may call the server API; none: nobody may.
    pub api: Option<Arc<Door>>,
    pub refusals: Refusals,
    /// Whose ticket the backplane is asked about.
    pub tickets_waiting: Waiting,
    /// Of whom the application is asked who they are.
    pub forward_waiting: Waiting,
    pub permits: Arc<Permits>,
    /// Who gets in while there are many who want to.
    pub admission: Arc<Admission>,
    /// None with `tls.mode = "off"`.
    pub certificates: Option<Arc<Certificates>>,
    pub hub: Arc<Hub>,
    /// Hooks that are told of things; none if there are none.
    pub teller: Option<Arc<Teller>>,
    /// Who may no longer be here.
    pub warden: Arc<Warden>,
    /// What the server API says of the largest and busiest rooms.
    pub top_rooms: TopRooms,
    /// `limits.connections_per_user`
    pub seats: Arc<Seats>,
    /// None with the memory backplane.
    pub cluster: Option<Cluster>,
    pub shards: Box<[Arc<Shard>]>,
    /// What connections may say together.
    pub ceilings: Ceilings,
    pub tasks: Tasks,
    pub drain: Drain,
    /// Cancelled when the node begins to serve clients.
    pub open: CancellationToken,
    /// Cancelled when no connection is accepted any more.
    pub closed: CancellationToken,
    /// Who is between accept and the first bytes of a request.
    pub arriving: TaskTracker,
    /// Cancelled when nobody new is let in: ends handshakes at once.
    pub listening_stopped: CancellationToken,
}

impl Node {
    /// Sockets that are open.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.counters.connections()).sum()
    }

    /// Counts one more connection of a user until [`Seats::leave`]; false if it is one too many.
    pub async fn seat(&self, identity: &Identity) -> bool {
        let user = &identity.user_id;
        match &self.cluster {
            _ if !self.seats.count(identity) => true,
            Some(cluster) => cluster.seat(user).await,
            None => driver::seat_here(&self.seats, user),
        }
    }

    /// Whether `host` is ours, so that a page of that host is our own page.
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        names_host(self.certificates.as_deref(), host)
    }

    /// What this node says of itself to the others.
    #[must_use]
    pub fn facts(&self) -> NodeFacts {
        NodeFacts {
            name: self.config.server.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connections: self.connections(),
            connections_max: self.permits.node_max() as u64,
            accepts_per_second: self.admission.accepts_per_second(),
            is_ready: self.health.is_ready(),
            is_draining: self.health.is_draining(),
            rooms: self.top_rooms.shown(),
        }
    }

    /// The largest and busiest rooms on all nodes, as each saw its own lately.
    pub async fn all_top_rooms(&self) -> Vec<TopRoom> {
        let own = self.top_rooms.look(&self.hub).await;
        let others = self.cluster.as_ref().map(Cluster::others).unwrap_or_default();
        let lists = std::iter::once(&own).chain(others.iter().map(|facts| &facts.rooms));
        top_rooms::merged(lists.map(|rooms| &**rooms))
    }

    /// Whether some shard has so much to hand on that no connection is read from for now.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.shards.iter().any(|shard| shard.inbox.is_long())
    }

    /// What admission decides from.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            held: self.permits.held(),
            held_max: self.permits.node_max(),
            accepts_per_second: self.admission.accepts_per_second(),
        }
    }

    /// Forgets what no limiter needs any more.
    pub fn sweep_limiters(&self) {
        self.refusals.sweep();
        self.sessions.sweep();
        self.tickets.sweep();
        if let Some(forward) = &self.forward {
            forward.sweep();
        }
        if let Some(door) = &self.api {
            door.sweep();
        }
        self.ceilings
            .sweep(self.shards.first().map_or(0, |shard| shard.now_ns()));
        self.admission.sweep();
    }
}

/// Without TLS here only a proxy that has a certificate for the host can have passed a page's `https://` origin on.
pub(super) fn names_host(certificates: Option<&Certificates>, host: &str) -> bool {
    certificates.is_none_or(|certificates| certificates.names_host(host))
}
