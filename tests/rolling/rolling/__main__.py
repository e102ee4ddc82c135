"""Drives a rolling restart and has it judged. Exit code 1: something was wrong; the record is kept then."""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .checker import check
from .world import NAMES, World


def options():
    parser = argparse.ArgumentParser(prog="tests/rolling/run", description=__doc__)
    add = parser.add_argument
    add("--binary", default=os.environ.get("CONCLAVE"), type=os.path.abspath, help="else $CONCLAVE")
    add("--clients", type=int, default=3000)
    add("--messages-per-second", type=float, default=20)
    add("--room", type=int, default=30, metavar="N", help="clients in a room")
    add("--grace", type=int, default=1, metavar="SECONDS", help="drain.grace")
    add("--time", type=int, default=20, metavar="SECONDS", help="drain.time")
    add("--pause", type=int, default=5, metavar="SECONDS", help="between two restarts")
    add("--connects-per-second", type=int, default=100, help="at the beginning")
    add("--seed", type=int, default=os.getpid(), help="who says what, and who goes where")
    add("--record", type=Path, metavar="FILE", help="all events, one JSON object a line")
    chosen = parser.parse_args()
    if not chosen.binary:
        parser.error("--binary or $CONCLAVE: which conclave?")
    return chosen


def main():
    chosen = options()
    folder = Path(tempfile.mkdtemp(prefix="conclave-rolling-"))
    world = World(chosen, folder)
    print(f"seed {chosen.seed}, {len(NAMES)} nodes", flush=True)
    failure = None
    try:
        asyncio.run(world.run(lambda words: print(words, flush=True)))
    except Exception as error:
        failure = error
    verdict = check(world.events, chosen.clients, NAMES)
    for name, value in verdict.figures.items():
        print(f"{name:28} {value}")
    print(f"{'attempts that were in vain':28} {world.retries}")
    if chosen.record:
        chosen.record.write_text("".join(json.dumps(event) + "\n" for event in world.events))
    if failure is None and not verdict.problems:
        shutil.rmtree(folder)
        print("no acknowledged message lost, nobody late, no node over its limit")
        return 0
    for problem in verdict.problems[:20]:
        print(problem, file=sys.stderr)
    if len(verdict.problems) > 20:
        print(f"and {len(verdict.problems) - 20} more", file=sys.stderr)
    if failure:
        print(f"it did not end: {failure!r}", file=sys.stderr)
    print(f"logs: {folder}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
