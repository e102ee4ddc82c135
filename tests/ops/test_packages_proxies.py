"""ops/nginx and ops/haproxy: each file as it is, but for addresses and paths, with the real proxy before two nodes."""

import asyncio
import os
import re
import shutil
import signal
import socket
import tempfile
import unittest
from pathlib import Path

from packages_lab import (
    OPS, PATIENCE_SECONDS, SECONDS, Door, Node, Started, changed, default, free_port, pair, quantity, redis, run, secret, until, write,
)  # fmt: skip
from client import Client
from websockets.exceptions import WebSocketException

NAMES = ["localhost", "realtime.example.com"]
PER_ADDRESS = 6
DRAIN = {"grace": "3s", "time": "5s"}


class Behind:
    """The tests. A subclass says which proxy, which file, and what of it is put elsewhere."""

    tables = {}

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="conclave-proxy-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        pair(cls.folder, NAMES)
        write(cls.folder / "both.pem", (cls.folder / "tls.crt").read_text() + (cls.folder / "tls.key").read_text())
        write(cls.folder / "jwt", secret())
        server, url = redis(cls.folder)
        cls.addClassCleanup(server.kill)
        cls.ports = [free_port(), free_port()]
        cls.nodes = [Node(cls.folder, name, cls.config(name, port, url)) for name, port in zip("ab", cls.ports)]
        for node in cls.nodes:
            cls.addClassCleanup(node.kill)
        cls.port = free_port()
        cls.proxy = cls.start()
        cls.addClassCleanup(cls.proxy.kill)
        cls.door = Door(cls.port, cls.folder / "tls.crt", cls.nodes[0].config)
        cls.usable()

    @classmethod
    def usable(cls):
        def answers():
            with socket.create_connection(("127.0.0.1", cls.port), 5) as plain, cls.door.tls.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return tls.recv(64).startswith(b"HTTP/1.1 200")

        until(answers, why=cls.proxy.said)

    @classmethod
    def listen(cls, name, port):
        return f"127.0.0.1:{port}"

    @classmethod
    def tls(cls, name):
        return {"certificate": str(cls.folder / "tls.crt"), "key": str(cls.folder / "tls.key")}

    @classmethod
    def config(cls, name, port, url):
        return {
            "server": {"listen": cls.listen(name, port), "admin_listen": f"127.0.0.1:{free_port()}", **cls.trust},
            "tls": cls.tls(name),
            "limits": {"connections_per_address": PER_ADDRESS},
            "drain": DRAIN,
            "backplane": {"kind": "redis", "url": url},
            "[auth.keys]": {"algorithm": "HS256", "secret_file": str(cls.folder / "jwt")},
        }

    # Clients have addresses of their own, so that one test's do not count against another's.
    async def joined(self, name, address, room="lobby", **fields):
        client = await self.connected(name, address)
        answer = await client.ask("join", room=room, **fields)
        self.assertEqual(answer["type"], "list", answer)
        client.list = answer
        return client

    async def connected(self, name, address):
        token = await asyncio.to_thread(self.door.token, name)
        client = await Client.connect(self.door, f"?token={token}", local_addr=(address, 0))
        self.addAsyncCleanup(client.socket.close)
        self.tokens.append(token)
        client.welcome = await client.next(type="connected")
        return client

    def setUp(self):
        self.tokens = []
        self.addCleanup(self.no_token_is_told)

    def no_token_is_told(self):
        said = self.proxy.said() + "".join(path.read_text(errors="replace") for path in self.folder.glob("proxy-*.log"))
        for token in self.tokens:
            self.assertNotIn(token, said)
            # Nor a part that would do.
            self.assertNotIn(token.rsplit(".", 1)[1], said)

    async def test_people_on_two_nodes_talk(self):
        crowd = [await self.joined(f"u{n}", "127.0.0.11", "talk") for n in range(4)]
        await asyncio.to_thread(until, lambda: all(node.metric("conclave_connections") >= 1 for node in self.nodes), why="one has all")
        large = "x" * 60_000
        for n, speaker in enumerate(crowd):
            answer = await speaker.ask("chat", room="talk", content={"n": n, "large": large})
            self.assertEqual(answer["type"], "ok", answer)
        for listener in crowd:
            heard = [(await listener.next(type="chat"))["content"] for _ in crowd]
            self.assertEqual([content["n"] for content in heard], [0, 1, 2, 3])
            self.assertTrue(all(content["large"] == large for content in heard))

    async def test_reasons_of_a_close_come_through(self):
        client = await Client.connect(self.door, local_addr=("127.0.0.12", 0))
        self.assertEqual(await client.closed(), (1008, "token_missing"))
        client = await Client.connect(self.door, "?token=a.b.c", local_addr=("127.0.0.12", 0))
        self.assertEqual(await client.closed(), (1008, "token_malformed"))

    async def test_same_origin_is_known(self):
        token = await asyncio.to_thread(self.door.token, "ann")
        client = await Client.connect(
            self.door, f"?token={token}", local_addr=("127.0.0.13", 0), origin=f"https://{self.door.authority}"
        )
        await client.next(type="connected")
        await client.close()
        with self.assertRaises(WebSocketException) as refused:
            await Client.connect(self.door, f"?token={token}", local_addr=("127.0.0.13", 0), origin="https://evil.example")
        self.assertIn("403", str(refused.exception))

    async def test_limits_count_the_clients_address(self):
        """Only the one that is over its limit is turned away, whatever it says of itself."""
        refused = 'conclave_refused_total{limit="connections_per_address"}'
        before = sum(node.metric(refused) for node in self.nodes)
        turned_away = None
        for n in range(len(self.nodes) * PER_ADDRESS + 1):
            try:
                client = await Client.connect(
                    self.door, f"?token={await asyncio.to_thread(self.door.token, 'ann')}", local_addr=("127.0.0.14", 0),
                    headers={"X-Forwarded-For": f"192.0.2.{n}", "Forwarded": f"for=192.0.2.{n}"},
                )  # fmt: skip
                self.addAsyncCleanup(client.socket.close)
                await client.next(type="connected")
            except (OSError, WebSocketException, AssertionError, EOFError) as error:
                turned_away = error
                break
        self.assertIsNotNone(turned_away, "as many as on all nodes together, and one")
        self.assertGreaterEqual(n, PER_ADDRESS)
        self.assertGreater(sum(node.metric(refused) for node in self.nodes), before)
        await self.joined("bob", "127.0.0.15")

    async def test_the_page_of_a_browser_gets_its_module(self):
        said = await asyncio.to_thread(
            run, "curl", "--silent", "--show-error", "--fail", "--http2", "--noproxy", "*", "--cacert", self.folder / "tls.crt",
            "--interface", "127.0.0.16", f"https://localhost:{self.port}/conclave.js",
        )  # fmt: skip
        self.assertIn("export function connect", said)

    async def test_a_node_drains_and_nobody_is_turned_away(self):
        """While a node is drained and gone, whoever comes gets in, and whoever was there comes back whole."""
        crowd = [await self.joined(f"d{n}", f"127.0.0.{20 + n}", "drain") for n in range(6)]
        moved = set()
        leaving, staying = self.nodes
        self.assertGreater(leaving.metric("conclave_connections"), 0)
        stop, came, failed = asyncio.Event(), [], []

        async def keep_coming():
            while not stop.is_set():
                try:
                    client = await Client.connect(self.door, f"?token={token}", local_addr=("127.0.0.30", 0))
                    await client.next(type="connected")
                    came.append(client)
                    await client.close()
                except Exception as error:  # Whatever it is, it is what a client would have seen.
                    failed.append(repr(error)[:2000])
                await asyncio.sleep(0.05)

        token = await asyncio.to_thread(self.door.token, "comes")
        coming = asyncio.create_task(keep_coming())
        leaving.process.send_signal(signal.SIGTERM)

        async def return_when_told(index):
            client = crowd[index]
            try:
                notice = await client.next(type="closing")
            except AssertionError:
                return
            self.assertEqual(notice["reason"], "restart")
            self.assertEqual((await client.closed())[0], 1012)
            await asyncio.sleep(min(notice.get("reconnect_after_ms", 0) / 1000, 2))
            place = {"epoch": client.list["epoch"], "seq": client.list["seq"]}
            back = await self.joined(f"d{index}", f"127.0.0.{20 + index}", "drain", since=place)
            self.assertTrue(back.list["recovered"], back.list)
            moved.add(index)
            crowd[index] = back

        returns = [asyncio.create_task(return_when_told(index)) for index in range(len(crowd))]
        await asyncio.to_thread(leaving.process.wait, PATIENCE_SECONDS)
        done, _ = await asyncio.wait(returns, timeout=5)
        for task in done:
            task.result()
        for task in returns:
            task.cancel()
        self.assertTrue(moved, "somebody was on it")
        # Afterwards, too, while the proxy may still think of it.
        seen = len(came)
        await asyncio.to_thread(until, lambda: len(came) > seen + 5)
        stop.set()
        await coming
        self.assertEqual(failed, [])
        self.assertGreaterEqual(staying.metric("conclave_connections"), len(crowd))
        speaker = crowd[0]
        self.assertEqual((await speaker.ask("chat", room="drain", content="all here"))["type"], "ok")
        for client in crowd:
            self.assertEqual((await client.next(type="chat"))["content"], "all here")
        await asyncio.to_thread(leaving.start)
        # And when it is back it gets its share.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while leaving.metric("conclave_admitted_total") < 1:
                client = await self.connected("late", "127.0.0.31")
                await client.close()

    def test_what_is_quiet_is_not_ended(self):
        """Every time limit that holds for an open socket is longer than two heartbeats."""
        heartbeat = quantity(default("heartbeat.interval"), SECONDS)
        found = re.findall(self.idle, self.text(), re.M)
        self.assertTrue(found)
        for limit in found:
            self.assertGreater(quantity(limit, SECONDS), 2 * heartbeat, limit)


