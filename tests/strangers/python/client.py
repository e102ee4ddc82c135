"""A client as somebody writes it who has read PROTOCOL.md and has the `websockets` package."""

import asyncio
import itertools
import json

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

WAIT_SECONDS = 20


class Client:
    def __init__(self, socket):
        self.socket = socket
        self.frames = []
        self._refs = itertools.count(1)
        self._news = asyncio.Condition()
        self._taken = set()
        self.ended = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, server, query="", headers=None, **how):
        """As far as the upgrade; what comes then is for whoever called."""
        url = f"wss://{server.authority}/ws{query}"
        return cls(await connect(url, ssl=server.tls, additional_headers=headers, proxy=None, max_size=None, **how))

    @classmethod
    async def signed_in(cls, server, sub, **claims):
        token = await asyncio.to_thread(server.token, sub, **claims)
        client = await cls.connect(server, f"?token={token}")
        client.welcome = await client.next(type="connected")
        return client

    @classmethod
    async def joined(cls, server, sub, room, **claims):
        client = await cls.signed_in(server, sub, **claims)
        await client.ask("join", room=room)
        return client

    async def _read(self):
        try:
            async for text in self.socket:
                await self._note(json.loads(text))
        except ConnectionClosed:
            pass  # How it closed is asked of the socket.
        self.ended = True
        await self._note(None)

    async def _note(self, frame):
        async with self._news:
            if frame is not None:
                self.frames.append(frame)
            self._news.notify_all()

    def _find(self, wanted):
        for index, frame in enumerate(self.frames):
            if index not in self._taken and wanted.items() <= {k: v for k, v in frame.items() if k in wanted}.items():
                self._taken.add(index)
                return frame
        if self.ended:
            raise AssertionError(f"closed with {self.close_words()}, waiting for {wanted}; came: {self.frames[-20:]}")
        return None

    async def next(self, **wanted):
        """The next frame, not returned before, with these fields. Others stay for whoever asks for them."""
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._news:
                while (frame := self._find(wanted)) is None:
                    await self._news.wait()
                return frame
        except TimeoutError:
            raise AssertionError(f"nothing came, waiting for {wanted}; came: {self.frames[-20:]}") from None

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def ask(self, kind, **fields):
        """Sends with a `ref` and returns the one answer."""
        ref = f"r{next(self._refs)}"
        await self.send(kind, ref=ref, **fields)
        return await self.next(ref=ref)

    def of(self, kind):
        return [frame for frame in self.frames if frame["type"] == kind]

    def close_words(self):
        return self.socket.close_code, self.socket.close_reason

    async def closed(self):
        async with asyncio.timeout(WAIT_SECONDS):
            await self._reader
            await self.socket.wait_closed()
        return self.close_words()

    async def cut(self):
        """No close frame and nothing flushed."""
        self.socket.transport.abort()
        await self.closed()

    async def close(self):
        await self.socket.close()
        await self._reader
