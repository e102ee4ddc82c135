"""Tokens that must get nobody in, from published examples, attack tools and our own list, at every place where a token may be: zero
accepted, each refused with a word of the protocol's table, and not one packet sent for any of them."""

import asyncio
import collections
import http.server
import json
import re
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse
from pathlib import Path

from forged import Forger
from jwcrypto import jwk, jwt
from lab import PATIENCE_SECONDS, Canary, Lab, counters
from vectors import KEYS, vectors

TOOLS = Path(__file__).with_name("tools")
# README's table of 1008, those that a token can bring about.
WORDS = {
    *("token_missing", "token_malformed", "token_signature", "token_expired", "token_not_yet_valid", "token_issuer"),
    *("token_audience", "ticket_used"),
}
# Handshakes are dear on a small machine.
AT_ONCE = 8
SECRET = "a secret without a name, at least 32 bytes"
CANARY = "http://127.0.0.1:8080"
# What a header may carry; a cookie may not carry all of it.
IN_HEADER = re.compile(r"[\x21-\x7e]+")
IN_COOKIE = re.compile(r"[^;\",\\]+")


def mint(key, alg, kid, claims):
    """A good token as a library makes it that is not ours."""
    token = jwt.JWT(header={"alg": alg, "typ": "JWT", **({"kid": kid} if kid else {})}, claims=claims)
    token.make_signed_token(key)
    return token.serialize()


def places(token, origin):
    """Each way to show `token` in an upgrade: a name, and the arguments of `Node.verdict`."""
    yield "query", (f"?token={urllib.parse.quote(token, safe='')}",)
    if IN_HEADER.fullmatch(token):
        yield "bearer", ("", {"Authorization": f"Bearer {token}"})
        if IN_COOKIE.fullmatch(token):
            yield "cookie", ("", {"Cookie": f"conclave_token={token}"}, origin)


