//! A node from its configuration to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use axum_server::{Handle, Server};
use hyper_util::rt::TokioTimer;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::jwks::Jwks;
use crate::auth::keys::Keys;
use crate::auth::{Forward, Policy, Refusals};
use crate::backplane;
use crate::backplane::contract::Backplane;
use crate::backplane::driver::{Seats, Warden};
use crate::config::classes::Classes;
use crate::config::{At, Config, Effective, Listen, Problem, RuntimeKind, Severity, TlsMode};
use crate::hooks::Hooks;
use crate::hooks::tell::Teller;
use crate::http::health::Health;
use crate::http::session::Sessions;
use crate::http::ticket::Tickets;
use crate::http::{admin, routes};
use crate::hub::Hub;
use crate::hub::errands::Errands;
use crate::net::acceptor::{self, Acceptor};
use crate::net::admission::Admission;
use crate::net::certificates::Certificates;
use crate::net::inherited::{self, Inherited};
use crate::net::listener::{self, Bound, Listener, Peer};
use crate::net::permits::Permits;
use crate::outbound::Outbound;
use crate::runtime::drain::{self, Listening};
use crate::runtime::supervisor::{self, Beats};
use crate::runtime::{Ceilings, Cluster, Drain, Node, Tasks, TopRooms, Waiting, node, now_ms, top_rooms};
use crate::shard::inbox::Inbox;
use crate::shard::{Budgets, Shard};
use crate::telemetry::logs;
use crate::telemetry::metrics::{BuildInfo, Metrics};
use crate::telemetry::traces::{Service, Traces};

/// Descriptors that are not client sockets: listeners, epoll, files, the collector, the admin listener.
const DESCRIPTORS_RESERVED: u64 = 128;

/// How often limiters and rooms forget what is too old.
const SWEEP: Duration = Duration::from_secs(10);

/// Sockets that become ready between two turns of a shard's flusher: with tokio's own 1,024 a storm's first bytes would
/// keep it waiting for tens of milliseconds.
const IO_EVENTS_PER_TICK: usize = 32;

/// How long the last spans may take to leave.
const TRACES_FLUSH: Duration = Duration::from_secs(3);

/// How long hooks may take to be told the last events of a node that ends.
const HOOKS_FLUSH: Duration = Duration::from_secs(5);

/// HTTP/2 streams of one connection, sockets among them (RFC 9113 section 6.5.2 recommends 100 or more).
const H2_STREAMS_MAX: u32 = 200;

/// What a caller wants to know of a start.
#[derive(Default)]
pub struct Start {
    /// Called once, when the ports are open.
    pub on_ready: Option<Box<dyn FnOnce(Ready) + Send>>,
    /// The configuration as it holds, secrets masked, for the operator's page.
    pub effective: Vec<Effective>,
    /// Listening sockets that somebody else keeps.
    pub inherited: Inherited,
    /// What was found in the configuration and is logged once; notes are left to `check-config`.
    pub warnings: Vec<Problem>,
}

/// Where the node listens.
#[derive(Debug, Clone)]
pub struct Ready {
    pub listen: Listen,
    pub admin_listen: SocketAddr,
    /// Somebody else keeps the socket for clients, and hands it to this node's successor.
    pub is_handed_on: bool,
}

