//! Every metric of the server, and the only place that names one.
//!
//! Per message a shard adds to its own [`ShardCounters`], and nothing else; they are summed when
//! somebody scrapes. Per event (a handshake, a close) [`Metrics`] has handles that were registered
//! at the start, with zeros for every label value there can be. The recorder belongs to one
//! `Metrics`, so several nodes may live in one process.

mod backplane;
mod forward;
mod handles;
mod hooks;
pub mod http;
pub mod labels;
pub mod names;
mod process;
mod scrape;
mod shard;
#[cfg(test)]
mod tests;
mod upkeep;

use std::sync::Arc;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

pub use self::backplane::{Backplane, Presence, Revocation};
pub use self::forward::Forward;
pub use self::handles::Counters;
use self::handles::{Registrar, Words};
pub use self::hooks::{HOOK_RESULTS, HookMetrics, TellMetrics};
pub use self::labels::*;
pub use self::scrape::Gauges;
use self::scrape::Sources;
pub use self::shard::{Counter, Gauge, PerKind, ShardCounters};
use self::upkeep::Upkeep;
use super::traces::SpanCounts;
use crate::outbound;

/// What `conclave_build_info` says.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// Version of the package.
    pub version: &'static str,
    /// Commit it was built from.
    pub revision: &'static str,
    /// Compiler it was built with.
    pub rustc: &'static str,
    /// Kind of the backplane: `memory`, `redis` or `nats`.
    pub backplane: &'static str,
}

