"""Is it well, for whom is it not, and which node is it?"""

from .grafana import BAD, OK, WARN, dashboard, graph, quantile, rate, stat, table

# What counts as failed and as tried is the same as in ops/prometheus/slo.py; a test compares the two.
TURNED_AWAY = [
    'conclave_handshakes_total{@, result=~"over_limit|tls_timeout"}',
    'conclave_upgrades_total{@, result="overloaded"}',
]
ADMITTED = 'conclave_upgrades_total{@, result="admitted"}'
HOPS = ["conclave_broadcast_duration_seconds", "conclave_backplane_lag_seconds"]
LOST = 'conclave_disconnects_total{@, initiator="server", reason=~"internal|slow_reader"}'


def _increase(selectors, window):
    return " + ".join(f"sum(increase({selector}[{window}]))" for selector in selectors)


def handshake_errors(window):
    bad = _increase(TURNED_AWAY, window)
    return f"({bad}) / clamp_min({bad} + {_increase([ADMITTED], window)}, 1)"


def delivery_errors(window):
    total = _increase([f"{hop}_count{{@}}" for hop in HOPS], window)
    quick = _increase([f'{hop}_bucket{{@, le="0.25"}}' for hop in HOPS], window)
    return f"({total} - ({quick})) / clamp_min({total}, 1)"


def connection_errors(window, seconds):
    """Of the minutes that clients were connected, how many ended with us dropping them."""
    return f"60 * {_increase([LOST], window)} / clamp_min({seconds} * avg_over_time(sum(conclave_connections{{@}})[{window}:]), 60)"


def probe_errors(window):
    return f"1 - avg(avg_over_time(conclave_probe_success{{@}}[{window}]))"


OBJECTIVE = [(0.995, WARN), (0.999, OK)]


def objectives():
    return [
        stat(
            "Handshakes that succeed",
            "Clients that were let in, of those who came with a good token; objective 99.9 %. Refused tokens and foreign origins do "
            "not count. Below it: Connections shows whether TLS, the limits or admission turn them away.",
            "percentunit",
            f"1 - {handshake_errors('$__range')}",
            "service.md#handshake-budget",
            OBJECTIVE,
            BAD,
            decimals=3,
        ),
        stat(
            "Probes that succeed",
            "Round trips of the synthetic client, sign-in to delivery; objective 99.9 %. Below it: the stage that fails is under "
            "Connections, Probes. Believe this one before all others: it sees what users see.",
            "percentunit",
            f"1 - ({probe_errors('$__range')})",
            "service.md#probe-budget",
            OBJECTIVE,
            BAD,
            decimals=3,
        ),
        stat(
            "Delivered within 250 ms",
            "Hops of messages (the fan-out on a node, the way between nodes) that took at most 250 ms; objective 99.9 %. Below it: "
            "Backplane, Lag for the way between nodes, Runtime, Workers for a node that is too busy.",
            "percentunit",
            f"1 - {delivery_errors('$__range')}",
            "service.md#delivery-budget",
            OBJECTIVE,
            BAD,
            decimals=3,
        ),
        stat(
            "Connections kept",
            "Minutes of connections that did not end by our doing (a bug, a reader cut for its backlog); objective 99.9 %. Below it: "
            "Connections, Closed by the server names the reason.",
            "percentunit",
            f"1 - {connection_errors('$__range', '$__range_s')}",
            "service.md#disconnect-budget",
            OBJECTIVE,
            BAD,
            decimals=3,
        ),
        stat(
            "Nodes ready",
            "Nodes that want new connections. Fewer than you run: one is stopping, or cut off from the backplane. Look at the table below.",
            "short",
            "sum(conclave_ready{@})",
            "service.md#node-not-ready",
            [(1, OK)],
            BAD,
            decimals=0,
        ),
        stat(
            "Certificate days left",
            "Until the first certificate expires. Under 14: renewal has failed; fix it now, nobody can connect after that day.",
            "d",
            "min((conclave_tls_certificate_expiry_timestamp_seconds{@} > 0) - time()) / 86400",
            "service.md#certificate-expiry",
            [(3, WARN), (14, OK)],
            BAD,
            decimals=0,
        ),
        graph(
            "Error budget burn over the last hour",
            "How many times faster than allowed each objective's budget is being spent. 1 is on plan; 14.4 for an hour spends two days' "
            "worth and pages. The name of the line is the runbook's heading.",
            "none",
            (f"{handshake_errors('1h')} / 0.001", "handshake"),
            (f"({probe_errors('1h')}) / 0.001", "probe"),
            (f"{delivery_errors('1h')} / 0.001", "delivery"),
            (f"{connection_errors('1h', '3600')} / 0.001", "disconnect"),
            runbook="service.md#handshake-budget",
            width=12,
        ),
        graph(
            "Nodes that answer Prometheus",
            "1 per target that could be scraped. A line at 0 is a node that is down or cannot be reached: everything else about it is then unknown.",
            "none",
            ("up{@}", "{{job}} {{instance}}"),
            runbook="service.md#target-down",
            width=12,
            top=1,
        ),
    ]


