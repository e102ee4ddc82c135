"""Dockerfile and .dockerignore without a container engine: what is copied is all that the build needs and nothing else, and
what the image runs runs in a root with nothing else in it. (The bases themselves cannot be had from a package registry.)"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from packages_lab import BINARY, OPS, PATIENCE_SECONDS, SECONDS, TOOLS, TREE, default, free_port, get, pair, quantity, run, secret, toml, until, write

DOCKERFILE = TREE / "Dockerfile"
# What gcr.io/distroless/cc-debian12 has: libc6, libgcc-s1, libstdc++6.
LIBRARIES = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
# For HEALTHCHECK and the rest in a root of its own: read only, as nobody, with no new privileges.
SHUT = """
mount --bind "$1" "$1"
mount --bind "$2" "$1/etc/conclave"
mount -o remount,bind,ro "$1"
mount -o remount,bind,ro "$1/etc/conclave"
mount -t proc proc "$1/proc"
root=$1 user=$3 folder=$4
shift 4
exec setpriv --no-new-privs unshare --user --map-user="$user" --map-group="$user" --root="$root" --wd="$folder" -- "$@"
"""


def instructions(text):
    """(word, rest) for each instruction, continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages():
    found = []
    for word, rest in instructions(DOCKERFILE.read_text()):
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def context():
    """What .dockerignore lets through: "*" and exceptions of it, the only form that is used here."""
    rules = [line for line in (TREE / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*" and all(rule.startswith("!") for rule in rules[1:])
    names = [rule[1:] for rule in rules[1:]]
    return [path for name in names for path in ([TREE / name] if (TREE / name).is_file() else (TREE / name).rglob("*")) if path.is_file()]


class Image(unittest.TestCase):
    def test_hadolint_finds_nothing(self):
        run(TOOLS / "hadolint", DOCKERFILE)

    def test_the_bases_can_be_pinned(self):
        text = DOCKERFILE.read_text()
        self.assertEqual(re.findall(r"^FROM (\S+)", text, re.M), ["${BUILD_IMAGE}", "${RUNTIME_IMAGE}"])
        rust = (TREE / "Cargo.toml").read_text()
        version = re.search(r'^rust-version = "([\d.]+)"', rust, re.M)[1]
        self.assertIn(f"ARG BUILD_IMAGE=docker.io/library/rust:{version}-bookworm", text)

    def test_no_secret_and_no_output_reaches_the_builder(self):
        for path in context():
            self.assertRegex(str(path.relative_to(TREE)), r"^(Cargo\.(toml|lock)|src/.*|benches/.*)$")
            self.assertNotRegex(path.name, r"\.(key|pem|crt|log|secret|token)$")

    def test_what_is_copied_is_all_that_the_build_needs(self):
        """The build stage's own commands, in a folder with what it copies; checked rather than built."""
        target = Path(BINARY).resolve().parents[1]
        # Always the same, so that cargo knows it again.
        folder = target / "image-context"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        let_through = set(context())
        env = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        build, _ = stages()
        ran = 0
        for word, rest in build:
            if word == "COPY":
                *sources, _ = rest.split()
                for source in sources:
                    files = [path for path in let_through if path == TREE / source or TREE / source in path.parents]
                    self.assertTrue(files, f"COPY {source}: not in the context")
                    for path in files:
                        to = folder / path.relative_to(TREE)
                        to.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(path, to)
            elif word == "RUN":
                self.assertEqual(rest.count("cargo build --release --locked --bin conclave"), 1)
                command = rest.replace("cargo build --release", "cargo check --quiet").replace("${CONCLAVE_COMMIT}", "abc")
                run("sh", "-ec", command, cwd=folder, env=env, timeout=900)
                ran += 1
        self.assertEqual(ran, 2)

    def test_what_the_image_runs_runs_with_nothing_else(self):
        _, final = stages()
        said = {word: rest for word, rest in final}
        user, group = said["USER"].split(":")
        self.assertEqual((user, group), ("65532", "65532"))
        (copied,) = [rest.split()[-1] for word, rest in final if word == "COPY"]
        entry, command = json.loads(said["ENTRYPOINT"]), json.loads(said["CMD"])
        health = json.loads(re.search(r"CMD (\[.*\])$", said["HEALTHCHECK"])[1])
        self.assertEqual(entry, [copied])
        self.assertEqual(health[0], copied)
        env = dict(pair.split("=", 1) for word, pair in final if word == "ENV")

        root, etc = Path(tempfile.mkdtemp(prefix="conclave-root-")), Path(tempfile.mkdtemp(prefix="conclave-etc-"))
        for folder in (root, etc):
            self.addCleanup(shutil.rmtree, folder)
            folder.chmod(0o755)
        for path in ("etc/conclave", "proc", "tmp"):
            (root / path).mkdir(parents=True)
        shutil.copy2(BINARY, write(root / copied.lstrip("/"), b"", 0o755))
        for line in run("ldd", BINARY).splitlines():
            if path := re.search(r"(/\S+) \(", line):
                library = Path(path[1])
                self.assertTrue(library.name in LIBRARIES or library.name.startswith("ld-linux"), line)
                to = root / path[1].lstrip("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(library.resolve(), to)

        port, admin = free_port(), free_port()
        pair(etc)
        write(etc / "jwt.secret", secret())
        tables = {
            "server": {"listen": f"127.0.0.1:{port}", "admin_listen": f"127.0.0.1:{admin}"},
            # Relative: meant from WORKDIR.
            "tls": {"certificate": "tls.crt", "key": "tls.key"},
            "[auth.keys]": {"algorithm": "HS256", "secret_file": "jwt.secret"},
            "drain": {"grace": "200ms", "time": "500ms"},
        }
        write(etc / "conclave.toml", toml(tables))

        def inside(words):
            outer = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
            return [*outer, "sh", "-ec", SHUT, "sh", root, etc, user, said["WORKDIR"], *words]

        server = subprocess.Popen(inside([*entry, *command]), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(lambda: server.poll() is None and (server.kill(), server.wait()))
        until(lambda: server.poll() is not None or get(f"http://127.0.0.1:{admin}/readyz")[0] == 200)
        self.assertIsNone(server.poll(), server.stdout.read() if server.poll() is not None else "")
        done = run(*inside(health), env=env, ok=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        # The one process inside that is not this test's shells.
        (pid,) = [pid for pid in descendants(server.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == "conclave"]
        status = Path(f"/proc/{pid}/status").read_text()
        self.assertRegex(status, r"NoNewPrivs:\t1")
        self.assertRegex(status, r"CapEff:\t0+\n")
        os.kill(pid, getattr(signal, said["STOPSIGNAL"]))
        server.wait(PATIENCE_SECONDS)
        self.assertIn("drain", server.stdout.read())
        done = run(*inside(health), env=env, ok=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("not ready", done.stderr)

    def test_the_engine_waits_as_long_as_a_drain_takes(self):
        drain = sum(quantity(default(f"drain.{name}"), SECONDS) for name in ("grace", "time"))
        for page in (TREE / "README.md").read_text(), (OPS / "compose/compose.yml").read_text():
            for seconds in re.findall(r"--stop-timeout (\d+)|stop_grace_period: (\d+)s", page):
                self.assertGreaterEqual(int("".join(seconds)), drain + 10)


def descendants(pid):
    left, found = [pid], []
    while left:
        found.append(left.pop())
        for thread in Path(f"/proc/{found[-1]}/task").iterdir():
            left += map(int, (thread / "children").read_text().split())
    return found


if __name__ == "__main__":
    unittest.main()
