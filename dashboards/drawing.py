"""One panel as SVG: lines, areas, a number, a heat map, a table."""

import html
import math
import re

COLORS = {"page": "#f4f5f5", "panel": "#ffffff", "edge": "#d8dadf", "ink": "#24292e", "faint": "#6b7280", "grid": "#eceef0"}
PALETTE = ["#3274d9", "#37872d", "#e0752d", "#c4162a", "#8f3bb8", "#0e9aa7", "#b8860b", "#e15a97", "#5d6d7e", "#7a5230"]
OF_THRESHOLD = {"green": "#37872d", "orange": "#e0752d", "red": "#c4162a"}
TITLE, LEFT, LEGEND_LINE, LEGENDS = 18, 46, 12, 6


def number(value, unit):
    """As Grafana writes it, shortly."""
    if unit == "percentunit":
        return f"{value * 100:.4g} %"
    if unit in ("bytes", "Bps"):
        return scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]) + ("/s" if unit == "Bps" else "")
    if unit == "s":
        return duration(value)
    if unit == "d":
        return f"{value:.3g} days"
    if unit == "bool_yes_no":
        return "yes" if value else "no"
    return scaled(value, 1000, ["", "k", "M", "G"]) + ("/s" if unit in ("cps", "ops", "mps", "reqps") else "")


def scaled(value, step, words):
    for word in words[:-1]:
        if abs(value) < step:
            return f"{value:.3g} {word}".strip()
        value /= step
    return f"{value:.3g} {words[-1]}"


def duration(seconds):
    for limit, factor, word in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min"), (172_800, 1 / 3600, "h")):
        if abs(seconds) < limit:
            return "0 s" if seconds == 0 else f"{seconds * factor:.3g} {word}"
    return f"{seconds / 86_400:.3g} d"


def label(template, labels):
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), template).strip() or "value"


def words(x, y, content, size=9, color=COLORS["ink"], anchor="start", weight="normal"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}">{html.escape(content)}</text>'


def panel_svg(panel, targets, w, h, begin, end):
    """The panel with its frame and title."""
    frame = f'<rect x="0.5" y="0.5" width="{w - 1}" height="{h - 1}" rx="2" fill="{COLORS["panel"]}" stroke="{COLORS["edge"]}"/>'
    title = words(8, 14, panel["title"], 10, weight="bold")
    series = [(label(target["legend"], labels), labels, points) for target in targets for labels, points in target["series"] if points]
    if not series:
        return frame + title + words(w / 2, h / 2, "no data", 11, COLORS["faint"], "middle")
    if panel["type"] == "table":
        return frame + title + table(panel, targets, w)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    body = {"stat": stat, "heatmap": heat, "timeseries": graph}[panel["type"]]
    return frame + title + body(panel, series, unit, w, h, begin, end)


def path(points, x, y):
    return "M" + "L".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)


def pieces(points, gap_seconds=10):
    """A line is broken where there was no data."""
    piece = []
    for at, value in points:
        if piece and at - piece[-1][0] > gap_seconds:
            yield piece
            piece = []
        piece.append((at, value))
    yield piece


def axes(x, y, top, unit, w, bottom, begin, end):
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        at = y(top * share)
        parts.append(f'<line x1="{LEFT}" x2="{w - 8}" y1="{at:.1f}" y2="{at:.1f}" stroke="{COLORS["grid"]}"/>')
        if share in (0, 0.5, 1):
            parts.append(words(LEFT - 4, at + 3, number(top * share, unit), 7.5, COLORS["faint"], "end"))
    step = max(15, 15 * round((end - begin) / 4 / 15))
    for seconds in range(step, int(end - begin) + 1, step):
        parts.append(words(x(begin + seconds), bottom + 9, f"{seconds} s", 7.5, COLORS["faint"], "middle"))
    return "".join(parts)


def nice(value):
    """The next round number above."""
    if value <= 0:
        return 1
    power = 10 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * step >= value * 0.999)


def round_up(value, unit):
    """The same in KiB and MiB."""
    step = 1024 ** int(math.log(value, 1024)) if unit in ("bytes", "Bps") and value > 1024 else 1
    return nice(value / step) * step


def graph(panel, series, unit, w, h, begin, end):
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    series = sorted(series, key=lambda each: -max(value for _, value in each[2]))
    colored = [(name, points, PALETTE[index % len(PALETTE)]) for index, (name, _, points) in enumerate(series)]
    legend, lines = legends(colored, unit, w)
    bottom = h - 16 - lines * LEGEND_LINE
    drawn = stack(colored) if stacked else [(points, None, color) for _, points, color in colored]
    highest = max(value for points, *_ in drawn for _, value in points)
    top = panel["fieldConfig"]["defaults"].get("max") or round_up(highest, unit)

    def x(at):
        return LEFT + (at - begin) / (end - begin) * (w - 8 - LEFT)

    def y(value):
        return bottom - min(value, top) / top * (bottom - TITLE - 8)

    parts = [axes(x, y, top, unit, w, bottom, begin, end)]
    for points, below, color in reversed(drawn):
        if below is not None:
            parts.append(f'<path d="{path(points + below[::-1], x, y)}Z" fill="{color}" fill-opacity="0.35" stroke="none"/>')
        for piece in pieces(points):
            parts.append(f'<path d="{path(piece, x, y)}" fill="none" stroke="{color}" stroke-width="1.3"/>')
    return "".join(parts) + f'<g transform="translate(0,{h - 4 - lines * LEGEND_LINE})">{legend}</g>'