class KeySet(http.server.BaseHTTPRequestHandler):
    """An issuer's key set, which attack tools fetch and change."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_):
        pass


def of_tools(lab, tokens, public):
    """What the attack tools make of good tokens, in a process and with libraries of their own."""
    issuer = http.server.ThreadingHTTPServer(("127.0.0.1", 0), KeySet)
    issuer.body = json.dumps({"keys": [{**public.export_public(as_dict=True), "x5c": ["AA=="]}]}).encode()
    threading.Thread(target=issuer.serve_forever, daemon=True).start()
    given = {
        "tokens": tokens,
        "public": lab.write("public.pem", public.export_to_pem()),
        "issuer": f"http://127.0.0.1:{issuer.server_port}/jwks.json",
        "canary": CANARY,
    }
    done = subprocess.run(
        [TOOLS / ".venv/bin/python", "-B", TOOLS / "attack.py"], input=json.dumps(given), cwd=lab.folder, capture_output=True, text=True
    )
    issuer.shutdown()
    issuer.server_close()
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [tuple(one) for one in json.loads(done.stdout)]


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.claims = {"sub": "mallory", "name": "Mallory", "iat": int(time.time()), "exp": int(time.time()) + 36_000}
        cls.keys = {kid: jwk.JWK(**{**key, "kid": kid}) for kid, key in KEYS.items()}
        cls.node = cls.lab.node(
            ("auth", {"refusals_per_second": 1_000_000, "refusals_burst": 1_000_000}),
            *cls.trust(),
        )
        by_alg = {KEYS[kid]["alg"]: key for kid, key in reversed(cls.keys.items())}
        cls.good = {f"{kid} ({KEYS[kid]['alg']})": mint(key, KEYS[kid]["alg"], kid, cls.claims) for kid, key in cls.keys.items()}
        cls.good["no kid (HS256)"] = mint(jwk.JWK.from_password(SECRET), "HS256", None, cls.claims)
        tokens = {alg: mint(by_alg[alg], alg, by_alg[alg]["kid"], cls.claims) for alg in ("RS256", "ES256", "HS256")}
        cls.bad = [*vectors(), *of_tools(cls.lab, tokens, by_alg["RS256"]), *Forger(by_alg, cls.claims, CANARY).all()]
        cls.canary = cls.lab.keep(Canary())

    @classmethod
    def trust(cls):
        """The node's keys, as entries of its configuration."""
        public = [{**(key.export(as_dict=True) if key["kty"] == "oct" else key.export_public(as_dict=True)), "alg": KEYS[kid]["alg"]} for kid, key in cls.keys.items()]
        return [
            ("[auth.keys]", {"jwks_file": cls.lab.write("keys.json", json.dumps({"keys": public}))}),
            ("[auth.keys]", {"algorithm": "HS256", "secret_file": cls.lab.write("jwt.secret", SECRET)}),
        ]

    def nothing_left(self, begun, connections):
        """Since the counters said `begun`, this test opened `connections`, and nobody sent anything else."""
        now = counters()
        self.assertEqual(self.canary.seen, [])
        self.assertEqual(now["datagrams sent"] - begun["datagrams sent"], 0, "a name was looked up")
        self.assertEqual(now["connections begun"] - begun["connections begun"], connections, "the node called somebody")

    def test_good_tokens_get_in(self):
        """Else the refusals would prove nothing."""

        async def show():
            for name, token in self.good.items():
                for place, arguments in places(token, self.node.origin):
                    self.assertEqual(await self.node.verdict(*arguments), ("connected", "mallory"), f"{name} in {place}")

        asyncio.run(show())

    def test_what_is_sent_would_be_seen(self):
        """Else the counters would prove nothing: somebody else calls, and looks a name up."""
        begun, seen = counters(), len(self.canary.seen)
        words = ["socket.create_connection(('169.254.169.254', 80))", "socket.getaddrinfo('canary.example.com', 80)"]
        for word in words:
            subprocess.run([sys.executable, "-c", f"import socket; {word}"], capture_output=True, timeout=PATIENCE_SECONDS)
        now = counters()
        self.assertEqual(now["connections begun"] - begun["connections begun"], 1)
        self.assertGreater(now["datagrams sent"], begun["datagrams sent"])
        self.assertGreaterEqual(len(self.canary.seen) - seen, 2)
        self.canary.seen.clear()

    def test_none_gets_in_and_no_packet_is_sent(self):
        tries = [
            (source, name, place, arguments)
            for source, name, token in self.bad
            for place, arguments in places(token, self.node.origin)
        ]
        self.assertGreater(len(self.bad), 800)
        admitted = self.node.metric("conclave_admitted_total")
        begun = counters()
        verdicts = asyncio.run(self.verdicts([arguments for *_, arguments in tries]))
        table = collections.Counter()
        for (source, name, place, _), (code, reason) in zip(tries, verdicts):
            with self.subTest(source=source, name=name, place=place):
                self.assertEqual(code, 1008)
                self.assertIn(reason, WORDS)
            table[source, reason] += 1
        self.nothing_left(begun, len(tries))
        self.assertEqual(self.node.metric("conclave_admitted_total"), admitted)
        self.assertEqual(self.node.metric("conclave_panics_total"), 0)
        report("upgrades", table)

    async def verdicts(self, tries):
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(arguments):
            async with turn:
                return await self.node.verdict(*arguments)

        return await asyncio.gather(*map(one, tries))

    def test_none_renews_a_connection(self):
        """By the message `auth`: refused with the same words, and the token before it stays."""

        async def show():
            table = collections.Counter()
            good = next(iter(self.good.values()))
            async with self.node.connect(f"?token={good}") as socket:
                welcome = json.loads(await socket.recv())
                for source, name, token in self.bad:
                    await socket.send(json.dumps({"type": "auth", "token": token, "ref": name[:20]}))
                    answer = json.loads(await socket.recv())
                    with self.subTest(source=source, name=name):
                        self.assertEqual(answer.get("code"), "forbidden", answer)
                        self.assertIn(answer["reason"], WORDS)
                    table[source, answer.get("reason")] += 1
                await socket.send(json.dumps({"type": "auth", "token": good, "ref": 1}))
                self.assertEqual(json.loads(await socket.recv()), {"type": "ok", "ref": 1, "expires": welcome["expires"]})
            return table

        begun = counters()
        report("auth", asyncio.run(show()))
        self.nothing_left(begun, 1)

    def test_no_token_is_in_the_log(self):
        said = "".join(self.node.running.output)
        for _, name, token in self.bad:
            signature = token.rsplit(".", 1)[-1]
            self.assertFalse(len(signature) > 20 and signature in said, name)


def report(what, table):
    """Figures for whoever reads the run."""
    for (source, reason), count in sorted(table.items(), key=str):
        print(f"{what}: {source}: {count} refused with {reason}", flush=True)

