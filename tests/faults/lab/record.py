"""What happened, line by line: the only thing that the checkers are given.

Each event has `t` (seconds since the schedule began), `who` (a client, or `lab`) and `ev`; those of clients have `user`
and `link` (which of the client's connections):

    open    `node`, `kept`           the `connected` frame came
    sent    `frame`                  handed to the socket
    got     `frame`                  in the order of the socket
    end     `code`, `reason`, `by`   the connection is over, by `server`, by `client` (closed or cut), or `lost`

and those of the lab:

    claim   what the checkers may hold the server to:
            `kept`; `dense` (numbers rise by one); `may_lose` (what was acknowledged, told by `reset`); `may_rewind` (take
            back what was shown and not acknowledged); `may_branch` (what was taken back may be there again in the end)
    fault   `fault`, `target`, `phase`, ...    done, and undone again
    late    `what`                   nobody waits longer; whether that is wrong is seen by the checkers
    starved `since`                  until now the lab itself could not run
    quiet   `clients`                everything is healed and those clients are connected for the rest
    truth   `node`, `room`, `epoch`, `seq`, `first`, `messages`   what history says at the end
    there   `room`, `users`          who has joined and not left, at the end
"""

import json
import time


class Record:
    def __init__(self, path):
        self.events = []
        self._file = open(path, "w", encoding="utf-8")
        self._began = time.monotonic()

    def now(self):
        return time.monotonic() - self._began

    def add(self, who, ev, **fields):
        event = {"t": round(self.now(), 4), "who": who, "ev": ev, **fields}
        self.events.append(event)
        self._file.write(json.dumps(event, ensure_ascii=False) + "\n")
        return event

    def close(self):
        self._file.close()


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
