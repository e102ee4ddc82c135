"""A connection as a stranger writes it who has PROTOCOL.md and the `websockets` package; everything is recorded."""

import asyncio
import itertools
import json

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from .node import token

OPEN_SECONDS = 3
links = itertools.count(1)


class Gone(Exception):
    """There is no such connection, or no more."""


class Wire:
    def __init__(self, record, who, user, node, socket):
        self.record, self.who, self.user, self.node, self.socket = record, who, user, node, socket
        self.link = next(links)
        self.cut_by_us = False
        self._ref = 1

    @classmethod
    async def open(cls, lab, who, user, node, nodejs=False):
        """As far as `connected`. Raises `Gone`."""
        url = f"{node.url}?token={token(user)}"
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                if nodejs:
                    socket = await lab.nodejs.open(url)
                else:
                    socket = await connect(url, ssl=lab.tls, proxy=None, ping_interval=None, max_size=None, close_timeout=1)
                wire = cls(lab.record, who, user, node, socket)
                welcome = json.loads(await socket.recv())
        except (OSError, TimeoutError, WebSocketException) as why:
            raise Gone(str(why)) from None
        if welcome["type"] != "connected":
            # `closing`: the node takes nobody in at the moment.
            socket.transport.abort()
            raise Gone(str(welcome))
        wire.note("open", node=node.letter, kept=welcome["kept"], session=welcome["session"])
        return wire

    def note(self, ev, **fields):
        return self.record.add(self.who, ev, user=self.user, link=self.link, **fields)

    def next_ref(self):
        """What `send` will use: the answer may be read before it returns."""
        return f"{self.link}.{self._ref}"

    async def send(self, kind, **fields):
        """Recorded before it goes: once handed over, it may have been heard."""
        ref = self.next_ref()
        self._ref += 1
        frame = {"type": kind, "ref": ref, **fields}
        if kind != "ping":
            self.note("sent", frame=frame)
        try:
            await self.socket.send(json.dumps(frame))
        except (OSError, ConnectionClosed):
            raise Gone from None

    async def frames(self):
        """Every frame until the end, which is recorded too."""
        try:
            async for text in self.socket:
                frame = json.loads(text)
                if frame["type"] != "pong":
                    self.note("got", frame=frame)
                yield frame
        except (OSError, ConnectionClosed):
            pass
        code = self.socket.close_code
        by = "client" if self.cut_by_us else "lost" if code in (None, 1006) else "server"
        self.note("end", code=code, reason=self.socket.close_reason, by=by)

    async def close(self):
        """As a page does that is closed."""
        self.cut_by_us = True
        await self.socket.close()

    def cut(self):
        """No close frame and nothing flushed."""
        self.cut_by_us = True
        self.socket.transport.abort()
