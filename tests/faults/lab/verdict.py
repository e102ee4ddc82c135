"""What a checker has to say."""

from typing import NamedTuple


class Violation(NamedTuple):
    rule: str
    room: str
    who: str
    text: str
    t: float | None = None

    def __str__(self):
        when = "" if self.t is None else f" at {self.t:.2f} s"
        return f"{self.rule}: {self.who} in {self.room}{when}: {self.text}"


class Verdict:
    def __init__(self):
        self.violations = []

    def add(self, *said):
        self.violations.append(Violation(*said))
