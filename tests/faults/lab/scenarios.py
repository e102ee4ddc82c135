"""Schedules written by hand, each for one thing that has gone wrong somewhere: as random ones, but the plan is fixed."""

from .schedule import Plan, Step, claim_of

# name -> form, kept, presence, lanes of (after seconds, fault, hold seconds)
SCENARIOS = {
    # Since its last save nothing is kept; what is said after the restart takes the same numbers.
    "lost-tail-then-reuse": ("standalone", "async", False, [[(1.0, "save", 0), (2.0, "kill_store", 0.3), (1.5, "kill_store", 0.3)]]),
    # What began after the first loss is lost too, with the epoch that the first reset may have named.
    "lost-tail-twice": (
        "standalone",
        "async",
        False,
        [
            [(1.0, "save", 0), (1.0, "kill_store", 0.8), (0.4, "kill_store", 0.9)],
            [(4.0, "stop_node", 1.7)],
            [(4.4, "cut_clients", 0)] + [(0.15, "cut_clients", 0)] * 10,
        ],
    ),
    "older-dump": ("standalone", "async", False, [[(1.0, "save", 0), (2.0, "put_back", 0.2)], [(2.5, "cut_clients", 0)]]),
    "flushall-with-members": ("standalone", "async", False, [[(1.5, "flush", 0), (2.0, "flush", 0)]]),
    "record-or-log-evicted": ("standalone", "async", False, [[(1.0, "evict", 0)] * 6]),
    "restart-that-loses-nothing": ("standalone", "disk", False, [[(1.0, "kill_store", 0.2), (1.0, "kill_store", 1.5)]]),
    # The old master comes back and takes itself for the master, with its subscribers still attached.
    "thawed-master": ("sentinel", "replica", False, [[(1.0, "stop_master", 4.0)]]),
    "thawed-master-async": ("sentinel", "async", False, [[(1.0, "stop_master", 4.0)]]),
    "split-master": ("sentinel", "replica", False, [[(1.0, "split", 4.5)]]),
    "ordered-failover": ("sentinel", "replica", False, [[(1.0, "sentinel_failover", 0), (4.0, "sentinel_failover", 0)]]),
    "slot-migration-under-load": ("cluster", "disk", False, [[(0.5, "move_slot", 0.5)] * 4]),
    "cluster-failover": ("cluster", "replica", False, [[(0.5, "kill_store", 4.0), (0.5, "cluster_failover", 1.0)]]),
    "store-paused-beyond-the-lease": ("standalone", "disk", True, [[(1.0, "stop_store", 5.0)]]),
    "store-down-beyond-the-lease": ("standalone", "disk", True, [[(1.0, "kill_store", 5.0)]]),
    "node-paused-beyond-the-lease": ("standalone", "disk", True, [[(1.0, "stop_node", 5.0)]]),
    "node-killed": ("standalone", "disk", True, [[(0.5, "kill_node", 7.0)]]),
    # Entering everybody again takes many calls; the lease must outlast them.
    "restart-far-away": ("standalone", "disk", True, [[(0.5, "slow_all", 8.0)], [(1.5, "kill_store", 0.2)]]),
    # So does reaping a dead node: whoever does it must not be taken for dead meanwhile.
    "node-killed-far-away": ("standalone", "disk", True, [[(0.5, "slow_all", 10.0)], [(1.0, "kill_node", 9.0)]]),
    "node-killed-while-a-shard-is-away": ("cluster", "disk", True, [[(0.5, "kill_node", 9.0)], [(3.0, "stop_store", 5.0)]]),
    "failover-empties-no-room": ("sentinel", "replica", True, [[(1.0, "kill_master", 4.0)]]),
}


def plan(name, seed):
    form, kept, presence, lanes = SCENARIOS[name]
    steps = [[Step(*step, chance=seed * 1000 + number) for number, step in enumerate(lane)] for lane in lanes]
    seconds = 1.5 + max(sum(step.after_seconds + step.hold_seconds for step in lane) for lane in steps)
    return Plan(form, seed, seconds, kept, steps, presence, 5_000, claim_of(form, kept, steps))
