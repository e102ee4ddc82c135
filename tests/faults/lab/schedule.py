"""The plan of a schedule, from its seed alone: which fault, when, for how long, and with which chance of its own.

Faults run in lanes at the same time; within a lane one ends before the next begins.
"""

import random
from typing import NamedTuple

from . import faults as f


class Step(NamedTuple):
    after_seconds: float
    fault: str
    hold_seconds: float
    chance: int


class Lane(NamedTuple):
    """`faults`: name -> weight. Pauses and holds are drawn between these bounds, in seconds."""

    faults: dict
    pause: tuple
    hold: tuple


class Plan(NamedTuple):
    form: str
    seed: int
    seconds: float
    kept: str
    lanes: list
    presence: bool
    history_messages: int
    # What the checker may hold the server to: see `record`.
    claim: dict


CLIENTS = Lane({"cut_clients": 1}, (0.2, 0.8), (0, 0))
NODES = Lane({"kill_node": 2, "restart_node": 1, "stop_node": 3}, (0.5, 3), (0.2, 3))
LINKS = Lane({"reset_links": 3, "partition": 3, "slow_links": 2}, (0.2, 2), (0.2, 3))
# For presence: beyond the lease, too.
LONG_NODES = Lane({"kill_node": 3, "restart_node": 1, "stop_node": 3}, (0.5, 3), (0.2, 5))
MEMORY_NODES = Lane({"stop_node": 3, "kill_node": 1, "restart_node": 1}, (0.5, 2), (0.2, 2))

# form -> kept -> what befalls the stores
STORES = {
    "memory": {"memory": None},
    "standalone": {
        "disk": Lane({"kill_store": 3, "stop_store": 2}, (0.5, 2.5), (0.1, 2.5)),
        "async": Lane({"save": 3, "kill_store": 2, "put_back": 2, "flush": 1, "stop_store": 1}, (0.3, 1.5), (0.1, 1.5)),
    },
    "sentinel": {
        "replica": Lane(
            {"kill_master": 4, "stop_master": 4, "split": 2, "sentinel_failover": 3, "kill_store": 1, "stop_store": 1, "kill_sentinel": 1},
            (0.3, 2),
            (0.5, 4),
        ),
        "async": Lane(
            {"kill_master": 3, "stop_master": 4, "split": 3, "sentinel_failover": 3, "flush": 1, "kill_sentinel": 1}, (0.3, 2), (0.5, 4)
        ),
    },
    "cluster": {
        "disk": Lane({"move_slot": 4, "kill_store": 3, "stop_store": 2}, (0.3, 1.5), (0.1, 2.5)),
        "replica": Lane({"move_slot": 2, "kill_store": 3, "stop_store": 3, "cluster_failover": 3}, (0.3, 1.5), (0.3, 4)),
        "async": Lane({"move_slot": 3, "save": 3, "kill_store": 2, "put_back": 2, "flush": 1}, (0.3, 1.5), (0.1, 1.5)),
    },
    "nats": {"async": Lane({"kill_store": 2, "stop_store": 2}, (0.5, 2.5), (0.1, 2))},
}
# Without these in the plan even `async` loses nothing. Sentinel may fail over whenever the machine is slow.
LOSES = {"memory": {"kill_node", "restart_node"}, "standalone": {"kill_store", "put_back", "flush"}, "cluster": {"kill_store", "put_back", "flush"}, "nats": {"kill_store"}}


def plan(form, seed, seconds, kept=None, presence=False):
    chance = random.Random(f"{form} {seed}")
    drawn = chance.choice(sorted(STORES[form]))
    kept = kept or drawn
    nodes = LONG_NODES if presence else NODES
    kinds = [MEMORY_NODES] if form == "memory" else [nodes, LINKS, STORES[form][kept]]
    # Some schedules break everything at once, most one or two things, so that each is also seen alone.
    broken = [lane for lane in kinds if chance.random() < 0.65] or [chance.choice(kinds)]
    # Those of presence come and go by themselves.
    broken += [] if presence else [CLIENTS]
    lanes = [steps(lane, chance, seconds) for lane in broken]
    # A small history makes `trimmed` due now and then.
    history_messages = chance.choice((5_000, 5_000, 5_000, 40))
    return Plan(form, seed, seconds, kept, lanes, presence, history_messages, claim_of(form, kept, lanes))


def claim_of(form, kept, lanes):
    used = {step.fault for lane in lanes for step in lane}
    may_lose = kept in ("async", "memory") and (form == "sentinel" or bool(used & LOSES.get(form, set())))
    told = {"may_lose": may_lose, "may_rewind": kept == "replica", "may_branch": kept == "async" and form == "sentinel"}
    return {"kept": kept, "dense": form != "nats", **told}


def steps(lane, chance, seconds):
    """One after the other until the time is over."""
    made, at = [], 0.0
    while True:
        after, hold = chance.uniform(*lane.pause), chance.uniform(*lane.hold)
        at += after
        if at >= seconds:
            return made
        fault = chance.choices(list(lane.faults), list(lane.faults.values()))[0]
        made.append(Step(round(after, 3), fault, round(hold, 3), chance.getrandbits(32)))
        at += hold


def action(name):
    return getattr(f, name)


def summary(plan):
    counts = {}
    for step in (step for lane in plan.lanes for step in lane):
        counts[step.fault] = counts.get(step.fault, 0) + 1
    return " ".join(f"{name}:{count}" for name, count in sorted(counts.items()))
