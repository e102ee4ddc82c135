"""A server of its own for each test class: `conclave serve` on free ports. $CONCLAVE names the binary."""

import base64
import hashlib
import hmac
import json
import os
import queue
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

BINARY = os.environ.get("CONCLAVE") or exit("set CONCLAVE to the conclave binary")
SECRET = b"a secret that only the tests of strangers know"
START_SECONDS = 60


class Running:
    """A process whose output is read all the time, so that it never waits for us."""

    def __init__(self, *arguments, env=None):
        self.process = subprocess.Popen(
            [BINARY, *arguments],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = []
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def line(self, find):
        """The first result of `find(line)` that is not empty."""
        deadline = time.monotonic() + START_SECONDS
        while (line := self._lines.get(timeout=max(0, deadline - time.monotonic()))) is not None:
            if found := find(line):
                return found
        raise AssertionError("".join(["the line did not come:\n", *self.output]))

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(START_SECONDS)
        self._reader.join(START_SECONDS)
        self.process.stdout.close()
        return code


def certificate(folder):
    """`conclave dev` leaves an authority, and a certificate of it for localhost, in its state folder."""
    state = folder / "state"
    dev = Running(
        "dev", "--quiet", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", env={"CONCLAVE_STATE_DIR": str(state)}
    )
    dev.line(lambda line: line.startswith("https://"))
    dev.end()
    return state


def ready(line):
    said = json.loads(line) if line.startswith("{") else {}
    return said if said.get("message") == "ready" else None


class Server:
    def __init__(self, **tables):
        self.folder = Path(tempfile.mkdtemp(prefix="conclave-stranger-"))
        state = certificate(self.folder)
        self.tls = ssl.create_default_context(cafile=state / "ca.crt")
        secret = self.folder / "jwt.secret"
        secret.touch(mode=0o600)
        secret.write_bytes(SECRET)
        tables = {
            "server": {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"},
            "tls": {"certificate": str(state / "localhost.crt"), "key": str(state / "localhost.key")},
            **tables,
            "[auth.keys]": {"algorithm": "HS256", "secret_file": str(secret)},
        }
        self.config = self.folder / "conclave.toml"
        # What JSON writes for text, numbers, booleans and lists is TOML too.
        self.config.write_text(
            "".join(
                f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
                for name, entries in tables.items()
            )
        )
        self.running = Running("serve", "--config", str(self.config), "--log-format", "json")
        said = self.running.line(ready)
        self.authority = f"localhost:{said['listen'].rsplit(':', 1)[1]}"
        self.origin = f"https://{self.authority}"

    def token(self, sub, **claims):
        """As an operator mints one: with the binary, from the same configuration."""
        given = [word for name, value in claims.items() for word in ("--claim", f"{name}={json.dumps(value)}")]
        minted = subprocess.run(
            [BINARY, "token", "--config", self.config, "--sub", sub, "--ttl", "1h", "-q", *given],
            check=True,
            capture_output=True,
            text=True,
        )
        return minted.stdout.strip()

    def stop(self):
        return self.running.end()

    def close(self):
        if self.running.process.poll() is None:
            self.running.end(signal.SIGKILL)
        shutil.rmtree(self.folder)


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(claims, secret=SECRET, **header):
    """A JWT by hand, for those that no library makes."""
    parts = [json.dumps({"alg": "HS256", **header}), claims if isinstance(claims, str) else json.dumps(claims)]
    body = ".".join(encoded(part.encode()) for part in parts)
    return f"{body}.{encoded(hmac.digest(secret, body.encode(), hashlib.sha256))}"