/// Serves until SIGTERM or SIGINT, drains, and returns. A second signal ends the process at once.
///
/// # Errors
/// The node could not begin: a port, the certificate, the keys, a thread.
pub fn run(mut config: Config, mut start: Start) -> anyhow::Result<()> {
    let instance = Service::new(env!("CARGO_PKG_VERSION"));
    let traces = if config.traces.endpoint.is_some() {
        Traces::start(&config.traces, &instance)?
    } else {
        Traces::off()
    };
    let _logs = logs::init(&config.log, Some(&traces))?;
    log_warnings(&start.warnings);
    let shards = shard_count(&config);
    let is_handed_on = start.inherited.main.is_some();
    let listeners = match start.inherited.main.take() {
        Some(socket) => inherited::share(socket, shards)?.into_iter().map(Bound::Tcp).collect(),
        None => listener::listen_at(&config.server.listen, config.server.listen_mode, shards)?,
    };
    let admin_listener = match start.inherited.admin.take() {
        Some(socket) => socket,
        None => listener::listen(config.server.admin_listen, 1)?.swap_remove(0),
    };
    if admin_listener.local_addr()?.ip() != config.server.admin_listen.ip()
        && !admin_listener.local_addr()?.ip().is_loopback()
    {
        tracing::warn!(
            admin_listen = %admin_listener.local_addr()?,
            "other machines can reach the admin socket that was handed over: let it listen on 127.0.0.1, or keep them away from it"
        );
    }
    let ready = Ready {
        listen: listeners[0].place(&config.server.listen)?,
        admin_listen: admin_listener.local_addr()?,
        is_handed_on,
    };
    if config.tls.mode == TlsMode::Off {
        tracing::warn!(listen = %ready.listen, "NO TLS: tokens and messages are plain text here (tls.mode is \"off\")");
    }
    // One that was handed over is not the one that the configuration was checked for.
    if config.tls.mode == TlsMode::Off && !ready.listen.is_local() {
        anyhow::bail!(
            "tls.mode is \"off\", and other machines can reach the socket that was handed over, {}: let it listen on \
             127.0.0.1 (ListenStream=127.0.0.1:8443), or set tls.mode = \"on\"",
            ready.listen
        );
    }
    if config.server.name.is_empty() {
        config.server.name = name(&ready.listen);
    }
    let node = build(config, traces, shards)?;
    let admin_stop = tokio_util::sync::CancellationToken::new();
    let admin = admin::spawn(
        admin_listener,
        Arc::clone(&node),
        std::mem::take(&mut start.effective),
        admin_stop.clone(),
    )?;
    let served = match node.config.server.runtime {
        RuntimeKind::PerCore => per_core(&node, listeners, ready, start),
        RuntimeKind::Shared => shared(&node, listeners, ready, start),
    };
    node.traces.shutdown(TRACES_FLUSH);
    // Health and metrics answer to the very end.
    admin_stop.cancel();
    drop(admin.join());
    served
}

/// What a node is called that nobody gave a name.
fn name(listen: &Listen) -> String {
    // Not from /proc, which a service may not see all of.
    let machine = rustix::system::uname();
    let host = machine.nodename().to_str().unwrap_or_default();
    let host = if host.is_empty() { "conclave" } else { host };
    match listen {
        Listen::Tcp(address) => format!("{host}:{}", address.port()),
        Listen::Unix(_) => host.to_owned(),
    }
}

fn log_warnings(warnings: &[Problem]) {
    let is_warning = |problem: &&Problem| problem.severity == Severity::Warning;
    for problem in warnings.iter().filter(is_warning) {
        let set_by = problem.at.as_ref().map(At::short);
        tracing::warn!(
            key = problem.key,
            set_by,
            remedy = problem.remedy,
            "configuration: {}",
            problem.what
        );
    }
}

