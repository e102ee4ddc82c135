//! What the page shows of the node, as one JSON object: gauges as they are, counters since the start (whoever looks twice
//! has rates). Everything but the rooms' names is what `/metrics` says too.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Admin;
use super::exposition::Exposition;
use super::top;
use crate::runtime::{NodeFacts, now_ms};

/// The answer to `GET /api/overview`.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// Milliseconds since the Unix epoch.
    time_ms: u64,
    node: Node,
    /// This one first.
    nodes: Vec<NodeFacts>,
    now: Now,
    /// Since the start.
    total: Total,
    /// Ways that sockets ended, those that happened.
    closes: Vec<Close>,
    /// Refused tokens, messages and handshakes, by what for.
    refused: Vec<Refused>,
    top: top::Shown,
    backplane: Backplane,
    certificate: Certificate,
}

#[derive(Debug, Serialize)]
struct Node {
    name: String,
    version: &'static str,
    revision: &'static str,
    rustc: &'static str,
    started_ms: u64,
    is_ready: bool,
    is_draining: bool,
    /// Why it is not ready.
    reasons: Vec<&'static str>,
    /// A word of `conclave_drain_phase`.
    drain_phase: String,
    /// Sockets that the drain has yet to close.
    draining_clients: u64,
    taps_max: usize,
    tap_content: bool,
}

#[derive(Debug, Serialize)]
struct Now {
    connections: u64,
    connections_max: u64,
    rooms: u64,
    members: u64,
    users: u64,
    history_messages: u64,
    history_bytes: u64,
    send_queue_bytes: u64,
    memory_bytes: u64,
    files: u64,
    files_max: u64,
    taps: u64,
}

