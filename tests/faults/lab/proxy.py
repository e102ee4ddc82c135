"""A TCP proxy in front of each server, so that a link can break in every way without root.

Who connects is asked of the kernel, so one proxy can cut node `a` off and leave node `b` alone, and
a server has one address for all, as Sentinel and Cluster announce it. A partition holds bytes back, ends too, and lets
them go when it heals, as TCP does; whoever waits less long than it lasts gives up first.
"""

import asyncio
import collections
import os
import socket
import struct

# What one end may have waiting for the other before it is read no further.
WAITING_BYTES_MAX = 256 * 1024


class Way:
    """One direction of a link."""

    def __init__(self):
        self.free, self.delay_seconds, self.bytes_per_second = True, 0.0, 0
        self.ends = set()

    def plain(self):
        return self.free and not self.delay_seconds and not self.bytes_per_second

    def set(self, free=True, delay_seconds=0.0, bytes_per_second=0):
        self.free, self.delay_seconds, self.bytes_per_second = free, delay_seconds, bytes_per_second
        for end in list(self.ends):
            end.pump()


class Link:
    """Everything between one source and one server."""

    def __init__(self):
        self.there, self.back = Way(), Way()

    def ways(self, direction):
        return {"there": [self.there], "back": [self.back], "both": [self.there, self.back]}[direction]

    def partition(self, direction="both"):
        for way in self.ways(direction):
            way.set(free=False)

    def slow(self, delay_seconds, bytes_per_second=0):
        for way in self.ways("both"):
            way.set(delay_seconds=delay_seconds, bytes_per_second=bytes_per_second)

    def heal(self):
        for way in self.ways("both"):
            way.set()

    def reset(self):
        """RST to both ends of every connection."""
        for end in [*self.there.ends, *self.back.ends]:
            end.reset()


class End(asyncio.Protocol):
    """One end of a connection: hands what it reads to the other end, as the way allows."""

    def __init__(self):
        self.transport = self.other = self.way = None
        # (when it has come through, data), in order; the end of the stream is b""
        self.waiting, self.bytes = collections.deque(), 0
        self.through_at = 0.0
        self.timer, self.full = None, False

    def connection_made(self, transport):
        self.transport = transport

    def pair(self, other, way):
        self.other, self.way = other, way
        way.ends.add(self)
        self.pump()

    def data_received(self, data):
        if self.way is not None and not self.waiting and not self.full and self.way.plain():
            self.other.transport.write(data)
            return
        self.wait(data)
        self.bytes += len(data)
        if self.bytes > WAITING_BYTES_MAX:
            self.transport.pause_reading()
        self.pump()

    def eof_received(self):
        """Neither Redis nor NATS speaks on over a half-closed connection, so the first end ends both, in its turn."""
        self.wait(b"")
        self.pump()
        return True

    def connection_lost(self, why):
        if self.way is None:
            return
        self.way.ends.discard(self)
        self.wait(b"")
        self.pump()

    def pause_writing(self):
        self.other.full = True

    def resume_writing(self):
        self.other.full = False
        self.other.pump()

    def wait(self, data):
        """A narrow link takes its time for each byte; a long one delays all alike."""
        now, way = asyncio.get_running_loop().time(), self.way
        if way and way.bytes_per_second:
            self.through_at = max(self.through_at, now) + len(data) / way.bytes_per_second
        delay_seconds = way.delay_seconds if way else 0.0
        self.waiting.append((max(self.through_at, now) + delay_seconds, data))

    def pump(self):
        """Passes on what has come through."""
        loop = asyncio.get_running_loop()
        while self.way and self.waiting and self.way.free and not self.full and self.timer is None:
            due = self.waiting[0][0]
            if due > loop.time() and not self.way.plain():
                self.timer = loop.call_at(due, self.late)
                return
            self.pass_on()

    def late(self):
        self.timer = None
        self.pump()

    def pass_on(self):
        _, data = self.waiting.popleft()
        self.bytes -= len(data)
        if data:
            self.other.transport.write(data)
            if self.bytes <= WAITING_BYTES_MAX and not self.transport.is_closing():
                self.transport.resume_reading()
        else:
            self.waiting.clear()
            self.other.transport.close()
            self.transport.close()

    def reset(self):
        raw = self.transport.get_extra_info("socket")
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # It is gone already.
        self.transport.abort()


class Proxy:
    """Stands for `server`, whose real port is `target`. `sources`: process id -> name, kept by the lab."""

    def __init__(self, server, port, target, sources):
        self.server, self.port, self.target, self.sources = server, port, target, sources
        self.links, self._tasks = {}, set()

    def link(self, source):
        return self.links.setdefault(source, Link())

    async def start(self):
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Client(self), "127.0.0.1", self.port)

    def accepted(self, client):
        task = asyncio.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, client):
        peer = client.transport.get_extra_info("peername")
        link = self.link(source_of(peer[1], self.port, self.sources) if peer else "other")
        try:
            _, server = await asyncio.get_running_loop().create_connection(End, "127.0.0.1", self.target)
        except OSError:
            client.reset()
            return
        client.pair(server, link.there)
        server.pair(client, link.back)

    async def close(self):
        self._listener.close()
        for link in self.links.values():
            link.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Client(End):
    """The end of whoever connected."""

    def __init__(self, proxy):
        super().__init__()
        self.proxy = proxy

    def connection_made(self, transport):
        super().connection_made(transport)
        self.proxy.accepted(self)


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
