#!/usr/bin/env python3
"""Writes the dashboards: `dashboards/build.py`. With `--check` it only says which files are not what it would write."""

import json
import sys
from pathlib import Path

from source import application, backplane, connections, messages, overview, runtime, tls_auth

HERE = Path(__file__).resolve().parent
DASHBOARDS = {
    "overview.json": overview.build,
    "connections.json": connections.build,
    "messages-and-rooms.json": messages.build,
    "backplane.json": backplane.build,
    "tls-and-auth.json": tls_auth.build,
    "application.json": application.build,
    "runtime.json": runtime.build,
}


def texts():
    """File name -> what belongs into it."""
    return {name: json.dumps(build(), indent=2, ensure_ascii=False) + "\n" for name, build in DASHBOARDS.items()}


def stale():
    """Names of files that are missing or differ."""
    return [name for name, text in texts().items() if not (HERE / name).exists() or (HERE / name).read_text() != text]


def main():
    if "--check" in sys.argv[1:]:
        changed = stale()
        for name in changed:
            print(f"dashboards/{name} is not what dashboards/build.py writes", file=sys.stderr)
        return 1 if changed else 0
    for name, text in texts().items():
        (HERE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
