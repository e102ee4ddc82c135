"""Backends that are slow, down or lie, at each URL that Conclave calls: an issuer's keys, sessions of the application, hooks that are
asked. Each comes to its stated outcome, nobody gets in by it, nothing else is called, and a hundred others who chat do not notice."""

import asyncio
import collections
import json
import re
import time
import unittest
from pathlib import Path

from jwcrypto import jwk
from lab import PATIENCE_SECONDS, Canary, Lab
from liars import LIES, Authority, Liar, Names
from test_tokens import mint

PUBLIC, OTHER_PUBLIC = "93.184.216.34", "93.184.216.35"
PORT, TLS_PORT = 8081, 8443
SECRET = "a secret without a name, at least 32 bytes"
TIMEOUT = "1s"
# Whoever chats meanwhile, and how often somebody says something.
BYSTANDERS = 100
SAY_SECONDS = 0.1
# How they fare before the lies begin.
QUIET_SECONDS = 3
# At each lie at the same time.
AT_ONCE = 4
# What lies may make a node remember for a while: bounded answers, many at a time.
GROWTH_BYTES = 64 * 2**20

# What an issuer's lies come to in conclave_jwks_fetches_total; where several are right, both.
OF_KEYS = {
    "drip": {"timeout"},
    "drip-head": {"timeout"},
    "silent": {"timeout"},
    "reset": {"protocol", "connect"},
    "half": {"protocol"},
    "garbage": {"protocol"},
    "huge": {"too_large"},
    "endless": {"too_large"},
    "endless-head": {"protocol", "too_large", "timeout"},
    "endless-waiting": {"protocol", "timeout"},
    "page": {"bad_set"},
    "no-json": {"bad_set"},
    "wrong-shape": {"bad_set"},
    "a-list": {"bad_set"},
    "deep": {"bad_set"},
    "empty": {"bad_set"},
    "compressed": {"bad_set", "too_large"},
    "upgraded": {"status", "protocol", "timeout"},
    "failing": {"status"},
    "teapot": {"status"},
    "partial": {"status"},
    "to-metadata": {"status"},
    "to-loopback": {"status"},
    "to-another": {"status"},
    "to-file": {"status"},
}
# Names whose owner would have us call somewhere else: what they lead to, and what comes of it.
OF_NAMES = {
    "loopback.example.com": ([["127.0.0.1"]], "forbidden"),
    "loopback6.example.com": ([["::1"]], "forbidden"),
    "mapped.example.com": ([["::ffff:127.0.0.1"]], "forbidden"),
    "nat64.example.com": ([["64:ff9b::7f00:1"]], "forbidden"),
    "sixtofour.example.com": ([["2002:7f00:1::"]], "forbidden"),
    "metadata.example.com": ([["169.254.169.254"]], "forbidden"),
    "metadata6.example.com": ([["fd00:ec2::254"]], "forbidden"),
    "private.example.com": ([["10.0.0.1", "192.168.1.1", "172.16.0.1", "fd12::1"]], "forbidden"),
    "anywhere.example.com": ([["0.0.0.0", "::"]], "forbidden"),
    "nobody.example.com": ([[]], "connect"),
    # The first look-up is honest, all others are not.
    "rebound.example.com": ([[PUBLIC], ["127.0.0.1"]], "forbidden"),
    # Only the one that may be called is called.
    "mixed.example.com": ([["127.0.0.1", PUBLIC, "169.254.169.254"]], "ok"),
    "public.example.com": ([[PUBLIC]], "ok"),
    "backend.internal": ([["127.0.0.1"]], "ok"),
}
# Who speaks TLS there, and how it ends.
OF_TLS = {"app.example.com": "ok", "foreign.example.com": "tls", "expired.example.com": "tls", "plain.example.com": "tls", "untrusted.example.com": "tls"}


