"""Follows what each client may believe about a room, over all its connections, as PROTOCOL section 5 has it."""

from typing import NamedTuple

from . import witness


class Away(NamedTuple):
    """The server said that it cannot go on from where this client stood."""

    t: float
    what: str
    stood: tuple


class View:
    def __init__(self, who, room):
        self.who, self.room = who, room
        # (epoch, seq) of where this client stands; None while it is in no connection's room
        self.stand = None
        # seq -> (epoch, message), what still counts
        self.seen = {}
        # Everything above this seq is due to this client.
        self.begins = 0
        # (low, high]: told by a `reset` that these are not to be had
        self.holes = []
        self.turned_away = []
        # Whether it is connected for the rest.
        self.stays = False

    def owned(self, seq):
        return any(low < seq <= high for low, high in self.holes)

    def anew(self, epoch, seq):
        self.seen.clear()
        self.holes.clear()
        self.begins = seq
        self.stand = (epoch, seq)

    def cut_above(self, seq):
        self.seen = {at: got for at, got in self.seen.items() if at <= seq}
        self.holes = [(low, min(high, seq)) for low, high in self.holes if low < seq]


class Room:
    """One connection in one room."""

    def __init__(self):
        # ref -> `since` of a `join` (None without), for the `list` that answers it
        self.joins = {}
        self.joined = False
        # Where the replay under way will end, after a `recovered:true`.
        self.replay_end = None
        # seq -> message: acknowledged here and not seen here yet
        self.promised = {}
        # What an `ok` contradicted; a `reset` must follow.
        self.contradicted = None
        self.resets = 0