fn shard_count(config: &Config) -> usize {
    match config.server.threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

pub(super) fn build(config: Config, traces: Traces, shards: usize) -> anyhow::Result<Arc<Node>> {
    build_on(config, traces, shards, backplane::connect)
}

/// As [`build`], on the backplane that `connect` makes.
pub(super) fn build_on(
    config: Config,
    traces: Traces,
    shards: usize,
    connect: impl FnOnce(&Config, &Arc<Metrics>) -> anyhow::Result<Option<Arc<dyn Backplane>>>,
) -> anyhow::Result<Arc<Node>> {
    let config = Arc::new(config);
    let metrics = Metrics::install(BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        revision: crate::cli::COMMIT,
        rustc: crate::cli::RUSTC,
        backplane: config.backplane.kind.as_str(),
    });
    if let Some(counts) = traces.counts() {
        metrics.register_traces(counts);
    }
    let certificates = match config.tls.mode {
        TlsMode::On => Some(Arc::new(Certificates::load(&config, Arc::clone(&metrics))?)),
        TlsMode::Off => None,
    };
    let outbound = Outbound::new(&config.outbound);
    metrics.register_outbound(outbound.counts());
    let hooks = Hooks::new(&config, &outbound, &metrics, &traces)?;
    let keys = Keys::from_config(&config)
        .map_err(|problems| anyhow::anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let policy = Arc::new(Policy::new(&config, keys).map_err(|problems| anyhow::anyhow!(problems.join("\n")))?);
    let jwks = Jwks::new(&policy, &outbound)?;
    let names = certificates.clone();
    let sessions = Arc::new(Sessions::new(
        &config,
        Arc::clone(&policy),
        Box::new(move |host| node::names_host(names.as_deref(), host)),
    ));
    let limits = &config.limits;
    let fd_limit = descriptor_limit();
    let connections_max = connections_max(limits.connections, fd_limit)?;
    let permits = Permits::new(connections_max, limits.connections_per_address);
    let admission = Admission::new(&config, shards, Arc::clone(&metrics));
    let inboxes: Arc<[Arc<Inbox>]> = (0..shards).map(|_| Arc::default()).collect();
    let backplane = connect(&config, &metrics)?;
    let errands =
        (backplane.as_ref()).map(|_| Arc::new(Errands::new(&config.backplane, Arc::clone(&metrics), traces.clone())));
    let warden = Warden::new(
        &config.backplane,
        backplane.clone(),
        Arc::clone(policy.revoked()),
        Arc::clone(&inboxes),
        Arc::clone(&metrics),
    );
    let seats = Arc::new(Seats::new(limits.connections_per_user, backplane.is_some()));
    let teller = Teller::new(&config, backplane.as_ref(), &outbound, &metrics)?;
    let queues = teller.as_ref().and_then(|teller| teller.queues());
    let hub = Arc::new(Hub::new(&config, Arc::clone(&inboxes), errands).telling(queues.cloned()));
    let budgets = Budgets::new(limits, shards);
    let shards = (inboxes.iter().enumerate())
        .map(|(index, inbox)| {
            Shard::new(
                index,
                Arc::clone(inbox),
                &config,
                &budgets,
                Arc::clone(&metrics),
                Arc::clone(hub.taps()),
            )
        })
        .collect();
    let forward = Forward::new(&config.auth, &outbound, Arc::clone(&metrics))?;
    let tickets = Tickets::new(&config.tickets, backplane.clone(), Arc::clone(&metrics));
    let cluster = backplane.map(|backplane| Cluster::new(&config, backplane, &hub, Arc::clone(&seats)));
    let node = Arc::new(Node {
        refusals: Refusals::new(config.auth.refusals_per_second, config.auth.refusals_burst),
        tickets_waiting: Waiting::new(limits),
        forward_waiting: Waiting::new(limits),
        ceilings: Ceilings::new(limits, &Classes::new(&config)),
        hub,
        teller,
        seats,
        top_rooms: TopRooms::default(),
        warden,
        cluster,
        health: Health::new(),
        tasks: Tasks::default(),
        drain: Drain::default(),
        open: tokio_util::sync::CancellationToken::new(),
        closed: tokio_util::sync::CancellationToken::new(),
        arriving: tokio_util::task::TaskTracker::new(),
        listening_stopped: tokio_util::sync::CancellationToken::new(),
        api: crate::api::door(&config.api),
        config: Arc::clone(&config),
        metrics,
        traces,
        outbound,
        hooks,
        jwks,
        policy,
        sessions,
        tickets,
        forward,
        permits,
        admission,
        certificates,
        shards,
    });
    expose(&node, fd_limit);
    Ok(node)
}

/// The soft limit on open files, which is raised to the hard one first.
fn descriptor_limit() -> u64 {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files could not be raised");
            rlimit::Resource::NOFILE.get_soft().unwrap_or(1_024)
        }
    }
}

