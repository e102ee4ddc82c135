import asyncio
import os
import random
import unittest

from client import Client
from server import Server

SEED = int(os.environ.get("SEED", 20_260_101))
CUTS = 20


class Resume(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(history={"messages": 10_000})

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    async def test_twenty_cuts_lose_and_double_nothing(self):
        print(f"SEED={SEED}", flush=True)
        chance = random.Random(SEED)
        speakers = [await Client.joined(self.server, sub, "cuts") for sub in ("ann", "bob")]
        token = self.server.token("reader")
        speaking, said = True, [[], []]

        async def speak(index):
            while speaking:
                burst = (speakers[index].ask("chat", room="cuts", content=[index, n]) for n in range(chance.randint(1, 8)))
                said[index] += [answer["seq"] for answer in await asyncio.gather(*burst)]

        async def visit(place, more, to=None):
            """Joins from `place`, reads `more` chats or up to `to`, and is cut off. What it got, and where it stood then."""
            reader = await Client.connect(self.server, f"?token={token}")
            listed = await reader.ask("join", room="cuts", **({"since": place} if place else {}))
            self.assertEqual(listed.get("recovered"), True if place else None)
            seq = place["seq"] if place else listed["seq"]
            end = to if to is not None else seq + more
            for expected in range(seq + 1, end + 1):
                await reader.next(type="chat", seq=expected)
            await reader.cut()
            # All that came counts, also what came after the last one waited for.
            chats, epoch = reader.of("chat"), listed["epoch"]
            for chat in chats:
                epoch = chat.get("epoch", epoch)
            return chats, {"epoch": epoch, "seq": chats[-1]["seq"] if chats else seq}

        got, place = await visit(None, 0)
        self.assertEqual((got, place["seq"]), ([], 0))
        speeches = [asyncio.create_task(speak(index)) for index in range(2)]
        for _ in range(CUTS):
            chats, place = await visit(place, chance.randint(0, 40))
            got += chats
        speaking = False
        await asyncio.gather(*speeches)
        head = max(map(max, said))
        chats, place = await visit(place, 0, to=head)
        got += chats
        self.assertEqual([chat["seq"] for chat in got], list(range(1, head + 1)))
        for index in range(2):
            self.assertEqual([chat["seq"] for chat in got if chat["content"][0] == index], said[index])
        for speaker in speakers:
            await speaker.close()

    async def test_a_foreign_place_is_not_recovered(self):
        ann = await Client.joined(self.server, "ann", "foreign")
        ok = await ann.ask("chat", room="foreign", content=1)
        for since in ({"epoch": "elsewhere", "seq": 0}, {"epoch": ok["epoch"], "seq": 99}):
            back = await Client.signed_in(self.server, "bob")
            listed = await back.ask("join", room="foreign", since=since)
            self.assertIs(listed["recovered"], False)
            await back.ask("ping")
            self.assertEqual(back.of("chat"), [])
            await back.close()
        await ann.close()
