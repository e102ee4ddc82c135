"""Tokens that must get nobody in, from published examples, attack tools and our own list, at every place where a token may be: zero
accepted, each refused with a word of the protocol's table, and not one packet sent for any of them."""

import asyncio
import collections
import functools
import http.client
import http.server
import json
import re
import socket
import subprocess
import sys
import tempfile
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
ISSUER = "https://issuer.example.com"
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


class Issuer(http.server.ThreadingHTTPServer):
    """Publishes a key set, and counts who came for it."""

    daemon_threads = True

    def __init__(self, keys):
        super().__init__(("127.0.0.1", 0), KeySet)
        self.url = f"http://127.0.0.1:{self.server_port}/jwks.json"
        self.body = json.dumps({"keys": keys}).encode()
        self.connections = self.fetches = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def get_request(self):
        found = super().get_request()
        self.connections += 1
        return found

    def close(self):
        self.shutdown()
        self.server_close()


class KeySet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.fetches += 1
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_):
        pass


def public_half(kid, key):
    return {**(key.export(as_dict=True) if key["kty"] == "oct" else key.export_public(as_dict=True)), "alg": KEYS[kid]["alg"], "use": "sig"}


@functools.cache
def material():
    """The node's keys with their private halves, good tokens by name, and the hostile ones: (source, name, token)."""
    claims = {"sub": "mallory", "name": "Mallory", "iat": int(time.time()), "exp": int(time.time()) + 36_000, "iss": ISSUER}
    keys = {kid: jwk.JWK(**{**key, "kid": kid}) for kid, key in KEYS.items()}
    by_alg = {KEYS[kid]["alg"]: key for kid, key in reversed(keys.items())}
    good = {f"{kid} ({KEYS[kid]['alg']})": mint(key, KEYS[kid]["alg"], kid, claims) for kid, key in keys.items()}
    good["no kid (HS256)"] = mint(jwk.JWK.from_password(SECRET), "HS256", None, claims)
    stolen = {alg: mint(by_alg[alg], alg, by_alg[alg]["kid"], claims) for alg in ("RS256", "ES256", "HS256")}
    bad = [*vectors(), *of_tools(stolen, by_alg["RS256"]), *Forger(by_alg, claims, CANARY).all()]
    return claims, keys, good, bad


def of_tools(tokens, public):
    """What the attack tools make of good tokens, in a process and with libraries of their own."""
    # Attacks on `jku` and `x5u` begin with what is there, and change it.
    issuer = Issuer([{**public.export_public(as_dict=True), "x5c": ["AA=="]}])
    with tempfile.TemporaryDirectory(prefix="conclave-hostile-tools-") as folder:
        pem = Path(folder, "public.pem")
        pem.write_bytes(public.export_to_pem())
        given = {"tokens": tokens, "public": str(pem), "issuer": issuer.url, "canary": CANARY}
        command = [TOOLS / ".venv/bin/python", "-B", TOOLS / "attack.py"]
        done = subprocess.run(command, input=json.dumps(given), cwd=folder, capture_output=True, text=True)
    issuer.close()
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [tuple(one) for one in json.loads(done.stdout)]


