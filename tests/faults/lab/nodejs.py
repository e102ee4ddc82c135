"""Sockets of another stranger: one Node process with the `ws` package, spoken to in lines."""

import asyncio
import itertools
import json
from pathlib import Path

from websockets.exceptions import ConnectionClosedError

SCRIPT = Path(__file__).resolve().parent.parent / "node" / "sockets.mjs"
LINE_BYTES_MAX = 16 * 1024 * 1024


class NodeSockets:
    """Opens sockets that can be used as those of `websockets` are used by `wire`."""

    def __init__(self):
        self._ids, self._sockets = itertools.count(1), {}

    async def start(self, certificate):
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            "node", str(SCRIPT), str(certificate), stdin=pipe, stdout=pipe, limit=LINE_BYTES_MAX
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self):
        async for line in self._process.stdout:
            event = json.loads(line)
            self._sockets[event["id"]].events.put_nowait(event)
            if event["ev"] == "end":
                del self._sockets[event["id"]]

    def tell(self, **what):
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def open(self, url):
        """Cancelled by a timeout, it leaves a socket that is cut."""
        socket = NodeSocket(self, next(self._ids))
        self._sockets[socket.id] = socket
        self.tell(do="open", id=socket.id, url=url)
        try:
            if (await socket.events.get())["ev"] != "open":
                raise OSError("refused")
        except asyncio.CancelledError:
            socket.abort()
            raise
        return socket

    async def close(self):
        self._process.stdin.close()
        await self._process.wait()
        await self._reading


class NodeSocket:
    def __init__(self, sockets, id):
        self.sockets, self.id, self.events = sockets, id, asyncio.Queue()
        self.close_code = self.close_reason = None
        self.transport = self

    async def recv(self):
        event = await self.events.get()
        if event["ev"] == "end":
            self.close_code, self.close_reason = event["code"], event["reason"]
            raise ConnectionClosedError(None, None)
        return event["text"]

    async def __aiter__(self):
        while True:
            yield await self.recv()

    async def send(self, text):
        self.sockets.tell(do="send", id=self.id, text=text)

    async def close(self):
        self.sockets.tell(do="close", id=self.id)

    def abort(self):
        self.sockets.tell(do="cut", id=self.id)
