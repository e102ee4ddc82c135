"""The proxy breaks what it is told to break, and nothing else."""

import asyncio
import os
import unittest

from lab.process import Ports
from lab.proxy import Proxy

WAIT_SECONDS = 10


class Through(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        ports = Ports(79)
        self.server = await asyncio.start_server(self.echo, "127.0.0.1", 0)
        target = self.server.sockets[0].getsockname()[1]
        self.proxy = Proxy("echo", ports.take(), target, {os.getpid(): "me"})
        await self.proxy.start()

    async def asyncTearDown(self):
        await self.proxy.close()
        self.server.close()

    async def echo(self, reader, writer):
        try:
            while data := await reader.read(1024):
                writer.write(data)
                if data == b"last":
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        writer.close()

    async def connected(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        self.addAsyncCleanup(self.closed, writer)
        return reader, writer

    async def closed(self, writer):
        writer.transport.abort()

    async def said(self, link, text=b"a"):
        link[1].write(text)
        async with asyncio.timeout(WAIT_SECONDS):
            return await link[0].readexactly(len(text))

    async def test_it_carries_and_knows_who_connects(self):
        link = await self.connected()
        self.assertEqual(await self.said(link, b"hello"), b"hello")
        self.assertEqual(list(self.proxy.links), ["me"])

    async def test_a_reset_ends_what_is_open_and_nothing_new(self):
        link = await self.connected()
        await self.said(link)
        self.proxy.link("me").reset()
        with self.assertRaises((ConnectionError, asyncio.IncompleteReadError)):
            await self.said(link)
        self.assertEqual(await self.said(await self.connected()), b"a")

    async def test_a_partition_holds_one_way_or_both_back_until_it_heals(self):
        for direction in ("there", "back", "both"):
            with self.subTest(direction):
                link = await self.connected()
                await self.said(link)
                self.proxy.link("me").partition(direction)
                link[1].write(b"late")
                waiting = asyncio.create_task(link[0].readexactly(4))
                self.assertEqual((await asyncio.wait([waiting], timeout=0.1))[0], set())
                self.proxy.link("me").heal()
                async with asyncio.timeout(WAIT_SECONDS):
                    self.assertEqual(await waiting, b"late")

    async def test_a_slow_link_delays_all_alike_and_keeps_their_order(self):
        link = await self.connected()
        self.proxy.link("me").slow(0.05)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(20):
            link[1].write(b"%02d" % number)
            await asyncio.sleep(0.005)
        async with asyncio.timeout(WAIT_SECONDS):
            text = await link[0].readexactly(40)
        self.assertEqual(text, b"".join(b"%02d" % number for number in range(20)))
        # Twice on its way, once there and once back; not once for each piece.
        self.assertGreaterEqual(loop.time() - began, 0.1)

    async def test_the_end_of_one_side_reaches_the_other_after_what_it_said(self):
        link = await self.connected()
        self.proxy.link("me").partition("back")
        link[1].write(b"last")
        await asyncio.sleep(0.05)
        self.proxy.link("me").heal()
        async with asyncio.timeout(WAIT_SECONDS):
            self.assertEqual(await link[0].read(), b"last")

    async def test_other_sources_are_left_alone(self):
        self.proxy.link("somebody").partition()
        self.assertEqual(await self.said(await self.connected()), b"a")


if __name__ == "__main__":
    unittest.main()
