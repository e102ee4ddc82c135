"""Do they get in, how long do they stay, why do they go?"""

from .grafana import BAD, OK, WARN, dashboard, graph, heat, quantile, quantiles, rate, stat


def arrivals():
    return [
        graph(
            "Open",
            "Sockets per node. Uneven after a deploy is normal: sockets do not move by themselves. Uneven for hours: look at the balancer.",
            "short",
            ("conclave_connections{@}", "{{instance}}"),
            runbook="service.md#connections-near-limit",
        ),
        graph(
            "Opened",
            "New sockets per second and node. Far above the usual: a storm of reconnects; admission holds it at the rate that CPU allows.",
            "cps",
            (rate("conclave_connections_opened_total", "instance"), "{{instance}}"),
            runbook="service.md#reconnect-storm",
        ),
        graph(
            "Closed",
            "Sockets that ended per second and node. Compare with Opened: a gap that stays is a number of users that changes.",
            "cps",
            (rate("conclave_connections_closed_total", "instance"), "{{instance}}"),
            runbook="closes.md",
        ),
        graph(
            "TCP connections by how they fared",
            "Until the head of the request was whole. over_limit and tls_timeout are our fault (full, too busy); not_tls and tls_error are "
            "scanners or a client that distrusts the certificate; bad_proxy_header is a balancer that is configured differently.",
            "cps",
            (rate("conclave_handshakes_total", "result"), "{{result}}"),
            runbook="service.md#handshakes-dropped",
        ),
        graph(
            "Upgrades by what became of them",
            "Requests for a socket. overloaded: the node is full or stopping; throttled: an address with too many refused tokens; "
            "denied: bad tokens; foreign_origin: a page that is not on origin.allow.",
            "reqps",
            (rate("conclave_upgrades_total", "result"), "{{result}}"),
            runbook="service.md#handshake-budget",
        ),
        graph(
            "Could not be accepted",
            "fd_limit: no file descriptor was left. Raise the limit on open files before limits.connections.",
            "cps",
            (rate("conclave_accept_errors_total", "kind"), "{{kind}}"),
            runbook="service.md#files-near-limit",
        ),
    ]


def storms():
    return [
        graph(
            "Handshakes that wait",
            "The queue before TLS. It is bounded by what can be served while clients still wait; full for minutes means more come than CPU "
            "can take: add nodes, or let it work the storm off.",
            "short",
            ("conclave_handshakes_waiting{@}", "{{instance}}"),
            runbook="service.md#handshakes-dropped",
        ),
        graph(
            "Admission: allowed and taken",
            "Handshakes per second that the measured cost allows, and those that came through. Taken near allowed: the storm is held at the gate.",
            "cps",
            ("sum(conclave_admission_rate{@})", "allowed"),
            (rate("conclave_handshakes_total", where='result="ok"'), "taken"),
            runbook="service.md#reconnect-storm",
        ),
        graph(
            "CPU for a handshake",
            "Seconds of CPU per handshake. Higher than usual: full handshakes instead of resumed ones, or a slow machine.",
            "s",
            (
                "sum by (instance) (rate(conclave_handshake_cpu_seconds_total{@}[@])) / "
                'clamp_min(sum by (instance) (rate(conclave_handshakes_total{@, result="ok"}[@])), 0.001)',
                "{{instance}}",
            ),
            runbook="service.md#reconnect-storm",
        ),
        graph(
            "Turned away by admission",
            "Dropped before TLS, or told to come back later after it. Resumers go first, so this is newcomers unless it lasts.",
            "cps",
            (rate("conclave_admission_refused_total", "stage, reason"), "{{stage}} {{reason}}"),
            runbook="service.md#handshakes-dropped",
        ),
        graph(
            "Returned with their place",
            "Sockets with a verified token and resume=1. After a deploy this should be most of what is opened.",
            "cps",
            (rate("conclave_resumed_sockets_total"), "resumed"),
            (rate("conclave_connections_opened_total"), "all"),
            runbook="service.md#reconnect-storm",
        ),
        graph(
            "Refused for a size or count",
            "By the setting that was reached. connections and connections_per_address are about arrivals, the others about what clients send.",
            "ops",
            (rate("conclave_refused_total", "limit"), "{{limit}}"),
            runbook="service.md#limits-reached",
        ),
    ]


def durations():
    return [
        graph(
            "TLS handshake",
            "From accept. The median is network and CPU; a p99 near server.handshake_timeout is clients that stall or a node that is too busy.",
            "s",
            *quantiles("conclave_tls_handshake_duration_seconds"),
            runbook="service.md#reconnect-storm",
        ),
        graph(
            "Upgrade",
            "From request head to answer. It has no I/O but the backplane's; high means too little CPU.",
            "s",
            *quantiles("conclave_upgrade_duration_seconds"),
            runbook="service.md#cpu-saturated",
        ),
        graph(
            "Ping to pong",
            "The clients' network. A p50 that rises on one node is that node; on all it is the way to the users.",
            "s",
            *quantiles("conclave_ping_rtt_seconds"),
            runbook="service.md#silent-clients",
        ),
    ]


