"""What all clients together were told: acknowledgements, and that one place holds one message for everybody."""

from typing import NamedTuple

# Closes and errors that a correct server has no reason for, whatever breaks behind it.
BAD_CLOSES = {1002, 1003, 1007, 1008, 1009, 1011}
BAD_ERRORS = {"bad_json", "bad_message", "unknown_type", "bad_room", "forbidden", "room_full", "too_many_rooms", "too_large"}
BAD_ERRORS |= {"rate_limited", "internal"}


# A connection on which frames still come, and no answer for so long.
UNANSWERED_SECONDS = 5.5


def named(chat):
    """A message's own name: its content."""
    content = chat["content"]
    return tuple(content) if isinstance(content, list) else content


class Ok(NamedTuple):
    t: float
    who: str
    link: int
    room: str
    epoch: str
    seq: int
    message: tuple


class Seen:
    def __init__(self):
        self.oks = []
        # (who, room, message) -> how often it was tried
        self.tries = {}
        # (who, link, room) -> [(ref, message)] in order of sending
        self.sent = {}
        # (who, link, ref) that were answered, and of these the acknowledged chats
        self.answers, self.acknowledged = set(), set()

    def sent_once(self, room):
        """Per connection the messages in the order of sending that were tried once and acknowledged there."""
        for (who, link, of), tried in self.sent.items():
            if of == room:
                yield [
                    message
                    for ref, message in tried
                    if self.tries[who, room, message] == 1 and (who, link, ref) in self.acknowledged
                ]


def gather(events, claim, verdict):
    seen, asked, waiting = Seen(), {}, {}
    for event in events:
        unanswered(waiting, event, verdict)
        if event["ev"] == "sent" and event["frame"]["type"] == "chat":
            chat_sent(seen, asked, event)
        elif event["ev"] == "got":
            answered(seen, asked, event, verdict)
        elif event["ev"] == "open" and event["kept"] != claim["kept"]:
            verdict.add("kept", "", event["who"], f"connected says {event['kept']}, configured is {claim['kept']}", event["t"])
        elif event["ev"] == "end" and event["by"] == "server" and event["code"] in BAD_CLOSES:
            verdict.add("close", "", event["who"], f"{event['code']} {event['reason']}", event["t"])
    return seen


def unanswered(waiting, event, verdict):
    """Clients give a silent connection up much earlier, so one that lasts longer than this was alive."""
    if event["ev"] == "sent":
        waiting.setdefault(event["link"], {})[event["frame"]["ref"]] = event
    elif event["ev"] == "got" and event["link"] in waiting:
        waiting[event["link"]].pop(event["frame"].get("ref"), None)
    elif event["ev"] == "end":
        for sent in waiting.pop(event["link"], {}).values():
            if event["t"] - sent["t"] > UNANSWERED_SECONDS:
                verdict.add("unanswered", sent["frame"]["room"], event["who"], str(sent["frame"]), sent["t"])


def answered(seen, asked, event, verdict):
    frame = event["frame"]
    if frame["type"] == "error" and frame["code"] in BAD_ERRORS:
        verdict.add("error " + frame["code"], "", event["who"], str(frame), event["t"])
    if "ref" in frame:
        answer = (event["who"], event["link"], frame["ref"])
        if answer in seen.answers:
            verdict.add("answered twice", frame.get("room", ""), event["who"], str(frame), event["t"])
        seen.answers.add(answer)
        if frame["type"] == "ok" and answer in asked:
            room, message = asked[answer]
            seen.acknowledged.add(answer)
            seen.oks.append(Ok(event["t"], *answer[:2], room, frame["epoch"], frame["seq"], message))


def chat_sent(seen, asked, event):
    frame = event["frame"]
    who, link, room, message = event["who"], event["link"], frame["room"], named(frame)
    asked[who, link, frame.get("ref")] = (room, message)
    seen.sent.setdefault((who, link, room), []).append((frame.get("ref"), message))
    seen.tries[who, room, message] = seen.tries.get((who, room, message), 0) + 1


def told(places, room, epoch, seq, what, event, verdict):
    """Notes that a client was told `what` stands at a place; what is None in it was not said."""
    first = places.setdefault((room, epoch, seq), what)
    if any(a != b for a, b in zip(first, what) if a is not None and b is not None):
        text = f"{epoch} {seq} is {what}, and was told to be {first}"
        verdict.add("one place, two messages", room, event["who"], text, event["t"])
    places[room, epoch, seq] = tuple(a if a is not None else b for a, b in zip(first, what))
