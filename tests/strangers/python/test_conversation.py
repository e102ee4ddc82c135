import asyncio
import unittest

from client import Client
from server import Server


class Conversation(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    async def test_presence_is_of_users_not_of_tabs(self):
        ann = await Client.signed_in(self.server, "ann", name="Ann")
        alone = await ann.ask("join", room="tabs")
        self.assertEqual((alone["type"], alone["users"], alone["count"]), ("list", [{"id": "ann", "name": "Ann"}], 1))
        tabs = [await Client.joined(self.server, "bob", "tabs", name="Bob") for _ in range(2)]
        self.assertEqual((await ann.next(type="join"))["user"], {"id": "bob", "name": "Bob"})
        self.assertEqual((await ann.ask("list", room="tabs"))["count"], 2)
        for tab in tabs:
            await tab.close()
        self.assertEqual((await ann.next(type="left"))["user"]["id"], "bob")
        await ann.ask("ping")
        self.assertEqual([len(ann.of("join")), len(ann.of("left"))], [1, 1])
        await ann.close()

    async def test_a_chat_reaches_everyone_once_however_often_it_is_retried(self):
        ann, bob = await Client.joined(self.server, "ann", "talk"), await Client.joined(self.server, "bob", "talk")
        content = {"text": "grüß 👋", "parts": [1, None, True]}
        first = await ann.ask("chat", room="talk", content=content, key="k1")
        retry = await ann.ask("chat", room="talk", content="something else", key="k1")
        self.assertEqual((first["type"], retry["seq"], retry["epoch"]), ("ok", first["seq"], first["epoch"]))
        await ann.ask("chat", room="talk", content="end")
        for client in (ann, bob):
            await client.next(type="chat", content="end")
            self.assertEqual([chat["content"] for chat in client.of("chat")], [content, "end"])
            self.assertEqual([chat["from"] for chat in client.of("chat")], [{"id": "ann"}] * 2)
            await client.close()

    async def test_history_is_read_backwards_from_its_end(self):
        ann = await Client.joined(self.server, "ann", "pages")
        answers = await asyncio.gather(*(ann.ask("chat", room="pages", content=number) for number in range(23)))
        before, read = answers[-1]["seq"] + 1, []
        while True:
            page = await ann.ask("history", room="pages", before=before, limit=10)
            read = page["messages"] + read
            if not page["more"]:
                break
            before = page["messages"][0]["seq"]
        self.assertEqual([(chat["seq"], chat["content"]) for chat in read], [(number + 1, number) for number in range(23)])
        self.assertEqual(page["first"], 1)
        await ann.close()

    async def test_auth_refreshes_and_takes_rooms_away(self):
        ann = await Client.joined(self.server, "ann", "auth")
        answer = await ann.ask("auth", token=self.server.token("ann", rooms={"other": ["*"]}))
        self.assertEqual(answer["type"], "ok")
        self.assertGreaterEqual(answer["expires"], ann.welcome["expires"])
        removed = await ann.next(type="removed")
        self.assertEqual((removed["room"], removed["reason"]), ("auth", "grant"))
        self.assertEqual((await ann.ask("join", room="auth"))["code"], "forbidden")
        self.assertEqual((await ann.ask("auth", token=self.server.token("bob")))["code"], "forbidden")
        self.assertEqual((await ann.ask("join", room="other"))["type"], "list")
        await ann.close()

    async def test_errors_close_nothing(self):
        ann = await Client.joined(self.server, "ann", "errors")
        asked = {
            "unknown_type": ("shout", {}),
            "bad_message": ("join", {}),
            "bad_room": ("join", {"room": "a*"}),
            "not_joined": ("chat", {"room": "elsewhere", "content": 1}),
            "too_large": ("chat", {"room": "errors", "content": "x" * 65536}),
        }
        for code, (kind, fields) in asked.items():
            with self.subTest(code):
                error = await ann.ask(kind, **fields)
                self.assertEqual((error["type"], error["code"]), ("error", code))
        self.assertEqual((await ann.ask("ping"))["type"], "pong")
        await ann.close()
