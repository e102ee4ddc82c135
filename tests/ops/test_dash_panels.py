"""Every query of every panel, asked of a real Prometheus that scrapes a real cluster under load: each must bring data.

`DASH_SECONDS` is how long the load lasts. With `DASH_DATA=file` what the panels show is kept there for dashboards/draw.py.
"""

import asyncio
import json
import os
import time
import unittest
from pathlib import Path

from dash_cluster import JOBS, Cluster
from dash_load import Load
from dash_names import TREE, metrics
from dash_prometheus import substituted

SECONDS = int(os.environ.get("DASH_SECONDS", "60"))
# Four scrapes, as Grafana chooses it, and one for a busy machine.
RATE_INTERVAL = "5s"
LAST_SECONDS = 3

# Counters that stand still while nothing is broken that this load cannot break. Everything else must have moved.
QUIET = {
    "conclave_accept_errors_total",
    "conclave_backplane_permits_total",
    "conclave_evicted_bytes_total",
    "conclave_log_lines_dropped_total",
    "conclave_panics_caught_total",
    "conclave_panics_total",
    "conclave_acme_orders_total",
    "conclave_client_certificates_total",
    "conclave_admission_refused_total",
}


def dashboards():
    return {path.stem: json.loads(path.read_text()) for path in sorted((TREE / "dashboards").glob("*.json"))}


def targets():
    """(dashboard, panel, target) of each query."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield name, panel, target


class Panels(unittest.TestCase):
    maxDiff = None

    def test_every_query_of_every_panel_brings_data(self):
        asyncio.run(self.all_of_it())

    async def all_of_it(self):
        async with Cluster() as cluster:
            begin = time.time()
            await Load(cluster).run(SECONDS)
            # As it was while clients were still there; counters that move with their ends have moved long before.
            await asyncio.to_thread(self.check, cluster, begin, time.time() - LAST_SECONDS)

    def check(self, cluster, begin, end):
        shown = [(*which, self.ask(cluster, which[2], begin, end)) for which in targets()]
        if "DASH_DATA" in os.environ:
            keep(Path(os.environ["DASH_DATA"]), begin, end, shown)
        empty = [
            f"{name}: {panel['title']}: {target['expr']}"
            for name, panel, target, series in shown
            if not any(points for _, points in series)
        ]
        self.assertEqual(empty, [])
        self.assertGreater(len(shown), 150)
        self.check_moved(cluster.prometheus, int(end - begin))

    def ask(self, cluster, target, begin, end):
        expr = substituted(target["expr"], JOBS, cluster.instances(), RATE_INTERVAL, int(end - begin))
        if target.get("instant"):
            return cluster.prometheus.at(expr, end)
        return cluster.prometheus.series(expr, begin, end)

    def check_moved(self, prometheus, seconds):
        """The load is not a load if what it is to show stands still."""
        counters = {name for name in metrics() if name.endswith(("_total", "_count"))}
        still = []
        for name in sorted(counters - QUIET):
            moved = prometheus.number(f"sum(max_over_time({name}[{seconds}s]))")
            if not moved:
                still.append(name)
        self.assertEqual(still, [], "the load no longer moves these")


def keep(path, begin, end, shown):
    panels = {}
    for name, panel, target, series in shown:
        key = f"{name}/{panel['id']}"
        panels.setdefault(key, []).append({"legend": target["legendFormat"], "series": series})
    path.write_text(json.dumps({"begin": begin, "end": end, "panels": panels}))


if __name__ == "__main__":
    unittest.main()
