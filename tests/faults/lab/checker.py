"""Decides from the record alone whether PROTOCOL section 5 was kept. Pure: no clock, no socket, nothing of the server.

Three passes: `witness` collects what any client was told about a place and whether they agree; `views` walks through
every client's connections and follows where it stands; `judge` compares both with what history holds at the end.
A message is known by its content, which the lab's publishers make unique: `[publisher, number]`.
"""

from . import views, witness
from .verdict import Verdict

KEEPS_ALL = ("disk", "replica")


def check(events):
    """Every violation found, as `Violation`s."""
    verdict = Verdict()
    claim = next(event for event in events if event["ev"] == "claim")
    seen = witness.gather(events, claim, verdict)
    followed = views.follow(events, claim, verdict)
    truths = {room: Truth(room, of_room, verdict) for room, of_room in by_room(events).items()}
    for room, truth in truths.items():
        of_room = [view for view in followed if view.room == room]
        for view in of_room:
            turned_away(view, truth, claim, verdict)
            arrived(view, truth, verdict)
        acknowledged(room, truth, seen, claim, verdict)
        sender_order(room, truth, seen, verdict)
    return verdict.violations


def by_room(events):
    rooms = {}
    for event in events:
        if event["ev"] == "truth":
            rooms.setdefault(event["room"], []).append(event)
    return rooms


class Truth:
    """What a room's history is at the end, in which all nodes must agree."""

    def __init__(self, room, told, verdict):
        self.room = room
        self.at = {}
        self.head = max(event["seq"] for event in told)
        self.first = min((event["first"] for event in told if event["messages"]), default=self.head + 1)
        for event in told:
            chats = {chat["seq"]: (chat["epoch"], witness.named(chat)) for chat in event["messages"]}
            # One node may hold more of the past than another, which is asked for what the backplane no longer has.
            differ = [seq for seq in sorted(chats.keys() & self.at.keys()) if chats[seq] != self.at[seq]]
            if event["seq"] != self.head or differ:
                text = f"head {event['seq']}, others {self.head}; other messages at {differ[:5]}"
                verdict.add("nodes disagree", room, event["node"], text, event["t"])
            self.at |= chats
        self.once(verdict)

    def once(self, verdict):
        places = {}
        for seq, (_, message) in sorted(self.at.items()):
            if message in places:
                verdict.add("kept twice", self.room, "history", f"{message} at {places[message]} and at {seq}")
            places[message] = seq

    def holds(self, epoch, seq):
        """Whether that place is part of what is left. None: it is so old that nobody can tell."""
        if seq in self.at:
            return self.at[seq][0] == epoch
        if seq > self.head:
            return False
        if seq >= self.first:
            return False
        return True if seq == self.first - 1 and self.at and self.at[self.first][0] == epoch else None


def turned_away(view, truth, claim, verdict):
    """`reset` and `recovered:false` where they are due, and nowhere else."""
    for away in view.turned_away:
        if claim.get("may_branch"):
            # What a new master lacks is lost, and is there again if the old one is master once more.
            continue
        holds = truth.holds(*away.stood)
        if holds or (holds is not None and not claim["may_lose"] and not claim.get("may_rewind")):
            why = f"{away.what} although {away.stood} is still there"
            verdict.add("undue " + away.what.split()[0], view.room, view.who, why, away.t)


def arrived(view, truth, verdict):
    """Who is connected at the end has everything from where it began, and nothing else."""
    if not view.stays:
        return
    if view.stand is None:
        verdict.add("never came back", view.room, view.who, "not in the room at the end")
        return
    if view.stand[1] != truth.head:
        verdict.add("never caught up", view.room, view.who, f"stands at {view.stand}, the room at {truth.head}")
    for seq in range(max(view.begins + 1, truth.first), view.stand[1] + 1):
        got, kept = view.seen.get(seq), truth.at.get(seq)
        if got == kept or (got is None and view.owned(seq)):
            continue
        rule = "hole" if got is None else "stands on what is lost"
        verdict.add(rule, view.room, view.who, f"at {seq} got {got}, history has {kept}")


def acknowledged(room, truth, seen, claim, verdict):
    """What an `ok` is worth."""
    for ok in seen.oks:
        if ok.room != room or ok.seq < truth.first:
            continue
        if truth.at.get(ok.seq) == (ok.epoch, ok.message):
            continue
        if claim["kept"] in KEEPS_ALL or not claim["may_lose"]:
            verdict.add("acknowledged and lost", room, ok.who, f"{ok.message} at {ok.epoch} {ok.seq}", ok.t)


def sender_order(room, truth, seen, verdict):
    """Those of one connection, each accepted at its first and only try, stand in the order they were sent."""
    place = {message: seq for seq, (_, message) in truth.at.items()}
    for sent in seen.sent_once(room):
        placed = [(place[message], message) for message in sent if message in place]
        for before, after in zip(placed, placed[1:]):
            if before[0] > after[0]:
                verdict.add("sender's order", room, "history", f"{before[1]} at {before[0]}, then {after[1]} at {after[0]}")
