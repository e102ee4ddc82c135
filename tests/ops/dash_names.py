"""What there is to ask for: the metrics of src/telemetry/metrics/names.rs, and what a query asks."""

import re
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
NAMES = TREE / "src/telemetry/metrics/names.rs"
WORDS = TREE / "src/telemetry/metrics/labels.rs"
STAGES = TREE / "src/cli/probe/stage.rs"
CONFIG = TREE / "src/config/mod.rs"
# What Prometheus itself adds.
TARGET_LABELS = {"job", "instance"}
OF_PROMETHEUS = {"up": set()}
# Parts of a histogram, and what each adds to its labels.
PARTS = {"_bucket": {"le"}, "_count": set(), "_sum": set()}


def metrics():
    """Name -> labels of everything that can be asked for."""
    found = {**OF_PROMETHEUS}
    row = re.compile(r'(Counter|Gauge|Histogram) "([a-z0-9_]+)" \[([^\]]*)\]')
    for kind, name, labels in row.findall(NAMES.read_text()):
        labels = set(re.findall(r'"(\w+)"', labels))
        if kind == "Histogram":
            found |= {name + part: labels | more for part, more in PARTS.items()}
        else:
            found[name] = labels
    return found


def words():
    """Every label value that the server can write."""
    (backplanes,) = re.findall(r"(?ms)^impl BackplaneKind \{.*?^\}", CONFIG.read_text())
    written = WORDS.read_text() + STAGES.read_text() + backplanes
    return set(re.findall(r'"([a-z0-9_]+)"', written)) | {str(code) for code in range(1000, 1016)}


# A name with an optional selector, outside of strings. Functions are followed by "(" or "by"/"on", labels stand in those.
SELECTOR = re.compile(r'(?<![\w$"./])((?:conclave|process|tokio|http_server|job:|instance:)[\w:]*|up)\b(?!\s*\()(\{[^}]*\})?')
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def selectors(expr):
    """(metric, [(label, operator, value)]) of each selector of a query."""
    return [(name, MATCHER.findall(inner or "")) for name, inner in SELECTOR.findall(expr)]


def recorded(name):
    return ":" in name


def grouped(expr):
    """Labels that a query groups or joins by."""
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expr)
    return {label.strip() for each in lists for label in each.split(",") if label.strip()}


def problems(expr, known, said, records=()):
    """What is wrong with a query: metrics, labels and label values that do not exist."""
    found, labels = [], set()
    for name, matchers in selectors(expr):
        if recorded(name):
            labels |= {"long", "short"}
            if name not in records:
                found.append(f"nobody records {name}")
        elif name not in known:
            found.append(f"there is no metric {name}")
        else:
            labels |= known[name]
            found += matcher_problems(name, matchers, known[name], said)
    found += [f"nothing that is asked for has a label {label}" for label in grouped(expr) - labels - TARGET_LABELS]
    return found


def matcher_problems(name, matchers, labels, said):
    for label, operator, value in matchers:
        if label in TARGET_LABELS or label in ("le", "long", "short"):
            continue
        if label not in labels:
            yield f"{name} has no label {label}"
        for word in value.split("|"):
            if word not in said and word != "":
                yield f"{name} never has {label}={word}"
