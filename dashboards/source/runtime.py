"""The process: CPU, memory, files, threads, its own health, HTTP."""

from .grafana import dashboard, graph, quantile, rate, table


def process():
    return [
        graph(
            "CPU",
            "Cores used. Full with few messages: handshakes (see Connections, Storms) or a hot loop: report it.",
            "none",
            ("rate(process_cpu_seconds_total{@}[@])", "{{instance}}"),
            runbook="service.md#cpu-saturated",
        ),
        graph(
            "Workers",
            "Share of their time that the runtimes' threads ran something. Above 90 % everything waits: add a node.",
            "percentunit",
            ("rate(tokio_worker_busy_seconds_total{@}[@]) / on (job, instance) tokio_workers{@}", "{{instance}}"),
            runbook="service.md#cpu-saturated",
            top=1,
        ),
        graph(
            "Tasks",
            "Alive. About two per connection; growth without connections is a leak: report it.",
            "short",
            ("tokio_alive_tasks{@}", "{{instance}}"),
            runbook="service.md#memory",
        ),
        graph(
            "Tasks that wait",
            "In the global queues. Not 0 for long: workers are too busy.",
            "short",
            ("tokio_global_queue_depth{@}", "{{instance}}"),
            runbook="service.md#cpu-saturated",
        ),
        graph(
            "Resident memory",
            "Follows connections (a few KiB each), history and queues.",
            "bytes",
            ("process_resident_memory_bytes{@}", "{{instance}}"),
            runbook="service.md#memory",
        ),
        graph(
            "Memory per connection",
            "Resident memory over open sockets, which includes history: useful beside its own past, not as a number.",
            "bytes",
            ("process_resident_memory_bytes{@} / clamp_min(conclave_connections{@}, 1)", "{{instance}}"),
            runbook="service.md#memory",
        ),
        graph(
            "Virtual memory",
            "Address space. It matters only if something limits it.",
            "bytes",
            ("process_virtual_memory_bytes{@}", "{{instance}}"),
            runbook="service.md#memory",
        ),
        graph(
            "Open files",
            "Sockets, mostly, and the limit. At the limit nobody can be accepted.",
            "short",
            ("process_open_fds{@}", "{{instance}}"),
            ("min(process_max_fds{@})", "limit"),
            ("min(conclave_fd_limit{@})", "as counted by admission"),
            runbook="service.md#files-near-limit",
        ),
        graph(
            "Threads",
            "Workers, the admin listener, helpers. Constant after the start.",
            "short",
            ("process_threads{@}", "{{instance}}"),
            runbook="service.md#cpu-saturated",
        ),
    ]


def health():
    return [
        graph(
            "Up for",
            "Since the process started. A drop nobody asked for is a crash or the out-of-memory killer: look at the supervisor's log.",
            "s",
            ("time() - process_start_time_seconds{@}", "{{instance}}"),
            runbook="service.md#node-restarts",
        ),
        graph(
            "Ready",
            "1 while the node wants new connections. At 0 for minutes without a deploy: ask its /readyz why.",
            "none",
            ("conclave_ready{@}", "{{instance}}"),
            runbook="service.md#node-not-ready",
            top=1,
        ),
        graph(
            "Upkeep, seconds ago",
            "The metrics' own clock, every 5 s. Rising without end: the process hangs, or its clock was set back.",
            "s",
            ("time() - conclave_upkeep_timestamp_seconds{@}", "{{instance}}"),
            runbook="service.md#upkeep-stalled",
        ),
        graph(
            "Panics",
            "All, and those that ended only the work at hand by where. Each has an error line in the log: report it.",
            "ops",
            (rate("conclave_panics_total"), "all"),
            (rate("conclave_panics_caught_total", "place"), "caught in {{place}}"),
            runbook="service.md#panics",
        ),
        graph(
            "Log lines lost",
            "Whoever reads standard output is too slow. What you look for may be missing.",
            "ops",
            (rate("conclave_log_lines_dropped_total", "instance"), "{{instance}}"),
            runbook="service.md#logs-dropped",
        ),
        graph(
            "Spans",
            "Sampled ones: exported, failed (the collector said no or nothing), dropped (too many at once).",
            "ops",
            (rate("conclave_trace_spans_total", "result"), "{{result}}"),
            runbook="service.md#traces-lost",
        ),
    ]


def http():
    return [
        graph(
            "HTTP requests",
            "All but upgrades, by route and status. 5xx is ours.",
            "reqps",
            ("sum by (route, status) (rate(http_server_request_duration_seconds_count{@}[@]))", "{{route}} {{status}}"),
            runbook="service.md#limits-reached",
            width=12,
        ),
        graph(
            "HTTP duration, p99 by route",
            "Pages and health are answered from memory: milliseconds. More is a lack of CPU.",
            "s",
            (quantile(0.99, "http_server_request_duration_seconds", "route"), "{{route}}"),
            runbook="service.md#cpu-saturated",
            width=12,
        ),
    ]


def builds():
    return [
        table(
            "What runs",
            "Version, revision, compiler and backplane of each node. More than one version for longer than a deploy: one was forgotten.",
            "service.md#node-restarts",
            [("sum by (instance, version, revision, rustc, backplane) (conclave_build_info{@})", "Runs", "short")],
        )
    ]


def build():
    return dashboard(
        "conclave-runtime",
        "Conclave / Runtime",
        "The process on each node: CPU, memory, files, its own health, HTTP.",
        [("Process", process()), ("Health", health()), ("HTTP", http()), ("Builds", builds())],
    )
