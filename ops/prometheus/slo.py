#!/usr/bin/env python3
"""Writes the recording rules and burn-rate alerts of the objectives: `ops/prometheus/slo.py`; `--check` only compares.

Four objectives, each 99.9 % over 30 days. A budget that burns 14.4 times too fast for an hour has lost 2 % of the month, 6
times for six hours 5 %, 3 times for a day 10 %, as fast as allowed for three days 10 %. The short window of each pair ends
the alert soon after the trouble has ended, and `EVENTS_MIN` keeps two unlucky clients at night from waking anybody.
"""

import sys
from pathlib import Path

RULES = Path(__file__).resolve().parent / "rules"
RUNBOOKS = "https://runbooks.conclave.example"
OBJECTIVE = 0.999
# (factor, long window, short window, severity, for)
BURNS = [
    ("14.4", "1h", "5m", "page", "2m"),
    ("6", "6h", "30m", "page", "5m"),
    ("3", "1d", "2h", "ticket", "15m"),
    ("1", "3d", "6h", "ticket", "30m"),
]
# Windows of a day and more are computed less often: they move slowly, and reading them is work.
SLOW_WINDOWS, SLOW_INTERVAL = ("1d", "3d"), "2m"


class Objective:
    def __init__(self, name, alert, what, bad, total, events, events_min, event_name):
        self.name, self.alert, self.what, self.bad, self.total = name, alert, what, bad, total
        self.events, self.events_min, self.event_name = events, events_min, event_name


TURNED_AWAY = (
    'sum by (job) (rate(conclave_handshakes_total{result=~"over_limit|tls_timeout"}[WINDOW]))'
    ' + sum by (job) (rate(conclave_upgrades_total{result="overloaded"}[WINDOW]))'
)
HOPS = ("conclave_broadcast_duration_seconds", "conclave_backplane_lag_seconds")
HOPS_ALL = " + ".join(f"sum by (job) (rate({hop}_count[WINDOW]))" for hop in HOPS)
HOPS_QUICK = " + ".join(f'sum by (job) (rate({hop}_bucket{{le="0.25"}}[WINDOW]))' for hop in HOPS)
LOST = 'conclave_disconnects_total{initiator="server", reason=~"internal|slow_reader"}'

OBJECTIVES = [
    Objective(
        "handshake",
        "HandshakeErrorBudgetBurn",
        "of those who came with a good token were turned away",
        TURNED_AWAY,
        f'{TURNED_AWAY} + sum by (job) (rate(conclave_upgrades_total{{result="admitted"}}[WINDOW]))',
        'sum by (job) (increase(conclave_upgrades_total{result=~"admitted|overloaded"}[WINDOW]))'
        ' + sum by (job) (increase(conclave_handshakes_total{result=~"over_limit|tls_timeout"}[WINDOW]))',
        100,
        "attempts",
    ),
    Objective(
        "probe",
        "ProbeErrorBudgetBurn",
        "of the probes did not come through",
        "1 - avg by (job) (avg_over_time(conclave_probe_success[WINDOW]))",
        None,
        "sum by (job) (count_over_time(conclave_probe_success[WINDOW]))",
        10,
        "probes",
    ),
    Objective(
        "delivery",
        "DeliveryErrorBudgetBurn",
        "of the hops of messages took longer than 250 ms",
        f"({HOPS_ALL}) - ({HOPS_QUICK})",
        HOPS_ALL,
        HOPS_ALL.replace("rate(", "increase("),
        100,
        "hops",
    ),
    Objective(
        "disconnect",
        "DisconnectErrorBudgetBurn",
        "of the minutes of connections ended by our doing",
        "60 * avg_over_time(job:conclave_drops:rate5m[WINDOW])",
        "avg_over_time(job:conclave_connections:sum[WINDOW])",
        f"sum by (job) (increase({LOST}[WINDOW]))",
        10,
        "drops",
    ),
]

# Averages of sums: nodes come and go within a window, and each counts for as long as it was there.
BASE = [
    ("job:conclave_connections:sum", "sum by (job) (conclave_connections)"),
    ("job:conclave_drops:rate5m", f"sum by (job) (rate({LOST}[5m]))"),
]


def windows():
    return sorted({window for burn in BURNS for window in burn[1:3]}, key=seconds)


def seconds(window):
    return int(window[:-1]) * {"m": 60, "h": 3600, "d": 86400}[window[-1]]


def ratio_name(objective, window):
    return f"job:conclave_{objective.name}_errors:ratio_rate{window}"


def events_name(objective, window):
    return f"job:conclave_{objective.name}_{objective.event_name}:increase{window}"


def record(name, expr, window):
    return [f"      - record: {name}", f"        expr: {expr.replace('WINDOW', window)}"]


def group(name, interval=None):
    return [f"  - name: {name}", *([f"    interval: {interval}"] if interval else []), "    rules:"]


def recording():
    lines = ["# Written by ops/prometheus/slo.py: what the objectives are made of, per job.", "groups:", *group("conclave-base")]
    for name, expr in BASE:
        lines += record(name, expr, "")
    for objective in OBJECTIVES:
        for slow in (False, True):
            mine = [window for window in windows() if (window in SLOW_WINDOWS) == slow]
            lines += group(f"conclave-{objective.name}-objective" + ("-slow" if slow else ""), SLOW_INTERVAL if slow else None)
            for window in mine:
                ratio = f"({objective.bad}) / ({objective.total} > 0)" if objective.total else objective.bad
                lines += record(ratio_name(objective, window), ratio, window)
                if window in {long for _, long, *_ in BURNS}:
                    lines += record(events_name(objective, window), objective.events, window)
    return "\n".join(lines) + "\n"


def burn(objective, factor, long, short, severity, wait):
    budget = f"{float(factor) * (1 - OBJECTIVE):.6g}"
    return [
        f"      - alert: {objective.alert}",
        "        expr: |",
        f"          {ratio_name(objective, long)} > {budget}",
        f"            and {ratio_name(objective, short)} > {budget}",
        f"            and {events_name(objective, long)} > {objective.events_min}",
        f"        for: {wait}",
        f"        labels: {{severity: {severity}, long: {long}, short: {short}}}",
        "        annotations:",
        f"          summary: The {objective.name} budget burns more than {factor} times too fast.",
        f"          description: '{{{{ $value | humanizePercentage }}}} {objective.what} in the last {long}; 0.1 % is allowed.'",
        f"          runbook_url: {RUNBOOKS}/service.md#{objective.name}-budget",
    ]


def alerts():
    lines = ["# Written by ops/prometheus/slo.py: budgets that burn too fast, in pairs of windows.", "groups:"]
    for objective in OBJECTIVES:
        lines += group(f"conclave-{objective.name}-burn")
        for each in BURNS:
            lines += burn(objective, *each)
    return "\n".join(lines) + "\n"


def texts():
    return {RULES / "recording.yml": recording(), RULES / "burn.yml": alerts()}


def stale():
    return [path for path, text in texts().items() if not path.exists() or path.read_text() != text]


def main():
    if "--check" in sys.argv[1:]:
        for path in stale():
            print(f"{path} is not what ops/prometheus/slo.py writes", file=sys.stderr)
        return 1 if stale() else 0
    for path, text in texts().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