class Follower:
    def __init__(self, claim, verdict):
        self.dense, self.verdict = claim["dense"], verdict
        self.views, self.rooms, self.places = {}, {}, {}
        self.sent, self.asked = set(), {}

    def view(self, who, room):
        return self.views.setdefault((who, room), View(who, room))

    def room(self, event, room):
        return self.rooms.setdefault((event["who"], event["link"], room), Room())

    def wrong(self, rule, event, text):
        self.verdict.add(rule, event["frame"].get("room", ""), event["who"], text, event["t"])

    def on_sent(self, event):
        frame = event["frame"]
        if frame["type"] == "join":
            since = frame.get("since")
            self.room(event, frame["room"]).joins[frame["ref"]] = since and (since["epoch"], since["seq"])
        elif frame["type"] == "chat":
            self.sent.add((frame["room"], event["user"], witness.named(frame)))
            resets = self.room(event, frame["room"]).resets
            self.asked[event["who"], event["link"], frame.get("ref")] = (frame["room"], witness.named(frame), resets)

    def on_got(self, event):
        handlers = {"list": self.on_list, "chat": self.on_chat, "ok": self.on_ok, "reset": self.on_reset, "removed": self.on_removed}
        handler = handlers.get(event["frame"]["type"])
        if handler:
            handler(event, event["frame"])

    def on_list(self, event, frame):
        view, here = self.view(event["who"], frame["room"]), self.room(event, frame["room"])
        if frame.get("ref") not in here.joins:
            self.on_plain_list(view, here, event, frame)
            return
        since = here.joins.pop(frame["ref"])
        again, here.joined = here.joined, True
        if since is None:
            if again:
                self.on_plain_list(view, here, event, frame)
            else:
                view.anew(frame["epoch"], frame["seq"])
        elif frame.get("recovered") is True:
            self.on_recovered(view, here, since, event, frame)
        elif frame.get("recovered") is False:
            view.turned_away.append(Away(event["t"], "recovered:false", since))
            view.anew(frame["epoch"], frame["seq"])
            here.replay_end = None
        else:
            self.wrong("recovered", event, f"a join with since was answered by {frame}")

    def on_recovered(self, view, here, since, event, frame):
        if frame["seq"] < since[1]:
            self.wrong("recovered", event, f"true for {since}, above the room's head {frame['seq']}")
        view.cut_above(since[1])
        view.begins = min(view.begins, since[1])
        view.stand = since
        here.replay_end = frame["seq"]

    def on_plain_list(self, view, here, event, frame):
        """A list in the middle of the stream is a place to stand: nothing up to it may still be on its way."""
        replaying = here.replay_end is not None and view.stand and view.stand[1] < here.replay_end
        if here.joined and view.stand and not replaying and frame["seq"] != view.stand[1]:
            self.wrong("list", event, f"says {frame['seq']} to who stands at {view.stand}")

    def on_chat(self, event, frame):
        view, here = self.view(event["who"], frame["room"]), self.room(event, frame["room"])
        if not here.joined or view.stand is None:
            self.wrong("chat without list", event, str(frame["seq"]))
            return
        stand_epoch, stand_seq = view.stand
        epoch, seq, message = frame.get("epoch", stand_epoch), frame["seq"], witness.named(frame)
        if seq <= stand_seq:
            rule = "twice" if view.seen.get(seq, ("", None))[1] == message else "order"
            self.wrong(rule, event, f"{seq} {message} to who stands at {view.stand}")
        elif self.dense and seq != stand_seq + 1:
            self.wrong("hole", event, f"{seq} to who stands at {view.stand}")
        if any(got == message and at != seq for at, (_, got) in view.seen.items()):
            self.wrong("twice", event, f"{message} at {seq}, and before")
        if (frame["room"], frame["from"]["id"], message) not in self.sent:
            self.wrong("invented", event, f"{message} of {frame['from']['id']}")
        witness.told(self.places, frame["room"], epoch, seq, (message, frame["from"]["id"], frame["time"]), event, self.verdict)
        if here.contradicted:
            self.wrong("untold", event, f"{here.contradicted}, and it goes on with {seq}")
            here.contradicted = None
        promised = here.promised.pop(seq, message)
        if promised != message:
            self.wrong("untold", event, f"{seq} was acknowledged here as {promised}, now it is {message}, and no reset between")
        view.seen[seq] = (epoch, message)
        view.stand = (epoch, seq)

    def on_ok(self, event, frame):
        asked = self.asked.get((event["who"], event["link"], frame["ref"]))
        if asked is None:
            return
        room, message, resets = asked
        witness.told(self.places, room, frame["epoch"], frame["seq"], (message, event["user"], None), event, self.verdict)
        view, here = self.view(event["who"], room), self.room(event, room)
        if view.stand is None or here.resets != resets:
            return
        if frame["seq"] > view.stand[1]:
            here.promised[frame["seq"]] = message
        elif frame["seq"] > view.begins and not view.owned(frame["seq"]):
            seen = view.seen.get(frame["seq"])
            if seen != (frame["epoch"], message):
                here.contradicted = f"{message} acknowledged at {frame['epoch']} {frame['seq']}, where {seen} was seen"

    def on_reset(self, event, frame):
        view, here = self.view(event["who"], frame["room"]), self.room(event, frame["room"])
        if not here.joined or view.stand is None:
            self.wrong("reset without list", event, str(frame))
            return
        stood, seq, reason = view.stand, frame["seq"], frame["reason"]
        view.turned_away.append(Away(event["t"], f"reset {reason}", stood))
        here.replay_end = None
        here.promised.clear()
        here.contradicted = None
        here.resets += 1
        if reason == "epoch":
            view.anew(frame["epoch"], seq)
            return
        view.cut_above(seq)
        if seq > stood[1]:
            if reason == "rewound":
                self.wrong("reset", event, f"rewound forwards, from {stood} to {seq}")
            view.holes.append((stood[1], seq))
        view.begins = min(view.begins, seq)
        view.stand = (frame["epoch"], seq)

    def on_removed(self, event, frame):
        self.wrong("removed", event, str(frame))

    def on_end(self, event):
        """The connection's rooms are gone; where the client stands goes with it to the next one."""
        for key in [key for key in self.rooms if key[:2] == (event["who"], event["link"])]:
            del self.rooms[key]

    def on_quiet(self, event):
        for view in self.views.values():
            view.stays = view.who in event["clients"]


def follow(events, claim, verdict):
    follower = Follower(claim, verdict)
    for event in events:
        if event["ev"] in ("sent", "got", "end", "quiet"):
            getattr(follower, "on_" + event["ev"])(event)
    return list(follower.views.values())
