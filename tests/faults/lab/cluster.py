"""A Redis Cluster of three masters, with a replica each where `kept` is `replica`; slots that move."""

import asyncio
import binascii
import secrets
import zlib

from .process import until
from .redis import KEEPING, REPLICATION, Redis, RedisError
from .world import HEAL_SECONDS, ROOMS, World

SLOTS = 16_384
PARTITIONS = 1_024


def slot_of(room):
    """Where a room's keys are: the slot of their tag, its partition's number."""
    return binascii.crc_hqx(str(zlib.crc32(room.encode()) % PARTITIONS).encode(), 0) % SLOTS


class Cluster(World):
    NODES = ("a", "b", "c")
    MASTERS = 3

    def build(self):
        options = {**KEEPING[self.kept], **REPLICATION, "cluster-enabled": "yes", "cluster-node-timeout": 1500}
        options |= {"cluster-allow-replica-migration": "no", "cluster-replica-validity-factor": 0}
        count = self.MASTERS * (2 if self.kept == "replica" else 1)
        self.stores = [Member(f"redis-{number + 1}", self, options) for number in range(count)]
        self.proxies = [store.proxy for store in self.stores]
        for store in self.stores:
            lines = [self.line(number, self.stores[number] is store) for number in range(count)]
            lines.append(f"vars currentEpoch {self.MASTERS} lastVoteEpoch 0\n")
            (store.folder / "nodes.conf").write_text("\n".join(lines))

    def line(self, number, myself):
        """As nodes.conf has it: nobody needs to meet anybody."""
        store, flag = self.stores[number], "myself," if myself else ""
        where = f"{store.id} 127.0.0.1:{store.address}@{store.bus}"
        if number >= self.MASTERS:
            master = self.stores[number - self.MASTERS].id
            return f"{where} {flag}slave {master} 0 0 {number - self.MASTERS + 1} connected"
        low, high = number * SLOTS // self.MASTERS, (number + 1) * SLOTS // self.MASTERS - 1
        return f"{where} {flag}master - 0 0 {number + 1} connected {low}-{high}"

    def backplane(self):
        hosts = ",".join(f"127.0.0.1:{store.address}" for store in self.stores[: self.MASTERS])
        return self.redis_backplane(f"redis+cluster://{hosts}")

    async def start_stores(self):
        await super().start_stores()
        await self.heal_stores()

    async def heal_stores(self):
        await until("the cluster", self.whole, HEAL_SECONDS)

    async def whole(self):
        """Everybody says ok, knows the same owners, and every master has its replica."""
        try:
            views = [await store.view() for store in self.stores]
            replicas = [store for store in self.stores if await store.role() == "slave"]
            follow = [await store.follows() for store in replicas]
        except (OSError, RedisError, TimeoutError, asyncio.IncompleteReadError):
            return False
        roles = len(self.stores) - len(replicas) == self.MASTERS
        return roles and all(follow) and views[0] is not None and all(view == views[0] for view in views)

    async def owner(self, slot):
        """The store that holds a slot, as the first one that answers sees it; None if that one is down."""
        for store in self.stores:
            view = await store.view() if store.alive() and not store.stopped else None
            for low, high, name in view or ():
                if low <= slot <= high:
                    return next((store for store in self.stores if store.id == name and store.alive()), None)
        return None

    async def move_slot(self, room, chance, hold):
        """Moves the slot of a room to another master while it is written to, key by key."""
        slot = slot_of(room)
        source = await self.owner(slot)
        masters = [store for store in self.stores if store is not source and await store.role() == "master"]
        if source is None or not masters:
            return
        target = chance.choice(masters)
        await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        await hold()
        while keys := await source.call("CLUSTER", "GETKEYSINSLOT", slot, 3):
            await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 2000, "KEYS", *keys)
        for store in (target, source, *masters):
            await store.call("CLUSTER", "SETSLOT", slot, "NODE", target.id)


class Member(Redis):
    def __init__(self, name, world, options):
        self.id, self.bus = secrets.token_hex(20), world.ports.take()
        super().__init__(name, world, {**options, "cluster-port": self.bus}, announce=False)
        announced = {"cluster-announce-ip": "127.0.0.1", "cluster-announce-port": self.address}
        announced |= {"cluster-announce-bus-port": self.bus}
        with open(self.folder / "redis.conf", "a", encoding="utf-8") as config:
            config.writelines(f"{key} {value}\n" for key, value in announced.items())

    async def view(self):
        """[(low, high, master's id)] as this one sees it; None unless it says that the cluster is well."""
        if "cluster_state:ok" not in await self.call("CLUSTER", "INFO"):
            return None
        return sorted((low, high, master[2]) for low, high, master, *_ in await self.call("CLUSTER", "SLOTS"))
