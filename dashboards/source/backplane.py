"""Do the nodes hear each other, is anything late or lost, are presence and revocations true?"""

from .grafana import BAD, OK, WARN, dashboard, graph, quantile, quantiles, rate, stat


def reach():
    return [
        stat(
            "Nodes that reach it",
            "Share of the nodes whose backplane answers. 0: it is away, look there. Between: look at the network of the node that is missing.",
            "percentunit",
            "avg(conclave_backplane_up{@})",
            "backplane.md#away",
            [(0.99, OK)],
            BAD,
        ),
        stat(
            "Nodes that each sees",
            "The fewest and all nodes must agree. Other than what you run: two groups, two prefixes, or a node without a lease.",
            "short",
            "min(conclave_nodes{@})",
            "backplane.md#nodes",
        ),
        stat(
            "Lag, p99",
            "From one node to the others through the backplane. Over 250 ms users notice.",
            "s",
            quantile(0.99, "conclave_backplane_lag_seconds"),
            "backplane.md#lag",
            [(0.25, WARN), (0.5, BAD)],
        ),
        stat(
            "Revocations last heard",
            "The node that is worst off; up to a third of backplane.max_staleness (20 s) is normal, over all of it new sign-ins are turned away.",
            "s",
            "max(conclave_revocation_staleness_seconds{@})",
            "backplane.md#stale",
            [(30, WARN), (60, BAD)],
        ),
        stat(
            "Chats that wait",
            "On all nodes. Not 0 for long: the backplane takes less than is said.",
            "short",
            "sum(conclave_backplane_publish_queue_messages{@})",
            "backplane.md#refused",
            [(100, WARN), (1000, BAD)],
        ),
        stat(
            "Answered unavailable",
            "Chats per second that were not accepted. Clients with a key try again by themselves.",
            "mps",
            rate("conclave_backplane_refused_total"),
            "backplane.md#refused",
            [(0.01, WARN), (1, BAD)],
        ),
        graph(
            "Links",
            "1 while every link of a sort can be used, the worst node. A sort that this backplane does not have stays at 0 (sentinel).",
            "none",
            ("min by (link) (conclave_backplane_link_up{@})", "{{link}}"),
            runbook="backplane.md#link",
            top=1,
        ),
        graph(
            "Links made anew",
            "By why. start is normal at a start; canary means that a link looked alive and brought nothing; role and replid are failovers.",
            "ops",
            (rate("conclave_backplane_link_rebuilds_total", "link, reason"), "{{link}} {{reason}}"),
            runbook="backplane.md#link",
        ),
        graph(
            "Unready for the backplane, and who may be",
            "Nodes that fail their readiness because of it, and how often that was granted or denied: at most a third may at a time.",
            "short",
            ("sum(conclave_backplane_unready{@})", "nodes unready"),
            (rate("conclave_backplane_permits_total", "result"), "permit {{result}}"),
            runbook="backplane.md#unready",
        ),
    ]


def calls():
    return [
        graph(
            "Lag",
            "A canary from publish to receipt. On all nodes: the server is busy. On one: that node is.",
            "s",
            *quantiles("conclave_backplane_lag_seconds"),
            runbook="backplane.md#lag",
        ),
        graph(
            "Lag by node, p99",
            "The node that stands out is the one that is busy or far away.",
            "s",
            (quantile(0.99, "conclave_backplane_lag_seconds", "instance"), "{{instance}}"),
            runbook="backplane.md#lag",
        ),
        graph(
            "Quietest peer",
            "How long ago each node last heard of the one it hears least of. After a deploy or conclave kick it rises for a minute and falls. Otherwise, high on all but one: that one is paused or cut off.",
            "s",
            ("conclave_backplane_peer_age_seconds{@}", "{{instance}}"),
            runbook="backplane.md#peers",
        ),
        graph(
            "Calls",
            "By what was asked. publish follows chats; heads is the audit; renew is the lease.",
            "ops",
            (rate("conclave_backplane_calls_total", "call"), "{{call}}"),
            runbook="backplane.md#away",
        ),
        graph(
            "Calls that failed",
            "By what they came to. late: slower than call_timeout; full: out of memory; unsafe: not as safe as kept says; forbidden: permissions.",
            "ops",
            (rate("conclave_backplane_calls_total", "result", 'result!="ok"'), "{{result}}"),
            runbook="backplane.md#refused",
        ),
        graph(
            "Time of a call, p99",
            "By what was asked. publish above 50 ms: a slow disk under appendfsync, or a busy server.",
            "s",
            (quantile(0.99, "conclave_backplane_call_duration_seconds", "call"), "{{call}}"),
            runbook="backplane.md#lag",
        ),
        graph(
            "Chats that wait",
            "Per node, for the backplane. At room_queue_messages or node_queue_bytes more is answered unavailable.",
            "short",
            ("conclave_backplane_publish_queue_messages{@}", "{{instance}}"),
            runbook="backplane.md#refused",
        ),
        graph(
            "Bytes of chats that wait",
            "Per node, bounded by backplane.node_queue_bytes. At the bound chats are answered unavailable: look at Time of a call.",
            "bytes",
            ("conclave_backplane_publish_queue_bytes{@}", "{{instance}}"),
            runbook="backplane.md#refused",
        ),
        graph(
            "Answered unavailable",
            "By reason; the runbook has a line for each.",
            "ops",
            (rate("conclave_backplane_refused_total", "reason"), "{{reason}}"),
            runbook="backplane.md#refused",
        ),
    ]


