"""What is said, who hears it, what is held up, what is kept."""

from .grafana import dashboard, graph, quantiles, rate


def traffic():
    return [
        graph(
            "Messages in",
            "WebSocket messages from clients by kind. Text is speech, pong the answer to our pings; binary is a mistake of a client.",
            "mps",
            (rate("conclave_messages_total", "kind", 'direction="in"'), "{{kind}}"),
            runbook="service.md#limits-reached",
        ),
        graph(
            "Messages out",
            "WebSocket messages to clients by kind. A flood of close is a deploy or a storm.",
            "mps",
            (rate("conclave_messages_total", "kind", 'direction="out"'), "{{kind}}"),
            runbook="closes.md",
        ),
        graph(
            "Bytes",
            "Frames with their heads, without TLS. Compare with what the machine's network can carry.",
            "Bps",
            (rate("conclave_message_bytes_total", "direction"), "{{direction}}"),
            runbook="service.md#slow-consumers",
        ),
        graph(
            "Chats accepted",
            "Numbered and kept. Duplicates are retries of clients that did not hear the answer: harmless, and a sign of breaks.",
            "mps",
            (rate("conclave_publishes_total"), "accepted"),
            (rate("conclave_duplicate_publishes_total"), "known already"),
            runbook="service.md#delivery-budget",
        ),
        graph(
            "Deliveries",
            "Room messages queued to members per second and node. This is what CPU is spent on.",
            "mps",
            (rate("conclave_deliveries_total", "instance"), "{{instance}}"),
            runbook="service.md#cpu-saturated",
        ),
        graph(
            "Members per chat",
            "Deliveries for each accepted chat. It grows with rooms; a jump means that something is said in a very large one.",
            "none",
            (
                "sum(rate(conclave_deliveries_total{@}[@])) / clamp_min(sum(rate(conclave_publishes_total{@}[@])), 0.001)",
                "members per chat",
            ),
            runbook="service.md#cpu-saturated",
        ),
    ]


def delays():
    return [
        graph(
            "Fan-out on a node",
            "To hand one chat to all members on a core, sampled. Above 50 ms a room is too large for this machine or the machine too busy.",
            "s",
            *quantiles("conclave_broadcast_duration_seconds"),
            runbook="service.md#delivery-budget",
        ),
        graph(
            "Flushes and sends",
            "Connections written to per round of a flusher, and sends. More sends than messages out: nothing is gathered, which costs CPU.",
            "ops",
            (rate("conclave_flushes_total"), "connections flushed"),
            (rate("conclave_sends_total"), "sends"),
            runbook="service.md#cpu-saturated",
        ),
        graph(
            "Bytes that wait for readers",
            "Per node; Overview, How full, has it as a share of the budget, at which the largest backlogs are cut. High: many slow readers, or a way out that is full.",
            "bytes",
            ("conclave_send_queue_bytes{@}", "{{instance}}"),
            runbook="service.md#queue-near-budget",
        ),
        graph(
            "Readers cut",
            "By the bound that they passed. age: they did not read for limits.outbox_age; node: the node's budget was full and theirs was the largest.",
            "cps",
            (rate("conclave_slow_consumers_total", "limit"), "{{limit}}"),
            runbook="service.md#slow-consumers",
            width=12,
        ),
        graph(
            "Bytes of messages that are not whole yet",
            "Per node, from clients; bounded by limits.node_inbound_bytes, where the largest go first. High: uploads through chats, or somebody who begins messages and does not end them.",
            "bytes",
            ("conclave_receive_queue_bytes{@}", "{{instance}}"),
            runbook="service.md#memory",
            width=12,
        ),
        graph(
            "Bytes thrown out with them",
            "Freed to stay within the node's budget. Nothing is lost to a client that resumes, but it comes back and asks for it all.",
            "Bps",
            (rate("conclave_evicted_bytes_total", "instance"), "{{instance}}"),
            runbook="service.md#outboxes-evicted",
            width=12,
        ),
        graph(
            "Messages that died with their connection",
            "Queued and never sent. slow_reader: cut for a backlog; closed: the client left first. Both are replayed on return.",
            "mps",
            (rate("conclave_dropped_messages_total", "reason"), "{{reason}}"),
            runbook="service.md#slow-consumers",
            width=12,
        ),
    ]


def refusals():
    return [
        graph(
            "Errors told to clients",
            "By code. A client's release that brings bad_message or forbidden has a bug; unavailable is the backplane.",
            "ops",
            (rate("conclave_protocol_errors_total", "code"), "{{code}}"),
            runbook="service.md#limits-reached",
        ),
        graph(
            "Refused for a rate",
            "By the setting. One user: leave it. Many after a release: a loop in the client, or a limit that is too low.",
            "ops",
            (rate("conclave_rate_limited_total", "limit"), "{{limit}}"),
            runbook="service.md#limits-reached",
        ),
        graph(
            "Refused for a size or count",
            "By the setting. message_bytes: files belong elsewhere; rooms: raise limits.rooms or look for who makes them up.",
            "ops",
            (rate("conclave_refused_total", "limit"), "{{limit}}"),
            runbook="service.md#limits-reached",
        ),
    ]


def rooms():
    return [
        graph(
            "Rooms",
            "Per node; one that has members on two nodes counts on both. Steady growth without users: rooms are made up and never left.",
            "short",
            ("conclave_rooms{@}", "{{instance}}"),
            runbook="service.md#limits-reached",
        ),
        graph(
            "Members and users",
            "Connections in rooms of all nodes, and users in rooms, of whom each node knows all. Far more members than users: many tabs, or a client that does not leave.",
            "short",
            ("sum(conclave_members{@})", "members"),
            ("max(conclave_users{@})", "users"),
            runbook="service.md#limits-reached",
        ),
        graph(
            "Joins and leaves",
            "Per second. Both high at a steady number of connections: a client that joins in a loop.",
            "ops",
            (rate("conclave_joins_total"), "joins"),
            (rate("conclave_leaves_total"), "leaves"),
            runbook="service.md#limits-reached",
        ),
        graph(
            "History kept",
            "Messages per node. It is bounded by history.messages and history.age per room.",
            "short",
            ("conclave_history_messages{@}", "{{instance}}"),
            runbook="service.md#memory",
            width=12,
        ),
        graph(
            "Bytes of history",
            "In memory per node, bounded by history.node_bytes. At the bound, rooms without members lose theirs first.",
            "bytes",
            ("conclave_history_bytes{@}", "{{instance}}"),
            runbook="service.md#memory",
            width=12,
        ),
        graph(
            "Returns with a position",
            "recovered: they got all they had missed. not_recovered: they were away for longer than history holds: raise history.messages. "
            "reset: the backplane lost a tail.",
            "ops",
            (rate("conclave_history_recoveries_total", "result"), "{{result}}"),
            runbook="backplane.md#rewound",
            width=12,
        ),
        graph(
            "Replays",
            "Started, and messages sent by them, per second. After a deploy both rise for as long as the drain took.",
            "ops",
            (rate("conclave_replays_total"), "replays"),
            (rate("conclave_replayed_messages_total"), "messages"),
            runbook="service.md#reconnect-storm",
            width=12,
        ),
    ]


def build():
    return dashboard(
        "conclave-messages",
        "Conclave / Messages and rooms",
        "What is said and delivered, what waits, what is refused, what is kept.",
        [("Traffic", traffic()), ("Delays and slow readers", delays()), ("Refusals", refusals()), ("Rooms and history", rooms())],
    )
