"""What the tests of packages share: where things are, commands, ports, files for a node."""

import base64
import os
import re
import secrets
import socket
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
OPS = TREE / "ops"
BINARY = os.environ.get("CONCLAVE") or exit("set CONCLAVE to the conclave binary")
# Debian keeps servers where only root looks.
os.environ["PATH"] += ":/usr/sbin:/sbin"
# The client and the server of the strangers are ours, too.
sys.path.insert(0, str(TREE / "tests/strangers/python"))
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
    """A certificate that is its own authority, as README makes it with openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days,
        "-keyout", folder / "tls.key", "-out", folder / "tls.crt", "-subj", f"/CN={names[0]}",
        "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
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
    import tomllib

    table = tomllib.loads((TREE / "src/config/default.toml").read_text())
    for word in key.split("."):
        table = table[word]
    return table