/// All metrics of one node.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    sources: Sources,
    /// One scrape at a time: two at once would read the sources twice for nothing.
    scraping: Mutex<()>,
    handshakes: Counters<HandshakeResult>,
    tls_handshake: metrics::Histogram,
    accept_errors: Counters<AcceptError>,
    upgrades: Counters<UpgradeResult>,
    upgrade_duration: metrics::Histogram,
    admitted: Counters<Place>,
    tickets: Counters<TicketResult>,
    forward: Forward,
    auth_failures: Words,
    server_closes: Vec<((u16, &'static str), metrics::Counter)>,
    client_closes: Vec<((u16, &'static str), metrics::Counter)>,
    connection_duration: metrics::Histogram,
    protocol_errors: Words,
    rate_limited: Counters<RateLimit>,
    limit_hits: Counters<Limit>,
    admission_refused: Vec<metrics::Counter>,
    resumed_sockets: metrics::Counter,
    evicted_bytes: metrics::Counter,
    slow_consumers: Counters<SlowConsumer>,
    sweeper_terminations: metrics::Counter,
    ping_rtt: metrics::Histogram,
    broadcast: metrics::Histogram,
    recoveries: Counters<Recovery>,
    reloads: Counters<Reload>,
    certificate_expiry: metrics::Gauge,
    acme_orders: Counters<AcmeOrder>,
    client_certificates: Counters<ClientCertificate>,
    panics_caught: Counters<PanicPlace>,
    drain_phases: Vec<metrics::Gauge>,
    /// By action.
    admin_requests: Vec<Counters<AdminResult>>,
    taps: metrics::Gauge,
    /// By operation.
    api_requests: Vec<Counters<AdminResult>>,
    api_duration: Vec<metrics::Histogram>,
    backplane: Backplane,
    presence: Presence,
    revocation: Revocation,
    _upkeep: Upkeep,
}

/// `conclave_jwks_*` of one issuer.
pub struct Jwks {
    /// Since its keys were last read.
    pub age: metrics::Gauge,
    /// Those that vouch.
    pub keys: metrics::Gauge,
    /// Readings by result.
    pub fetches: Counters<JwksResult>,
}

impl Metrics {
    /// Registers everything with zeros and starts the upkeep thread, which ends with the value.
    pub fn install(build: BuildInfo) -> Arc<Self> {
        let recorder = recorder();
        let handle = recorder.handle();
        let new = Registrar(&recorder);
        new.describe_all();
        let labels = [build.version, build.revision, build.rustc, build.backplane];
        new.gauge(&names::BUILD_INFO, &labels).set(1.0);
        let metrics = Self {
            sources: Sources::register(&new),
            scraping: Mutex::new(()),
            handshakes: new.counters(&names::HANDSHAKES),
            tls_handshake: new.histogram(&names::TLS_HANDSHAKE_DURATION, &[]),
            accept_errors: new.counters(&names::ACCEPT_ERRORS),
            upgrades: new.counters(&names::UPGRADES),
            upgrade_duration: new.histogram(&names::UPGRADE_DURATION, &[]),
            admitted: new.counters(&names::ADMITTED),
            tickets: new.counters(&names::TICKETS),
            forward: Forward::register(&new),
            auth_failures: new.words(&names::AUTH_FAILURES, AUTH_REASONS),
            server_closes: new.closes(Initiator::Server, SERVER_CLOSES),
            client_closes: new.closes(Initiator::Client, CLIENT_CLOSES),
            connection_duration: new.histogram(&names::CONNECTION_DURATION, &[]),
            protocol_errors: new.words(&names::PROTOCOL_ERRORS, ERROR_CODES),
            rate_limited: new.counters(&names::RATE_LIMITED),
            limit_hits: new.counters(&names::REFUSED),
            admission_refused: AdmissionRefusal::ALL
                .iter()
                .map(|refusal| new.counter(&names::ADMISSION_REFUSED, &[refusal.stage(), refusal.word()]))
                .collect(),
            resumed_sockets: new.counter(&names::RESUMED_SOCKETS, &[]),
            evicted_bytes: new.counter(&names::EVICTED_BYTES, &[]),
            slow_consumers: new.counters(&names::SLOW_CONSUMERS),
            sweeper_terminations: new.counter(&names::SWEEPER_TERMINATIONS, &[]),
            ping_rtt: new.histogram(&names::PING_RTT, &[]),
            broadcast: new.histogram(&names::BROADCAST_DURATION, &[]),
            recoveries: new.counters(&names::RECOVERIES),
            reloads: new.counters(&names::TLS_RELOADS),
            certificate_expiry: new.gauge(&names::CERTIFICATE_EXPIRY, &[]),
            acme_orders: new.counters(&names::ACME_ORDERS),
            client_certificates: new.counters(&names::CLIENT_CERTIFICATES),
            panics_caught: new.counters(&names::PANICS_CAUGHT),
            drain_phases: new.gauges::<DrainPhase>(&names::DRAIN_PHASE),
            admin_requests: AdminAction::ALL
                .iter()
                .map(|action| new.counters_of(&names::ADMIN_REQUESTS, action.word()))
                .collect(),
            taps: new.gauge(&names::TAPS, &[]),
            api_requests: ApiOperation::ALL
                .iter()
                .map(|operation| new.counters_of(&names::API_REQUESTS, operation.word()))
                .collect(),
            api_duration: ApiOperation::ALL
                .iter()
                .map(|operation| new.histogram(&names::API_DURATION, &[operation.word()]))
                .collect(),
            backplane: Backplane::register(&new, build.backplane),
            presence: Presence::register(&new),
            revocation: Revocation::register(&new),
            _upkeep: Upkeep::start(handle.clone(), new.gauge(&names::UPKEEP, &[])),
            handle,
            recorder,
        };
        metrics.drain_phase(DrainPhase::Serving);
        Arc::new(metrics)
    }

    /// Adds a shard to the sums, for good: a counter may not fall.
    pub fn register_shard(&self, counters: Arc<ShardCounters>) {
        self.sources.add_shard(counters);
    }

    /// Adds a runtime to the `tokio_*` sums.
    pub fn register_runtime(&self, runtime: tokio::runtime::Handle) {
        self.sources.add_runtime(runtime);
    }

    /// Has the fates of spans counted.
    pub fn register_traces(&self, counts: Arc<SpanCounts>) {
        self.sources.set_spans(counts);
    }

    /// Has the calls of others counted.
    pub fn register_outbound(&self, counts: Arc<outbound::Counts>) {
        self.sources.set_outbound(counts);
    }

    /// Handles for an issuer of the configuration, which is asked for its keys.
    pub fn jwks(&self, issuer: &str) -> Jwks {
        let new = Registrar(&self.recorder);
        Jwks {
            age: new.gauge(&names::JWKS_AGE, &[issuer]),
            keys: new.gauge(&names::JWKS_KEYS, &[issuer]),
            fetches: new.counters_of(&names::JWKS_FETCHES, issuer),
        }
    }

    /// Has `read` asked at each scrape. It runs on the admin thread and must not wait for a shard:
    /// the scrape has to answer even while a shard is stuck.
    pub fn on_scrape(&self, read: Box<dyn Fn(&mut Gauges) + Send + Sync>) {
        self.sources.add_reader(read);
    }

    /// The text exposition, version 0.0.4.
    pub fn render(&self) -> String {
        let _one = self.scraping.lock();
        let seconds = self.sources.read();
        let mut text = self.handle.render();
        seconds.write(&mut text);
        text
    }

    /// What is heard of the backplane.
    pub fn backplane(&self) -> &Backplane {
        &self.backplane
    }

    /// Who is present, on all nodes.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Who is revoked, on all nodes.
    pub fn revocation(&self) -> &Revocation {
        &self.revocation
    }

    /// Nodes that are alive, this one included.
    pub fn nodes(&self, nodes: usize) {
        self.sources.set_nodes(nodes);
    }

    /// A TCP connection got as far as `result`.
    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.inc(result);
    }

    /// A TLS handshake was completed after so long.
    pub fn tls_handshake_seconds(&self, seconds: f64) {
        self.tls_handshake.record(seconds);
    }

    /// A connection could not be accepted.
    pub fn accept_error(&self, kind: AcceptError) {
        self.accept_errors.inc(kind);
    }

    /// A request for a socket was answered after so long.
    pub fn upgrade(&self, result: UpgradeResult, seconds: f64) {
        self.upgrades.inc(result);
        self.upgrade_duration.record(seconds);
    }

    /// A token was accepted.
    pub fn admitted(&self, place: Place) {
        self.admitted.inc(place);
    }

    /// A ticket came to this.
    pub fn ticket(&self, result: TicketResult) {
        self.tickets.inc(result);
    }

    /// Sessions of the application.
    pub fn forward(&self) -> &Forward {
        &self.forward
    }

    /// A token was refused with this reason word.
    pub fn auth_failure(&self, word: &'static str) {
        self.auth_failures.inc(word);
    }

    /// A socket ended. `reason` is one of our words; for a close by the client it is not looked at.
    pub fn disconnected(&self, code: u16, reason: &'static str, initiator: Initiator, lifetime_seconds: f64) {
        match initiator {
            Initiator::Server => handles::inc_close(&self.server_closes, (code, reason)),
            Initiator::Client => handles::inc_close(&self.client_closes, (code, "none")),
        }
        self.connection_duration.record(lifetime_seconds);
    }

    /// An `error` message was sent.
    pub fn error_sent(&self, code: &'static str) {
        self.protocol_errors.inc(code);
    }

    /// Something was refused for its rate.
    pub fn rate_limited(&self, limit: RateLimit) {
        self.rate_limited.inc(limit);
    }

    /// Something was refused for its size or count.
    pub fn limit_hit(&self, limit: Limit) {
        self.limit_hits.inc(limit);
    }

    /// A client was not let in because the node has enough to do.
    pub fn admission_refused(&self, refusal: AdmissionRefusal) {
        self.admission_refused[refusal.index()].increment(1);
    }

    /// A client that returned was given a socket.
    pub fn socket_resumed(&self) {
        self.resumed_sockets.increment(1);
    }

    /// So many bytes were given up to keep within the budget of the node.
    pub fn evicted(&self, bytes: u64) {
        self.evicted_bytes.increment(bytes);
    }

    /// A connection is ended for its backlog.
    pub fn slow_consumer(&self, limit: SlowConsumer) {
        self.slow_consumers.inc(limit);
    }

    /// The sweeper ended a silent connection.
    pub fn sweeper_terminated(&self) {
        self.sweeper_terminations.increment(1);
    }

    /// A pong came so long after its ping.
    pub fn ping_rtt(&self, seconds: f64) {
        self.ping_rtt.record(seconds);
    }

    /// One broadcast took so long. Only for a sample of them: each call allocates a little.
    pub fn broadcast_seconds(&self, seconds: f64) {
        self.broadcast.record(seconds);
    }

    /// A `join` with `since` came to this.
    pub fn history_recovery(&self, result: Recovery) {
        self.recoveries.inc(result);
    }

    /// The certificate was loaded again, or not.
    pub fn tls_reload(&self, result: Reload) {
        self.reloads.inc(result);
    }

    /// An order for a certificate is over.
    pub fn acme_order(&self, result: AcmeOrder) {
        self.acme_orders.inc(result);
    }

    /// A client was asked for its certificate.
    pub fn client_certificate(&self, result: ClientCertificate) {
        self.client_certificates.inc(result);
    }

    /// The served certificate expires then (seconds since the Unix epoch).
    pub fn certificate_expiry(&self, unix_seconds: f64) {
        self.certificate_expiry.set(unix_seconds);
    }

    /// A panic ended only the work at hand.
    pub fn panic_caught(&self, place: PanicPlace) {
        self.panics_caught.inc(place);
    }

    /// A request for the operator's page or its API was answered.
    pub fn admin_request(&self, action: AdminAction, result: AdminResult) {
        self.admin_requests[action.index()].inc(result);
    }

    /// A request for the server API was answered after so long.
    pub fn api_request(&self, operation: ApiOperation, result: AdminResult, seconds: f64) {
        self.api_requests[operation.index()].inc(result);
        self.api_duration[operation.index()].record(seconds);
    }

    /// So many taps are open.
    pub fn taps(&self, taps: usize) {
        self.taps.set(taps as f64);
    }

    /// Stopping stands here now.
    pub fn drain_phase(&self, phase: DrainPhase) {
        for (index, gauge) in self.drain_phases.iter().enumerate() {
            gauge.set(f64::from(u8::from(index == phase.index())));
        }
    }

    /// An HTTP request of a known route was answered after so long.
    pub(super) fn http_request(&self, method: &'static str, route: &str, status: u16, seconds: f64) {
        let labels = [method, route, &status.to_string()];
        Registrar(&self.recorder)
            .histogram(&names::HTTP_DURATION, &labels)
            .record(seconds);
    }
}

fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new().with_recommended_naming(true);
    for definition in names::ALL.iter().filter(|definition| !definition.buckets.is_empty()) {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(definition.name.to_owned()), definition.buckets)
            .expect("the list of buckets is not empty");
    }
    builder.build_recorder()
}
