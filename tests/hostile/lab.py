"""What the attacks share: a node, what it could be made to call, and counters of what left it.

`run` has put us into a network of our own, so the kernel's counters are exact: what we did not send, the node sent.
"""

import asyncio
import base64
import json
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "strangers/python"))
from server import Running, certificate, ready  # noqa: E402

PATIENCE_SECONDS = 60
DNS_PORT = 53
METADATA = "169.254.169.254"


def encoded(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else data.encode()).rstrip(b"=").decode()


def toml(value):
    """What JSON writes for text, numbers, booleans and lists is TOML, too."""
    return json.dumps(value)


class Node:
    """`conclave serve`, with `tables` (pairs of name and entries) after a few lines that every node needs."""

    def __init__(self, folder, tables):
        self.folder = Path(folder)
        state = certificate(self.folder)
        self.tls = ssl.create_default_context(cafile=state / "ca.crt")
        whole = [
            ("server", {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}),
            ("tls", {"certificate": str(state / "localhost.crt"), "key": str(state / "localhost.key")}),
            *tables,
        ]
        self.config = self.folder / "conclave.toml"
        self.config.write_text(
            "\n".join(f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in entries.items()) for name, entries in whole)
        )
        self.running = Running("serve", "--config", str(self.config), "--log-format", "json")
        said = self.running.line(ready)
        self.port = int(said["listen"].rsplit(":", 1)[1])
        self.authority = f"localhost:{self.port}"
        self.origin = f"https://{self.authority}"
        self.admin = f"http://{said['admin_listen']}"

    def connect(self, query="", headers=None, origin=None):
        """One TCP connection: the name `localhost` is not looked up, so that every packet is accounted for."""
        return connect(
            f"wss://{self.authority}/ws{query}",
            host="127.0.0.1",
            port=self.port,
            ssl=self.tls,
            server_hostname="localhost",
            additional_headers=headers,
            origin=origin,
            proxy=None,
            max_size=None,
            open_timeout=PATIENCE_SECONDS,
            close_timeout=5,
        )

    async def verdict(self, query="", headers=None, origin=None):
        """`("connected", user id)`, or how the socket was closed."""
        async with self.connect(query, headers, origin) as socket_:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    # `closing` may come before a close.
                    while (welcome := json.loads(await socket_.recv()))["type"] != "connected":
                        pass
            except ConnectionClosed:
                return socket_.close_code, socket_.close_reason
        return welcome["type"], welcome["user"]["id"]

    def metrics(self):
        """One TCP connection, too."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=PATIENCE_SECONDS) as answer:
            text = answer.read().decode()
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {series: float(value) for series, value in samples}

    def metric(self, name, **labels):
        """The sum over all series of that name with these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for series, value in self.metrics().items()
            if series.split("{")[0] == name and all(label in series for label in wanted)
        )

    def close(self):
        if self.running.process.poll() is None:
            self.running.process.kill()
            self.running.process.wait(PATIENCE_SECONDS)


class Lab:
    """A folder, and what is closed at the end."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="conclave-hostile-"))
        self.open = []

    def node(self, *tables):
        folder = self.folder / f"node{len(self.open)}"
        folder.mkdir()
        return self.keep(Node(folder, tables))

    def keep(self, thing):
        self.open.append(thing)
        return thing

    def write(self, name, data):
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(path)

    def close(self):
        for thing in reversed(self.open):
            thing.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Canary:
    """Listens where a token wants the node to go: web ports of loopback and of a cloud's metadata, and the name server.
    Notes whoever comes."""

    def __init__(self, ports=(80, 443, 8080, 9), addresses=("127.0.0.1", METADATA, "93.184.216.34"), names=True):
        self.seen = []
        self._listeners = [self._listen(address, port) for address in addresses for port in ports]
        if names:
            self._names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._names.bind(("127.0.0.1", DNS_PORT))
            self._listeners.append(self._names)
            threading.Thread(target=self._questions, daemon=True).start()

    def _listen(self, address, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, port), family=family)
        threading.Thread(target=self._accept, args=(listener, f"{address}:{port}"), daemon=True).start()
        return listener

    def _accept(self, listener, where):
        while True:
            try:
                visitor, _ = listener.accept()
            except OSError:
                return
            self.seen.append(where)
            visitor.close()

    def _questions(self):
        while True:
            try:
                question, _ = self._names.recvfrom(4096)
            except OSError:
                return
            self.seen.append(f"name server: {question[12:]!r}")

    def close(self):
        for listener in self._listeners:
            # Closing alone does not wake whoever waits there.
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            listener.close()


def counters():
    """TCP connections begun and UDP datagrams sent in this network, since it is there, over IPv4 and IPv6."""
    found = {}
    lines = Path("/proc/net/snmp").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        protocol = names.split(":")[0]
        found.update({f"{protocol}.{name}": int(value) for name, value in zip(names.split()[1:], values.split()[1:])})
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return {
        "connections begun": found["Tcp.ActiveOpens"],
        "datagrams sent": found["Udp.OutDatagrams"] + int(six["Udp6OutDatagrams"]),
    }
