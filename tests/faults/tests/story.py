"""Records as the lab would write them, for the tests of the checkers."""


class Story:
    """One room `r`, told event by event. Publishers are users of their own name; content is `[name, number]`."""

    def __init__(self, kept="async", may_lose=True, dense=True, **claim):
        self.events, self.links, self.t = [], {}, 0.0
        self.add("lab", "claim", kept=kept, may_lose=may_lose, dense=dense, **claim)
        self.kept = kept
        self.refs = 0

    def add(self, who, ev, **fields):
        self.t += 0.01
        event = {"t": round(self.t, 3), "who": who, "ev": ev, **fields}
        if who != "lab":
            event |= {"user": who, "link": (who, self.links.get(who, 0))}
        self.events.append(event)

    def got(self, who, kind, **fields):
        self.add(who, "got", frame={"type": kind, "room": "r", **fields})

    def sent(self, who, kind, **fields):
        self.refs += 1
        self.add(who, "sent", frame={"type": kind, "room": "r", "ref": self.refs, **fields})
        return self.refs

    def joins(self, who, epoch, seq, since=None, recovered=None, users=(), node="a"):
        """A new connection joins and gets its list."""
        self.links[who] = self.links.get(who, 0) + 1
        self.add(who, "open", node=node, kept=self.kept)
        ref = self.sent(who, "join", **({"since": {"epoch": since[0], "seq": since[1]}} if since else {}))
        told = {} if recovered is None else {"recovered": recovered}
        listed = [{"id": user} for user in users]
        self.got(who, "list", ref=ref, epoch=epoch, seq=seq, users=listed, count=len(listed), **told)

    def ends(self, who, by="client"):
        self.add(who, "end", code=1006, reason="", by=by)

    def says(self, who, number):
        return self.sent(who, "chat", content=[who, number], key=f"{who}-{number}")

    def ok(self, who, ref, epoch, seq):
        self.got(who, "ok", ref=ref, epoch=epoch, seq=seq)

    def hears(self, who, seq, sender, number, epoch=None):
        named = {"epoch": epoch} if epoch else {}
        self.got(who, "chat", seq=seq, content=[sender, number], time=seq * 1000, **named, **{"from": {"id": sender}})

    def reset(self, who, reason, epoch, seq):
        self.got(who, "reset", reason=reason, epoch=epoch, seq=seq)

    def ending(self, clients, messages, head, epoch, first=1, nodes=("a", "b")):
        """`messages`: (seq, epoch, sender, number)"""
        self.add("lab", "quiet", clients=list(clients))
        chats = [{"seq": seq, "epoch": of, "content": [sender, number]} for seq, of, sender, number in messages]
        for node in nodes:
            self.add("lab", "truth", node=node, room="r", epoch=epoch, seq=head, first=first, messages=chats)