/// As configured, or as many as descriptors allow.
fn connections_max(configured: usize, fd_limit: u64) -> anyhow::Result<usize> {
    let possible = usize::try_from(fd_limit.saturating_sub(DESCRIPTORS_RESERVED))
        .unwrap_or(usize::MAX)
        .max(1);
    if configured > possible {
        anyhow::bail!(
            "limits.connections is {configured}, but the process may open {fd_limit} files, {DESCRIPTORS_RESERVED} of which it \
             needs for itself: raise the limit (`ulimit -n`, LimitNOFILE=) or lower limits.connections to {possible}"
        );
    }
    Ok(if configured == 0 { possible } else { configured })
}

fn expose(node: &Arc<Node>, fd_limit: u64) {
    let weak = Arc::downgrade(node);
    node.metrics.on_scrape(Box::new(move |gauges| {
        let Some(node) = weak.upgrade() else { return };
        let totals = node.hub.totals();
        gauges.rooms = totals.rooms as u64;
        gauges.users = totals.users as u64;
        gauges.history_messages = totals.messages as u64;
        gauges.history_bytes = totals.bytes as u64;
        let (joins, leaves) = node.shards.iter().fold((0, 0), |(joins, leaves), shard| {
            (
                joins + shard.counters.joins.value(),
                leaves + shard.counters.leaves.value(),
            )
        });
        gauges.members = joins.saturating_sub(leaves);
        gauges.outbox_budget_bytes = node.config.limits.node_outbox_bytes as u64;
        gauges.connections_limit = node.permits.node_max() as u64;
        gauges.fd_limit = fd_limit;
        gauges.ready = node.health.is_ready();
        gauges.draining_clients = node.drain.left() as u64;
        gauges.drain_deadline = node.drain.deadline();
        gauges.handshakes_waiting = node.admission.waiting() as u64;
        gauges.admission_rate = node.admission.accepts_per_second().into();
        gauges.handshake_cpu_seconds = node.admission.handshake_cpu().as_secs_f64();
    }));
}

/// One single-threaded runtime, listener and flusher per core; this thread waits for signals.
fn per_core(node: &Arc<Node>, listeners: Vec<Bound>, ready: Ready, start: Start) -> anyhow::Result<()> {
    let handles: Vec<Handle<Peer>> = listeners.iter().map(|_| Handle::new()).collect();
    let mut threads = Vec::new();
    let beats = supervisor::watchdog().map(|time| Beats::new(time, handles.len()));
    let (opened, open) = std::sync::mpsc::sync_channel(handles.len());
    for ((index, socket), handle) in listeners.into_iter().enumerate().zip(&handles) {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_io_events_per_tick(IO_EVENTS_PER_TICK)
            .build()
            .context("a runtime could not be set up")?;
        node.metrics.register_runtime(runtime.handle().clone());
        let (node, handle, opened) = (Arc::clone(node), handle.clone(), opened.clone());
        let beats = beats.clone();
        let work = move || {
            runtime.block_on(async {
                node.shards[index].start(&node.tasks);
                if let Some(beats) = beats {
                    beats.beat(index, &node.tasks);
                }
                match listener(&node, socket) {
                    Ok(listener) => {
                        let served = Arc::clone(&node);
                        node.tasks.spawn("listener", async move {
                            serve_once_open(&served, index, listener, handle).await;
                        });
                        drop(opened.send(Ok(())));
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
                node.tasks.stopped().cancelled().await;
            });
        };
        threads.push(thread::Builder::new().name(format!("conclave-{index}")).spawn(work)?);
    }
    // Every thread says once whether its listener stands.
    let ended = match open.iter().take(handles.len()).find_map(Result::err) {
        None => Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime could not be set up")
            .and_then(|runtime| control(&runtime, node, &handles, beats.as_ref(), ready, start)),
        Some(error) => Err(error).context("a listener could not be set up"),
    };
    node.tasks.stop_services();
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a shard's thread panicked");
        }
    }
    ended
}

