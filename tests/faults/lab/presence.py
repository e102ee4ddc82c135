"""Decides from the record whether presence told the truth. Pure, as `checker` is.

For every connection in a room: who came and went strictly alternates, beginning with the list; nobody is listed twice;
nothing is said about oneself. Nobody is seen leaving who was there all the time, on a node that was well. At the end
every view and every node's list equal who is really there, no ghost among them.
"""

from .verdict import Verdict

# The lab's own visits, while it asks.
VISITOR = "lab"
# How long news may be on their way: a lease, its reaping, and links that are slow.
NEWS_SECONDS = 8.0
EVERY_NODE = "*"


def check(events):
    verdict = Verdict()
    claim = next(event for event in events if event["ev"] == "claim")
    watch = Watch(verdict)
    for event in events:
        watch.on(event)
    if not claim["may_lose"]:
        for left in watch.lefts:
            stayed(left, watch, troubles(events), verdict)
    for event in events:
        if event["ev"] == "there":
            at_the_end(event, watch, verdict)
        elif event["ev"] == "truth" and "users" in event:
            listed(event, events, verdict)
    return verdict.violations


class View:
    """One connection in one room."""

    def __init__(self, users, t):
        self.users, self.since = users, t


class Watch:
    def __init__(self, verdict):
        self.verdict = verdict
        # (who, link, room) -> View
        self.views = {}
        # ref -> ("join" or "leave", room), of each link
        self.asked = {}
        # (t, room, user) as somebody was told
        self.lefts = []
        # (user, room) -> [[from, to or None, node]] for each connection that was in
        self.stays = {}
        self.nodes = {}

    def on(self, event):
        if event["ev"] == "open":
            self.nodes[event["who"], event["link"]] = event["node"]
        elif event["ev"] == "sent" and event["frame"]["type"] in ("join", "leave"):
            frame = event["frame"]
            self.asked[event["link"], frame["ref"]] = (frame["type"], frame["room"])
            if frame["type"] == "leave":
                self.out(event, frame["room"])
        elif event["ev"] == "got":
            self.on_frame(event, event["frame"])
        elif event["ev"] == "end":
            for who, link, room in [key for key in self.views if key[:2] == (event["who"], event["link"])]:
                self.out(event, room)
                del self.views[who, link, room]

    def on_frame(self, event, frame):
        kind, where = frame["type"], (event["who"], event["link"], frame.get("room"))
        if kind == "list":
            self.on_list(event, frame, where)
        elif kind == "ok":
            asked, room = self.asked.get((event["link"], frame["ref"]), (None, None))
            if asked == "leave":
                self.views.pop((event["who"], event["link"], room), None)
        elif kind in ("join", "left") and where in self.views:
            self.on_news(event, frame, self.views[where])

    def wrong(self, rule, event, text):
        self.verdict.add(rule, event["frame"]["room"], event["who"], text, event["t"])

    def on_list(self, event, frame, where):
        users = [user["id"] for user in frame["users"]]
        if len(set(users)) != len(users) or frame["count"] != len(users):
            self.wrong("listed twice", event, f"{users}, count {frame['count']}")
        if event["user"] not in users:
            self.wrong("not listed", event, f"oneself is not in {users}")
        if where in self.views:
            known = self.views[where].users
            if set(users) != known:
                self.wrong("list", event, f"says {sorted(users)} to who was told of {sorted(known)}")
        else:
            stays = self.stays.setdefault((event["user"], frame["room"]), [])
            stays.append([event["t"], None, self.nodes[where[:2]], where])
        self.views[where] = View(set(users), event["t"])

    def on_news(self, event, frame, view):
        user, comes = frame["user"]["id"], frame["type"] == "join"
        if user == event["user"]:
            self.wrong("about oneself", event, frame["type"])
        elif comes == (user in view.users):
            self.wrong("joined twice" if comes else "left twice", event, user)
        if comes:
            view.users.add(user)
        else:
            view.users.discard(user)
            self.lefts.append((event["t"], event["who"], frame["room"], user))

    def out(self, event, room):
        """That connection is no longer surely in the room."""
        for stay in self.stays.get((event["user"], room), ()):
            if stay[1] is None and stay[3] == (event["who"], event["link"], room):
                stay[1] = event["t"]


def troubles(events):
    """[(node, from, to)]: who was dead, stopped or cut off, and when."""
    begun, found = {}, []
    for event in events:
        if event["ev"] == "starved":
            found.append((EVERY_NODE, event["since"], event["t"]))
        if event["ev"] != "fault":
            continue
        if event.get("phase") == "begins":
            begun[event["fault"]] = (event["t"], set())
        elif event.get("phase") == "is over":
            since, nodes = begun.pop(event["fault"])
            found += [(node, since, event["t"]) for node in nodes]
        elif event["fault"] in begun:
            begun[event["fault"]][1].update(event.get("nodes", ()))
            if event.get("target", "").startswith("node-"):
                begun[event["fault"]][1].add(event["target"].removeprefix("node-"))
    return found


def stayed(left, watch, troubled, verdict):
    """Nobody leaves who has been in, by one connection on a node that was well, for longer than any news take."""
    t, who, room, user = left
    for since, until, node, _ in watch.stays.get((user, room), ()):
        there = since < t - NEWS_SECONDS and (until is None or until > t)
        if there and not any(of in (node, EVERY_NODE) and begin < t and end > t - NEWS_SECONDS for of, begin, end in troubled):
            verdict.add("left although there", room, who, f"{user} has been in on node {node} since {since:.2f}", t)


def at_the_end(event, watch, verdict):
    there = set(event["users"])
    for (who, _, room), view in watch.views.items():
        if room == event["room"] and who != VISITOR and view.since < event["t"]:
            compare(view.users - {VISITOR}, there, room, who, event["t"], verdict)


def listed(event, events, verdict):
    there = next((set(e["users"]) for e in events if e["ev"] == "there" and e["room"] == event["room"]), None)
    if there is not None:
        compare(set(event["users"]) - {VISITOR}, there, event["room"], f"node {event['node']}", event["t"], verdict)


def compare(told, there, room, who, t, verdict):
    if told - there:
        verdict.add("ghost", room, who, f"{sorted(told - there)} are not there", t)
    if there - told:
        verdict.add("missing", room, who, f"{sorted(there - told)} are there", t)