class Nginx(Behind):
    idle = r"^\s*proxy_(?:timeout|read_timeout|send_timeout) (\w+);"

    @classmethod
    def text(cls):
        return (OPS / "nginx" / cls.file).read_text()

    @classmethod
    def start(cls):
        write(cls.folder / cls.file, changed(cls.text(), cls.places()))
        log = cls.folder / "nginx.log"
        include = f"include {cls.folder / cls.file};"
        temporary = "".join(f"{kind}_temp_path {cls.folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        main = write(
            cls.folder / "nginx.conf",
            f"load_module /usr/lib/nginx/modules/ngx_stream_module.so;\npid {cls.folder}/nginx.pid;\n"
            # As root it would be another user, who may not look into this folder.
            + ("user root;\n" if os.geteuid() == 0 else "")
            + "worker_processes 1;\nevents { worker_connections 1024; }\n"
            + (f"http {{ {temporary} {include} }}\n" if cls.is_http else include),
        )
        run("nginx", "-t", "-q", "-p", cls.folder, "-c", main, "-g", f"error_log {cls.folder}/proxy-error.log;")
        words = ["-p", cls.folder, "-c", main, "-g", f"daemon off; error_log {cls.folder}/proxy-error.log;"]
        return Started(log, "nginx", *words).answers(cls.port)

    @classmethod
    def places(cls):
        return {
            "listen 443": f"listen 127.0.0.1:{cls.port}",
            "listen [::]:443": f"listen 127.0.0.2:{cls.port}",
            "10.80.0.11:8443": f"127.0.0.1:{cls.ports[0]}",
            "10.80.0.12:8443": f"127.0.0.1:{cls.ports[1]}",
            "/var/log/nginx/conclave.log": cls.folder / "proxy-access.log",
        }


