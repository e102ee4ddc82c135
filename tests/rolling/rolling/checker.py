"""Judges a record of a rolling restart, and knows nothing of how it was made.

Events, in the order in which they happened; `t` in seconds of one clock:

    joined  client room seq recovered   stands there now (recovered: null for the first time)
    chat    client room seq key         was delivered
    reset   client room                 was told that something was lost
    acked   room seq key                the server confirmed it
    told    client slot                 `closing`: come back after so many seconds
    gone    client code                 the connection ended
    back    client                      is connected and in its room again
    scrape  node life handshakes limit  counted so far in this life of the node, and allowed per second
    ended   node code                   the process ended
"""

from collections import defaultdict

# Beyond its slot a client may be away for so long.
LATE_SECONDS = 5
# A node that nobody looked at for longer could have done anything.
BLIND_SECONDS = 8


class Verdict:
    def __init__(self):
        self.problems = []
        self.figures = {}

    def wrong(self, words):
        self.problems.append(words)


def check(events, clients, nodes):
    """`clients`: how many there were; `nodes`: their names."""
    verdict = Verdict()
    check_messages(events, verdict)
    check_absences(events, clients, verdict)
    check_rates(events, verdict)
    for node in nodes:
        codes = [event["code"] for event in events if event["ev"] == "ended" and event["node"] == node]
        if codes != [0]:
            verdict.wrong(f"node {node} ended with {codes}, expected once with 0")
    return verdict


def check_messages(events, verdict):
    """Each client hears each number after the one where it stands, once and in order; and what was acknowledged is among it."""
    stands, began, room_of = {}, {}, {}
    heard = defaultdict(dict)
    acked = {}
    for event in events:
        match event["ev"]:
            case "joined":
                client = event["client"]
                if client not in stands:
                    stands[client] = began[client] = event["seq"]
                    room_of[client] = event["room"]
                elif not event["recovered"]:
                    verdict.wrong(f"{client} came back and was not given what it missed")
            case "chat":
                client, seq, key = event["client"], event["seq"], event["key"]
                if key in heard[client]:
                    verdict.wrong(f"{client} heard {key} twice, as {heard[client][key]} and {seq}")
                elif seq != stands.get(client, -2) + 1:
                    verdict.wrong(f"{client} stood at {stands.get(client)} and heard {seq}")
                heard[client][key] = stands[client] = seq
            case "reset":
                verdict.wrong(f"{event['client']} was told that something was lost")
            case "acked":
                acked[event["room"], event["key"]] = event["seq"]
    for client, room in room_of.items():
        for (where, key), seq in acked.items():
            if where == room and seq > began[client] and heard[client].get(key) != seq:
                verdict.wrong(f"{client} never heard {key}, acknowledged as {seq} in {room}")
    verdict.figures["acknowledged"] = len(acked)
    verdict.figures["deliveries"] = sum(len(keys) for keys in heard.values())


def check_absences(events, clients, verdict):
    """Nobody leaves unless told, and nobody stays away longer than told."""
    told, gone, ever = {}, set(), set()
    late, longest, slots = 0.0, 0.0, []
    for event in events:
        client = event.get("client")
        match event["ev"]:
            case "told":
                told[client] = (event["t"], event["slot"])
                ever.add(client)
                slots.append(event["slot"])
            case "gone":
                gone.add(client)
                if client not in told or event["code"] != 1012:
                    verdict.wrong(f"{client} was cut off with {event['code']}, {'told' if client in told else 'not told'} before")
                    told.setdefault(client, (event["t"], 0.0))
            case "back" if client in gone:
                since, slot = told.pop(client)
                gone.remove(client)
                away = event["t"] - since
                longest, late = max(longest, away), max(late, away - slot)
                if away > slot + LATE_SECONDS:
                    verdict.wrong(f"{client} was away for {away:.1f} s with a slot of {slot:.1f} s")
    for client in sorted(gone):
        verdict.wrong(f"{client} never came back")
    if len(ever) != clients:
        verdict.wrong(f"{len(ever)} of {clients} clients were told: the restart did not concern everybody")
    verdict.figures |= {
        "longest away, s": round(longest, 2),
        "longest beyond the slot, s": round(late, 2),
        "longest slot, s": round(max(slots, default=0), 2),
    }


def check_rates(events, verdict):
    """No node shakes hands faster than it allows, in any interval between two looks."""
    last, peaks = {}, defaultdict(float)
    for event in events:
        if event["ev"] != "scrape":
            continue
        node, life = event["node"], event["life"]
        before = last.get(node)
        last[node] = event
        if before is None or before["life"] != life:
            continue
        seconds = event["t"] - before["t"]
        if seconds > BLIND_SECONDS:
            verdict.wrong(f"nobody looked at node {node} for {seconds:.1f} s")
        rate = (event["handshakes"] - before["handshakes"]) / max(seconds, 0.001)
        limit = max(event["limit"], before["limit"])
        peaks[node] = max(peaks[node], rate)
        if rate > limit:
            verdict.wrong(f"node {node} shook {rate:.0f} hands per second, allowed are {limit:.0f}")
    if not peaks:
        verdict.wrong("nobody looked at any node")
    limits = [event["limit"] for event in events if event["ev"] == "scrape"]
    verdict.figures["most handshakes per second"] = {node: round(rate) for node, rate in sorted(peaks.items())}
    verdict.figures["lowest allowed per second"] = round(min(limits, default=0))
