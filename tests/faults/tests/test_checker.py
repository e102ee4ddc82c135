"""What the checker must find, planted one by one in a history that is otherwise clean, and that a clean one passes."""

import unittest

from lab.checker import check
from tests.story import Story

FOUR = [(1, "E1", "p", 1), (2, "E1", "p", 2), (3, "E1", "p", 3), (4, "E1", "p", 4)]


def spoken(story, *numbers, epoch="E1", first=1):
    """`p` says these, one after the other, and hears and gets acknowledged each."""
    for offset, number in enumerate(numbers):
        ref = story.says("p", number)
        story.ok("p", ref, epoch, first + offset)
        story.hears("p", first + offset, "p", number)


class Cases(unittest.TestCase):
    def finds(self, story, *rules):
        found = check(story.events)
        self.assertEqual({violation.rule for violation in found}, set(rules), "\n".join(map(str, found)))

    def begun(self, **claim):
        story = Story(**claim)
        story.joins("p", "E1", 0)
        story.joins("q", "E1", 0)
        return story


class Clean(Cases):
    def test_a_quiet_history_passes(self):
        story = self.begun(kept="disk", may_lose=False)
        spoken(story, 1, 2, 3, 4)
        for seq in range(1, 5):
            story.hears("q", seq, "p", seq)
        story.ending("pq", FOUR, 4, "E1")
        self.finds(story)

    def test_a_cut_reader_that_resumes_passes(self):
        story = self.begun(kept="disk", may_lose=False)
        spoken(story, 1, 2)
        story.hears("q", 1, "p", 1)
        story.ends("q")
        spoken(story, 3, 4, first=3)
        story.joins("q", "E1", 4, since=("E1", 1), recovered=True)
        for seq in (2, 3, 4):
            story.hears("q", seq, "p", seq)
        story.ending("pq", FOUR, 4, "E1")
        self.finds(story)

    def test_a_retry_gets_the_first_place(self):
        story = self.begun(kept="disk", may_lose=False)
        story.says("p", 1)
        story.ends("p")
        story.joins("p", "E1", 1, since=("E1", 0), recovered=True)
        story.ok("p", story.says("p", 1), "E1", 1)
        story.hears("p", 1, "p", 1)
        story.hears("q", 1, "p", 1)
        story.ending("pq", FOUR[:1], 1, "E1")
        self.finds(story)

    def test_a_lost_tail_that_is_told_passes_where_it_may_be_lost(self):
        story = self.begun()
        spoken(story, 1, 2, 3)
        for seq in (1, 2, 3):
            story.hears("q", seq, "p", seq)
        story.ends("q")
        # A failover: 3 is lost, and its place is numbered anew.
        story.reset("p", "rewound", "E1", 2)
        ref = story.says("p", 4)
        story.hears("p", 3, "p", 4, epoch="E2")
        story.ok("p", ref, "E2", 3)
        story.joins("q", "E2", 3, since=("E1", 3), recovered=False)
        story.ending("pq", [*FOUR[:2], (3, "E2", "p", 4)], 3, "E2")
        self.finds(story)

    def test_a_branch_that_was_lost_itself_passes(self):
        """The old master comes back with what was lost, and what the new one had taken is lost in its stead."""
        story = self.begun(may_branch=True)
        spoken(story, 1, 2)
        story.reset("p", "rewound", "E2", 1)
        ref = story.says("p", 3)
        story.hears("p", 2, "p", 3)
        story.ok("p", ref, "E2", 2)
        story.reset("p", "rewound", "E3", 1)
        story.hears("p", 2, "p", 2, epoch="E1")
        story.ending("p", [FOUR[0], FOUR[1]], 2, "E1")
        self.finds(story)

    def test_a_failover_that_lost_nothing_is_a_new_epoch_and_nothing_more(self):
        story = self.begun(kept="replica", may_lose=False)
        spoken(story, 1, 2)
        story.hears("q", 1, "p", 1)
        story.ends("q")
        story.ok("p", story.says("p", 3), "E2", 3)
        story.hears("p", 3, "p", 3, epoch="E2")
        story.joins("q", "E2", 3, since=("E1", 1), recovered=True)
        story.hears("q", 2, "p", 2)
        story.hears("q", 3, "p", 3, epoch="E2")
        story.ending("pq", [*FOUR[:2], (3, "E2", "p", 3)], 3, "E2")
        self.finds(story)

    def test_a_trimmed_log_owns_its_hole(self):
        story = self.begun()
        spoken(story, 1, 2, 3, 4)
        story.hears("q", 1, "p", 1)
        story.reset("q", "trimmed", "E1", 3)
        story.hears("q", 4, "p", 4)
        story.ending("pq", FOUR[3:], 4, "E1", first=4)
        self.finds(story)

    def test_a_node_may_hold_more_of_the_past(self):
        story = self.begun()
        spoken(story, 1, 2, 3, 4)
        for seq in range(1, 5):
            story.hears("q", seq, "p", seq)
        story.ending("pq", FOUR[2:], 4, "E1", first=3, nodes=("a",))
        story.ending("pq", FOUR, 4, "E1", nodes=("b",))
        self.finds(story)

    def test_seq_need_not_be_dense_where_the_engine_cannot(self):
        story = self.begun(dense=False)
        for number, seq in ((1, 3), (2, 9)):
            story.ok("p", story.says("p", number), "E1", seq)
            story.hears("p", seq, "p", number)
            story.hears("q", seq, "p", number)
        story.ending("pq", [(3, "E1", "p", 1), (9, "E1", "p", 2)], 9, "E1", first=3)
        self.finds(story)


