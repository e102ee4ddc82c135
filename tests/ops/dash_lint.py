"""The rules of grafana/dashboard-linter for classic dashboards with Prometheus, and a few of our own."""

import re

from dash_names import SELECTOR

PANELS = ("stat", "timeseries", "gauge", "heatmap", "table")
SOURCES = ("$datasource", "${datasource}")
# Of the list that Grafana knows, those in use here.
UNITS = {"none", "short", "percentunit", "bytes", "Bps", "s", "d", "cps", "ops", "reqps", "mps", "bool_yes_no"}
MATCHERS = ('job=~"$job"', 'instance=~"$instance"')


def lint(dashboard):
    """All findings, as sentences."""
    found = [] if dashboard["editable"] is False else ["the dashboard is editable"]
    found += variables(dashboard)
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        found += [f"{panel['title'] or 'a panel'}: {finding}" for finding in panel_findings(panel)]
    return found


def variables(dashboard):
    by_name = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    source = by_name.get("datasource", {})
    if (source.get("type"), source.get("query"), source.get("label")) != ("datasource", "prometheus", "Data source"):
        yield "there is no variable for the data source"
    for name in ("job", "instance"):
        variable = by_name.get(name)
        if variable is None:
            yield f"there is no variable {name}"
            continue
        if variable["type"] != "query" or variable["datasource"]["uid"] not in SOURCES:
            yield f"the variable {name} is not a query of the data source"
        if variable["label"] != name.title():
            yield f"the variable {name} is labelled {variable['label']}"
        if not variable["multi"] or not variable["includeAll"]:
            yield f"the variable {name} takes one value only"
        if variable["allValue"] != ".+":
            yield f"the variable {name} has the allValue {variable['allValue']}"
        if variable["refresh"] != 2:
            yield f"the variable {name} is not read again when the time range changes"
        if not re.fullmatch(r"label_values\(\{.*\}, \w+\)", variable["query"]):
            yield f"the variable {name} asks {variable['query']}"


def panel_findings(panel):
    if panel["type"] not in PANELS:
        yield f"{panel['type']} is not known here"
    if not panel["title"] or not panel["description"]:
        yield "title or description is missing"
    if panel["datasource"]["uid"] not in SOURCES:
        yield "the data source is not the variable"
    if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
        yield f"the unit {panel['fieldConfig']['defaults'].get('unit')} is none"
    if not panel["targets"]:
        yield "there is no query"
    for target in panel["targets"]:
        if target["datasource"]["uid"] not in SOURCES:
            yield "the data source of a query is not the variable"
        yield from query_findings(target["expr"])


def query_findings(expr):
    if not expr:
        yield "the query is empty"
    for match in SELECTOR.finditer(expr):
        name, selector, after = match[1], match[2] or "", expr[match.end() :]
        for matcher in MATCHERS:
            if matcher not in selector:
                yield f"{name} is not filtered by {matcher.split('=')[0]}"
        around = re.search(r"(\w+)\($", expr[: match.start()])
        function = around[1] if around else ""
        window = re.match(r"\[([^\]]+)\]", after)
        if name.endswith(("_total", "_bucket", "_count", "_sum")) and function not in ("rate", "increase"):
            yield f"{name} is a counter and not rated"
        if function in ("rate", "irate") and (not window or window[1] != "$__rate_interval"):
            yield f"{name} is rated over something else than $__rate_interval"
    if re.search(r"\b(rate|increase)\(\s*(sum|max|min|avg)\b", expr):
        yield "rate after sum hides resets"
    if "histogram_quantile" in expr and not re.search(r"by \([^)]*\ble\b", expr):
        yield "a quantile needs le"
