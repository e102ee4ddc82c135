"""The command line of the fault lab: see README.md here."""

import argparse
import asyncio
import faulthandler
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import scenarios, schedule
from .node import Identity
from .play import FORMS, play

HERE = Path(__file__).resolve().parent.parent
SCHEDULE_SECONDS = 180
# What a planted fault must be found by.
PLANTED = {"naive-epoch": "lost-tail-then-reuse"}


def parser():
    parser = argparse.ArgumentParser(prog="tests/faults/run", description="Breaks everything by a seed and checks what clients were told.")
    what = parser.add_argument_group("what to play")
    what.add_argument("--form", choices=sorted(FORMS), default="standalone")
    what.add_argument("--schedules", type=int, default=1, help="how many, with the seeds from --seed on")
    what.add_argument("--seed", type=int, default=1)
    what.add_argument("--seconds", type=float, default=8, help="of faults, in each schedule")
    what.add_argument("--kept", help="instead of one drawn from the seed")
    what.add_argument("--presence", action="store_true", help="people who come and go, and who is said to be there")
    what.add_argument("--scenario", choices=sorted(scenarios.SCENARIOS), help="one that is written by hand, instead of a drawn one")
    what.add_argument("--regressions", action="store_true", help="every scenario, and the schedules of seeds.txt")
    what.add_argument("--planted", choices=sorted(PLANTED), help="the binary is built with this fault, which must be found")
    parser.add_argument("--jobs", type=int, default=1, help="schedules at a time")
    parser.add_argument("--binary", default=os.environ.get("CONCLAVE"), help="conclave; else $CONCLAVE")
    parser.add_argument("--folder", type=Path, help="for records and logs; those of schedules that pass are removed")
    parser.add_argument("--keep", action="store_true", help="those too")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def one(args):
    """In a process of its own: nothing is left over for the next schedule."""
    if args.scenario:
        plan, summary = scenarios.plan(args.scenario, args.seed), args.scenario
    else:
        plan = schedule.plan(args.form, args.seed, args.seconds, args.kept, args.presence)
        summary = schedule.summary(plan)
    name = f"{plan.form} {plan.kept} --seed {args.seed}" + (" --presence" if plan.presence else "")
    # Where it hangs, should it.
    faulthandler.dump_traceback_later(SCHEDULE_SECONDS - 10, file=open(args.one / "hangs.txt", "w"))
    try:
        violations, told = asyncio.run(play(plan, args.one, args.binary, Identity(args.one.parent), args.job))
    except Exception as why:
        (args.one / "trouble.txt").write_text(traceback.format_exc())
        print(f"{name}: TROUBLE in the lab itself: {type(why).__name__} {' '.join(str(why).split())[:300]}")
        return 2
    (args.one / "violations.txt").write_text("".join(f"{violation}\n" for violation in violations))
    what = f"{len(violations)} VIOLATIONS, the first: {violations[0]}" if violations else "ok"
    print(f"{name}: {what} ({told}; {summary})")
    return 1 if violations else 0


def wanted(args):
    """The arguments of each schedule."""
    given = vars(parser().parse_args([]))
    if args.regressions:
        lines = [shlex.split(line, comments=True) for line in (HERE / "seeds.txt").read_text().splitlines()]
        by_hand = [["--scenario", name] for name in scenarios.SCENARIOS]
        return [parser().parse_args(line) for line in [*by_hand, *filter(None, lines)]]
    if args.planted:
        return [argparse.Namespace(**given | {"scenario": PLANTED[args.planted], "seed": args.seed})]
    return [argparse.Namespace(**vars(args) | {"seed": args.seed + number}) for number in range(args.schedules)]


def run_one(args, folder, number, asked):
    own = folder / f"{number:03}-{asked.scenario or asked.form}-{asked.seed}"
    own.mkdir()
    command = [sys.executable, "-B", "-m", "lab", "--form", asked.form, "--seed", str(asked.seed), "--seconds", str(asked.seconds)]
    command += ["--binary", args.binary, "--one", str(own), "--job", str(number + os.getpid() % 40)]
    command += ["--kept", asked.kept] if asked.kept else []
    command += ["--presence"] if asked.presence else []
    command += ["--scenario", asked.scenario] if asked.scenario else []
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=SCHEDULE_SECONDS)
        code, line = done.returncode, done.stdout.strip() or done.stderr.strip()[-500:]
    except subprocess.TimeoutExpired:
        code, line = 2, f"{own.name}: TROUBLE: not over after {SCHEDULE_SECONDS} s"
    kept = code != 0 or args.keep
    print(f"{line} [{own}]" if kept else line, flush=True)
    if not kept:
        shutil.rmtree(own)
    return code


def main():
    args = parser().parse_args()
    if not args.binary:
        sys.exit("name the binary with --binary or $CONCLAVE")
    if args.one:
        return one(args)
    args.binary = str(Path(args.binary).resolve())
    folder = args.folder or Path(tempfile.mkdtemp(prefix="conclave-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    Identity(folder)
    with ThreadPoolExecutor(args.jobs) as pool:
        codes = list(pool.map(lambda given: run_one(args, folder, *given), enumerate(wanted(args))))
    failed, troubled = codes.count(1), len(codes) - codes.count(1) - codes.count(0)
    print(f"{len(codes)} schedules: {failed} with violations, {troubled} with trouble; {folder}")
    if args.planted:
        print(f"{args.planted}: {'found, as it must be' if failed and not troubled else 'NOT FOUND'}")
        return 0 if failed and not troubled else 1
    return 1 if failed or troubled else 0


if __name__ == "__main__":
    sys.exit(main())