#[derive(Debug, Serialize)]
struct Total {
    opened: u64,
    closed: u64,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    chats: u64,
    deliveries: u64,
    handshakes: u64,
    handshakes_failed: u64,
    tokens_refused: u64,
    rate_limited: u64,
    slow_readers: u64,
    cpu_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Close {
    code: String,
    reason: String,
    initiator: String,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Refused {
    /// `token`, `rate`, `limit`.
    what: &'static str,
    why: String,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Backplane {
    kind: &'static str,
    kept: &'static str,
    /// None with the memory backplane.
    is_up: Option<bool>,
    links: Vec<Link>,
    /// Sum and count of canaries' ways there and back: two looks have the mean between them.
    lag_seconds_sum: f64,
    lag_count: u64,
    /// How long ago the quietest peer was heard of.
    peer_age_seconds: f64,
    /// How long ago it was known that no revocation was missed.
    revocation_staleness_seconds: f64,
    queue_messages: u64,
    queue_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Link {
    link: String,
    is_up: bool,
}

#[derive(Debug, Serialize)]
struct Certificate {
    /// Seconds since the Unix epoch; 0 when none is loaded.
    expires: u64,
    reloads_failed: u64,
}

/// `GET /api/overview`
pub async fn overview(State(admin): State<Arc<Admin>>) -> Json<Overview> {
    let text = admin.node.metrics.render();
    let read = Exposition::read(&text);
    let top = admin.top.lock().look(&admin.node.hub, Instant::now()).clone();
    Json(Overview {
        time_ms: now_ms(),
        node: node(&admin, &read),
        nodes: nodes(&admin.node),
        now: now(&read),
        total: total(&read),
        closes: closes(&read),
        refused: refused(&read),
        top,
        backplane: backplane(&admin, &read),
        certificate: Certificate {
            expires: whole(read.sum("conclave_tls_certificate_expiry_timestamp_seconds")),
            reloads_failed: whole(read.sum_of("conclave_tls_reloads_total", "result", "failed")),
        },
    })
}

fn node(admin: &Admin, read: &Exposition<'_>) -> Node {
    let node = &admin.node;
    let is_here = |sample: &&super::exposition::Sample<'_>| sample.value == 1.0;
    Node {
        name: node.config.server.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        revision: crate::cli::COMMIT,
        rustc: crate::cli::RUSTC,
        started_ms: whole(read.sum("process_start_time_seconds") * 1_000.0),
        is_ready: node.health.is_ready(),
        is_draining: node.health.is_draining(),
        reasons: node.health.reasons(),
        drain_phase: (read.all("conclave_drain_phase").find(is_here))
            .map_or_else(String::new, |sample| sample.label("phase").to_owned()),
        draining_clients: whole(read.sum("conclave_draining_clients")),
        taps_max: node.config.admin.taps,
        tap_content: node.config.admin.tap_content,
    }
}

fn nodes(node: &crate::runtime::Node) -> Vec<NodeFacts> {
    let others = node.cluster.as_ref().map(crate::runtime::Cluster::others);
    let others = others.iter().flat_map(|others| others.iter().cloned());
    let without_rooms = |facts: NodeFacts| NodeFacts {
        rooms: Arc::default(),
        ..facts
    };
    (std::iter::once(node.facts()).chain(others))
        .map(without_rooms)
        .collect()
}

fn now(read: &Exposition<'_>) -> Now {
    let gauge = |name| whole(read.sum(name));
    Now {
        connections: gauge("conclave_connections"),
        connections_max: gauge("conclave_connections_limit"),
        rooms: gauge("conclave_rooms"),
        members: gauge("conclave_members"),
        users: gauge("conclave_users"),
        history_messages: gauge("conclave_history_messages"),
        history_bytes: gauge("conclave_history_bytes"),
        send_queue_bytes: gauge("conclave_send_queue_bytes"),
        memory_bytes: gauge("process_resident_memory_bytes"),
        files: gauge("process_open_fds"),
        files_max: gauge("conclave_fd_limit"),
        taps: gauge("conclave_taps"),
    }
}

fn total(read: &Exposition<'_>) -> Total {
    let sum = |name| whole(read.sum(name));
    let way = |name, way| whole(read.sum_of(name, "direction", way));
    let handshakes = sum("conclave_handshakes_total");
    let good = whole(read.sum_of("conclave_handshakes_total", "result", "ok"));
    Total {
        opened: sum("conclave_connections_opened_total"),
        closed: sum("conclave_connections_closed_total"),
        messages_in: way("conclave_messages_total", "in"),
        messages_out: way("conclave_messages_total", "out"),
        bytes_in: way("conclave_message_bytes_total", "in"),
        bytes_out: way("conclave_message_bytes_total", "out"),
        chats: sum("conclave_publishes_total"),
        deliveries: sum("conclave_deliveries_total"),
        handshakes,
        handshakes_failed: handshakes.saturating_sub(good),
        tokens_refused: sum("conclave_auth_failures_total"),
        rate_limited: sum("conclave_rate_limited_total"),
        slow_readers: sum("conclave_slow_consumers_total"),
        cpu_seconds: read.sum("process_cpu_seconds_total"),
    }
}

fn closes(read: &Exposition<'_>) -> Vec<Close> {
    let happened = read
        .all("conclave_disconnects_total")
        .filter(|sample| sample.value > 0.0);
    let mut closes: Vec<Close> = happened
        .map(|sample| Close {
            code: sample.label("code").to_owned(),
            reason: sample.label("reason").to_owned(),
            initiator: sample.label("initiator").to_owned(),
            count: whole(sample.value),
        })
        .collect();
    closes.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.code.cmp(&other.code)));
    closes
}

fn refused(read: &Exposition<'_>) -> Vec<Refused> {
    let sources = [
        ("token", "conclave_auth_failures_total", "reason"),
        ("rate", "conclave_rate_limited_total", "limit"),
        ("limit", "conclave_refused_total", "limit"),
    ];
    let of = |(what, name, label): (&'static str, &'static str, &'static str)| {
        read.all(name)
            .filter(|sample| sample.value > 0.0)
            .map(move |sample| Refused {
                what,
                why: sample.label(label).to_owned(),
                count: whole(sample.value),
            })
    };
    let mut refused: Vec<Refused> = sources.into_iter().flat_map(of).collect();
    refused.sort_by_key(|refused| std::cmp::Reverse(refused.count));
    refused
}

fn backplane(admin: &Admin, read: &Exposition<'_>) -> Backplane {
    let config = &admin.node.config.backplane;
    // A link that was never made is none of this backplane's: one server has no sentinels.
    let is_used = |link: &str| read.sum_of("conclave_backplane_link_rebuilds_total", "link", link) > 0.0;
    let links = read
        .all("conclave_backplane_link_up")
        .filter(|sample| is_used(sample.label("link")))
        .map(|sample| Link {
            link: sample.label("link").to_owned(),
            is_up: sample.value == 1.0,
        });
    let is_shared = admin.node.cluster.is_some();
    Backplane {
        kind: config.kind.as_str(),
        kept: config.kept.as_str(),
        is_up: is_shared.then(|| read.sum("conclave_backplane_up") == 1.0),
        links: if is_shared { links.collect() } else { Vec::new() },
        lag_seconds_sum: read.sum("conclave_backplane_lag_seconds_sum"),
        lag_count: whole(read.sum("conclave_backplane_lag_seconds_count")),
        peer_age_seconds: read.sum("conclave_backplane_peer_age_seconds"),
        revocation_staleness_seconds: read.sum("conclave_revocation_staleness_seconds"),
        queue_messages: whole(read.sum("conclave_backplane_publish_queue_messages")),
        queue_bytes: whole(read.sum("conclave_backplane_publish_queue_bytes")),
    }
}

/// A count or a gauge as a whole number; none is below zero.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and these are counts"
)]
fn whole(value: f64) -> u64 {
    value as u64
}
