"""Panels and dashboards of Grafana's classic model, so that the files beside this one say only what is asked.

In queries `{@}` is a selector of the job and instance that were chosen (`{@, result="ok"}` has more), and `[@]` the range
that Grafana chooses for rates.
"""

SCHEMA_VERSION = 41
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Where the runbooks can be read. Replaced by whoever has them somewhere: see dashboards/README.md.
RUNBOOKS = "https://runbooks.conclave.example"
OK, WARN, BAD = "green", "orange", "red"


def query(text):
    """The query as Grafana gets it."""
    return text.replace("{@", '{job=~"$job", instance=~"$instance"').replace("[@]", "[$__rate_interval]")


def quantile(q, histogram, by=""):
    """A quantile of a histogram, over all nodes unless split `by` a label."""
    split = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({split}) (rate({histogram}_bucket{{@}}[@])))"


def quantiles(histogram):
    """The three that say how the most, the unlucky and the worst fare."""
    return [(quantile(q, histogram), f"p{q * 100:g}") for q in (0.5, 0.9, 0.99)]


def rate(counter, by="", where=""):
    """Events per second, summed."""
    split = f" by ({by})" if by else ""
    more = f", {where}" if where else ""
    return f"sum{split} (rate({counter}{{@{more}}}[@]))"


def _targets(targets, **more):
    asked = []
    for index, (expr, legend) in enumerate(targets):
        asked.append(
            {"datasource": SOURCE, "editorMode": "code", "expr": query(expr), "legendFormat": legend, "refId": chr(65 + index), **more}
        )
    return asked


def _panel(kind, title, description, unit, targets, width, height, runbook, defaults, options):
    file, _, heading = runbook.partition("#")
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []},
        "options": options,
        "links": [{"title": f"Runbook: {heading or file}", "url": f"{RUNBOOKS}/{runbook}", "targetBlank": True}],
        "targets": targets,
    }


def _steps(thresholds, color=OK):
    """`thresholds`: (from, color), ascending; below the first it is `color`."""
    return {"mode": "absolute", "steps": [{"color": color, "value": None}, *({"color": c, "value": v} for v, c in thresholds)]}


def graph(title, description, unit, *targets, runbook, width=8, stack=False, top=None):
    """Lines over time. `stack`: areas on each other. `top`: fixed upper end of the axis."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    defaults = {"min": 0, "custom": custom, "color": {"mode": "palette-classic"}}
    if top is not None:
        defaults["max"] = top
    options = {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, unit, _targets(targets), width, 8, runbook, defaults, options)


def stat(title, description, unit, expr, runbook, thresholds=(), color=OK, width=4, height=4, decimals=None):
    """One number, colored."""
    defaults = {"color": {"mode": "thresholds"}, "thresholds": _steps(thresholds, color)}
    if decimals is not None:
        defaults["decimals"] = decimals
    options = {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return _panel("stat", title, description, unit, _targets([(expr, "")]), width, height, runbook, defaults, options)


def heat(title, description, unit, histogram, runbook, width=8):
    """A histogram over time: how many fell into each bucket."""
    targets = _targets([(f"sum by (le) (increase({histogram}_bucket{{@}}[@]))", "{{le}}")], format="heatmap")
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.5, "steps": 64},
        "yAxis": {"unit": unit, "axisPlacement": "left"},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True},
    }
    return _panel("heatmap", title, description, unit, targets, width, 8, runbook, {}, options)


def table(title, description, runbook, columns, width=COLUMNS):
    """One row per instance. `columns`: (expr, heading, unit)."""
    targets = _targets([(expr, heading) for expr, heading, _ in columns], format="table", instant=True)
    panel = _panel("table", title, description, "short", targets, width, 6, runbook, {}, {"showHeader": True})
    hidden = ["Time", "__name__", "job"]
    names = {f"Value #{target['refId']}": heading for target, (_, heading, _) in zip(targets, columns)}
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": dict.fromkeys(hidden, True), "renameByName": names}},
    ]
    panel["fieldConfig"]["overrides"] = [
        {"matcher": {"id": "byName", "options": heading}, "properties": [{"id": "unit", "value": unit}]}
        for _, heading, unit in columns
    ]
    return panel


def _variable(name, metric, where=""):
    return {
        "name": name,
        "label": name.title(),
        "type": "query",
        "datasource": SOURCE,
        "definition": f"label_values({metric}{where}, {name})",
        "query": f"label_values({metric}{where}, {name})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "sort": 1,
        "hide": 0,
    }


# The probe exporter's series have a job and instances of their own; whoever chooses one node leaves them out.
_KNOWN = '{__name__=~"conclave_build_info|conclave_probe_success|conclave_probe_exporter_running"'
_VARIABLES = [
    {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "current": {},
        "options": [],
        "hide": 0,
    },
    _variable("job", _KNOWN + "}"),
    _variable("instance", _KNOWN + ', job=~"$job"}'),
]


def _placed(rows):
    """Numbers the panels and puts them side by side until a line is full."""
    panels, y = [], 0
    for title, members in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}})
        x, y, tallest = 0, y + 1, 0
        for panel in members:
            width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
            if x + width > COLUMNS:
                # Grafana would close a gap, and mix up what belongs together.
                assert x == COLUMNS, f"the line before {panel['title']} is not full"
                x, y, tallest = 0, y + tallest, 0
            panel["gridPos"] = {"x": x, "y": y, "w": width, "h": height}
            x, tallest = x + width, max(tallest, height)
            panels.append(panel)
        assert x == COLUMNS, f"the last line of {title} is not full"
        y += tallest
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return panels


def dashboard(uid, title, description, rows):
    """`rows`: (title, panels)."""
    link = {
        "title": "Conclave",
        "type": "dashboards",
        "tags": ["conclave"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["conclave"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "version": 1,
        "links": [link],
        "annotations": {"list": []},
        "templating": {"list": _VARIABLES},
        "panels": _placed(rows),
    }
