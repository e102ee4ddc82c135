import asyncio
import time
import unittest

from client import Client
from server import Server, sign


class Endings(unittest.IsolatedAsyncioTestCase):
    async def serve(self, **tables):
        server = await asyncio.to_thread(Server, **tables)
        self.addCleanup(server.close)
        return server

    async def test_violations_have_their_codes(self):
        server = await self.serve()
        cases = [
            ((1003, "binary"), lambda socket: socket.send(b"\x00")),
            ((1007, "utf8"), lambda socket: socket.send(b'"\xff"', text=True)),
            ((1009, "too_large"), lambda socket: socket.send("x" * 262_145)),
        ]
        for expected, act in cases:
            with self.subTest(expected):
                client = await Client.joined(server, "ann", "r")
                await act(client.socket)
                self.assertEqual(await client.closed(), expected)

    async def test_a_token_that_runs_out_ends_the_connection(self):
        server = await self.serve(auth={"leeway": "0s"})
        expires = int(time.time()) + 3
        client = await Client.connect(server, f"?token={sign({'sub': 'ann', 'exp': expires})}")
        self.assertEqual((await client.next(type="connected"))["expires"], expires)
        self.assertEqual(await client.closed(), (1008, "token_expired"))
        self.assertGreaterEqual(time.time(), expires)

    async def test_who_ignores_its_rate_is_ended(self):
        server = await self.serve(limits={"messages_per_second": 1, "messages_burst": 3})
        client = await Client.signed_in(server, "ann")
        for ref in range(5):
            await client.send("ping", ref=ref)
        error = await client.next(type="error")
        self.assertEqual(error["code"], "rate_limited")
        self.assertGreater(error["retry_after_ms"], 0)
        for _ in range(40):
            if client.ended:
                break
            await client.socket.send('{"type":"ping"}')
        self.assertEqual(await client.closed(), (1008, "abuse"))

    async def test_a_drain_says_when_to_come_back(self):
        server = await self.serve(drain={"grace": "100ms", "time": "1s"})
        clients = [await Client.joined(server, f"u{number}", "drain") for number in range(5)]
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        for client in clients:
            self.assertEqual(await client.closed(), (1012, "restart"))
            self.assertEqual(client.frames[-1]["type"], "closing")
            self.assertGreaterEqual(client.frames[-1]["reconnect_after_ms"], 0)
        self.assertEqual(await stopping, 0)
