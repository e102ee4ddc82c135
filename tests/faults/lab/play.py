"""Plays one schedule: servers up, clients on, faults, everything healed, what history says; then the checkers."""

import asyncio
import contextvars
import json
import random
import time

from . import checker, presence, schedule, tabs
from .clients import Client, Publisher
from .cluster import Cluster
from .nodejs import NodeSockets
from .process import Ports, until
from .record import Record
from .redis import RedisError
from .verdict import Violation
from .wire import Gone, Wire
from .world import ROOMS, Nats, Sentinel, Standalone, World

FORMS = {"memory": World, "standalone": Standalone, "sentinel": Sentinel, "cluster": Cluster, "nats": Nats}
SETTLE_SECONDS = 25
# Two leases, and as much again for a machine that is busy.
PRESENCE_SECONDS = 12
HISTORY_PAGE = 1_000
TICK_SECONDS, STARVED_SECONDS = 0.05, 0.5
VISITOR = presence.VISITOR
current = contextvars.ContextVar("current")


class Lab:
    """One schedule while it runs."""

    def __init__(self, plan, folder, binary, identity, job):
        self.plan, self.folder, self.rooms = plan, folder, ROOMS
        self.record, self.tls = Record(folder / "record.jsonl"), identity.client_tls()
        tables = {"history": {"messages": plan.history_messages}, "log": {"level": "conclave=debug,info"}}
        self.world = FORMS[plan.form](binary, folder, identity, Ports(job), plan.kept, tables)
        self.ending, self.nodejs, self.identity = asyncio.Event(), NodeSockets(), identity
        # Everybody; those who stay connected as well as they can; those of them who also speak.
        self.watching = None
        self.everybody, self.clients, self.publishers = [], [], []

    def said(self, **what):
        """A fault tells what it does and to whom."""
        self.record.add("lab", "fault", fault=current.get(), **what)

    async def tried(self, call):
        """For commands that a server in the middle of another fault may refuse."""
        try:
            await call
        except (OSError, RedisError, TimeoutError, asyncio.IncompleteReadError) as why:
            self.said(refused=str(why))

    async def pause(self, seconds):
        try:
            await asyncio.wait_for(self.ending.wait(), seconds)
        except TimeoutError:
            pass

    async def lane(self, steps):
        for step in steps:
            await self.pause(step.after_seconds)
            if self.ending.is_set():
                return
            current.set(step.fault)
            self.record.add("lab", "fault", fault=step.fault, phase="begins")
            await schedule.action(step.fault)(self, random.Random(step.chance), lambda: self.pause(step.hold_seconds))
            self.record.add("lab", "fault", fault=step.fault, phase="is over")

    async def run(self):
        self.record.add("lab", "claim", **self.plan.claim)
        await self.nodejs.start(self.identity.certificate)
        await self.world.start()
        self.people()
        self.watching = asyncio.create_task(self.watch_the_machine())
        await until("everybody in", lambda: all(client.stands(room) for client in self.clients for room in client.places))
        await until("a link from every node", self.linked)
        lanes = asyncio.gather(*(self.lane(steps) for steps in self.plan.lanes))
        await asyncio.sleep(self.plan.seconds)
        self.ending.set()
        await lanes
        await self.world.heal()
        self.record.add("lab", "fault", fault="", phase="all healed")
        await self.settle()

    async def watch_the_machine(self):
        """Whoever cannot run is not to blame for what is late; the nodes share the machine with the lab."""
        while True:
            before = self.record.now()
            await asyncio.sleep(TICK_SECONDS)
            if self.record.now() - before > STARVED_SECONDS:
                self.record.add("lab", "starved", since=round(before, 3))

    def linked(self):
        """Whether the proxies know whom they carry; a fault on a link would else break nothing."""
        known = {source for proxy in self.world.proxies for source in proxy.links}
        return not self.world.proxies or known >= {node.letter for node in self.world.nodes}

    def people(self):
        chance = random.Random(self.plan.seed)
        own = lambda: random.Random(chance.getrandbits(32))
        if self.plan.presence:
            self.publishers, self.clients, coming = tabs.people(self, own)
            self.everybody = [*self.clients, *coming]
            return
        self.publishers = [Publisher(self, f"p{number + 1}", self.rooms[number % 2], own()) for number in range(4)]
        reading = [self.rooms[:1], self.rooms[:1], self.rooms[1:], self.rooms[1:], self.rooms, self.rooms]
        readers = [Client(self, f"r{number + 1}", rooms, own(), nodejs=number % 2 == 1) for number, rooms in enumerate(reading)]
        self.clients = self.everybody = [*self.publishers, *readers]

    async def settle(self):
        """First without anything new, so that a lost last wake-up is seen; then with one more chat in every room."""
        for publisher in self.publishers:
            publisher.speaking = False
        await self.waited("answers", lambda: not any(publisher.open for publisher in self.publishers))
        await self.waited("everybody at the head", self.caught_up)
        for publisher in self.publishers[: len(self.rooms)]:
            publisher.say()
        await self.waited("the last chats", lambda: not any(publisher.open for publisher in self.publishers))
        await self.waited("everybody at the end", self.caught_up)
        await self.waited("every node at the end", self.agreed)
        if self.plan.presence:
            await self.waited("presence", self.all_told, PRESENCE_SECONDS)
            for room in self.rooms:
                self.record.add("lab", "there", room=room, users=sorted(tabs.there(self.everybody, room)))
        self.record.add("lab", "quiet", clients=[client.name for client in self.clients])
        for room in self.rooms:
            for node in self.world.nodes:
                await self.truth(node, room)

    async def all_told(self):
        """Whether everybody who stays, and every node, lists those who are there."""
        for room in self.rooms:
            there = tabs.there(self.everybody, room)
            for client in self.clients:
                if room in client.places and client.places[room].users - {VISITOR} != there:
                    return False
            for node in self.world.nodes:
                listed = await self.listed(node, room)
                if listed is None or {user["id"] for user in listed["users"]} - {VISITOR} != there:
                    return False
        return True

    async def waited(self, what, found, seconds=SETTLE_SECONDS):
        """Whoever does not come is found by the checker."""
        began = time.monotonic()
        try:
            await until(what, found, seconds)
        except TimeoutError as why:
            self.record.add("lab", "late", what=str(why))
        self.record.add("lab", "settled", what=what, seconds=round(time.monotonic() - began, 3))

    async def caught_up(self):
        for room in self.rooms:
            stands = {client.stands(room) for client in self.clients if room in client.places}
            if len(stands) != 1 or None in stands:
                return False
            head = await self.head(room)
            if head is None or stands != {head}:
                return False
        return True

    async def agreed(self):
        """Whether all nodes tell newcomers the same; one where nobody is may have missed a wake-up, and finds out by its audit."""
        for room in self.rooms:
            listed = [await self.listed(node, room) for node in self.world.nodes]
            if None in listed or len({(told["epoch"], told["seq"]) for told in listed}) != 1:
                return False
        return True

    async def head(self, room):
        listed = await self.listed(random.choice(self.world.nodes), room)
        return listed and (listed["epoch"], listed["seq"])

    async def listed(self, node, room):
        """As a newcomer is told there; None if nothing is."""
        try:
            wire = await Wire.open(self, VISITOR, VISITOR, node)
        except Gone:
            return None
        try:
            listed = await ask(wire, "join", room=room)
            return listed if listed["type"] == "list" else None
        except (Gone, TimeoutError):
            return None
        finally:
            wire.cut()

    async def truth(self, node, room):
        """Asked again where a busy machine has the node say `unavailable`; how long it takes is for `settle` to judge."""
        told = await until(f"the history of {node.name}", lambda: self.read(node, room), SETTLE_SECONDS)
        self.record.add("lab", "truth", node=node.letter, room=room, **told)

    async def read(self, node, room):
        """The whole history, page by page, backwards; None if something of it is refused."""
        try:
            wire = await Wire.open(self, VISITOR, VISITOR, node)
        except Gone:
            return None
        try:
            listed = await ask(wire, "join", room=room)
            if listed["type"] != "list":
                return None
            messages, before, more = [], listed["seq"] + 1, True
            while more:
                page = await ask(wire, "history", room=room, before=before, limit=HISTORY_PAGE)
                if page["type"] != "history":
                    return None
                messages = named_epochs(page) + messages
                more = page["more"] and bool(page["messages"])
                before = messages[0]["seq"] if messages else 0
            told = {"epoch": listed["epoch"], "seq": listed["seq"], "messages": messages}
            told["first"] = messages[0]["seq"] if messages else listed["seq"] + 1
            return told | {"users": [user["id"] for user in listed["users"]]}
        except (Gone, TimeoutError):
            return None
        finally:
            wire.cut()

    async def close(self):
        if self.watching:
            self.watching.cancel()
        await asyncio.gather(*(client.end() for client in self.everybody))
        await self.nodejs.close()
        await self.world.close()
        self.record.close()


