"""A conclave node as a child process, with a configuration of its own."""

import base64
import hashlib
import hmac
import json
import ssl
import subprocess
import time

from .process import Process, until

SECRET = b"a secret that only the fault lab knows"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(sub, **claims):
    claims = {"sub": sub, "exp": int(time.time()) + 3600, **claims}
    body = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{body}.{encoded(hmac.digest(SECRET, body.encode(), hashlib.sha256))}"


class Identity:
    """The certificate and the key for tokens, the same for all nodes and schedules of a run."""

    def __init__(self, folder):
        self.certificate, self.key, self.secret = folder / "node.crt", folder / "node.key", folder / "jwt.secret"
        if not self.certificate.exists():
            self.make()

    def make(self):
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        made = ["-keyout", self.key, "-out", self.certificate, "-days", "2", "-subj", "/CN=localhost", "-addext", names]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        subprocess.run(["openssl", "req", "-x509", *curve, *made], check=True, capture_output=True)
        self.key.chmod(0o600)
        self.secret.touch(mode=0o600)
        self.secret.write_bytes(SECRET)

    def client_tls(self):
        return ssl.create_default_context(cafile=self.certificate)


class Node(Process):
    def __init__(self, name, binary, folder, identity, ports, tables):
        self.listen, self.admin = ports.take(), ports.take()
        tables = {
            "server": {"listen": f"127.0.0.1:{self.listen}", "admin_listen": f"127.0.0.1:{self.admin}", "threads": 1},
            "tls": {"certificate": str(identity.certificate), "key": str(identity.key)},
            "drain": {"grace": "0s", "time": "0s"},
            **tables,
            "[auth.keys]": {"algorithm": "HS256", "secret_file": str(identity.secret)},
        }
        config = folder / f"{name}.toml"
        config.write_text("".join(table(name, entries) for name, entries in tables.items()))
        super().__init__(f"node-{name}", [binary, "serve", "--config", str(config), "--log-format", "json"], folder)
        self.letter, self.kills = name, 0

    @property
    def url(self):
        return f"wss://localhost:{self.listen}/ws"

    async def start(self, sources):
        """`sources`: see `proxy`; known from the first connection on."""
        self.spawn()
        sources[self.pid] = self.letter
        await until("readiness", self.ready, process=self)

    def ready(self):
        return any('"ready"' in line and json.loads(line).get("message") == "ready" for line in self.said().splitlines())


def table(name, entries):
    """What JSON writes for text, numbers, booleans and lists is TOML too."""
    return f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