def truth():
    return [
        graph(
            "Messages heard of",
            "delivered is as it should be, old a second hearing; behind was fetched from the log; unreadable is another version or a foreign writer.",
            "mps",
            (rate("conclave_backplane_wakeups_total", "result"), "{{result}}"),
            runbook="backplane.md#behind",
        ),
        graph(
            "Rooms that asked what they missed",
            "ok: found and filled. trimmed, rewound, epoch: lost, and the members were told with reset.",
            "ops",
            (rate("conclave_backplane_repairs_total", "result"), "{{result}}"),
            runbook="backplane.md#rewound",
        ),
        graph(
            "Rooms compared with their logs",
            "behind: a message was lost on the way and found here. A steady rate of it is a link that loses.",
            "ops",
            (rate("conclave_backplane_audits_total", "result"), "{{result}}"),
            runbook="backplane.md#behind",
        ),
        graph(
            "Time of a comparison",
            "Of all rooms of a node. Near audit_interval the server is too busy for so many rooms.",
            "s",
            *quantiles("conclave_backplane_audit_duration_seconds"),
            runbook="backplane.md#lag",
        ),
        graph(
            "Rooms that are listened to",
            "Per node. It must follow the number of rooms.",
            "short",
            ("conclave_backplane_attached_rooms{@}", "{{instance}}"),
            runbook="backplane.md#behind",
        ),
        graph(
            "Nodes known",
            "By each node. They must agree, and be as many as you run.",
            "short",
            ("conclave_nodes{@}", "{{instance}}"),
            runbook="backplane.md#nodes",
        ),
    ]


def presence():
    return [
        graph(
            "Users who came and went",
            "As the nodes told the backplane. A burst of leave and enter together: a lease ended.",
            "ops",
            (rate("conclave_presence_changes_total", "change"), "{{change}}"),
            runbook="backplane.md#leases",
        ),
        graph(
            "Users heard of",
            "applied is normal; missed means that a room's users were read again.",
            "ops",
            (rate("conclave_presence_events_total", "result"), "{{result}}"),
            runbook="backplane.md#leases",
        ),
        graph(
            "Leases renewed",
            "expired: the node was paused or cut off for longer than backplane.lease, and its users left. failed: the call did not get through.",
            "ops",
            (rate("conclave_presence_lease_renewals_total", "result"), "{{result}}"),
            runbook="backplane.md#leases",
        ),
        graph(
            "Moved out for dead nodes",
            "Users of nodes whose lease ended, and lives that a node began anew.",
            "ops",
            (rate("conclave_presence_reaped_users_total"), "users reaped"),
            (rate("conclave_presence_incarnations_total"), "incarnations"),
            runbook="backplane.md#leases",
        ),
        graph(
            "Changes that wait",
            "For the backplane, per node. Not 0 for long: it is away or slow, and lists are late.",
            "short",
            ("conclave_presence_queue{@}", "{{instance}}"),
            runbook="backplane.md#away",
        ),
        graph(
            "Revocations last heard",
            "Per node; a sawtooth up to 20 s is normal. Rising past 30 s: they cannot be read there, and revoked tokens may still be good.",
            "s",
            ("conclave_revocation_staleness_seconds{@}", "{{instance}}"),
            runbook="backplane.md#stale",
        ),
        graph(
            "Revocation to last close",
            "How long it took until nobody was left whom it concerned. Seconds are too long: CPU, or the control link.",
            "s",
            *quantiles("conclave_revocation_effect_seconds"),
            runbook="backplane.md#stale",
        ),
        graph(
            "Revocations kept",
            "Each node must know as many as the others.",
            "short",
            ("conclave_revocation_entries{@}", "{{instance}}"),
            runbook="backplane.md#stale",
        ),
        graph(
            "Ended by them",
            "Connections by what was revoked or kicked, kicks, and times that everything was loaded again (after a break).",
            "ops",
            (rate("conclave_revocation_connections_closed_total", "kind"), "closed {{kind}}"),
            (rate("conclave_kicks_total"), "kicks"),
            (rate("conclave_revocation_reloads_total"), "loaded again"),
            runbook="closes.md#close-1008-kicked",
        ),
    ]


def build():
    return dashboard(
        "conclave-backplane",
        "Conclave / Backplane",
        "What the nodes share: reach, lag, what was lost and found, presence, revocations.",
        [("Reach", reach()), ("Calls", calls()), ("Nothing lost", truth()), ("Presence and revocations", presence())],
    )
