//! Every metric there is: name, kind, help, labels. Dashboards and alerts may ask for these only.

/// How Prometheus is to read a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises; the name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Upper bounds of its buckets.
    Histogram,
}

/// One row of the list.
#[derive(Debug)]
pub struct Definition {
    /// Full name, with unit and suffix.
    pub name: &'static str,
    /// How it is to be read.
    pub kind: MetricKind,
    /// What it tells an operator.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets, in seconds.
    pub buckets: &'static [f64],
}

/// HTTP: the bounds of OpenTelemetry's semantic conventions.
const HTTP: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Handshakes: 1 ms to the deadline.
const HANDSHAKE: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Broadcasts: 50 µs to 1 s.
const BROADCAST: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];
/// Round trips of pings: a LAN to a phone in a tunnel.
const PING: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Calls of the backplane, canaries: 100 µs to the longest timeouts.
const BACKPLANE: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Lives of connections: a second to a day.
const LIFE: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0];

macro_rules! metrics {
    ($($id:ident $kind:ident $name:literal [$($label:literal),*] $(in $buckets:ident)? : $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $id: Definition = Definition {
                name: $name,
                kind: MetricKind::$kind,
                help: $help,
                labels: &[$($label),*],
                buckets: metrics!(@buckets $($buckets)?),
            };
        )+
        /// The whole list.
        pub const ALL: &[&Definition] = &[$(&$id),+];
    };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

metrics! {
    BUILD_INFO Gauge "conclave_build_info" ["version", "revision", "rustc", "backplane"]: "What is running; always 1.";
    UPKEEP Gauge "conclave_upkeep_timestamp_seconds" []: "When the metrics were last tidied up; must advance.";

    CONNECTIONS Gauge "conclave_connections" []: "Sockets that are open.";
    OUTBOX_BUDGET Gauge "conclave_outbox_budget_bytes" []: "Bytes that may wait for all readers of this node together.";
    CONNECTIONS_LIMIT Gauge "conclave_connections_limit" []: "Connections this node accepts; 0 means no limit.";
    FD_LIMIT Gauge "conclave_fd_limit" []: "File descriptors this process may open.";
    CONNECTIONS_OPENED Counter "conclave_connections_opened_total" []: "Sockets that were admitted.";
    CONNECTIONS_CLOSED Counter "conclave_connections_closed_total" []: "Admitted sockets that ended.";
    CONNECTION_DURATION Histogram "conclave_connection_duration_seconds" [] in LIFE: "Life of a socket, from upgrade to end.";
    HANDSHAKES Counter "conclave_handshakes_total" ["result"]: "TCP connections by how they fared until the request head was whole.";
    TLS_HANDSHAKE_DURATION Histogram "conclave_tls_handshake_duration_seconds" [] in HANDSHAKE: "From accept to the end of the TLS handshake.";
    ACCEPT_ERRORS Counter "conclave_accept_errors_total" ["kind"]: "Connections that could not be accepted.";
    UPGRADES Counter "conclave_upgrades_total" ["result"]: "Requests for a socket by what became of them.";
    UPGRADE_DURATION Histogram "conclave_upgrade_duration_seconds" [] in HANDSHAKE: "From request head to the answer of an upgrade.";
    DISCONNECTS Counter "conclave_disconnects_total" ["code", "reason", "initiator"]: "Ended sockets by close code, reason word and who ended them.";

    HANDSHAKES_WAITING Gauge "conclave_handshakes_waiting" []: "Handshakes that wait for their turn.";
    HANDSHAKE_CPU Counter "conclave_handshake_cpu_seconds_total" []: "CPU time from accept to the first byte of a request.";
    ADMISSION_RATE Gauge "conclave_admission_rate" []: "Handshakes that the node begins per second at most, as they are measured.";
    ADMISSION_REFUSED Counter "conclave_admission_refused_total" ["stage", "reason"]: "Clients that were not let in because the node has enough to do, by how far they had come.";
    RESUMED_SOCKETS Counter "conclave_resumed_sockets_total" []: "Sockets opened by clients that returned with resume=1.";
    PROBE_SESSIONS Counter "conclave_probe_sessions_total" []: "Sockets of probes (a token with probe: true); no other metric of clients, rooms or messages counts them.";

    ADMITTED Counter "conclave_admitted_total" ["place"]: "Accepted tokens by where they were found.";
    TICKETS Counter "conclave_tickets_total" ["result"]: "Tickets by what became of them: issued and redeemed; refused when they were used and not good; unavailable when the backplane did not answer.";
    FORWARD_REQUESTS Counter "conclave_forward_requests_total" ["result"]: "Times the application was to be asked who somebody is (auth.forward), by what it came to.";
    FORWARD_DURATION Histogram "conclave_forward_duration_seconds" [] in HTTP: "From the question to the application's answer, or the end of patience.";
    FORWARD_CIRCUIT Gauge "conclave_forward_circuit_open" []: "1 while the application is not asked because it failed too often.";
    FORWARD_CACHE_HITS Counter "conclave_forward_cache_hits_total" []: "Times an earlier answer of the application counted again.";
    AUTH_FAILURES Counter "conclave_auth_failures_total" ["reason"]: "Refused tokens by reason word.";
    CERTIFICATE_EXPIRY Gauge "conclave_tls_certificate_expiry_timestamp_seconds" []: "When the served certificate expires; 0 until one is loaded.";
    ACME_ORDERS Counter "conclave_acme_orders_total" ["result"]: "Certificates that were asked for from the ACME authority.";
    CLIENT_CERTIFICATES Counter "conclave_client_certificates_total" ["result"]: "Handshakes by the certificate that the client was asked for.";
    TLS_RELOADS Counter "conclave_tls_reloads_total" ["result"]: "Attempts to load a changed certificate.";

    MESSAGES Counter "conclave_messages_total" ["direction", "kind"]: "WebSocket messages.";
    MESSAGE_BYTES Counter "conclave_message_bytes_total" ["direction"]: "Bytes of WebSocket frames, heads included.";
    PROTOCOL_ERRORS Counter "conclave_protocol_errors_total" ["code"]: "Error messages sent to clients.";
    RATE_LIMITED Counter "conclave_rate_limited_total" ["limit"]: "Messages and requests refused for a rate.";
    REFUSED Counter "conclave_refused_total" ["limit"]: "Messages and requests refused for a size or count.";
    PUBLISHES Counter "conclave_publishes_total" []: "Chats that were accepted.";
    DUPLICATE_PUBLISHES Counter "conclave_duplicate_publishes_total" []: "Chats whose key was known already.";
    DELIVERIES Counter "conclave_deliveries_total" []: "Room messages queued to members.";
    DROPPED Counter "conclave_dropped_messages_total" ["reason"]: "Queued messages that died with their connection.";
    BROADCAST_DURATION Histogram "conclave_broadcast_duration_seconds" [] in BROADCAST: "From publish to the last member's send, sampled.";
    FLUSHES Counter "conclave_flushes_total" []: "Connections written to by flusher rounds.";
    SENDS Counter "conclave_sends_total" []: "Send calls on client sockets.";
    SEND_QUEUE_BYTES Gauge "conclave_send_queue_bytes" []: "Bytes queued to clients.";
    SLOW_CONSUMERS Counter "conclave_slow_consumers_total" ["limit"]: "Connections ended for their backlog.";
    RECEIVE_QUEUE_BYTES Gauge "conclave_receive_queue_bytes" []: "Bytes of messages that are not whole yet.";
    EVICTED_BYTES Counter "conclave_evicted_bytes_total" []: "Bytes given up with their connections, the largest first, because the node was over limits.node_outbox_bytes or limits.node_inbound_bytes.";
    PING_RTT Histogram "conclave_ping_rtt_seconds" [] in PING: "From ping to pong.";
    SWEEPER_TERMINATIONS Counter "conclave_sweeper_terminations_total" []: "Connections ended for silence.";

    ROOMS Gauge "conclave_rooms" []: "Rooms on this node.";
    MEMBERS Gauge "conclave_members" []: "Connections in rooms; one in two rooms counts twice.";
    USERS Gauge "conclave_users" []: "Users in rooms; one in two rooms counts twice.";
    JOINS Counter "conclave_joins_total" []: "Members who entered a room.";
    LEAVES Counter "conclave_leaves_total" []: "Members who left a room.";
    HISTORY_MESSAGES Gauge "conclave_history_messages" []: "Messages kept in history.";
    HISTORY_BYTES Gauge "conclave_history_bytes" []: "Bytes kept in history.";
    RECOVERIES Counter "conclave_history_recoveries_total" ["result"]: "Joins with a position by result.";
    REPLAYS Counter "conclave_replays_total" []: "Replays that were started.";
    USER_MESSAGES Counter "conclave_user_messages_total" []: "Messages of the application queued to connections of users.";
    REPLAYED_MESSAGES Counter "conclave_replayed_messages_total" []: "Messages sent by replays.";

    BACKPLANE_UP Gauge "conclave_backplane_up" ["backend"]: "1 while the backplane as a whole can be reached.";
    BACKPLANE_LINK_UP Gauge "conclave_backplane_link_up" ["link"]: "1 while every link of this sort can be used.";
    BACKPLANE_LINK_REBUILDS Counter "conclave_backplane_link_rebuilds_total" ["link", "reason"]: "Links that were made anew, by why.";
    BACKPLANE_LAG Histogram "conclave_backplane_lag_seconds" [] in BACKPLANE: "From publishing a canary to receiving it.";
    BACKPLANE_PEER_AGE Gauge "conclave_backplane_peer_age_seconds" []: "How long ago the quietest live peer was last heard of.";
    BACKPLANE_CALLS Counter "conclave_backplane_calls_total" ["call", "result"]: "Calls of the backplane by what they came to.";
    BACKPLANE_CALL_DURATION Histogram "conclave_backplane_call_duration_seconds" ["call"] in BACKPLANE: "Calls of the backplane, whatever they came to.";
    BACKPLANE_QUEUE_MESSAGES Gauge "conclave_backplane_publish_queue_messages" []: "Chats that wait for the backplane.";
    BACKPLANE_QUEUE_BYTES Gauge "conclave_backplane_publish_queue_bytes" []: "Bytes of chats that wait for the backplane.";
    BACKPLANE_REFUSED Counter "conclave_backplane_refused_total" ["reason"]: "Chats that were answered unavailable.";
    BACKPLANE_REPAIRS Counter "conclave_backplane_repairs_total" ["result"]: "Times a room asked the log what it had missed, by answer.";
    BACKPLANE_WAKEUPS Counter "conclave_backplane_wakeups_total" ["result"]: "Messages that the backplane told of, by what became of them.";
    BACKPLANE_AUDITS Counter "conclave_backplane_audits_total" ["result"]: "Rooms whose head was compared with the backplane's.";
    BACKPLANE_AUDIT_DURATION Histogram "conclave_backplane_audit_duration_seconds" [] in BACKPLANE: "One comparison of all rooms.";
    BACKPLANE_ATTACHED_ROOMS Gauge "conclave_backplane_attached_rooms" []: "Rooms that this node hears of from the backplane.";
    BACKPLANE_PERMITS Counter "conclave_backplane_permits_total" ["result"]: "Times this node asked whether it may fail its readiness.";
    BACKPLANE_UNREADY Gauge "conclave_backplane_unready" []: "1 while readiness fails because of the backplane.";
    PRESENCE_CHANGES Counter "conclave_presence_changes_total" ["change"]: "Users whose first connection on this node came or last one went, as told to the backplane.";
    PRESENCE_EVENTS Counter "conclave_presence_events_total" ["result"]: "Users who came or went on any node, as told by the backplane.";
    PRESENCE_RENEWALS Counter "conclave_presence_lease_renewals_total" ["result"]: "Renewals of the lease that keeps this node's users present.";
    PRESENCE_REAPED Counter "conclave_presence_reaped_users_total" []: "Users of dead nodes that this one moved out.";
    PRESENCE_INCARNATIONS Counter "conclave_presence_incarnations_total" []: "Incarnations that this node took; more than one means that a lease ended.";
    PRESENCE_QUEUE Gauge "conclave_presence_queue" []: "Changes that wait for the backplane.";
    REVOCATION_ENTRIES Gauge "conclave_revocation_entries" []: "Revocations that this node knows.";
    REVOCATION_EFFECT Histogram "conclave_revocation_effect_seconds" [] in BACKPLANE: "From a revocation to the end of the last connection that it hit here.";
    REVOCATION_STALENESS Gauge "conclave_revocation_staleness_seconds" []: "How long ago this node last knew that it had missed no revocation.";
    REVOCATION_CLOSED Counter "conclave_revocation_connections_closed_total" ["kind"]: "Connections ended by a revocation or a kick.";
    REVOCATION_RELOADS Counter "conclave_revocation_reloads_total" []: "Times all revocations were loaded again.";
    KICKS Counter "conclave_kicks_total" []: "Kicks that were carried out on this node.";

    HOOK_REQUESTS Counter "conclave_hook_requests_total" ["hook", "result"]: "Requests to hooks of the application by what they came to; `ok` and `denied` are good answers.";
    HOOK_DURATION Histogram "conclave_hook_duration_seconds" ["hook"] in HTTP: "Requests to hooks, whatever they came to.";
    HOOK_CIRCUIT_OPEN Gauge "conclave_hook_circuit_open" ["hook"]: "1 while a hook is left alone because it kept failing.";
    HOOK_WAITING Gauge "conclave_hook_waiting" ["hook"]: "Requests to a hook that are under way.";
    HOOK_DELIVERED_EVENTS Counter "conclave_hook_delivered_events_total" ["hook"]: "Events that a hook was told and took; some may be told again after a fault.";
    HOOK_LOST_EVENTS Counter "conclave_hook_lost_events_total" ["hook"]: "Events that a hook is never told because too many waited for it; with Redis counted when its lost event is taken.";
    HOOK_BACKLOG_EVENTS Gauge "conclave_hook_backlog_events" ["hook"]: "Events that wait for a hook; with Redis those of the partitions that this node sees to.";
    HOOK_LAG Gauge "conclave_hook_lag_seconds" ["hook"]: "Age of the oldest event that this node is about to tell a hook; 0 when there is none.";
    HOOK_RETRIES Counter "conclave_hook_retries_total" ["hook"]: "Batches that a hook was offered after one that it did not take.";

    ADMIN_REQUESTS Counter "conclave_admin_requests_total" ["action", "result"]: "Requests for the operator's page and its API.";
    API_REQUESTS Counter "conclave_api_requests_total" ["operation", "result"]: "Requests for the server API.";
    API_DURATION Histogram "conclave_api_duration_seconds" ["operation"] in HTTP: "From a request's head to the answer of the server API.";
    TAPS Gauge "conclave_taps" []: "Live views of a room or user that are open.";

    NODES Gauge "conclave_nodes" []: "Nodes that this one knows, itself included.";
    READY Gauge "conclave_ready" []: "1 while the node wants new connections.";
    DRAIN_PHASE Gauge "conclave_drain_phase" ["phase"]: "1 for where stopping stands.";
    DRAINING_CLIENTS Gauge "conclave_draining_clients" []: "Sockets that the drain has yet to close.";
    DRAIN_DEADLINE Gauge "conclave_drain_deadline_timestamp_seconds" []: "When the drain cuts whoever is left; 0 while nobody stops the node.";
    PANICS Counter "conclave_panics_total" []: "Panics in this process.";
    PANICS_CAUGHT Counter "conclave_panics_caught_total" ["place"]: "Panics that ended only the work at hand.";
    LOG_LINES_DROPPED Counter "conclave_log_lines_dropped_total" []: "Log lines lost because their reader was too slow.";
    JWKS_AGE Gauge "conclave_jwks_age_seconds" ["issuer"]: "Since an issuer's keys were last read, or since the start.";
    JWKS_FETCHES Counter "conclave_jwks_fetches_total" ["issuer", "result"]: "Readings of an issuer's keys by what they came to.";
    JWKS_KEYS Gauge "conclave_jwks_keys" ["issuer"]: "Keys of an issuer that vouch for tokens now.";
    JWKS_WAITING Gauge "conclave_jwks_waiting" []: "Sign-ins that wait for a key that is not known yet.";
    OUTBOUND_REQUESTS Counter "conclave_outbound_requests_total" ["purpose", "result"]: "Calls of issuers and of the application; any answer is ok.";
    TRACE_SPANS Counter "conclave_trace_spans_total" ["result"]: "Sampled spans by what became of them.";

    HTTP_DURATION Histogram "http_server_request_duration_seconds" ["method", "route", "status"] in HTTP: "HTTP requests but for upgrades.";

    PROCESS_CPU Counter "process_cpu_seconds_total" []: "User and system CPU time.";
    PROCESS_OPEN_FDS Gauge "process_open_fds" []: "Open file descriptors.";
    PROCESS_MAX_FDS Gauge "process_max_fds" []: "File descriptors this process may open.";
    PROCESS_VIRTUAL Gauge "process_virtual_memory_bytes" []: "Virtual memory.";
    PROCESS_RESIDENT Gauge "process_resident_memory_bytes" []: "Resident memory.";
    PROCESS_START Gauge "process_start_time_seconds" []: "Start of the process since the Unix epoch.";
    PROCESS_THREADS Gauge "process_threads" []: "Threads of the process.";
    TOKIO_WORKERS Gauge "tokio_workers" []: "Worker threads of all runtimes.";
    TOKIO_TASKS Gauge "tokio_alive_tasks" []: "Tasks that are alive.";
    TOKIO_QUEUE Gauge "tokio_global_queue_depth" []: "Tasks waiting in the global queues.";
    TOKIO_BUSY Counter "tokio_worker_busy_seconds_total" []: "Time that workers spent running tasks.";
}

/// What `conclave probe` says of a server, one probe at a time. No server has these.
pub mod probe {
    use super::{Definition, MetricKind};

    metrics! {
        SUCCESS Gauge "conclave_probe_success" []: "1 if every stage of the probe passed.";
        DURATION Gauge "conclave_probe_duration_seconds" []: "The whole probe.";
        STAGE_DURATION Gauge "conclave_probe_stage_duration_seconds" ["stage"]: "One stage of the probe, the failed one included.";
        FAILED Gauge "conclave_probe_failed" ["stage"]: "1 for the stage that failed; those after it were not tried.";
        CERTIFICATE_EXPIRY Gauge "conclave_probe_certificate_expiry_timestamp_seconds" []: "When the first certificate of the chain that was shown expires, trusted or not.";
        EXPORTER_REQUESTS Counter "conclave_probe_exporter_requests_total" ["result"]: "Probes that were asked for, by what became of them.";
        EXPORTER_RUNNING Gauge "conclave_probe_exporter_running" []: "Probes under way.";
    }
}
