"""A TCP proxy in front of each server, so that a link can break in every way without root.

Who connects is asked of the kernel, so one proxy can cut node `a` off and leave node `b` alone, and
a server has one address for all, as Sentinel and Cluster announce it. A partition holds bytes back, ends too, and lets
them go when it heals, as TCP does; whoever waits less long than it lasts gives up first.
"""

import asyncio
import os
import socket
import struct

CHUNK_BYTES = 64 * 1024


class Way:
    """One direction of a link."""

    def __init__(self):
        self.free = asyncio.Event()
        self.free.set()
        self.delay_seconds = 0.0
        self.bytes_per_second = 0

    async def pass_on(self, reader, writer):
        while True:
            data = await reader.read(CHUNK_BYTES)
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            if self.bytes_per_second:
                await asyncio.sleep(len(data) / self.bytes_per_second)
            await self.free.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()


class Link:
    """Everything between one source and one server."""

    def __init__(self):
        self.there, self.back = Way(), Way()
        self.pairs = set()

    def ways(self, direction):
        return {"there": [self.there], "back": [self.back], "both": [self.there, self.back]}[direction]

    def partition(self, direction="both"):
        for way in self.ways(direction):
            way.free.clear()

    def slow(self, delay_seconds, bytes_per_second=0):
        for way in self.ways("both"):
            way.delay_seconds, way.bytes_per_second = delay_seconds, bytes_per_second

    def heal(self):
        self.slow(0.0)
        for way in self.ways("both"):
            way.free.set()

    def reset(self):
        """RST to both ends of every connection."""
        for pair in list(self.pairs):
            for writer in pair:
                abort(writer)


def abort(writer):
    raw = writer.get_extra_info("socket")
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # It is gone already.
    writer.transport.abort()


class Proxy:
    """Stands for `server`, whose real port is `target`. `sources`: process id -> name, kept by the lab."""

    def __init__(self, server, port, target, sources):
        self.server, self.port, self.target, self.sources = server, port, target, sources
        self.links = {}
        self._tasks = set()

    def link(self, source):
        return self.links.setdefault(source, Link())

    async def start(self):
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def _accept(self, reader, writer):
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader, writer):
        peer = writer.get_extra_info("peername")
        link = self.link(source_of(peer[1], self.port, self.sources) if peer else "other")
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            abort(writer)
            return
        await self._carry(link, (reader, writer), upstream)

    async def _carry(self, link, client, server):
        pair = (client[1], server[1])
        link.pairs.add(pair)
        ways = [
            asyncio.create_task(link.there.pass_on(client[0], server[1])),
            asyncio.create_task(link.back.pass_on(server[0], client[1])),
        ]
        try:
            # Neither Redis nor NATS speaks on over a half-closed connection, so the first end ends both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            link.pairs.discard(pair)
            for writer in pair:
                writer.close()

    async def close(self):
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def source_of(peer, here, sources):
    """The name of the process at the other end of a loopback connection, from its port `peer` to our `here`."""
    inode = inode_of(peer, here)
    if inode:
        wanted = f"socket:[{inode}]"
        for pid, name in sources.items():
            if holds(pid, wanted):
                return name
    return "other"


# sock_diag(7): one socket, by its addresses; /proc/net/tcp takes long while others have many connections.
SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, ALL_STATES = 4, 20, 1, 0xFFFFFFFF
HEADER, REQUEST = struct.Struct("=IHHII"), struct.Struct("=BBBBI")
INODE_AT = HEADER.size + 4 + 48 + 16


def inode_of(local, remote):
    loopback = socket.inet_aton("127.0.0.1").ljust(16, b"\0")
    ports = struct.pack("!HH", local, remote)
    anybody = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    body = REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, ALL_STATES) + ports + loopback * 2 + anybody
    header = HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
        kernel.send(header + body)
        answer = kernel.recv(4096)
    if HEADER.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY:
        return None
    return struct.unpack_from("=I", answer, INODE_AT)[0]


def holds(pid, wanted):
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{entry}") == wanted for entry in os.listdir(folder))
    except OSError:
        return False  # Gone, or an entry went while it was read.
