"""The command line of the fault lab: see README.md here."""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import schedule
from .node import Identity
from .play import FORMS, play

HERE = Path(__file__).resolve().parent.parent
SCHEDULE_SECONDS = 180


def arguments():
    parser = argparse.ArgumentParser(prog="tests/faults/run", description="Breaks everything by a seed and checks what clients were told.")
    parser.add_argument("--form", choices=sorted(FORMS), default="standalone")
    parser.add_argument("--schedules", type=int, default=1, help="how many, with the seeds that follow --seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8, help="of faults, in each schedule")
    parser.add_argument("--kept", help="instead of one drawn from the seed")
    parser.add_argument("--presence", action="store_true", help="people who come and go, and who is said to be there")
    parser.add_argument("--jobs", type=int, default=1, help="schedules at a time")
    parser.add_argument("--binary", default=os.environ.get("CONCLAVE"), help="conclave; else $CONCLAVE")
    parser.add_argument("--folder", type=Path, help="where records and logs go; those of schedules that pass are removed")
    parser.add_argument("--keep", action="store_true", help="those too")
    parser.add_argument("--regressions", action="store_true", help="the schedules of seeds.txt")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--job", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def one(args):
    """In a process of its own: nothing is left over for the next schedule."""
    plan = schedule.plan(args.form, args.seed, args.seconds, args.kept, args.presence)
    name = f"{args.form} {plan.kept} --seed {args.seed}" + (" --presence" if args.presence else "")
    try:
        violations, told = asyncio.run(play(plan, args.one, args.binary, Identity(args.one.parent), args.job))
    except Exception:
        (args.one / "trouble.txt").write_text(traceback.format_exc())
        print(f"{name}: TROUBLE in the lab itself: {traceback.format_exc(limit=-1).splitlines()[-1]}")
        return 2
    (args.one / "violations.txt").write_text("".join(f"{violation}\n" for violation in violations))
    what = f"{len(violations)} VIOLATIONS, the first: {violations[0]}" if violations else "ok"
    print(f"{name}: {what} ({told}; {schedule.summary(plan)})")
    return 1 if violations else 0


def run_one(args, folder, number, form, seed, seconds):
    own = folder / f"{form}-{seed}"
    own.mkdir()
    command = [sys.executable, "-B", "-m", "lab", "--form", form, "--seed", str(seed), "--seconds", str(seconds)]
    command += ["--binary", args.binary, "--one", str(own), "--job", str(number + os.getpid() % 40)]
    command += ["--kept", args.kept] if args.kept else []
    command += ["--presence"] if args.presence else []
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=SCHEDULE_SECONDS)
        code, line = done.returncode, done.stdout.strip() or done.stderr.strip()[-500:]
    except subprocess.TimeoutExpired:
        code, line = 2, f"{form} --seed {seed}: TROUBLE: not over after {SCHEDULE_SECONDS} s"
    kept = code != 0 or args.keep
    print(f"{line} [{own}]" if kept else line, flush=True)
    if not kept:
        subprocess.run(["rm", "-r", str(own)], check=True)
    return code


def wanted(args):
    if not args.regressions:
        return [(args.form, args.seed + number, args.seconds) for number in range(args.schedules)]
    lines = (line.split("#")[0].split() for line in (HERE / "seeds.txt").read_text().splitlines())
    return [(line[0], int(line[1]), float(line[2])) for line in lines if line]


def main():
    args = arguments()
    if not args.binary:
        sys.exit("name the binary with --binary or $CONCLAVE")
    if args.one:
        return one(args)
    args.binary = str(Path(args.binary).resolve())
    folder = args.folder or Path(tempfile.mkdtemp(prefix="conclave-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    Identity(folder)
    with ThreadPoolExecutor(args.jobs) as pool:
        codes = list(pool.map(lambda given: run_one(args, folder, given[0], *given[1]), enumerate(wanted(args))))
    failed, troubled = codes.count(1), len(codes) - codes.count(1) - codes.count(0)
    print(f"{len(codes)} schedules: {failed} with violations, {troubled} with trouble; {folder}")
    return 1 if failed or troubled else 0


if __name__ == "__main__":
    sys.exit(main())
