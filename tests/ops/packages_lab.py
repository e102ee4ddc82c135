"""What the tests of packages share: where things are, commands, ports, files for a node."""

import base64
import json
import logging
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

# Of slow callbacks, which a busy machine has.
logging.getLogger("asyncio").setLevel(logging.ERROR)

TREE = Path(__file__).resolve().parents[2]
OPS = TREE / "ops"
BINARY = os.environ.get("CONCLAVE") or exit("set CONCLAVE to the conclave binary")
# Debian keeps servers where only root looks.
os.environ["PATH"] += ":/usr/sbin:/sbin"
# The client and the server of the strangers are ours, too.
sys.path.insert(0, str(TREE / "tests/strangers/python"))
# Two cores that others use, too.
PATIENCE_SECONDS = 60
# Tools from PyPI are beside the interpreter that runs this.
TOOLS = Path(sys.executable).parent


def run(*words, ok=True, timeout=120, **how):
    """A command's standard output; with `ok`, one that fails fails the test with all that it said."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout, **how)
    if ok and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout if ok else done


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write(path, data, mode=0o600):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def pair(folder, names=("localhost",), days=90):
    """A certificate that vouches for itself, as README makes it with openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days,
        "-keyout", folder / "tls.key", "-out", folder / "tls.crt", "-subj", f"/CN={names[0]}",
        "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
        # An authority that is used as a server's own certificate is refused by some clients, ours among them.
        "-addext", "basicConstraints=critical,CA:FALSE",
    )  # fmt: skip
    (folder / "tls.key").chmod(0o600)


def secret():
    return base64.b64encode(secrets.token_bytes(48)).decode()


SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kb": 2**10, "mb": 2**20, "gb": 2**30}


def quantity(text, units):
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]+)", text).groups()
    return float(number) * units[unit]


def default(key):
    """The default of a key of conclave.toml, as the binary says it."""
    table = tomllib.loads((TREE / "src/config/default.toml").read_text())
    for word in key.split("."):
        table = table[word]
    return table


def tls_of(authority_file):
    """A client's view: it trusts this authority and nothing else."""
    return ssl.create_default_context(cafile=authority_file)


class Door:
    """Where clients come in: what tests/strangers/python/client.py needs to know of a server."""

    def __init__(self, port, authority_file, config, env=None):
        self.authority = f"localhost:{port}"
        self.tls = tls_of(authority_file)
        self._config = config
        self._env = {**os.environ, **(env or {})}

    def token(self, sub, **claims):
        given = [word for name, value in claims.items() for word in ("--claim", f"{name}={json.dumps(value)}")]
        return run(BINARY, "token", "--config", self._config, "--sub", sub, "--ttl", "1h", "-q", *given, env=self._env).strip()


def get(url, timeout=10):
    """Status and text of a plain HTTP answer, whatever its status."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(port):
    """Name (with its labels) and value of each line of /metrics."""
    lines = get(f"http://127.0.0.1:{port}/metrics")[1].splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def until(what, seconds=PATIENCE_SECONDS, why="it did not come to pass"):
    """The first result of `what()` that is not empty; an OSError counts as empty."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except OSError as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{why() if callable(why) else why} (in {seconds} s): {last or ''}")


def changed(text, places):
    """`text` with every key of `places` changed into its value; a key that is not there is a mistake here."""
    for found, put in places.items():
        assert found in text, found
        text = text.replace(found, str(put))
    return text


def toml(tables):
    """What JSON writes for text, numbers, booleans and lists is TOML too. `[name]` begins an entry of a list."""
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
        for name, entries in tables.items()
    )


class Started:
    """A server that is not ours, until the end of the test."""

    def __init__(self, log, *words, env=None):
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(env or {})}
            )

    def said(self):
        return self.log.read_text(errors="replace")

    def answers(self, port):
        """Waits until somebody listens there."""

        def listens():
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}:\n{self.said()}")
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return True

        until(listens, why=self.said)
        return self

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self):
        self.end(signal.SIGKILL)


class Node(Started):
    """`conclave serve` with these tables, on ports that stay over a restart."""

    def __init__(self, folder, name, tables):
        self.folder, self.name = folder, name
        self.config = write(folder / f"{name}.toml", toml(tables))
        self.admin = int(tables["server"]["admin_listen"].rsplit(":", 1)[1])
        self.start()

    def start(self):
        super().__init__(
            self.folder / f"{self.name}.log", BINARY, "serve", "--config", self.config, "--log-format", "json", "--log-level", "debug"
        )
        until(self.is_ready, why=self.said)
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.said()}")
        return get(f"http://127.0.0.1:{self.admin}/readyz")[0] == 200

    def metric(self, name):
        """Its value; without labels, the sum over all of them."""
        return sum(value for found, value in metrics(self.admin).items() if found == name or found.startswith(name + "{"))


def redis(folder):
    port = free_port()
    server = Started(folder / "redis.log", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder)
    return server.answers(port), f"redis://127.0.0.1:{port}"