class Bystanders:
    """A hundred in a room that no backend is asked about; one speaks, all listen."""

    def __init__(self, node):
        self.node, self.heard, self.sockets, self.said = node, [], [], 0
        self.stopping = False

    async def __aenter__(self):
        for number in range(BYSTANDERS):
            self.sockets.append(await self.node.connect(f"?token={token(f'bystander-{number}')}"))
        for one in self.sockets:
            await one.send(json.dumps({"type": "join", "room": "lobby", "ref": 1}))
            await reply(one, 1)
        self.tasks = [asyncio.create_task(self.listen(one, [])) for one in self.sockets]
        self.speaker = asyncio.create_task(self.speak())
        return self

    async def speak(self):
        while not self.stopping:
            self.said += 1
            await self.sockets[0].send(json.dumps({"type": "chat", "room": "lobby", "content": {"n": self.said, "at": time.monotonic()}}))
            await asyncio.sleep(SAY_SECONDS)

    async def listen(self, one, mine):
        async for text in one:
            frame = json.loads(text)
            if frame["type"] in ("error", "reset", "removed", "closing"):
                raise AssertionError(f"a bystander was told {frame}")
            if frame["type"] == "chat":
                mine.append(frame["content"]["n"])
                self.heard.append(time.monotonic() - frame["content"]["at"])
                if self.stopping and frame["content"]["n"] == self.said:
                    break
        if mine != list(range(1, self.said + 1)):
            raise AssertionError(f"a bystander heard {len(mine)} of {self.said}, or not in order")

    def delays(self):
        """Since the last time, in seconds: p50, p99 and the worst."""
        mine, self.heard = sorted(self.heard), []
        return [mine[min(len(mine) - 1, int(len(mine) * q))] for q in (0.5, 0.99, 1)]

    async def __aexit__(self, *failed):
        self.stopping = True
        await self.speaker
        # What everybody must have heard by then.
        self.said += 1
        await self.sockets[0].send(json.dumps({"type": "chat", "room": "lobby", "content": {"n": self.said, "at": time.monotonic()}}))
        async with asyncio.timeout(PATIENCE_SECONDS):
            heard = await asyncio.gather(*self.tasks, return_exceptions=True)
        for one in self.sockets:
            one.transport.abort()
        if failed[0] is None and any(heard):
            raise next(filter(None, heard))


def token(sub, **claims):
    return mint(jwk.JWK.from_password(SECRET), "HS256", None, {"sub": sub, "exp": int(time.time()) + 3600, **claims})