/// One multi-threaded runtime: shards are still there, but any thread may run them.
fn shared(node: &Arc<Node>, listeners: Vec<Bound>, ready: Ready, start: Start) -> anyhow::Result<()> {
    let handles: Vec<Handle<Peer>> = listeners.iter().map(|_| Handle::new()).collect();
    let runtime = Builder::new_multi_thread()
        .worker_threads(listeners.len())
        .thread_name("conclave")
        .enable_all()
        .build()
        .context("the runtime could not be set up")?;
    node.metrics.register_runtime(runtime.handle().clone());
    let beats = supervisor::watchdog().map(|time| Beats::new(time, 1));
    if let Some(beats) = &beats {
        let _entered = runtime.enter();
        beats.beat(0, &node.tasks);
    }
    for ((index, socket), handle) in listeners.into_iter().enumerate().zip(&handles) {
        let (served, handle) = (Arc::clone(node), handle.clone());
        let _entered = runtime.enter();
        node.shards[index].start(&node.tasks);
        let listener = listener(node, socket).context("a listener could not be set up")?;
        node.tasks.spawn("listener", async move {
            serve_once_open(&served, index, listener, handle).await;
        });
    }
    let ended = control(&runtime, node, &handles, beats.as_ref(), ready, start);
    node.tasks.stop_services();
    ended
}

/// Runs the node's services, says that it is ready, waits for a signal, and drains.
fn control(
    runtime: &Runtime,
    node: &Arc<Node>,
    handles: &[Handle<Peer>],
    beats: Option<&Beats>,
    ready: Ready,
    start: Start,
) -> anyhow::Result<()> {
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Before anything is waited for: whoever asks for a reload must never end the process.
        reload_when_asked(node)?;
        node.jwks.start(&node.tasks, &node.metrics);
        node.warden.start(&node.tasks);
        if let Some(cluster) = &node.cluster {
            supervisor::status("waiting for the backplane");
            cluster.start(node).await?;
        } else if let Some(teller) = &node.teller {
            teller.start(&node.tasks, None);
        }
        node.jwks.tried().await;
        node.open.cancel();
        if let Some(certificates) = &node.certificates {
            certificates.keep(&node.tasks, &node.health);
        }
        keep_house(node);
        node.health.ready();
        if let Some(cluster) = &node.cluster {
            cluster.tell_others();
        }
        supervisor::start(node, beats);
        tracing::info!(
            name = node.config.server.name,
            listen = %ready.listen,
            admin_listen = %ready.admin_listen,
            shards = node.shards.len(),
            connections_max = node.permits.node_max(),
            is_handed_on = ready.is_handed_on,
            "ready"
        );
        let is_handed_on = ready.is_handed_on;
        if let Some(on_ready) = start.on_ready {
            on_ready(ready);
        }
        // Whichever comes first begins the drain; the next one ends it.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = node.drain.asked() => {}
        }
        let stop_listening = || {
            node.closed.cancel();
            node.listening_stopped.cancel();
            for handle in handles {
                handle.graceful_shutdown(None);
            }
        };
        let listening = Listening {
            is_handed_on,
            stop: stop_listening,
        };
        tokio::select! {
            () = drain::drain(node, listening) => {}
            _ = terminate.recv() => exit_at_once(),
            _ = interrupt.recv() => exit_at_once(),
        }
        if let Some(teller) = &node.teller {
            // Only this process can tell of those whose grace still runs, unless the engine does it when the lease is given back.
            if let Some(cluster) = node.cluster.as_ref().filter(|_| teller.queues().is_some()) {
                cluster.let_all_leave();
            }
            flush(teller).await;
        }
        if let Some(cluster) = &node.cluster {
            cluster.stop().await;
        }
        Ok(())
    })
}

