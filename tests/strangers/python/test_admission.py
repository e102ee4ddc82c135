import http.client
import json
import time
import unittest

from client import Client
from server import Server, sign
from websockets.exceptions import InvalidStatus

LISTED = "https://app.example.com"


class Admission(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(origin={"allow": [LISTED]}, session={"enabled": True})

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    async def test_a_token_is_taken_from_query_header_and_cookie(self):
        token = self.server.token("u7", name="Ann")
        places = {
            "query": {"query": f"?token={token}"},
            "header": {"headers": {"Authorization": f"Bearer {token}"}},
            "cookie": {"headers": {"Cookie": f"conclave_token={token}"}, "origin": LISTED},
        }
        for name, place in places.items():
            with self.subTest(name):
                client = await Client.connect(self.server, subprotocols=["conclave.v1"], **place)
                welcome = await client.next(type="connected")
                self.assertIs(client.frames[0], welcome)
                self.assertEqual((welcome["protocol"], welcome["user"]), (1, {"id": "u7", "name": "Ann"}))
                self.assertEqual(client.socket.subprotocol, "conclave.v1")
                await client.close()

    async def test_a_bad_token_is_upgraded_and_closed_with_its_word(self):
        now = int(time.time())
        good = {"sub": "u1", "exp": now + 60}
        query = lambda claims, **how: {"query": f"?token={sign(claims, **how)}"}
        cases = [
            ("token_missing", {}),
            ("token_malformed", {"query": "?token=hello"}),
            ("token_malformed", query({"sub": "u1", "exp": "soon"})),
            ("token_malformed", query(f'{{"sub":"u1","sub":"u2","exp":{now + 60}}}')),
            ("token_malformed", query(good, crit=["exp"])),
            ("token_signature", query(good, secret=b"of somebody else, and long enough")),
            ("token_signature", query(good, alg="none")),
            ("token_signature", query(good, alg="HS384")),
            ("token_expired", query({"sub": "u1", "exp": now - 60})),
            ("token_not_yet_valid", query({**good, "nbf": now + 60})),
            ("token_audience", query({**good, "aud": "elsewhere"})),
            ("cookie_origin", {"headers": {"Cookie": f"conclave_token={sign(good)}"}}),
        ]
        for reason, how in cases:
            with self.subTest(reason, how=how):
                client = await Client.connect(self.server, **how)
                self.assertEqual(await client.closed(), (1008, reason))
                self.assertEqual(client.frames, [])

    async def test_a_foreign_origin_is_refused_before_the_upgrade(self):
        for origin in ("https://evil.example", "null", f"{LISTED}.evil.example"):
            with self.subTest(origin), self.assertRaises(InvalidStatus) as refused:
                await Client.connect(self.server, f"?token={self.server.token('u1')}", origin=origin)
            self.assertEqual(refused.exception.response.status_code, 403)

    async def test_the_cookie_of_a_guest_opens_the_socket(self):
        https = http.client.HTTPSConnection(self.server.authority, context=self.server.tls, timeout=20)
        headers = {"Content-Type": "application/json", "Origin": self.server.origin}
        https.request("POST", "/session", json.dumps({"name": "Ann"}), headers)
        answer = https.getresponse()
        self.assertLess(answer.status, 300, answer.read())
        cookie = answer.getheader("Set-Cookie")
        https.close()
        self.assertIn("httponly", cookie.lower())
        self.assertIn("secure", cookie.lower())
        client = await Client.connect(self.server, headers={"Cookie": cookie.split(";")[0]}, origin=self.server.origin)
        user = (await client.next(type="connected"))["user"]
        self.assertEqual(user["name"], "Ann")
        self.assertTrue(user["id"].startswith("guest:"), user)
        await client.close()
