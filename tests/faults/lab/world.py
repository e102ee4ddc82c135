"""The three nodes and what carries their rooms, in each form; healing puts everything back to how it should be."""

import asyncio
import secrets
import time

from .node import Node
from .process import Process, until
from .proxy import Proxy
from .redis import KEEPING, REPLICATION, Redis, RedisError

ROOMS = ("lobby", "}x {1}")
# Shorter than the defaults, so that a schedule of eight seconds sees them pass.
TIMES = {
    "audit_interval": "2s",
    "lease": "3s",
    "leave_grace": "300ms",
    "call_timeout": "600ms",
    "connect_timeout": "1s",
    "publish_timeout": "2s",
}
HEAL_SECONDS = 40
RESTART_SECONDS = 0.3


class World:
    """Memory: one node and nothing between. The base of all forms."""

    NODES = ("a",)
    DENSE = True

    def __init__(self, binary, folder, identity, ports, kept, tables=None):
        self.folder, self.ports, self.kept = folder, ports, kept
        self.sources, self.stores, self.proxies = {}, [], []
        self.refused_starts = 0
        self.build()
        tables = {"backplane": self.backplane(), **(tables or {})}
        self.nodes = [Node(name, binary, folder, identity, ports, tables) for name in self.NODES]

    def build(self):
        """Makes `stores` and `proxies`."""

    def backplane(self):
        return {"kind": "memory"}

    def redis_backplane(self, url):
        more = {"replicas": 1, "wait_timeout": "500ms"} if self.kept == "replica" else {}
        return {"kind": "redis", "url": url, "kept": self.kept, **TIMES, **more}

    async def start(self):
        for proxy in self.proxies:
            await proxy.start()
        await self.start_stores()
        await asyncio.gather(*(self.start_node(node) for node in self.nodes))

    async def start_stores(self):
        await asyncio.gather(*(store.start() for store in self.stores))

    async def start_node(self, node):
        """As a supervisor does: a node that ends at once is started again."""
        deadline = time.monotonic() + HEAL_SECONDS
        while True:
            try:
                await node.start(self.sources)
                return
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                self.refused_starts += 1
                await asyncio.sleep(RESTART_SECONDS)

    async def heal(self):
        for proxy in self.proxies:
            for link in proxy.links.values():
                link.heal()
        for process in [*self.stores, *self.nodes]:
            if process.stopped:
                process.cont()
        await asyncio.gather(*(store.start() for store in self.stores if not store.alive()))
        await self.heal_stores()
        await asyncio.gather(*(self.start_node(node) for node in self.nodes if not node.alive()))

    async def heal_stores(self):
        """The stores agree among themselves again."""

    def processes(self):
        return [*self.nodes, *self.stores]

    async def close(self):
        await asyncio.gather(*(process.kill() for process in self.processes()))
        for proxy in self.proxies:
            await proxy.close()


class Standalone(World):
    NODES = ("a", "b", "c")

    def build(self):
        self.stores = [Redis("redis", self, KEEPING[self.kept])]
        self.proxies = [self.stores[0].proxy]

    def backplane(self):
        return self.redis_backplane(f"redis://127.0.0.1:{self.stores[0].address}")


class Nats(World):
    NODES = ("a", "b", "c")
    DENSE = False

    def build(self):
        port, address = self.ports.take(), self.ports.take()
        self.stores = [NatsServer(self, port)]
        self.proxies = [Proxy("nats", address, port, self.sources)]

    def backplane(self):
        url = f"nats://127.0.0.1:{self.proxies[0].port}"
        return {"kind": "nats", "url": url, "kept": "async", **TIMES}


class NatsServer(Process):
    def __init__(self, world, port):
        self.port = port
        command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(world.folder / "jetstream")]
        super().__init__("nats", command, world.folder)

    async def start(self):
        self.spawn()
        await until("nats", lambda: "Server is ready" in self.said(), process=self)


class Sentinel(World):
    """A master, a replica, three sentinels."""

    NODES = ("a", "b", "c")
    MASTER = "main"

    def build(self):
        options = {**KEEPING[self.kept], **REPLICATION}
        first = Redis("redis-1", self, options)
        second = Redis("redis-2", self, {**options, "replicaof": f"127.0.0.1 {first.address}"})
        self.stores = [first, second]
        names = {f"sentinel-{number}": (secrets.token_hex(20), self.ports.take()) for number in (1, 2, 3)}
        self.sentinels = [SentinelServer(name, self, names) for name in names]
        self.proxies = [server.proxy for server in [*self.stores, *self.sentinels]]

    def backplane(self):
        hosts = ",".join(f"127.0.0.1:{sentinel.address}" for sentinel in self.sentinels)
        return self.redis_backplane(f"redis+sentinel://{hosts}/{self.MASTER}")

    def processes(self):
        return [*super().processes(), *self.sentinels]

    async def start_stores(self):
        await super().start_stores()
        await until("replication", self.stores[1].follows)
        await asyncio.gather(*(sentinel.start() for sentinel in self.sentinels))

    async def master(self):
        """Whom a majority of the sentinels names; None while they do not agree."""
        named = [await sentinel.master() for sentinel in self.sentinels]
        for store in self.stores:
            if named.count(store.address) >= 2:
                return store
        return None

    async def heal(self):
        for sentinel in self.sentinels:
            if sentinel.stopped:
                sentinel.cont()
        await asyncio.gather(*(sentinel.start() for sentinel in self.sentinels if not sentinel.alive()))
        await super().heal()

    async def heal_stores(self):
        await until("one master with its replica", self.agreed, HEAL_SECONDS)

    async def agreed(self):
        """A server that came back as a second master is sent into line, as an operator would; Sentinel takes 8 s."""
        master = await self.master()
        if master is None or await master.role() != "master":
            return False
        for store in self.stores:
            if store is not master and await store.role() == "master":
                await store.call("REPLICAOF", "127.0.0.1", master.address)
                return False
        return all([store is master or await store.follows() for store in self.stores])


class SentinelServer(Process):
    """Knows the others from the start, so that no time goes into finding them."""

    def __init__(self, name, world, names):
        myself, self.port = names[name]
        self.address, self.world = world.ports.take(), world
        self.proxy = Proxy(name, self.address, self.port, world.sources)
        folder = world.folder / name
        folder.mkdir()
        monitored = f"sentinel monitor {world.MASTER} 127.0.0.1 {world.stores[0].address} 2"
        of = f"{world.MASTER} "
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {folder}", f"sentinel myid {myself}", monitored]
        lines += [f"sentinel down-after-milliseconds {of}700", f"sentinel failover-timeout {of}3000"]
        lines += [f"sentinel parallel-syncs {of}1", f"sentinel known-replica {of}127.0.0.1 {world.stores[1].address}"]
        lines += [f"sentinel known-sentinel {of}127.0.0.1 {port} {its}" for other, (its, port) in names.items() if other != name]
        config = folder / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        super().__init__(name, ["redis-server", str(config), "--sentinel"], world.folder)

    async def start(self):
        self.spawn()
        self.world.sources[self.pid] = self.name
        await until(self.name, self.master, process=self)

    async def call(self, *words):
        return await Redis.call(self, *words, seconds=1)

    async def master(self):
        """The port that it names."""
        if not self.alive() or self.stopped:
            return None
        try:
            return int((await self.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.world.MASTER))[1])
        except (OSError, RedisError, TimeoutError, asyncio.IncompleteReadError):
            return None
