"""Redis, three nodes, a balancer that asks them whether they are ready, and somebody who reads their metrics."""

import asyncio
import json
import random
import re
import signal
import time

from lab.node import Identity, Node
from lab.process import Ports, Process, until

from .clients import Client, Speaker

NAMES = ("a", "b", "c")
LOOK_SECONDS = 0.25
SCRAPE_SECONDS = 1.0
HTTP_SECONDS = 6
# Connections that are being made at the same time.
OPENING_MAX = 64
# A whole step: a restart, and everybody back.
STEP_SECONDS = 120


async def get(port, path):
    """Status and body of a request to an admin listener; None if nobody answers."""
    try:
        async with asyncio.timeout(HTTP_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            answer = (await reader.read()).decode()
            writer.close()
            return int(answer.split(" ", 2)[1]), answer.partition("\r\n\r\n")[2]
    except (OSError, TimeoutError, IndexError):
        return None


def total(metrics, pattern):
    return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", metrics, re.M))


class World:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.chance = random.Random(options.seed)
        self.identity = Identity(folder)
        self.tls = self.identity.client_tls()
        self.ports = Ports(options.seed)
        self.opening = asyncio.Semaphore(OPENING_MAX)
        self.events, self.tasks, self.retries, self.is_over = [], set(), 0, False
        self.redis_port = self.ports.take()
        redis = ["redis-server", "--port", self.redis_port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        self.redis = Process("redis", [str(word) for word in redis], folder)
        tables = {
            "tls": {"certificate": str(self.identity.certificate), "key": str(self.identity.key)},
            "drain": {"grace": f"{options.grace}s", "time": f"{options.time}s"},
            "backplane": {"kind": "redis", "url": f"redis://127.0.0.1:{self.redis_port}"},
            # Who comes and goes is counted, not named: this one process reads for everybody.
            "rooms": {"users_shown": 1},
            "limits": {"connections_per_address": 0, "address_messages_per_second": 0},
        }
        self.nodes = [Node(name, options.binary, folder, self.identity, self.ports, tables) for name in NAMES]
        self.lives = dict.fromkeys(NAMES, 0)
        self.rotation = []
        rooms = max(1, options.clients // options.room)
        speakers = max(1, min(options.clients, round(options.messages_per_second * 2)))
        make = lambda number: (Speaker if number < speakers else Client)(
            self, number, f"room-{number % rooms}", random.Random(f"{options.seed}-{number}")
        )
        self.clients = [make(number) for number in range(options.clients)]
        self.speakers = self.clients[:speakers]

    def note(self, ev, **fields):
        if self.is_over:
            return
        self.events.append({"ev": ev, "t": time.monotonic(), **fields})

    def spawn(self, work):
        """A task whose failure ends the run."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.over)
        return task

    def over(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception():
            self.failed.set_exception(task.exception()) if not self.failed.done() else None

    def pick(self, chance):
        if not self.rotation:
            raise OSError("no node is ready")
        return chance.choice(self.rotation)

    async def balance(self):
        """As a balancer: a node that says that it is not ready gets nobody new."""
        while True:
            said = await asyncio.gather(*(get(node.admin, "/readyz") for node in self.nodes))
            self.rotation = [node for node, answer in zip(self.nodes, said) if answer and answer[0] == 200]
            await asyncio.sleep(LOOK_SECONDS)

    async def scrape(self, node):
        while True:
            began, life = time.monotonic(), self.lives[node.letter]
            if (answer := await get(node.admin, "/metrics")) and life == self.lives[node.letter]:
                handshakes = total(answer[1], r'conclave_handshakes_total\{result="ok"\}')
                self.note("scrape", node=node.letter, life=life, handshakes=handshakes, limit=total(answer[1], "conclave_admission_rate"))
            await asyncio.sleep(max(0, began + SCRAPE_SECONDS - time.monotonic()))

    async def start(self, node):
        self.lives[node.letter] += 1
        await node.start({})

    async def run(self, say):
        self.failed = asyncio.get_running_loop().create_future()
        story = asyncio.create_task(self.story(say))
        try:
            await asyncio.wait({story, self.failed}, return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                raise self.failed.exception()
            await story
        finally:
            # What follows happens to nobody.
            self.is_over = True
            for task in [story, *self.tasks]:
                task.cancel()
            for process in [*self.nodes, self.redis]:
                await process.kill()

    async def story(self, say):
        self.redis.spawn()
        await until("redis", lambda: "Ready to accept" in self.redis.said(), process=self.redis)
        for node in self.nodes:
            await self.start(node)
        self.spawn(self.balance())
        for node in self.nodes:
            self.spawn(self.scrape(node))
        await until("the balancer", lambda: len(self.rotation) == len(self.nodes))
        say(f"{len(self.clients)} clients come")
        for client in self.clients:
            self.spawn(client.live())
            await asyncio.sleep(1 / self.options.connects_per_second)
        await self.all_in()
        talking = self.spawn(self.talk())
        for node in self.nodes:
            await asyncio.sleep(self.options.pause)
            await self.restart(node, say)
        await asyncio.sleep(self.options.pause)
        talking.cancel()
        await until("the last answers", lambda: not any(speaker.open for speaker in self.speakers), STEP_SECONDS)
        await until("the last deliveries", self.all_heard, STEP_SECONDS)

    async def restart(self, node, say):
        began = time.monotonic()
        node.child.send_signal(signal.SIGTERM)
        await until(f"the end of {node.name}", lambda: not node.alive(), STEP_SECONDS)
        plan = next(json.loads(line) for line in node.said().splitlines() if '"drain begins"' in line)
        self.note("ended", node=node.letter, code=node.child.returncode)
        took = time.monotonic() - began
        say(
            f"node {node.letter}: {plan['clients']} clients left in {took:.1f} s"
            f" (predicted {plan['end_seconds']:.1f} to {plan['deadline_seconds']:.1f} s,"
            f" {plan['returns_per_second']:.0f} back per second, to {plan['others']} nodes)"
        )
        await self.start(node)
        await until("its place in the rotation", lambda: node in self.rotation)
        await self.all_in()

    async def all_in(self):
        await until("everybody", lambda: all(client.is_in.is_set() for client in self.clients), STEP_SECONDS)

    async def talk(self):
        while True:
            await asyncio.sleep(1 / self.options.messages_per_second)
            await self.chance.choice(self.speakers).say()

    def all_heard(self):
        heads = {}
        for event in self.events:
            if event["ev"] == "acked":
                heads[event["room"]] = max(event["seq"], heads.get(event["room"], 0))
        return all(client.at[1] >= heads.get(client.room, 0) for client in self.clients)