async def ask(wire, kind, **fields):
    ref = wire.next_ref()
    await wire.send(kind, **fields)
    async with asyncio.timeout(SETTLE_SECONDS):
        async for frame in wire.frames():
            if frame.get("ref") == ref:
                return frame
    raise Gone


def named_epochs(page):
    """Each chat with its epoch: named by the first of each epoch where a page spans several, else the page's own."""
    epoch, chats = page["epoch"], []
    for chat in page["messages"]:
        epoch = chat.get("epoch", epoch)
        chats.append({"seq": chat["seq"], "epoch": epoch, "content": chat["content"]})
    return chats


async def play(plan, folder, binary, identity, job):
    """The violations, and a line about what went on."""
    (folder / "plan.json").write_text(json.dumps(plan._asdict(), indent=1))
    lab = Lab(plan, folder, binary, identity, job)
    try:
        await lab.run()
    finally:
        await lab.close()
    panics = [Violation("panic", "", node.name, str(node.log)) for node in lab.world.nodes if "panicked at" in node.log.read_text()]
    violations = panics + checker.check(lab.record.events) + (presence.check(lab.record.events) if plan.presence else [])
    refused = f", {lab.world.refused_starts} starts refused" if lab.world.refused_starts else ""
    return violations, told(lab.record.events) + refused


def told(events):
    got = [event["frame"] for event in events if event["ev"] == "got"]
    count = lambda kind: sum(frame["type"] == kind for frame in got)
    away = sum(frame.get("recovered") is False for frame in got)
    back = sum(frame.get("recovered") is True for frame in got)
    settling = sum(event["seconds"] for event in events if event["ev"] == "settled")
    return f"settled in {settling:.1f} s, {count('chat')} chats, {count('ok')} ok, {count('reset')} resets, {back} recovered, {away} not"