def requests():
    return [
        graph(
            "Connections",
            "Open sockets per node. A cliff is a node that stopped or a network that broke; the others should rise as it falls.",
            "short",
            ("conclave_connections{@}", "{{instance}}"),
            runbook="service.md#reconnect-storm",
            stack=True,
        ),
        graph(
            "Sockets opened and closed",
            "Arrivals and departures per second. A spike of both is a storm of reconnects; only departures is an outage.",
            "cps",
            (rate("conclave_connections_opened_total"), "opened"),
            (rate("conclave_connections_closed_total"), "closed"),
            runbook="service.md#reconnect-storm",
        ),
        graph(
            "Messages",
            "Chats accepted and room messages delivered per second, on all nodes. Deliveries that fall while chats do not: members are gone.",
            "mps",
            (rate("conclave_publishes_total"), "published"),
            (rate("conclave_deliveries_total"), "delivered"),
            runbook="service.md#delivery-budget",
        ),
        graph(
            "What goes wrong",
            "Per second: clients turned away, chats answered with an error, chats answered unavailable, readers cut, panics. Each has a "
            "dashboard with its reasons; the highest line says which.",
            "ops",
            (rate("conclave_upgrades_total", where='result=~"overloaded|throttled"'), "turned away"),
            (rate("conclave_auth_failures_total"), "tokens refused"),
            (rate("conclave_protocol_errors_total"), "errors told"),
            (rate("conclave_backplane_refused_total"), "unavailable"),
            (rate("conclave_slow_consumers_total"), "readers cut"),
            (rate("conclave_panics_total"), "panics"),
            runbook="service.md#handshake-budget",
        ),
        graph(
            "How long it takes (p99)",
            "TLS handshake, upgrade, fan-out on a node, way between nodes. TLS and upgrade high: CPU. Between nodes: the backplane.",
            "s",
            (quantile(0.99, "conclave_tls_handshake_duration_seconds"), "TLS"),
            (quantile(0.99, "conclave_upgrade_duration_seconds"), "upgrade"),
            (quantile(0.99, "conclave_broadcast_duration_seconds"), "fan-out"),
            (quantile(0.99, "conclave_backplane_lag_seconds"), "between nodes"),
            runbook="service.md#delivery-budget",
        ),
        graph(
            "Closed by the server",
            "Why connections were ended by us, per second. restart is a deploy, heartbeat a client that fell silent; the others have a "
            "heading each in the runbook of closes.",
            "cps",
            (rate("conclave_disconnects_total", "reason", 'initiator="server"'), "{{reason}}"),
            runbook="closes.md",
        ),
    ]


def resources():
    return [
        graph(
            "CPU",
            "Cores used per node. At the number of its cores it is full: add a node. High without load: see Runtime.",
            "none",
            ("rate(process_cpu_seconds_total{@}[@])", "{{instance}}"),
            runbook="service.md#cpu-saturated",
        ),
        graph(
            "Memory",
            "Resident memory per node. It follows connections and history; growth without either is a leak: report it.",
            "bytes",
            ("process_resident_memory_bytes{@}", "{{instance}}"),
            runbook="service.md#memory",
        ),
        graph(
            "How full",
            "Share in use of what is limited: connections, open files, bytes queued to readers. Over 85 %: add a node or raise that limit.",
            "percentunit",
            ("max(conclave_connections{@} / (conclave_connections_limit{@} > 0))", "connections"),
            ("max(process_open_fds{@} / process_max_fds{@})", "open files"),
            ("max(conclave_send_queue_bytes{@} / conclave_outbox_budget_bytes{@})", "bytes to readers"),
            runbook="service.md#connections-near-limit",
            top=1,
        ),
    ]


def nodes():
    return [
        table(
            "Nodes",
            "One line per node. Compare them: a node that differs from the others in version, rooms or lag is where to look first.",
            "service.md#node-not-ready",
            [
                ("sum by (instance, version) (conclave_build_info{@})", "Runs", "short"),
                ("sum by (instance) (conclave_ready{@})", "Ready", "bool_yes_no"),
                ("sum by (instance) (conclave_connections{@})", "Connections", "short"),
                ("sum by (instance) (conclave_rooms{@})", "Rooms", "short"),
                ("sum by (instance) (conclave_users{@})", "Users", "short"),
                ("sum by (instance) (rate(conclave_deliveries_total{@}[@]))", "Deliveries", "mps"),
                ("sum by (instance) (rate(process_cpu_seconds_total{@}[@]))", "Cores", "none"),
                ("sum by (instance) (process_resident_memory_bytes{@})", "Memory", "bytes"),
                ("sum by (instance) (conclave_backplane_up{@})", "Backplane", "bool_yes_no"),
                ("time() - max by (instance) (process_start_time_seconds{@})", "Up for", "s"),
            ],
        )
    ]


def build():
    return dashboard(
        "conclave-overview",
        "Conclave / Overview",
        "Objectives, load, errors, duration, resources, nodes. Start here.",
        [
            ("Objectives", objectives()),
            ("Rate, errors, duration", requests()),
            ("Use", resources()),
            ("Nodes", nodes()),
        ],
    )
