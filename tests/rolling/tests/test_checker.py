"""The checker against stories: the good one passes, and each planted fault is found."""

import unittest

from rolling.checker import check

CLIENTS, NODES = ["a1", "a2", "b1"], ["x", "y"]


def story():
    """Two people in room a, one in room b; node x is restarted, then y."""
    events = []

    def add(ev, t, **fields):
        events.append({"ev": ev, "t": t, **fields})

    for client in CLIENTS:
        add("joined", 0.0, client=client, room=client[0], seq=7, recovered=None)
    add("scrape", 0.0, node="x", life=1, handshakes=3, limit=50)
    add("scrape", 0.0, node="y", life=1, handshakes=0, limit=50)
    for client in ("a1", "a2"):
        add("chat", 1.0, client=client, room="a", seq=8, key="k8")
    add("acked", 1.0, room="a", seq=8, key="k8")
    for node, begin in (("x", 2.0), ("y", 12.0)):
        for client in CLIENTS:
            add("told", begin, client=client, slot=1.5)
            add("gone", begin + 0.1, client=client, code=1012)
        seq = 9 if node == "x" else 10
        add("acked", begin + 0.5, room="a", seq=seq, key=f"k{seq}")
        add("ended", begin + 1, node=node, code=0)
        for client in CLIENTS:
            add("joined", begin + 2, client=client, room=client[0], seq=seq, recovered=True)
            add("back", begin + 2, client=client)
            if client[0] == "a":
                add("chat", begin + 2, client=client, room="a", seq=seq, key=f"k{seq}")
        other = "y" if node == "x" else "x"
        life = 1 if node == "x" else 2
        add("scrape", begin + 3, node=other, life=life, handshakes=3, limit=50)
        add("scrape", begin + 4, node=other, life=life, handshakes=6, limit=50)
    return events


class Story(unittest.TestCase):
    def found(self, events, words=None):
        problems = check(events, len(CLIENTS), NODES).problems
        if words is None:
            self.assertEqual(problems, [])
        else:
            self.assertTrue(any(words in problem for problem in problems), problems)

    def where(self, events, ev, **fields):
        matches = [at for at, event in enumerate(events) if event["ev"] == ev and fields.items() <= event.items()]
        return matches[0]

    def test_a_good_restart_passes(self):
        verdict = check(story(), len(CLIENTS), NODES)
        self.assertEqual(verdict.problems, [])
        self.assertEqual((verdict.figures["acknowledged"], verdict.figures["deliveries"]), (3, 6))
        self.assertEqual(verdict.figures["longest away, s"], 2.0)
        self.assertEqual(verdict.figures["most handshakes per second"]["y"], 3)

    def test_a_message_that_was_lost_is_found(self):
        events = story()
        # The last one: no later one shows a hole.
        del events[self.where(events, "chat", client="a2", seq=10)]
        self.found(events, "a2 never heard k10")

    def test_a_hole_is_found(self):
        events = story()
        del events[self.where(events, "chat", client="a1", seq=9)]
        self.found(events, "a1 stood at 8 and heard 10")

    def test_a_message_that_came_twice_is_found(self):
        events = story()
        at = self.where(events, "chat", client="a1", seq=9)
        events.insert(at, dict(events[at]))
        self.found(events, "a1 heard k9 twice")
        events = story()
        events[self.where(events, "chat", client="a1", seq=10)]["key"] = "k9"
        self.found(events, "a1 heard k9 twice")

    def test_another_content_under_the_number_is_found(self):
        events = story()
        events[self.where(events, "chat", client="a1", seq=9)]["key"] = "somebody else's"
        self.found(events, "a1 never heard k9")

    def test_one_who_is_late_is_found(self):
        events = story()
        events[self.where(events, "back", client="b1")]["t"] = 2.0 + 1.5 + 5.1
        self.found(events, "b1 was away for 6.6 s with a slot of 1.5 s")

    def test_one_who_stays_away_is_found(self):
        events = story()
        del events[len(events) - 1 - [*reversed(events)].index(next(e for e in reversed(events) if e["ev"] == "back"))]
        self.found(events, "b1 never came back")

    def test_one_who_was_not_told_is_found(self):
        events = story()
        del events[self.where(events, "told", client="a1")]
        self.found(events, "a1 was cut off with 1012, not told before")
        events = story()
        events[self.where(events, "gone", client="a1")]["code"] = 1006
        self.found(events, "a1 was cut off with 1006")

    def test_a_rate_over_the_limit_is_found(self):
        events = story()
        events[self.where(events, "scrape", node="y", handshakes=6)]["handshakes"] = 60
        self.found(events, "node y shook 57 hands per second, allowed are 50")

    def test_what_was_not_looked_at_is_found(self):
        self.found([event for event in story() if event["ev"] != "scrape"], "nobody looked at any node")

    def test_a_node_that_failed_or_was_spared_is_found(self):
        events = story()
        events[self.where(events, "ended", node="x")]["code"] = -9
        self.found(events, "node x ended with [-9]")
        events = story()
        del events[self.where(events, "ended", node="y")]
        self.found(events, "node y ended with []")

    def test_a_reset_and_a_lost_place_are_found(self):
        events = story()
        events.append({"ev": "reset", "t": 20.0, "client": "a1", "room": "a"})
        self.found(events, "a1 was told that something was lost")
        events = story()
        events[self.where(events, "joined", client="a1", recovered=True)]["recovered"] = False
        self.found(events, "a1 came back and was not given what it missed")

    def test_a_restart_that_nobody_noticed_proves_nothing(self):
        events = [event for event in story() if event.get("client") != "b1"]
        self.found(events, "2 of 3 clients were told")


if __name__ == "__main__":
    unittest.main()
