"""What the checker of presence must find, and that a clean history passes."""

import unittest

from lab.presence import check
from tests.story import Story


class Cases(unittest.TestCase):
    def setUp(self):
        self.story = Story(kept="disk", may_lose=False)
        self.story.joins("o", "E", 0, users=["o"])

    def news(self, kind, user, who="o"):
        self.story.got(who, kind, user={"id": user}, time=0)

    def later(self, seconds):
        self.story.t += seconds

    def ending(self, *there, listed=None):
        self.story.add("lab", "there", room="r", users=list(there))
        users = list(listed if listed is not None else there)
        self.story.add("lab", "truth", node="a", room="r", epoch="E", seq=0, first=1, messages=[], users=users)

    def finds(self, *rules):
        found = check(self.story.events)
        self.assertEqual({violation.rule for violation in found}, set(rules), "\n".join(map(str, found)))

    def test_coming_and_going_passes(self):
        for _ in range(2):
            self.news("join", "u")
            self.story.joins("u", "E", 0, users=["o", "u"])
            self.story.ends("u")
            self.news("left", "u")
        self.ending("o")
        self.finds()

    def test_joined_twice(self):
        self.news("join", "u")
        self.news("join", "u")
        self.ending("o", "u")
        self.finds("joined twice")

    def test_left_twice(self):
        self.news("left", "u")
        self.ending("o")
        self.finds("left twice")

    def test_about_oneself(self):
        self.news("join", "o")
        self.ending("o")
        self.finds("about oneself")

    def test_a_ghost_in_a_view_and_in_a_list(self):
        self.news("join", "u")
        self.ending("o", listed=["o", "u"])
        self.finds("ghost")

    def test_somebody_missing(self):
        self.ending("o", "u")
        self.finds("missing")

    def test_a_list_that_contradicts_what_was_told(self):
        self.story.got("o", "list", ref="x", epoch="E", seq=0, users=[{"id": "o"}, {"id": "u"}], count=2)
        self.ending("o", "u")
        self.finds("list")

    def test_listed_twice_and_not_listed(self):
        self.story.joins("u", "E", 0, users=["o", "o"])
        self.ending("o")
        self.finds("listed twice", "not listed")

    def test_left_although_there(self):
        self.news("join", "u")
        self.story.joins("u", "E", 0, users=["o", "u"])
        self.later(20)
        self.news("left", "u")
        self.news("join", "u")
        self.ending("o", "u")
        self.finds("left although there")

    def test_users_of_a_node_in_trouble_may_leave(self):
        self.news("join", "u")
        self.story.joins("u", "E", 0, users=["o", "u"], node="b")
        self.later(20)
        self.story.add("lab", "fault", fault="stop_node", phase="begins")
        self.story.add("lab", "fault", fault="stop_node", target="node-b")
        self.news("left", "u")
        self.news("join", "u")
        self.story.add("lab", "fault", fault="stop_node", phase="is over")
        self.ending("o", "u")
        self.finds()

    def test_nobody_is_to_blame_on_a_machine_that_stood_still(self):
        self.news("join", "u")
        self.story.joins("u", "E", 0, users=["o", "u"])
        self.later(20)
        self.story.add("lab", "starved", since=15)
        self.news("left", "u")
        self.news("join", "u")
        self.ending("o", "u")
        self.finds()

    def test_a_tab_that_stays_keeps_its_user(self):
        self.news("join", "u")
        self.story.joins("u", "E", 0, users=["o", "u"])
        self.later(1)
        self.story.ends("u")
        self.news("left", "u")
        self.ending("o")
        self.finds()


if __name__ == "__main__":
    unittest.main()