class Hostile(unittest.TestCase):
    """The keys are files."""

    # Whoever the node may call of itself.
    issuer = None

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.claims, cls.keys, cls.good, cls.bad = material()
        cls.node = cls.lab.node(
            ("auth", cls.rules()),
            *cls.trust(),
        )
        cls.canary = cls.lab.keep(Canary())

    @classmethod
    def rules(cls):
        """Wrong tokens are not held back, so that each is judged."""
        return {"refusals_per_second": 1_000_000, "refusals_burst": 1_000_000}

    @classmethod
    def trust(cls):
        """The node's keys, as entries of its configuration."""
        public = [public_half(kid, key) for kid, key in cls.keys.items()]
        return [
            ("api", {"jwt": True}),
            ("[auth.keys]", {"jwks_file": cls.lab.write("keys.json", json.dumps({"keys": public}))}),
            ("[auth.keys]", {"algorithm": "HS256", "secret_file": cls.lab.write("jwt.secret", SECRET)}),
        ]

    def places(self, token):
        return places(token, self.node.origin)

    def begin(self):
        """What `nothing_left` compares with."""
        return {**counters(), "issuer": self.issuer.connections if self.issuer else 0}

    def nothing_left(self, begun, connections):
        """Since `begin`, this test opened `connections`, and the node none but those that it opens of itself."""
        now = self.begin()
        connections += now["issuer"] - begun["issuer"]
        self.assertEqual(self.canary.seen, [])
        self.assertEqual(now["datagrams sent"] - begun["datagrams sent"], 0, "a name was looked up")
        self.assertEqual(now["connections begun"] - begun["connections begun"], connections, "the node called somebody")

    def test_good_tokens_get_in(self):
        """Else the refusals would prove nothing."""

        async def show():
            for name, token in self.good.items():
                for place, arguments in self.places(token):
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
            for place, arguments in self.places(token)
        ]
        self.assertGreater(len(self.bad), 800)
        admitted = self.node.metric("conclave_admitted_total")
        begun = self.begin()
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
            async with self.node.connect(f"?token={good}") as door:
                welcome = json.loads(await door.recv())
                for source, name, token in self.bad:
                    await door.send(json.dumps({"type": "auth", "token": token, "ref": name[:20]}))
                    answer = json.loads(await door.recv())
                    with self.subTest(source=source, name=name):
                        self.assertEqual(answer.get("code"), "forbidden", answer)
                        self.assertIn(answer["reason"], WORDS)
                    table[source, answer.get("reason")] += 1
                await door.send(json.dumps({"type": "auth", "token": good, "ref": 1}))
                self.assertEqual(json.loads(await door.recv()), {"type": "ok", "ref": 1, "expires": welcome["expires"]})
            return table

        begun = self.begin()
        report("auth", asyncio.run(show()))
        self.nothing_left(begun, 1)

    def test_none_calls_the_server_api(self):
        """Where a token would be enough, with a scope."""
        scoped = {**self.claims, "scope": "conclave:nodes"}
        key = next(iter(self.keys.values()))
        good = mint(key, KEYS[key["kid"]]["alg"], key["kid"], scoped)
        begun, calls = self.begin(), Calls(self.node)
        self.assertEqual(calls.get("/api/v1/nodes", good), 200)
        self.assertEqual(calls.get("/api/v1/nodes", next(iter(self.good.values()))), 403)
        table = collections.Counter()
        for source, name, token in self.bad:
            if IN_HEADER.fullmatch(token):
                status = calls.get("/api/v1/nodes", token)
                with self.subTest(source=source, name=name):
                    # 429: as many wrong ones are told so as an address may send.
                    self.assertIn(status, (401, 429))
                table[source, status] += 1
        self.assertEqual(calls.get("/api/v1/nodes", good), 200, "others' wrong tokens are in nobody's way")
        self.nothing_left(begun, calls.connections)
        report("server API", table)

    def test_no_token_is_in_the_log(self):
        said = "".join(self.node.running.output)
        for _, name, token in self.bad:
            signature = token.rsplit(".", 1)[-1]
            self.assertFalse(len(signature) > 20 and signature in said, name)


class Calls:
    """Requests with a token in a header, and how many connections they took."""

    def __init__(self, node):
        self.node, self.connections, self.socket = node, 0, None

    def get(self, path, token):
        if self.socket is None or self.socket.sock is None:
            self.connections += 1
            self.socket = http.client.HTTPSConnection("127.0.0.1", self.node.port, timeout=PATIENCE_SECONDS, context=self.node.tls)
            raw = socket.create_connection(("127.0.0.1", self.node.port), PATIENCE_SECONDS)
            self.socket.sock = self.node.tls.wrap_socket(raw, server_hostname="localhost")
        self.socket.request("GET", path, headers={"Host": self.node.authority, "Authorization": f"Bearer {token}"})
        answer = self.socket.getresponse()
        answer.read()
        return answer.status


class HostileToUrls(Hostile):
    """The issuer's keys are read from a URL, again and again, and a token that names an unknown key may wait for the next time. Nothing
    that a token says makes that time come sooner."""

    REFRESH_SECONDS = 1

    @classmethod
    def trust(cls):
        asymmetric = {kid: key for kid, key in cls.keys.items() if key["kty"] != "oct"}
        cls.issuer = cls.lab.keep(Issuer([public_half(kid, key) for kid, key in asymmetric.items()]))
        secrets = [public_half(kid, key) for kid, key in cls.keys.items() if key["kty"] == "oct"]
        algorithms = sorted({KEYS[kid]["alg"] for kid in asymmetric})
        return [
            ("api", {"jwt": True}),
            ("[auth.keys]", {"jwks_url": cls.issuer.url, "issuer": ISSUER, "algorithms": algorithms}),
            ("[auth.keys]", {"jwks_file": cls.lab.write("keys.json", json.dumps({"keys": secrets}))}),
            ("[auth.keys]", {"algorithm": "HS256", "secret_file": cls.lab.write("jwt.secret", SECRET)}),
        ]

    @classmethod
    def rules(cls):
        # All come from one address, and each is to be judged, not put off.
        return {**super().rules(), "jwks_refresh": f"{cls.REFRESH_SECONDS}s", "jwks_kids_per_address": AT_ONCE}

    def places(self, token):
        """The others lead to the same door."""
        return [next(places(token, self.node.origin))]

    def test_none_gets_in_and_no_packet_is_sent(self):
        fetches, began = self.issuer.fetches, time.monotonic()
        super().test_none_gets_in_and_no_packet_is_sent()
        took, came = time.monotonic() - began, self.issuer.fetches - fetches
        print(f"keys read {came} times in {took:.0f} s", flush=True)
        self.assertLessEqual(came, took / self.REFRESH_SECONDS + 2, "a token hurried the issuer")


def report(what, table):
    """Figures for whoever reads the run."""
    for (source, reason), count in sorted(table.items(), key=str):
        print(f"{what}: {source}: {count} refused with {reason}", flush=True)