def ends():
    return [
        graph(
            "Closed by the server",
            "By close code and reason. Each has a heading in the runbook of closes: look up the one that leads.",
            "cps",
            (rate("conclave_disconnects_total", "code, reason", 'initiator="server"'), "{{code}} {{reason}}"),
            runbook="closes.md",
        ),
        graph(
            "Closed by the client",
            "1000 and 1001 are goodbyes, 1006 is gone without one. A rise of 1006 on all nodes: the network; of 1001: the application was deployed.",
            "cps",
            (rate("conclave_disconnects_total", "code", 'initiator="client"'), "{{code}}"),
            runbook="closes.md#close-1000-normal",
        ),
        graph(
            "Ended for silence",
            "Nothing came for a whole heartbeat. A trickle is phones and laptops; a flood is a balancer whose idle timeout is shorter than heartbeat.interval.",
            "cps",
            (rate("conclave_sweeper_terminations_total", "instance"), "{{instance}}"),
            runbook="service.md#silent-clients",
        ),
        heat(
            "How long they stayed",
            "Lives of the sockets that ended. A band in the first seconds is clients that come back in a loop: look at their close code.",
            "s",
            "conclave_connection_duration_seconds",
            "closes.md",
            width=12,
        ),
        graph(
            "Length of a stay",
            "Median and p90 of the sockets that ended. A sudden drop: something cuts them (a proxy, a timeout, a deploy).",
            "s",
            (quantile(0.5, "conclave_connection_duration_seconds"), "p50"),
            (quantile(0.9, "conclave_connection_duration_seconds"), "p90"),
            runbook="closes.md",
            width=12,
        ),
    ]


def drain():
    return [
        graph(
            "Left to close",
            "Sockets on a stopping node that have not been told yet. It must fall to 0 before the deadline beside it.",
            "short",
            ("conclave_draining_clients{@}", "{{instance}}"),
            runbook="service.md#drain-stuck",
        ),
        graph(
            "Seconds to the deadline",
            "Of nodes that are stopping; 0 where none is. At 0 with clients left, they are cut: give drain.time more.",
            "s",
            ("clamp_min(conclave_drain_deadline_timestamp_seconds{@} - time(), 0)", "{{instance}}"),
            runbook="service.md#drain-stuck",
        ),
        graph(
            "Phase",
            "1 for where each node stands. serving is the normal one; anything else for longer than grace and time together is stuck.",
            "none",
            ("sum by (phase) (conclave_drain_phase{@})", "{{phase}}"),
            runbook="service.md#drain-stuck",
            stack=True,
        ),
    ]


def probes():
    return [
        stat(
            "Succeed now",
            "Share of the probes that came through to the end. 0: users cannot get in or cannot be heard, whatever the nodes say of themselves.",
            "percentunit",
            "avg(conclave_probe_success{@})",
            "service.md#probe-failing",
            [(0.99, WARN), (1, OK)],
            BAD,
            height=8,
        ),
        graph(
            "Round trip by target",
            "From name look-up to clean close. Above a second: look at the stages beside it.",
            "s",
            ("conclave_probe_duration_seconds{@}", "{{instance}}"),
            runbook="service.md#probe-slow",
            width=10,
        ),
        graph(
            "Stages",
            "Where the time goes, mean over targets. dns and tcp are the network, tls and upgrade the node's CPU, via_delivery the backplane.",
            "s",
            ("avg by (stage) (conclave_probe_stage_duration_seconds{@})", "{{stage}}"),
            runbook="service.md#probe-slow",
            width=10,
        ),
        graph(
            "Stage that failed",
            "1 for the stage at which a probe gave up. That word is the first place to look.",
            "none",
            ("max by (stage) (conclave_probe_failed{@})", "{{stage}}"),
            runbook="service.md#probe-failing",
            width=12,
        ),
        graph(
            "Probe sessions on the nodes",
            "Sign-ins of probes per second, which no other panel counts. 0 while the exporter runs: probes do not reach this node.",
            "cps",
            (rate("conclave_probe_sessions_total", "instance"), "{{instance}}"),
            runbook="service.md#probe-failing",
            width=12,
        ),
        graph(
            "Asked of the exporter",
            "Probes by what became of them. forbidden: Prometheus asks for a target that the module does not list; busy: too many at once.",
            "ops",
            (rate("conclave_probe_exporter_requests_total", "result"), "{{result}}"),
            runbook="service.md#probe-failing",
            width=12,
        ),
        graph(
            "Probes under way",
            "In the exporter at this moment. It grows when targets do not answer; at 64 further ones are turned away.",
            "short",
            ("sum(conclave_probe_exporter_running{@})", "under way"),
            runbook="service.md#probe-slow",
            width=12,
        ),
    ]


def build():
    return dashboard(
        "conclave-connections",
        "Conclave / Connections",
        "Who comes, who is turned away, how long they stay, why they go; storms, drains, probes.",
        [
            ("Arrivals", arrivals()),
            ("Storms and limits", storms()),
            ("Durations", durations()),
            ("Ends", ends()),
            ("Drain", drain()),
            ("Probes", probes()),
        ],
    )
