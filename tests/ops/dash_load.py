"""Clients of every kind at once, so that every metric moves: those who chat, come back, fall silent, do not read, have no
token, break the protocol, and an operator who kicks, revokes, renews a certificate, cuts a link and drains a node."""

import asyncio
import contextlib
import json
import random
import shutil
import time
import urllib.request

from dash_cluster import API_KEY

from lab.node import encoded, token
from lab.redis import RedisError
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

# What a client may meet here without anything being wrong with the test.
EXPECTED = (OSError, TimeoutError, WebSocketException, asyncio.IncompleteReadError, KeyError, ValueError)
OPEN_SECONDS = 10
# limits.handshakes_in_flight and the line before it.
STALLED = 600
ROOMS = ("lobby", "news", "team-1", "team-2")


class Load:
    """`run` until it is cancelled or `stop` is set; `seed` decides what varies."""

    def __init__(self, cluster, seed=1):
        self.cluster, self.random = cluster, random.Random(seed)
        self.tls, self.stop = cluster.client_tls(), asyncio.Event()

    async def run(self, seconds):
        self.cluster.application.trouble_since = time.monotonic()
        jobs = [self.again(self.chatter, node, number) for node in self.cluster.nodes for number in range(5)]
        jobs += [self.again(self.flooder), self.again(self.deaf), self.again(self.deaf), self.again(self.silent)]
        jobs += [self.again(job) for job in (self.guest, self.visitor, self.stranger, self.scanner, self.rude, self.echo, self.reader, self.hoarder, self.backend, self.signed_in, self.with_ticket, self.asked)]
        jobs.append(self.operator(seconds))
        async with asyncio.timeout(seconds + 60):
            tasks = [asyncio.create_task(job) for job in jobs]
            await asyncio.sleep(seconds)
            self.stop.set()
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    async def again(self, client, *about):
        """A client that is gone is followed by another, after a moment."""
        while not self.stop.is_set():
            with contextlib.suppress(*EXPECTED):
                await client(*about)
            await asyncio.sleep(self.random.uniform(0.2, 1.0))

    def node(self):
        return self.random.choice(self.cluster.nodes)

    def socket(self, user, node=None, path="/ws", query="", **how):
        url = (node or self.node()).url.removesuffix("/ws")
        good = f"token={token(user, jti=f'{user}-{self.random.random()}')}" if user else ""
        how = {"ping_interval": None, "max_size": None, "close_timeout": 1, "open_timeout": OPEN_SECONDS, **how}
        return connect(f"{url}{path}?{good}{query}", ssl=self.tls, proxy=None, **how)

    async def say(self, socket, kind, **fields):
        await socket.send(json.dumps({"type": kind, **fields}))

    async def chatter(self, node, number):
        """In two rooms; leaves after a while and comes back to where it stood."""
        room, at = ROOMS[number % len(ROOMS)], None
        for _ in range(2):
            async with self.socket(f"user-{node.letter}{number}", node, query="&resume=1" if at else "") as socket:
                await self.say(socket, "join", room=room, **({"since": at} if at else {}))
                await self.say(socket, "join", room="lobby")
                listening = asyncio.create_task(self.listen(socket, room))
                for count in range(self.random.randint(20, 40)):
                    await self.say(socket, "chat", room=room, content=f"number {count}", key=f"{number}-{count % 30}")
                    await self.say(socket, "chat", room="lobby", content="x" * 100)
                    if count % 10 == 0:
                        await self.say(socket, "history", room=room, ref=count, before=10**6, limit=5)
                        await self.say(socket, "list", room=room)
                    await asyncio.sleep(self.random.uniform(0.2, 0.5))
                await self.say(socket, "leave", room="lobby")
                listening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    at = await listening

    async def listen(self, socket, room):
        at, epoch = None, None
        try:
            async for text in socket:
                frame = json.loads(text)
                epoch = frame.get("epoch", epoch) if frame.get("room") == room else epoch
                if frame["type"] == "chat" and frame["room"] == room and epoch:
                    at = {"epoch": epoch, "seq": frame["seq"]}
        except (*EXPECTED, asyncio.CancelledError):
            pass
        return at

    async def flooder(self):
        """Says much and large to those who do not read."""
        async with self.socket("flooder") as socket:
            await self.say(socket, "join", room="flood")
            listening = asyncio.create_task(self.listen(socket, "flood"))
            for _ in range(200):
                await self.say(socket, "chat", room="flood", content="y" * 6000)
                await asyncio.sleep(0.1)
            listening.cancel()

    async def deaf(self):
        """Joins and reads no more, but goes on speaking, so that it is not taken for dead."""
        async with self.socket("deaf") as socket:
            await self.say(socket, "join", room="flood")
            await socket.recv()
            socket.transport.pause_reading()
            for _ in range(40):
                await self.say(socket, "ping")
                await asyncio.sleep(0.5)

    async def silent(self):
        """Neither reads nor answers: a phone in a tunnel."""
        socket = await self.socket("silent", query="&resume=1")
        await socket.recv()
        socket.transport.pause_reading()
        await asyncio.sleep(5)
        socket.transport.abort()

    async def guest(self):
        """Signs in at the server's own counter, and asks for pages."""
        for path in ("/livez", "/conclave.js", "/nowhere"):
            await self.fetch(path)
        origin = self.node().url.replace("wss://", "https://").removesuffix("/ws")
        ask = urllib.request.Request(
            f"{origin}/session", data=b'{"name":"Guest"}', headers={"origin": origin, "content-type": "application/json"}, method="POST"
        )
        await asyncio.to_thread(self.open, ask)

    async def backend(self):
        """The application: says things, looks around, asks for what there is not."""
        said = json.dumps({"content": "from the application"}).encode()
        for path, body in (
            ("rooms/lobby/chat", said),
            ("rooms/lobby/users", None),
            ("users/kicked/message", said),
            ("nodes", None),
            ("nowhere", None),
            ("rooms/lobby/chat", b"no JSON"),
        ):
            headers = {"Authorization": f"Bearer {API_KEY}", "content-type": "application/json"}
            await self.fetch(f"/api/v1/{path}", data=body, headers=headers)

    async def signed_in(self):
        """Known by the application's own session, twice within the time that its answer counts."""
        node, cookie = self.node(), f"session={self.random.randint(100_000, 999_999)}"
        origin = node.url.replace("wss://", "https://").removesuffix("/ws")
        for _ in range(2):
            async with connect(node.url, ssl=self.tls, proxy=None, origin=origin, additional_headers={"Cookie": cookie}, open_timeout=OPEN_SECONDS) as socket:
                await socket.recv()

    async def with_ticket(self):
        """Once, and once too often."""
        node = self.node()
        origin = node.url.replace("wss://", "https://").removesuffix("/ws")
        ask = urllib.request.Request(f"{origin}/ticket", data=b"", headers={"Authorization": f"Bearer {token('ticketed')}"}, method="POST")
        ticket = json.loads(await asyncio.to_thread(self.open, ask))["ticket"]
        for _ in range(2):
            async with self.socket(None, node, query=f"token={ticket}") as socket:
                with contextlib.suppress(*EXPECTED):
                    await socket.recv()

    async def asked(self):
        """Into a room that the application is asked about."""
        async with self.socket("asked") as socket:
            for ref in range(20):
                await self.say(socket, "join", room="asked", ref=ref)
                await asyncio.sleep(0.1)
                await self.say(socket, "leave", room="asked")

    async def fetch(self, path, **how):
        url = self.node().url.replace("wss://", "https://").removesuffix("/ws") + path
        with contextlib.suppress(urllib.error.HTTPError):
            await asyncio.to_thread(self.open, urllib.request.Request(url, **how))

    def open(self, request):
        with urllib.request.urlopen(request, timeout=OPEN_SECONDS, context=self.tls) as answer:
            return answer.read()

    async def visitor(self):
        """In and out, as pages that are reloaded."""
        async with self.socket(None, additional_headers={"Authorization": f"Bearer {token('visitor')}"}) as socket:
            await self.say(socket, "join", room="lobby", since={"epoch": "nobody", "seq": 3})
            for _ in range(3):
                await socket.recv()

    async def stranger(self):
        """Tokens that are missing, forged, too old; a page from elsewhere."""
        forged = token("u").rsplit(".", 1)[0] + "." + encoded(b"0" * 32)
        for query in ("", f"&token={forged}", "&token=no", f"&token={token('u', exp=1)}"):
            async with self.socket(None, query=query) as socket:
                with contextlib.suppress(*EXPECTED):
                    await socket.recv()
        with contextlib.suppress(*EXPECTED):
            await self.socket("u", origin="https://evil.example")

    async def scanner(self):
        """Speaks no TLS, or begins it and leaves."""
        node = self.node()
        for said in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.listen)
            writer.write(said)
            if said:
                async with asyncio.timeout(2):
                    await reader.read()
            writer.close()

    async def rude(self):
        """Everything that is answered with an error, then too much of it, then something that closes."""
        async with self.socket("rude") as socket:
            for text in ("{", '{"type":"dance"}', '{"type":"join"}', '{"type":"join","room":"*"}', '{"type":"leave","room":"never"}'):
                await socket.send(text)
            await self.say(socket, "chat", room="lobby", content="z" * 10_000)
            for number in range(6):
                await self.say(socket, "join", room=f"made-up-{number}")
            for _ in range(self.random.choice((60, 200))):
                await self.say(socket, "ping")
            await socket.send(self.random.choice((b"binary", "w" * 50_000)))
            async with asyncio.timeout(3):
                async for _ in socket:
                    pass

    async def echo(self):
        async with self.socket("echo", path="/echo") as socket:
            for _ in range(10):
                await socket.send(b"x" * 100)
                await socket.recv()
                await asyncio.sleep(0.2)

    async def reader(self):
        """Well behaved, and kicked or revoked now and then."""
        async with self.socket(self.random.choice(("kicked", "revoked"))) as socket:
            await self.say(socket, "join", room="news")
            async for _ in socket:
                pass

    async def hoarder(self):
        """Leaves with much still on its way to it."""
        socket = await self.socket("hoarder")
        await self.say(socket, "join", room="flood", since={"epoch": "nobody", "seq": 0})
        await asyncio.sleep(1)
        socket.transport.abort()

    async def operator(self, seconds):
        """What happens to a cluster in a year, within `seconds`."""
        beat = max(1, seconds / 12 - 2)
        for act in (self.kick, self.renew, self.cut, self.kick, self.outage, self.break_certificate, self.crash, self.ask_admin, self.flood, self.drain, self.kick):
            await asyncio.sleep(beat)
            await act()
        await asyncio.Event().wait()

    async def kick(self):
        await self.cluster.verb("kick", "--user", "kicked")
        await self.cluster.verb("revoke", "--user", "revoked")

    async def renew(self):
        await asyncio.to_thread(self.cluster.renew)
        self.cluster.hang_up()

    async def break_certificate(self):
        """Half written, as a copy that was interrupted leaves it; then whole again."""
        good, broken = self.cluster.identity.certificate, self.cluster.folder / "whole.crt"
        shutil.copyfile(good, broken)
        good.write_text(broken.read_text()[:200])
        self.cluster.hang_up()
        await asyncio.sleep(2)
        shutil.copyfile(broken, good)
        self.cluster.hang_up()

    async def cut(self):
        """Every link is reset."""
        for kind in ("pubsub", "normal"):
            with contextlib.suppress(RedisError):
                await self.cluster.redis.call("CLIENT", "KILL", "TYPE", kind)

    async def outage(self):
        """Redis hears nobody for a moment."""
        links = [self.cluster.redis.proxy.link(node.letter) for node in self.cluster.nodes]
        for link in links:
            link.partition()
        await asyncio.sleep(2.5)
        for link in links:
            link.heal()

    async def crash(self):
        """A node dies and is away for longer than its lease."""
        node = self.cluster.nodes[1]
        await node.kill()
        await asyncio.sleep(5)
        await self.cluster.world.start_node(node)

    async def ask_admin(self):
        """With and without the token."""
        bearer = (self.cluster.folder / "admin.token").read_text().split()[-1]
        for headers in ({}, {"Authorization": f"Bearer {bearer}"}):
            for path in ("/", "/api/overview"):
                ask = urllib.request.Request(f"http://127.0.0.1:{self.cluster.nodes[0].admin}{path}", headers=headers)
                with contextlib.suppress(*EXPECTED):
                    await asyncio.to_thread(self.open_plain, ask)

    def open_plain(self, request):
        with urllib.request.urlopen(request, timeout=OPEN_SECONDS) as answer:
            answer.read()

    async def flood(self):
        """More connections than may shake hands at a time, none of which begins to."""
        asked = (asyncio.open_connection("127.0.0.1", self.cluster.nodes[0].listen) for _ in range(STALLED))
        opened = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(2)
        for each in opened:
            if isinstance(each, tuple):
                each[1].close()

    async def drain(self):
        await self.cluster.drain(self.cluster.nodes[-1])
