"""People who talk: each in one room, coming back when they were told to, from where they stand."""

import asyncio
import itertools
import json
import time

from lab.node import token
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

# A node that cannot be reached, or is full, is tried again so soon, then later and later; a balancer may choose another one.
RETRY_SECONDS = 0.3
RETRY_SECONDS_MAX = 5
OPEN_SECONDS = 30


class Client:
    def __init__(self, world, number, room, chance):
        self.world, self.name, self.room, self.chance = world, f"c{number}", room, chance
        self.at = None
        self.socket = None
        self.is_in = asyncio.Event()
        self.slot = self.told_at = 0.0
        self.refused = 0

    def note(self, ev, **fields):
        self.world.note(ev, client=self.name, **fields)

    async def live(self):
        while True:
            try:
                node = self.world.pick(self.chance)
                url = f"{node.url}?token={token(self.name)}" + ("&resume=1" if self.at else "")
                # One process shakes hands for all: more at a time would only make each of them late.
                async with self.world.opening:
                    socket = await connect(
                        url, ssl=self.world.tls, proxy=None, compression=None, ping_interval=None, open_timeout=OPEN_SECONDS, close_timeout=2
                    )  # fmt: skip
                self.refused = 0
                async with socket:
                    await self.talk(socket)
            except (OSError, TimeoutError, WebSocketException):
                pass
            await self.away()

    async def talk(self, socket):
        """Until the connection ends."""
        self.socket = socket
        self.slot = None
        join = {"type": "join", "room": self.room, "ref": "j"}
        if self.at:
            join["since"] = dict(zip(("epoch", "seq"), self.at))
        await socket.send(json.dumps(join))
        try:
            async for text in socket:
                frame = json.loads(text)
                await self.take(frame)
        except WebSocketException:
            pass
        finally:
            self.socket = None
            if self.is_in.is_set():
                self.note("gone", code=socket.close_code)
            self.is_in.clear()

    async def take(self, frame):
        match frame["type"]:
            case "list" if frame.get("ref") == "j":
                first = self.at is None
                recovered = None if first else bool(frame.get("recovered"))
                self.note("joined", room=self.room, seq=frame["seq"], recovered=recovered)
                if first:
                    self.at = (frame["epoch"], frame["seq"])
                else:
                    self.note("back")
                self.is_in.set()
                await self.entered()
            case "chat":
                self.at = (frame.get("epoch", self.at[0]), frame["seq"])
                self.note("chat", room=self.room, seq=frame["seq"], key=frame["content"])
            case "reset":
                self.at = (frame["epoch"], frame["seq"])
                self.note("reset", room=self.room)
            case "closing":
                self.slot = frame["reconnect_after_ms"] / 1000
                self.told_at = time.monotonic()
                if self.is_in.is_set():
                    self.note("told", slot=self.slot)
            case "ok" | "error" if "ref" in frame:
                self.answered(frame)

    async def entered(self):
        pass

    def answered(self, frame):
        if frame["type"] == "error":
            raise RuntimeError(f"{self.name}: {frame}")

    async def away(self):
        """As long as told, else as a page that finds nobody."""
        if self.slot is None:
            self.world.retries += 1
            seconds = min(RETRY_SECONDS * 2**self.refused, RETRY_SECONDS_MAX)
            self.refused = min(self.refused + 1, 10)
            await asyncio.sleep(seconds * self.chance.uniform(0.5, 1.5))
        else:
            await asyncio.sleep(self.told_at + self.slot - time.monotonic())
            self.slot = None


class Speaker(Client):
    """Says something again and again, and each until it is confirmed."""

    def __init__(self, *words):
        super().__init__(*words)
        self.numbers = itertools.count(1)
        self.open = {}

    async def say(self):
        key = f"{self.name}-{next(self.numbers)}"
        self.open[key] = None
        await self.send(key)

    async def send(self, key):
        chat = {"type": "chat", "room": self.room, "content": key, "key": key, "ref": key}
        socket = self.socket
        if socket is None or not self.is_in.is_set():
            return
        try:
            await socket.send(json.dumps(chat))
        except WebSocketException:
            pass

    async def entered(self):
        for key in list(self.open):
            await self.send(key)

    def answered(self, frame):
        key = frame["ref"]
        if frame["type"] == "ok":
            if key in self.open:
                del self.open[key]
                self.world.note("acked", room=self.room, seq=frame["seq"], key=key)
        elif frame["code"] in ("unavailable", "not_joined", "rate_limited"):
            asyncio.get_running_loop().call_later(RETRY_SECONDS, lambda: self.world.spawn(self.send(key)))
        else:
            super().answered(frame)