class NginxPassesOn(Nginx, unittest.IsolatedAsyncioTestCase):
    file, is_http = "passthrough.conf", False
    trust = {"proxy_from": ["127.0.0.1/32"]}


class NginxEndsTls(Nginx, unittest.IsolatedAsyncioTestCase):
    file, is_http = "https.conf", True
    trust = {"forwarded_from": ["127.0.0.1/32"]}

    @classmethod
    def places(cls):
        return {
            **super().places(),
            "/etc/nginx/conclave/": f"{cls.folder}/",
            "/ca.crt": "/tls.crt",
            "/var/log/nginx/conclave-error.log": cls.folder / "proxy-error-https.log",
        }


class OverSockets:
    """Both nodes on this machine, without TLS of their own."""

    trust = {"forwarded_from": ["unix"]}

    @classmethod
    def listen(cls, name, port):
        return f"unix:{cls.folder}/{name}.sock"

    @classmethod
    def tls(cls, name):
        return {"mode": "off"}


class NginxOverSockets(OverSockets, NginxEndsTls):
    @classmethod
    def places(cls):
        return {
            **super().places(),
            "server unix:/run/conclave/conclave.sock max_fails=1 fail_timeout=5s;": "".join(
                f"server unix:{cls.folder}/{name}.sock max_fails=1 fail_timeout=5s;\n" for name in "ab"
            ),
            "proxy_pass https://conclave_tls;": "proxy_pass http://conclave;",
        }


