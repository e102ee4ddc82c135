"""Three nodes on one Redis with everything switched on, and the Prometheus that scrapes them every second."""

import asyncio
import hashlib
import http.server
import itertools
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from dash_prometheus import Prometheus, Server, Sink

from lab.node import Identity, token
from lab.process import Ports, until
from lab.world import Standalone

BINARY = os.environ.get("CONCLAVE") or sys.exit("set CONCLAVE to the conclave binary")
# Ranges of ports below this are the fault lab's jobs.
PORT_RANGE = 70 + os.getpid() % 8
JOB, PROBE_JOB, EXPORTER_JOB = "conclave", "conclave-probe", "conclave-probe-exporter"
JOBS = [JOB, PROBE_JOB, EXPORTER_JOB]


# A published example, RFC 7515 appendix A.3: nobody here signs with it.
ISSUER_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "a3",
    "use": "sig",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
API_KEY = "ck_" + secrets.token_urlsafe(32)
# In trouble, each so manieth answer of the application is an error, or none; and one of its hooks is down for so long.
FAILS_EVERY, BREAKS_EVERY, DOWN_SECONDS = 7, 11, 20


class Application:
    """What stands beside the nodes: an issuer of keys, sessions, hooks. Without trouble it is well."""

    def __init__(self):
        application, turns = self, itertools.count(1)
        self.trouble_since = None

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                keys = {"keys": [ISSUER_KEY]}
                who = {"sub": f"session-{self.headers.get('cookie', '')[-6:]}", "name": "Somebody", "expires_in": 600}
                self.reply(keys if self.path == "/keys" else who)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.reply({"allow": True})

            def reply(self, said):
                turn, body = next(turns), json.dumps(said).encode()
                if application.trouble_since and turn % BREAKS_EVERY == 0:
                    self.close_connection = True
                    return
                self.send_response(500 if application.is_down(self.path) or application.trouble_since and turn % FAILS_EVERY == 0 else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def is_down(self, path):
        return path == "/seldom" and self.trouble_since and time.monotonic() - self.trouble_since < DOWN_SECONDS

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def beside(folder, application):
    """Everything in which the nodes and the application call each other."""
    secret = folder / "hook.secret"
    secret.touch(mode=0o600)
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    return {
        # Beside the lab's own entry; a TOML table may have spaces there.
        "[ auth.keys]": {"jwks_url": f"{application}/keys", "issuer": "https://issuer.example", "algorithms": ["ES256"]},
        "auth.forward": {"url": f"{application}/session", "cache": "5s"},
        "hooks": {"secret_file": str(secret)},
        "[hooks.ask]": {"name": "may-join", "url": f"{application}/ask", "events": ["join"], "rooms": ["asked"], "circuit_failures": 0},
        "[hooks.tell]": {"name": "presence", "url": f"{application}/told", "events": ["join", "left"]},
        # In trouble what is said is tried again, waits, and is lost.
        "[ hooks.tell]": {"name": "archive", "url": f"{application}/seldom", "events": ["chat"], "queue_events": 100, "retry_max": "1s"},
        "[api.keys]": {"name": "load", "hash": "sha256:" + hashlib.sha256(API_KEY.encode()).hexdigest(), "scopes": ["*"]},
    }


def tables(folder, collector, application):
    """Small limits and short times, so that each is met within a minute."""
    admin = folder / "admin.token"
    admin.touch(mode=0o600)
    admin.write_text(secrets.token_hex(32) + "\n")
    return {
        "heartbeat": {"interval": "1s"},
        "limits": {
            "messages_per_second": 40,
            "message_bytes": "8KiB",
            "rooms_per_connection": 4,
            "outbox_bytes": "64KiB",
            "outbox_age": "3s",
            "send_buffer": "4KiB",
            "unsent_low_water": "2KiB",
        },
        "auth": {"refusals_per_second": 3, "refusals_burst": 10, "jwks_refresh": "1s"},
        **beside(folder, application),
        "history": {"messages": 200},
        "session": {"enabled": True, "secret": secrets.token_hex(32), "per_minute": 30},
        "echo": {"enabled": True},
        "drain": {"grace": "1s", "time": "5s"},
        "admin": {"token_file": str(admin)},
        "traces": {"endpoint": collector, "sample_ratio": 0.2},
    }


class Cluster:
    """`async with`: everything runs, and ends with it."""

    def __init__(self):
        # What Prometheus is told of besides its targets: files of rules, and the port of an Alertmanager.
        self.rules = self.alertmanager = None

    async def prepare(self):
        """What must be there before Prometheus is."""

    async def __aenter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="conclave-dash-")
        self.folder = Path(self._folder.name)
        self.identity, self.collector, self.application = Identity(self.folder), Sink(), Application()
        self.ports = Ports(PORT_RANGE)
        self.world = Standalone(BINARY, self.folder, self.identity, self.ports, "disk", tables(self.folder, self.collector.url, self.application.url))
        self.nodes, self.redis = self.world.nodes, self.world.stores[0]
        self.others = []
        try:
            await self.world.start()
            self.prober = await self._start_prober()
            await self.prepare()
            self.prometheus = await self._start(Prometheus(self.folder, self.ports.take(), self._scraping()))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        for process in self.others:
            await process.kill()
        await self.world.close()
        self.collector.close()
        self.application.close()
        self._folder.cleanup()

    async def _start(self, process):
        self.others.append(process)
        await process.start()
        return process

    async def _start_prober(self):
        """`conclave probe --listen` with what each node is probed with."""
        path, port = self.folder / "probe.toml", self.ports.take()
        secret = self.folder / "probe.token"
        secret.touch(mode=0o600)
        secret.write_text(token("probe", probe=True))
        path.write_text(probe_config(secret, [node.url for node in self.nodes]))
        command = [BINARY, "probe", "--listen", f"127.0.0.1:{port}", "--config", path]
        prober = Server("probe", command, self.folder, port)
        prober.READY = "/metrics"
        return await self._start(prober)

    def _scraping(self):
        nodes = self.admins()
        exporter = f"127.0.0.1:{self.prober.port}"
        jobs = [
            {"job_name": JOB, "static_configs": [{"targets": nodes}]},
            {"job_name": EXPORTER_JOB, "static_configs": [{"targets": [exporter]}]},
            self._probing(exporter),
        ]
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": jobs}
        if self.rules:
            config["rule_files"] = [str(self.rules)]
        if self.alertmanager:
            config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{self.alertmanager}"]}]}]}
        return config

    def _probing(self, exporter):
        return {
            "job_name": PROBE_JOB,
            "metrics_path": "/probe",
            # A busy machine has time for it, too.
            "scrape_interval": "3s",
            "scrape_timeout": "3s",
            "params": {"module": ["default"]},
            "static_configs": [{"targets": [node.url for node in self.nodes]}],
            "relabel_configs": [
                {"source_labels": ["__address__"], "target_label": "__param_target"},
                {"source_labels": ["__param_target"], "target_label": "instance"},
                {"target_label": "__address__", "replacement": exporter},
            ],
        }

    def instances(self):
        """As Prometheus calls what it scrapes."""
        return [*self.admins(), *(node.url for node in self.nodes), f"127.0.0.1:{self.prober.port}"]

    def admins(self):
        return [f"127.0.0.1:{node.admin}" for node in self.nodes]

    def client_tls(self):
        """The certificate is exchanged while clients come and go, so it is not what they trust."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def verb(self, *words):
        """Another run of the binary with the first node's configuration."""
        config = self.folder / f"{self.nodes[0].letter}.toml"
        child = await asyncio.create_subprocess_exec(
            BINARY, *words, "--config", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        return await child.wait()

    def renew(self):
        """As an operator would: the same key, a new certificate, for 90 days instead of two."""
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        files = ["-key", self.identity.key, "-out", self.identity.certificate]
        ask = ["openssl", "req", "-x509", *files, "-days", "90", "-subj", "/CN=localhost", "-addext", names]
        subprocess.run(ask, check=True, capture_output=True)

    def hang_up(self):
        """Certificates are to be read again."""
        for node in self.nodes:
            node.child.send_signal(signal.SIGHUP)

    async def drain(self, node):
        """Told to stop, and started again once it is gone."""
        node.child.send_signal(signal.SIGTERM)
        await until(f"node {node.letter} to stop", lambda: not node.alive())
        await self.world.start_node(node)


def probe_config(secret, targets):
    """Each node by itself and by way of the last one. The certificate is exchanged while this runs: see `client_tls`."""
    listed = ", ".join(f'"{target}"' for target in targets)
    keys = f'token_file = "{secret}"\ninsecure = true\nroom = "lobby"\nvia = "{targets[-1]}"\n'
    return f"[modules.default]\ntargets = [{listed}]\n{keys}"