class Backends(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = lab = Lab()
        cls.addClassCleanup(lab.close)
        cls.key = jwk.JWK.generate(kty="EC", crv="P-256", kid="theirs")
        authority, stranger = Authority(), Authority()
        cls.names = lab.keep(Names())
        cls.names.answers = {name: [list(turn) for turn in turns] for name, (turns, _) in OF_NAMES.items()}
        cls.names.answers |= {name: [[PUBLIC]] for name in ("app.example.com", "foreign.example.com")}
        cls.names.answers |= {"expired.example.com": [[OTHER_PUBLIC]], "untrusted.example.com": [["93.184.216.36"]], "plain.example.com": [["93.184.216.37"]]}
        cls.plain = [lab.keep(Liar(address, PORT, cls.truth)) for address in ("127.0.0.1", PUBLIC)]
        cls.app = lab.keep(Liar(PUBLIC, TLS_PORT, cls.truth, authority.context(lab, "app.example.com")))
        lab.keep(Liar(OTHER_PUBLIC, TLS_PORT, cls.truth, authority.context(lab, "expired.example.com", days=-1)))
        lab.keep(Liar("93.184.216.36", TLS_PORT, cls.truth, stranger.context(lab, "untrusted.example.com")))
        lab.keep(Liar("93.184.216.37", TLS_PORT, cls.truth))
        cls.ca = lab.write("ca.pem", authority.pem)
        cls.canary = lab.keep(Canary(ports=(80, 443, 8080), names=False, addresses=("127.0.0.1", "169.254.169.254", "::1")))
        cls.node = lab.node(*cls.tables())

    @classmethod
    def truth(cls, path, head, body):
        """What an honest issuer, application or hook says."""
        if head.startswith("POST"):
            return {"allow": True}
        if path.startswith("/session"):
            return {"sub": re.search(r"user=(\w+)", head)[1], "name": "Somebody", "expires_in": 3600}
        return {"keys": [{**cls.key.export_public(as_dict=True), "alg": "ES256", "use": "sig"}]}

    @classmethod
    def urls(cls):
        """Case -> URL, of everything that can be asked at a URL of its own."""
        found = {lie: f"http://127.0.0.1:{PORT}/lie/{lie}" for lie in LIES}
        found["down"] = "http://127.0.0.1:7/keys"
        found |= {name: f"http://{name}:{PORT}/keys" for name in OF_NAMES}
        found |= {f"tls-{name}": f"https://{name}:{TLS_PORT}/keys" for name in OF_TLS}
        return found

    @classmethod
    def tables(cls):
        issuers = [
            ("[auth.keys]", {"jwks_url": url, "issuer": case, "algorithms": ["ES256"], "user_prefix": f"{case}:", **({"jwks_ca_file": cls.ca} if url.startswith("https") else {})})
            for case, url in cls.urls().items()
        ]
        asked = [
            ("[hooks.ask]", {"name": case, "url": url, "events": ["join"], "rooms": [f"{case}"], "timeout": TIMEOUT, "circuit_failures": 0})
            for case, url in cls.urls().items()
        ]
        forward = {"url": f"https://app.example.com:{TLS_PORT}/session", "ca_file": cls.ca, "timeout": "5s", "failures": 1000}
        return [
            ("auth", {"jwks_refresh": "1s", "jwks_timeout": TIMEOUT, "jwks_kids_per_address": 1000, "refusals_per_second": 1_000_000, "refusals_burst": 1_000_000}),
            ("auth.forward", forward),
            ("hooks", {"secret_file": cls.lab.write("hook.secret", "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "ca_file": cls.ca}),
            *issuers,
            ("[auth.keys]", {"algorithm": "HS256", "secret_file": cls.lab.write("jwt.secret", SECRET)}),
            *asked,
        ]

    def test_keys(self):
        asyncio.run(self.watched(self.keys()))

    def test_sessions(self):
        asyncio.run(self.watched(self.sessions()))

    def test_hooks(self):
        asyncio.run(self.watched(self.hooks()))

    async def watched(self, lies):
        """While a hundred others chat."""
        async with Bystanders(self.node) as bystanders:
            await asyncio.sleep(QUIET_SECONDS)
            quiet, before = bystanders.delays(), memory(self.node)
            await lies
            meanwhile = bystanders.delays()
        for name, delays in (("quiet", quiet), ("with lies", meanwhile)):
            print(f"{BYSTANDERS} who chat, {name}: p50, p99, worst: {' '.join(f'{1000 * one:.1f}' for one in delays)} ms", flush=True)
        self.assertLess(memory(self.node) - before, GROWTH_BYTES)
        self.assertEqual(self.canary.seen, [], "somebody was called whom nobody named")
        self.assertEqual(self.node.metric("conclave_panics_total"), 0)

    async def keys(self):
        """An issuer's: the honest ones' users get in, nobody else's do."""
        wanted = {case: {"ok", "not_modified"} for case in self.urls()}
        wanted |= OF_KEYS | {name: {result} for name, (_, result) in OF_NAMES.items()} | {f"tls-{name}": {result} for name, result in OF_TLS.items()}
        wanted["down"] = {"connect"}
        ends = await asyncio.gather(*(self.issuer(case, wanted[case]) for case in self.urls()))
        for case, seen, verdict in ends:
            with self.subTest(issuer=case):
                # On a busy machine anything may also come too late, and the first look-up of one was honest.
                also = {"timeout", "not_modified"} | ({"ok"} if case == "rebound.example.com" else set())
                self.assertLessEqual(seen, wanted[case] | also)
                honest = wanted[case] & {"ok", "not_modified"} or case == "rebound.example.com"
                expected = [("connected", f"{case}:u")] if honest else [(1008, "token_signature"), (1013, "overloaded")]
                self.assertIn(verdict, expected)

    async def issuer(self, case, wanted):
        """Once its URL has come to what is wanted: all that it came to, and what a token of its key gets."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (seen := await self.results(case)) & wanted:
            if time.monotonic() > end:
                return case, seen | {"nothing else"}, None
            await asyncio.sleep(1)
        good = mint(self.key, "ES256", "theirs", {"sub": "u", "iss": case, "exp": int(time.time()) + 3600})
        return case, seen, await self.node.verdict(f"?token={good}")

    async def results(self, issuer):
        found = await asyncio.to_thread(self.node.metrics)
        return {
            re.search(r'result="(\w+)"', series)[1]
            for series, value in found.items()
            if series.startswith("conclave_jwks_fetches_total{") and f'issuer="{issuer}"' in series and value > 0
        }

    async def sessions(self):
        """Of the application: what is no good answer turns away with 1013, and a no with 1008."""
        self.assertEqual(await self.cookie("honest", "ann"), ("connected", "ann"))
        tries = [lie for lie in LIES for _ in range(AT_ONCE)]
        for lie, verdict in zip(tries, await asyncio.gather(*(self.cookie(lie, "mallory") for lie in tries))):
            with self.subTest(session=lie):
                self.assertEqual(verdict, ("connected", "mallory") if lie == "honest" else (1013, "overloaded"))
        for name, (turns, result) in OF_NAMES.items():
            if result == "forbidden":
                self.names.answers["app.example.com"] = [list(turns[-1])]
                with self.subTest(session=name):
                    self.assertEqual(await self.cookie("honest", "mallory"), (1013, "overloaded"))
        for address in (OTHER_PUBLIC, "93.184.216.36", "93.184.216.37"):
            self.names.answers["app.example.com"] = [[address]]
            with self.subTest(session=f"TLS at {address}"):
                self.assertEqual(await self.cookie("honest", "mallory"), (1013, "overloaded"))
        self.names.answers["app.example.com"] = [[PUBLIC]]
        self.assertEqual(await self.cookie("honest", "ann"), ("connected", "ann"))

    def cookie(self, lie, user):
        return self.node.verdict("", {"Cookie": f"user={user}; lie={lie}"}, self.node.origin)

    async def hooks(self):
        """That are asked whether somebody may join: no good answer, no entry."""
        table = collections.Counter()
        async with self.node.connect(f"?token={token('mallory')}") as door:
            await door.recv()
            for case in self.urls():
                for ref in range(AT_ONCE):
                    await door.send(json.dumps({"type": "join", "room": case, "ref": ref}))
                    frame = await reply(door, ref)
                    with self.subTest(hook=case):
                        honest = case in ("honest", "mixed.example.com", "public.example.com", "backend.internal", "tls-app.example.com")
                        if case == "rebound.example.com":
                            # Who came first has used up the honest look-up.
                            self.assertIn(frame.get("code"), (None, "unavailable"))
                        else:
                            self.assertEqual(frame.get("code"), None if honest else "unavailable", frame)
                    table[frame.get("code")] += 1
                    if not frame.get("code"):
                        await door.send(json.dumps({"type": "leave", "room": case, "ref": "left"}))
                        await reply(door, "left")
        print(f"joins asked about: {dict(table)}", flush=True)


async def reply(socket, ref):
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (frame := json.loads(await socket.recv())).get("ref") != ref:
            pass
    return frame


def memory(node):
    status = Path(f"/proc/{node.running.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024