/// The last events leave, if somebody takes them.
async fn flush(teller: &Teller) {
    if tokio::time::timeout(HOOKS_FLUSH, teller.flushed()).await.is_err() {
        let lost = teller.kept_here();
        tracing::error!(
            lost,
            "hooks did not take the last events in time; what this process kept of them is lost"
        );
    }
}

/// SIGHUP reads the certificate again; a node without one says that there is nothing to read.
fn reload_when_asked(node: &Arc<Node>) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let certificates = node.certificates.clone();
    node.tasks.spawn("reload", async move {
        while hangup.recv().await.is_some() {
            supervisor::reloading();
            if let Some(certificates) = &certificates {
                tracing::info!("SIGHUP: reading the certificate again");
                certificates.reload_aside().await;
            } else {
                tracing::info!("SIGHUP: without TLS there is no certificate to read again");
            }
            supervisor::reloaded();
        }
    });
    Ok(())
}

/// Whoever asks twice does not want to wait: clients see a cut connection, which they survive.
fn exit_at_once() -> ! {
    eprintln!("second signal: not waiting for clients");
    std::process::exit(1)
}

/// What is due now and then: large rooms' counts each second, old things forgotten.
fn keep_house(node: &Arc<Node>) {
    let counting = Arc::clone(node);
    node.tasks.spawn("counts", async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        // After a stall two counts must not come within a second.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            counting.hub.send_counts(now_ms());
        }
    });
    if node.api.is_some() && node.cluster.is_some() {
        node.tasks.spawn("top rooms", top_rooms::run(Arc::clone(node)));
    }
    let looked_at = Arc::clone(node);
    node.admission.watch(&node.tasks, move || looked_at.is_behind());
    let sweeping = Arc::clone(node);
    node.tasks.spawn("forget", async move {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            sweeping.sweep_limiters();
            sweeping.hub.sweep(now_ms()).await;
        }
    });
}

/// Registers a listening socket with the runtime of the calling thread.
pub(super) fn listener(node: &Node, socket: impl Into<Bound>) -> std::io::Result<Listener> {
    Listener::new(
        socket.into(),
        &node.config,
        Arc::clone(&node.permits),
        Arc::clone(&node.metrics),
    )
    .map(|listener| listener.until(node.closed.clone()))
}

/// Clients that come before the node knows what it must (who is revoked) wait in the kernel's queue.
async fn serve_once_open(node: &Arc<Node>, index: usize, listener: Listener, handle: Handle<Peer>) {
    node.open.cancelled().await;
    serve(node, index, listener, handle).await;
}

/// Accepts and serves on one shard's socket until the handle says stop.
pub(super) async fn serve(node: &Arc<Node>, index: usize, listener: Listener, handle: Handle<Peer>) {
    let config = &node.config;
    node.admission.start(index, &node.tasks);
    let acceptor = Acceptor::new(acceptor::Inner {
        shard: Arc::clone(&node.shards[index]),
        certificates: node.certificates.clone(),
        forwarders: Arc::new(config.server.forwarded_from.clone()),
        admission: Arc::clone(&node.admission),
        metrics: Arc::clone(&node.metrics),
        handshake_timeout: config.server.handshake_timeout,
        http_idle: config.server.http_idle,
        stop: node.listening_stopped.clone(),
        arriving: node.arriving.clone(),
    });
    let mut server = Server::<Peer>::from_listener(listener)
        .acceptor(acceptor)
        .handle(handle);
    let builder = server.http_builder();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.server.header_timeout)
        .max_buf_size(config.server.header_bytes.max(8 * 1024))
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(config.server.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(config.server.http_idle)
        .keep_alive_timeout(config.server.handshake_timeout);
    let router = routes::router(node);
    let make = tower::service_fn(move |_: Peer| {
        let router = router.clone();
        async move { Ok::<_, std::convert::Infallible>(router) }
    });
    if let Err(error) = server.serve(make).await {
        tracing::error!(%error, "the listener ended");
    }
}