class Haproxy(Behind):
    idle = r"^\s*timeout (?:client|server|tunnel) (\w+)$"

    @classmethod
    def text(cls):
        return (OPS / "haproxy" / cls.file).read_text()

    @classmethod
    def start(cls):
        config = write(cls.folder / cls.file, changed(cls.text(), cls.places()))
        said = run("haproxy", "-c", "-f", config)
        assert "WARNING" not in said.upper(), said
        # Without "-q": what it logs is what no_token_is_told reads.
        return Started(cls.folder / "proxy-haproxy.log", "haproxy", "-db", "-f", config).answers(cls.port)

    @classmethod
    def places(cls):
        return {
            # This machine may have fewer files.
            "maxconn 60000": "maxconn 2000",
            "bind :443": f"bind 127.0.0.1:{cls.port}",
            "bind [::]:443 v6only": f"bind 127.0.0.2:{cls.port}",
            "10.80.0.11:8443": f"127.0.0.1:{cls.ports[0]}",
            "10.80.0.12:8443": f"127.0.0.1:{cls.ports[1]}",
        }


class HaproxyPassesOn(Haproxy, unittest.IsolatedAsyncioTestCase):
    file = "passthrough.cfg"
    trust = {"proxy_from": ["127.0.0.1/32"]}


class HaproxyEndsTls(Haproxy, unittest.IsolatedAsyncioTestCase):
    file = "https.cfg"
    # The others are for requests.
    idle = r"^\s*timeout tunnel (\w+)$"
    trust = {"forwarded_from": ["127.0.0.1/32"]}

    @classmethod
    def places(cls):
        return {
            **super().places(),
            "/etc/haproxy/conclave.pem": cls.folder / "both.pem",
            "/etc/haproxy/conclave-ca.crt": cls.folder / "tls.crt",
        }


class HaproxyOverSockets(OverSockets, HaproxyEndsTls):
    @classmethod
    def places(cls):
        places = super().places()
        remote = [line for line in cls.text().splitlines() if line.strip().startswith("server ")]
        for found in ("10.80.0.11:8443", "10.80.0.12:8443", "/etc/haproxy/conclave-ca.crt"):
            places.pop(found)
        here = "\n".join(f"    server {name} unix@{cls.folder}/{name}.sock" for name in "ab")
        return {**places, **dict.fromkeys(remote, ""), "    # server here unix@/run/conclave/conclave.sock": here}


if __name__ == "__main__":
    unittest.main()
