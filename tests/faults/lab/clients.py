"""Readers and publishers: people who come back, on any node, from where they stand, and retry what was not confirmed."""

import asyncio
import collections
import time

from .wire import Gone, Wire

PING_SECONDS = 1.0
# Without any frame for so long a client gives a connection up; without an answer, after so long.
SILENCE_SECONDS = 3.0
ANSWER_SECONDS = 6.0
RETRY_SECONDS = 0.15
# Places that a client may come back from: usually the last one, sometimes an older of its own.
TRAIL = 5


class Place:
    """Where a client stands in a room, from frames alone."""

    def __init__(self):
        self.trail = collections.deque(maxlen=TRAIL)
        self.joined = False
        self.join_ref, self.asked_at = None, 0.0
        self.users = set()

    @property
    def at(self):
        return self.trail[-1] if self.trail else None

    def anew(self, epoch, seq):
        self.trail.clear()
        self.trail.append((epoch, seq))

    def take(self, frame):
        kind = frame["type"]
        if kind == "list" and frame.get("ref") == self.join_ref:
            self.joined, self.join_ref = True, None
            self.users = {user["id"] for user in frame["users"]}
            if not frame.get("recovered"):
                self.anew(frame["epoch"], frame["seq"])
        elif kind == "chat" and self.at:
            self.trail.append((frame.get("epoch", self.at[0]), frame["seq"]))
        elif kind == "reset":
            self.anew(frame["epoch"], frame["seq"])
        elif kind == "error" and frame.get("ref") == self.join_ref:
            self.join_ref = None
        elif kind == "join":
            self.users.add(frame["user"]["id"])
        elif kind == "left":
            self.users.discard(frame["user"]["id"])
        elif kind == "removed":
            self.joined = False


class Client:
    """A reader. One connection at a time, in all its rooms; by the `ws` package for Node or by Python's `websockets`."""

    def __init__(self, lab, name, rooms, chance, user=None, nodejs=False):
        self.lab, self.name, self.user, self.chance = lab, name, user or name, chance
        self.places = {room: Place() for room in rooms}
        self.wire, self.heard_at, self.nodejs = None, 0.0, nodejs
        self._task = asyncio.create_task(self._run())

    async def _run(self):
        while True:
            try:
                node = self.chance.choice(self.lab.world.nodes)
                self.wire = await Wire.open(self.lab, self.name, self.user, node, self.nodejs)
            except Gone:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self.begin()
            tending = asyncio.create_task(self._tend(self.wire))
            try:
                async for frame in self.wire.frames():
                    self.heard_at = time.monotonic()
                    self.take(frame)
            finally:
                tending.cancel()
                self.wire = None
            await self.away()

    async def away(self):
        """Between two connections."""
        await asyncio.sleep(self.chance.uniform(0, 0.3))

    def begin(self):
        self.heard_at = time.monotonic()
        for place in self.places.values():
            place.joined, place.join_ref = False, None
            if len(place.trail) > 1 and self.chance.random() < 0.2:
                place.trail.pop()

    def take(self, frame):
        place = self.places.get(frame.get("room")) or self.asked(frame)
        if place:
            place.take(frame)

    def asked(self, frame):
        """An error names no room, but the request."""
        return next((place for place in self.places.values() if place.join_ref and place.join_ref == frame.get("ref")), None)

    async def _tend(self, wire):
        """Joins, and joins again where that was refused; notices a connection that is only silent."""
        pinged_at = 0.0
        try:
            while True:
                now = time.monotonic()
                for room, place in self.places.items():
                    if not place.joined and place.join_ref is None:
                        await self._join(wire, room, place)
                    elif not place.joined and now - place.asked_at > ANSWER_SECONDS:
                        wire.cut()
                if now - pinged_at > PING_SECONDS:
                    pinged_at = now
                    await wire.send("ping")
                if now - self.heard_at > SILENCE_SECONDS:
                    wire.cut()
                await self.more(wire, now)
                await asyncio.sleep(0.03)
        except Gone:
            pass

    async def _join(self, wire, room, place):
        if time.monotonic() - place.asked_at < RETRY_SECONDS:
            return
        place.asked_at = time.monotonic()
        since = {"since": {"epoch": place.at[0], "seq": place.at[1]}} if place.at else {}
        # The answer may be read before `send` returns.
        place.join_ref = wire.next_ref()
        await wire.send("join", room=room, **since)

    async def more(self, wire, now):
        """For those who do more than to read."""

    def cut(self):
        if self.wire:
            self.wire.cut()

    def stands(self, room):
        place = self.places[room]
        return place.at if self.wire and place.joined else None

    async def end(self):
        """Raises what went wrong in the client itself."""
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            pass


class Publisher(Client):
    """Says numbered messages to one room, several in flight, and each until it is confirmed."""

    IN_FLIGHT = 4

    def __init__(self, lab, name, room, chance):
        super().__init__(lab, name, [room], chance)
        self.room, self.number, self.speaking = room, 0, True
        # number -> [ref or None, when it was sent or is to be sent again], in order
        self.open = {}
        self._next_at = 0.0

    def say(self):
        self.number += 1
        self.open[self.number] = [None, 0.0]

    def begin(self):
        super().begin()
        for said in self.open.values():
            said[:] = [None, 0.0]

    def take(self, frame):
        super().take(frame)
        if "ref" not in frame:
            return
        for number, said in list(self.open.items()):
            if said[0] == frame["ref"] and frame["type"] == "ok":
                del self.open[number]
            elif said[0] == frame["ref"] and frame["type"] == "error":
                said[:] = [None, time.monotonic() + RETRY_SECONDS]

    async def more(self, wire, now):
        if not self.places[self.room].joined:
            return
        if self.speaking and len(self.open) < self.IN_FLIGHT and now >= self._next_at:
            for _ in range(self.chance.choice((1, 1, 2, 3))):
                self.say()
            self._next_at = now + self.chance.uniform(0.05, 0.25)
        for number, said in list(self.open.items()):
            if said[0] is None and now >= said[1]:
                said[:] = [wire.next_ref(), now]
                await wire.send("chat", room=self.room, content=[self.name, number], key=f"{self.name}-{number}")
            elif said[0] is not None and now - said[1] > ANSWER_SECONDS:
                wire.cut()
