#!/usr/bin/env python3
"""Draws the dashboards from what their own queries returned: `dashboards/draw.py DATA FOLDER`.

DATA is what tests/ops/test_dash_panels.py keeps with DASH_DATA. This is no Grafana: same panels, same places, same numbers,
another look. Needs Chromium, which turns the drawing into a PNG.
"""

import html
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from drawing import COLORS, panel_svg

HERE = Path(__file__).resolve().parent
COLUMN, UNIT, GAP, HEAD = 46, 23, 4, 34
WIDTH = 24 * COLUMN
NOTE = "Drawn by dashboards/draw.py from the panels' own queries against a test cluster under load. Grafana's look differs."


def svg(dashboard, panels, begin, end):
    """The whole page. `panels`: panel id -> what each of its queries returned."""
    height = HEAD + UNIT * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="DejaVu Sans, sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="{COLORS["page"]}"/>',
        text(8, 22, dashboard["title"], 15, COLORS["ink"], weight="bold"),
        text(WIDTH - 8, 21, NOTE, 8.5, COLORS["faint"], anchor="end"),
    ]
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        x, y, w, h = at["x"] * COLUMN, HEAD + at["y"] * UNIT, at["w"] * COLUMN, at["h"] * UNIT
        if panel["type"] == "row":
            parts.append(text(8, y + 16, panel["title"], 11, COLORS["ink"], weight="bold"))
            continue
        inner = panel_svg(panel, panels.get(panel["id"], []), w - GAP, h - GAP, begin, end)
        parts.append(f'<svg x="{x + GAP / 2}" y="{y + GAP / 2}" width="{w - GAP}" height="{h - GAP}">{inner}</svg>')
    return "\n".join([*parts, "</svg>"]), height


def text(x, y, words, size, color, anchor="start", weight="normal"):
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" text-anchor="{anchor}" font-weight="{weight}">{html.escape(words)}</text>'


def photograph(drawing, height, path):
    """By Chromium, from a page that holds nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f'<!doctype html><meta charset="utf-8"><style>body{{margin:0}}svg{{display:block}}</style>{drawing}')
        size = f"--window-size={WIDTH},{height}"
        switches = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile", size]
        subprocess.run(["chromium", *switches, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True, timeout=120)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: dashboards/draw.py DATA FOLDER")
    data, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(HERE.glob("*.json")):
        found = {int(key.split("/")[1]): targets for key, targets in data["panels"].items() if key.split("/")[0] == path.stem}
        drawing, height = svg(json.loads(path.read_text()), found, data["begin"], data["end"])
        photograph(drawing, height, folder / f"{path.stem}.png")


if __name__ == "__main__":
    main()