def stack(colored):
    """(upper edge, lower edge, color), each at every time that any series has."""
    times = sorted({at for _, points, _ in colored for at, _ in points})
    below, areas = dict.fromkeys(times, 0.0), []
    for _, points, color in colored:
        here = dict(points)
        above = {at: below[at] + here.get(at, 0.0) for at in times}
        areas.append((list(above.items()), list(below.items()), color))
        below = above
    return areas


def legends(colored, unit, w):
    """What lies at 0 throughout is named last, and not at all where there is much."""
    shown = [each for each in colored if max(value for _, value in each[1]) > 0] or colored[:1]
    named, left = shown[:LEGENDS], len(colored) - len(shown[:LEGENDS])
    entries = [(f"{name}: {number(points[-1][1], unit)}", color) for name, points, color in named]
    if left:
        entries.append((f"+ {left} more", COLORS["faint"]))
    parts, x, line = [], 8, 0
    for entry, color in entries:
        wide = 5.0 * len(entry) + 16
        if x + wide > w and x > 8:
            x, line = 8, line + 1
        y = line * LEGEND_LINE + 8
        parts.append(f'<rect x="{x}" y="{y - 4}" width="8" height="3" fill="{color}"/>' + words(x + 11, y, entry, 8, COLORS["faint"]))
        x += wide
    return "".join(parts), line + 1


def stat(panel, series, unit, w, h, begin, end):
    _, _, points = series[0]
    last = points[-1][1]
    color = OF_THRESHOLD["green"]
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or last >= step["value"]:
            color = OF_THRESHOLD[step["color"]]
    highest = nice(max(value for _, value in points))
    line = path(points, lambda at: 4 + (at - begin) / (end - begin) * (w - 8), lambda value: h - 3 - value / highest * (h * 0.3))
    sparkline = f'<path d="{line}" fill="none" stroke="{color}" stroke-opacity="0.45"/>'
    return sparkline + words(w / 2, h * 0.56, number(last, unit), 21, color, "middle", "bold")


def heat(panel, series, unit, w, h, begin, end):
    buckets = sorted(((float(labels["le"].replace("+Inf", "inf")), points) for _, labels, points in series), key=lambda each: each[0])
    columns = {}
    for index, (_, points) in enumerate(buckets):
        lower = dict(buckets[index - 1][1]) if index else {}
        for at, value in points:
            columns.setdefault(at, {})[index] = max(0.0, value - lower.get(at, 0.0))
    most = max((value for column in columns.values() for value in column.values()), default=0) or 1
    bottom, tall = h - 18, (h - 18 - TITLE - 6) / len(buckets)
    wide = (w - 8 - LEFT) / max(1, end - begin)
    parts = []
    for at, column in columns.items():
        for index, value in column.items():
            if value > 0.01:
                place = f'x="{LEFT + (at - begin) * wide:.1f}" y="{bottom - (index + 1) * tall:.1f}" width="{wide + 0.2:.1f}" height="{tall - 1:.1f}"'
                parts.append(f'<rect {place} fill="{OF_THRESHOLD["orange"]}" fill-opacity="{0.15 + 0.85 * math.sqrt(value / most):.2f}"/>')
    for index, (limit, _) in enumerate(buckets):
        if index % 2 == 0:
            name = "more" if math.isinf(limit) else "≤ " + number(limit, unit)
            parts.append(words(LEFT - 4, bottom - index * tall - tall / 2 + 3, name, 7.5, COLORS["faint"], "end"))
    step = max(15, 15 * round((end - begin) / 6 / 15))
    for seconds in range(step, int(end - begin) + 1, step):
        parts.append(words(LEFT + seconds * wide, bottom + 10, f"{seconds} s", 7.5, COLORS["faint"], "middle"))
    return "".join(parts)


def table(panel, targets, w):
    units = {each["matcher"]["options"]: each["properties"][0]["value"] for each in panel["fieldConfig"]["overrides"]}
    rows, names = {}, []
    for target in targets:
        for labels, points in target["series"]:
            row = rows.setdefault(labels.get("instance", ""), {})
            # Grafana makes a column of each label, too.
            row |= {name: value for name, value in labels.items() if name not in ("instance", "job")}
            row[target["legend"]] = number(points[-1][1], units[target["legend"]]) if points else ""
            names += [name for name in row if name not in names]
    columns = ["instance", *names]
    wide = (w - 16) / len(columns)
    parts = [words(8 + index * wide, 34, name, 8.5, COLORS["faint"], weight="bold") for index, name in enumerate(columns)]
    for line, (instance, row) in enumerate(sorted(rows.items())):
        cells = [instance, *(row.get(name, "") for name in names)]
        letters = max(4, int(wide / 5.2))
        parts += [words(8 + index * wide, 52 + line * 16, str(cell)[:letters], 8.5) for index, cell in enumerate(cells)]
    return "".join(parts)