class Planted(Cases):
    def planted(self, got, kept="disk", may_lose=False, messages=FOUR):
        """`p` says four; `q` hears what `got` says."""
        story = self.begun(kept=kept, may_lose=may_lose)
        spoken(story, 1, 2, 3, 4)
        for seq, number in got:
            story.hears("q", seq, "p", number)
        story.ending("pq", messages, len(messages), "E1")
        return story

    def test_a_loss_that_a_reader_sees(self):
        self.finds(self.planted([(1, 1), (2, 2), (4, 4)]), "hole")

    def test_a_loss_at_the_end(self):
        self.finds(self.planted([(1, 1), (2, 2), (3, 3)]), "never caught up")

    def test_a_loss_closed_up(self):
        """The server leaves one out and numbers on: nobody sees a hole, but it was acknowledged."""
        story = self.begun(kept="disk", may_lose=False)
        for number, seq in ((1, 1), (2, 2), (3, 2)):
            story.ok("p", story.says("p", number), "E1", seq)
        story.ending("", [(1, "E1", "p", 1), (2, "E1", "p", 3)], 2, "E1")
        self.finds(story, "one place, two messages", "acknowledged and lost")

    def test_a_swap(self):
        rules = ("one place, two messages", "stands on what is lost")
        self.finds(self.planted([(1, 1), (2, 3), (3, 2), (4, 4)]), *rules)

    def test_an_order_of_its_own(self):
        self.finds(self.planted([(1, 1), (3, 3), (2, 2), (4, 4)]), "hole", "order")

    def test_a_duplicate(self):
        self.finds(self.planted([(1, 1), (2, 2), (2, 2), (3, 3), (4, 4)]), "twice")

    def test_a_retry_kept_twice(self):
        story = self.begun(kept="disk", may_lose=False)
        story.says("p", 1)
        story.ends("p")
        story.hears("q", 1, "p", 1)
        story.joins("p", "E1", 1, since=("E1", 0), recovered=True)
        story.hears("p", 1, "p", 1)
        story.ok("p", story.says("p", 1), "E1", 2)
        story.hears("p", 2, "p", 1)
        story.hears("q", 2, "p", 1)
        story.ending("pq", [(1, "E1", "p", 1), (2, "E1", "p", 1)], 2, "E1")
        self.finds(story, "twice", "kept twice")

    def test_an_acknowledged_message_lost_although_told(self):
        """With `replica`, a reset is no excuse for what was acknowledged."""
        story = self.begun(kept="replica", may_lose=False, may_rewind=True)
        spoken(story, 1, 2)
        story.hears("q", 1, "p", 1)
        story.reset("p", "rewound", "E1", 1)
        story.ending("pq", FOUR[:1], 1, "E1")
        self.finds(story, "acknowledged and lost")

    def test_a_lost_tail_that_nobody_is_told_of(self):
        story = self.begun()
        spoken(story, 1, 2)
        story.hears("q", 1, "p", 1)
        story.ending("pq", FOUR[:1], 1, "E1")
        self.finds(story, "never caught up", "stands on what is lost")

    def test_numbers_used_again_in_the_same_epoch(self):
        """The naive epoch: it changes at a restart of the room's record only, not at one of the server."""
        story = self.begun()
        spoken(story, 1, 2, 3)
        for seq in (1, 2, 3):
            story.hears("q", seq, "p", seq)
        story.ends("q")
        story.ends("p")
        story.joins("p", "E1", 1)
        spoken(story, 4, 5, 6, first=2)
        story.joins("q", "E1", 4, since=("E1", 3), recovered=True)
        story.hears("q", 4, "p", 6)
        story.ending("pq", [FOUR[0], (2, "E1", "p", 4), (3, "E1", "p", 5), (4, "E1", "p", 6)], 4, "E1")
        self.finds(story, "one place, two messages", "stands on what is lost")

    def test_a_wrong_recovered_true(self):
        """True, but what lies between is left out."""
        story = self.begun(kept="disk", may_lose=False)
        spoken(story, 1, 2, 3)
        story.hears("q", 1, "p", 1)
        story.ends("q")
        story.joins("q", "E1", 3, since=("E1", 1), recovered=True)
        story.hears("q", 3, "p", 3)
        spoken(story, 4, first=4)
        story.hears("q", 4, "p", 4)
        story.ending("pq", FOUR, 4, "E1")
        self.finds(story, "hole")

    def test_a_recovered_true_for_a_place_that_is_gone(self):
        story = self.begun()
        spoken(story, 1, 2)
        story.hears("q", 1, "p", 1)
        story.hears("q", 2, "p", 2)
        story.ends("q")
        story.joins("q", "E1", 1, since=("E1", 2), recovered=True)
        story.reset("p", "rewound", "E1", 1)
        story.ending("pq", FOUR[:1], 1, "E1")
        self.finds(story, "recovered", "never caught up", "stands on what is lost")

    def test_a_reset_without_a_reason(self):
        story = self.begun()
        spoken(story, 1, 2)
        story.hears("q", 1, "p", 1)
        story.reset("q", "rewound", "E1", 1)
        story.hears("q", 2, "p", 2)
        story.ending("pq", FOUR[:2], 2, "E1")
        self.finds(story, "undue reset")

    def test_a_recovered_false_without_a_reason(self):
        story = self.begun()
        spoken(story, 1)
        story.hears("q", 1, "p", 1)
        story.ends("q")
        story.joins("q", "E1", 1, since=("E1", 1), recovered=False)
        story.ending("pq", FOUR[:1], 1, "E1")
        self.finds(story, "undue recovered:false")

    def test_a_reset_where_nothing_may_be_lost(self):
        story = self.begun(kept="disk", may_lose=False)
        spoken(story, 1)
        story.hears("q", 1, "p", 1)
        # Somebody else's, seen by q alone and never acknowledged, but disk keeps what it shows.
        story.says("p", 2)
        story.hears("q", 2, "p", 2)
        story.reset("q", "rewound", "E1", 1)
        story.ending("pq", FOUR[:1], 1, "E1")
        self.finds(story, "undue reset")

    def test_an_ok_that_the_stream_contradicts(self):
        story = self.begun()
        story.ok("p", story.says("p", 1), "E1", 1)
        story.says("p", 2)
        for who in "pq":
            story.hears(who, 1, "p", 2, epoch="E2")
        story.ending("pq", [(1, "E2", "p", 2)], 1, "E2")
        self.finds(story, "untold")

    def test_an_ok_that_contradicts_what_was_seen_needs_a_reset(self):
        for told in (True, False):
            with self.subTest(told=told):
                story = self.begun()
                spoken(story, 1, 2)
                ref = story.says("p", 3)
                story.ok("p", ref, "E2", 2)
                if told:
                    story.reset("p", "rewound", "E2", 1)
                    story.hears("p", 2, "p", 3)
                story.ok("p", story.says("p", 4), "E2", 3)
                story.hears("p", 3, "p", 4, epoch="E2")
                story.ending("p" if told else "", [FOUR[0], (2, "E2", "p", 3), (3, "E2", "p", 4)], 3, "E2")
                self.finds(story, *([] if told else ["untold"]))

    def test_an_epoch_that_is_not_named(self):
        story = self.begun(kept="disk", may_lose=False)
        spoken(story, 1)
        story.hears("q", 1, "p", 1)
        story.ok("p", story.says("p", 2), "E2", 2)
        story.hears("p", 2, "p", 2, epoch="E2")
        story.hears("q", 2, "p", 2)
        story.ending("pq", [FOUR[0], (2, "E2", "p", 2)], 2, "E2")
        self.finds(story, "stands on what is lost")

    def test_the_sender_s_order(self):
        story = self.begun(kept="disk", may_lose=False)
        first, second = story.says("p", 1), story.says("p", 2)
        story.ok("p", second, "E1", 1)
        story.ok("p", first, "E1", 2)
        for who in "pq":
            story.hears(who, 1, "p", 2)
            story.hears(who, 2, "p", 1)
        story.ending("pq", [(1, "E1", "p", 2), (2, "E1", "p", 1)], 2, "E1")
        self.finds(story, "sender's order")

    def test_nodes_that_disagree(self):
        story = self.begun()
        story.ending("pq", [], 0, "E1", nodes=("a",))
        story.ending("pq", FOUR[:1], 1, "E1", nodes=("b",))
        self.finds(story, "nodes disagree", "never caught up")

    def test_nodes_that_disagree_about_one_message(self):
        story = self.begun()
        spoken(story, 1)
        story.says("p", 2)
        story.ending("", FOUR[:1], 1, "E1", nodes=("a",))
        story.ending("", [(1, "E1", "p", 2)], 1, "E1", nodes=("b",))
        self.finds(story, "nodes disagree")

    def test_a_message_that_nobody_sent(self):
        story = self.begun()
        story.hears("p", 1, "z", 1)
        story.hears("q", 1, "z", 1)
        story.ending("pq", [(1, "E1", "z", 1)], 1, "E1")
        self.finds(story, "invented")

    def test_a_chat_that_is_never_answered(self):
        story = self.begun()
        story.says("p", 1)
        story.t += 10
        story.ends("p")
        story.ending("q", [], 0, "E1")
        self.finds(story, "unanswered")

    def test_an_answer_given_twice(self):
        story = self.begun()
        ref = story.says("p", 1)
        story.ok("p", ref, "E1", 1)
        story.ok("p", ref, "E1", 1)
        story.ending("", [(1, "E1", "p", 1)], 1, "E1")
        self.finds(story, "answered twice")

    def test_an_inner_error_and_a_close_for_a_bug(self):
        story = self.begun()
        story.got("p", "error", ref="x", code="internal", message="")
        story.add("q", "end", code=1011, reason="internal", by="server")
        story.ending("p", [], 0, "E1")
        self.finds(story, "error internal", "close")


if __name__ == "__main__":
    unittest.main()
