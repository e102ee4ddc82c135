"""Redis servers as child processes, each behind its proxy, and the few commands that the lab gives them."""

import asyncio
import shutil

from .process import Process, until
from .proxy import Proxy

CALL_SECONDS = 5
NEVER = "2147483647"


class RedisError(Exception):
    pass


async def call(port, *words, seconds=CALL_SECONDS):
    """One command over a connection of its own."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            parts = [str(word).encode() for word in words]
            writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            return await answer(reader)
        finally:
            writer.close()


async def answer(reader):
    line = (await reader.readuntil(b"\r\n"))[:-2]
    kind, rest = line[:1], line[1:].decode()
    if kind == b"-":
        raise RedisError(rest)
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == "-1" else (await reader.readexactly(int(rest) + 2))[:-2].decode(errors="replace")
    if kind == b"*":
        return [await answer(reader) for _ in range(int(rest))]
    return rest


class Redis(Process):
    """`port` is its own, `address` the one that everybody else uses: its proxy's."""

    def __init__(self, name, world, options, announce=True):
        self.port, self.address = world.ports.take(), world.ports.take()
        self.world, self.folder = world, world.folder / name
        self.folder.mkdir()
        self.proxy = Proxy(name, self.address, self.port, world.sources)
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": '""', "protected-mode": "no", **options}
        if announce:
            options |= {"replica-announce-ip": "127.0.0.1", "replica-announce-port": self.address}
        config = self.folder / "redis.conf"
        config.write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        super().__init__(name, ["redis-server", str(config)], world.folder)

    async def start(self, *more):
        self.command = [*self.command[:2], *more]
        self.spawn()
        self.world.sources[self.pid] = self.name
        await until(f"{self.name}", self.answers, process=self)

    async def answers(self):
        try:
            return await self.call("PING") == "PONG"
        except (OSError, RedisError, TimeoutError, asyncio.IncompleteReadError):
            return False

    async def call(self, *words, seconds=CALL_SECONDS):
        return await call(self.port, *words, seconds=seconds)

    async def role(self):
        """`master` or `slave`; None if it does not say."""
        if not self.alive() or self.stopped:
            return None
        try:
            return (await self.call("ROLE", seconds=1))[0]
        except (OSError, RedisError, TimeoutError, asyncio.IncompleteReadError):
            return None

    async def follows(self):
        """Whether it is a replica whose link to its master stands."""
        said = await self.call("ROLE")
        return said[0] == "slave" and said[3] == "connected"

    async def save(self, copy):
        await self.call("SAVE")
        shutil.copyfile(self.folder / "dump.rdb", copy)

    def put_back(self, copy):
        """While it is down: the next start begins with this dump."""
        shutil.copyfile(copy, self.folder / "dump.rdb")


# How safely a Redis keeps what it took, by `kept`. With `async` only what was saved by hand survives a kill.
KEEPING = {
    "disk": {"appendonly": "yes", "appendfsync": "always"},
    "replica": {"appendonly": "yes", "appendfsync": "everysec", "min-replicas-to-write": 1, "min-replicas-max-lag": 3},
    "async": {"appendonly": "no"},
}
REPLICATION = {"repl-diskless-sync-delay": 0, "repl-ping-replica-period": 1, "repl-timeout": 5}
