#!/usr/bin/env python3
"""Asks a Prometheus every query of every panel in dashboards/, as Grafana would with all jobs and instances chosen, and
says which brought no data.  filled.py [URL] [--without application]

Ends with 0 when all did, with 1 when some did not, with 2 when a query was refused."""

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DASHBOARDS = Path(__file__).resolve().parents[1] / "dashboards"
RANGE_SECONDS = 600
# "All" of a variable matches whatever there is.
VARIABLES = {"$__rate_interval": "1m", "$__range_s": str(RANGE_SECONDS), "$__range": f"{RANGE_SECONDS}s", "$job": ".+", "$instance": ".+"}


def ask(url, expr, is_instant):
    now = time.time()
    words = {"query": expr, "time": now} if is_instant else {"query": expr, "start": now - RANGE_SECONDS, "end": now, "step": 15}
    what = "query" if is_instant else "query_range"
    with urllib.request.urlopen(f"{url}/api/v1/{what}?{urllib.parse.urlencode(words)}", timeout=30) as answer:
        series = json.load(answer)["data"]["result"]
    points = [each["value"] for each in series] if is_instant else [point for each in series for point in each["values"]]
    return [value for _, value in points if value not in ("NaN", "+Inf", "-Inf")]


def main(url, without):
    filled, empty = 0, []
    for path in sorted(DASHBOARDS.glob("*.json")):
        if path.stem in without:
            continue
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                expr = target["expr"]
                for variable, value in VARIABLES.items():
                    expr = expr.replace(variable, value)
                try:
                    found = ask(url, expr, target.get("instant", False))
                except urllib.error.HTTPError as error:
                    print(f"{dashboard['title']}: {panel['title']}: {error.read().decode()}", file=sys.stderr)
                    return 2
                if found:
                    filled += 1
                else:
                    empty.append(f"{dashboard['title']}: {panel['title']}: {target.get('legendFormat', '')}\n    {expr}")
    print(*empty, sep="\n")
    print(f"{filled} queries brought data, {len(empty)} did not")
    return 1 if empty else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:9090")
    parser.add_argument("--without", action="append", default=[], metavar="DASHBOARD", help="leave this one out")
    given = parser.parse_args()
    try:
        sys.exit(main(given.url.rstrip("/"), given.without))
    except OSError as error:
        sys.exit(f"no Prometheus there: {error}")
