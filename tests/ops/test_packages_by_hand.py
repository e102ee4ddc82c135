"""ops/README.md, word for word: its commands in one shell, and the alerts that it says come. Only ports are others, and
what Debian's packages would install and start is there already."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from packages_lab import BINARY, OPS, TREE, free_port

# For one command, or for an alert: flushing, waiting for windows of a minute, on a machine that others use, too.
SECONDS = 240
PORTS = ["6379", "8443", "8444", "9464", "9465", "9090", "9093", "9099", "9115"]
# Found in the path; the packages are installed by tests/run.
STANDS_IN = """
apt-get() { :; }
service() { :; }
"""


class Shell:
    """One bash for the whole page, as a reader has one."""

    def __init__(self, folder, env):
        self.process = subprocess.Popen(
            ["bash"], cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.count = 0

    def run(self, text):
        """All of it, each command with success."""
        self.count += 1
        mark = f"@@{self.count}"
        late = threading.Timer(SECONDS, self.kill)
        late.start()
        try:
            return self.follow(mark, text)
        finally:
            late.cancel()

    def follow(self, mark, text):
        self.process.stdin.write(f"trap 'echo {mark} failed: $BASH_COMMAND' ERR\n{text}\ntrap - ERR\necho {mark} done\n")
        self.process.stdin.flush()
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith(f"{mark} failed"):
                raise AssertionError("".join(said))
            if line == f"{mark} done\n":
                return "".join(said)
        raise AssertionError("the shell ended:\n" + "".join(said))

    def kill(self):
        # Everything that it started and nothing else: a session of its own.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def end(self):
        self.kill()
        self.process.communicate(timeout=SECONDS)


class ByHand(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="conclave-by-hand-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        (page,) = re.findall(r"<!-- by hand -->\n(.*?)<!-- /by hand -->", (OPS / "README.md").read_text(), re.S)
        self.ports = {port: str(free_port()) for port in PORTS}
        source = self.folder / "source"
        for path in ("ops/prometheus", "ops/receiver.py", "ops/filled.py", "dashboards"):
            self.copy(TREE / path, source / path)
        self.page = self.elsewhere(page).replace("/path/to/conclave", str(source))
        bin = self.folder / "bin"
        bin.mkdir()
        (bin / "conclave").symlink_to(BINARY)
        self.work = self.folder / "work"
        self.work.mkdir()
        self.shell = Shell(self.work, {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"})
        self.addCleanup(self.shell.end)

    def elsewhere(self, text):
        return re.sub(r"\b(%s)\b" % "|".join(PORTS), lambda port: self.ports[port[1]], text)

    def copy(self, path, to):
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file() and file.suffix in (".py", ".yml", ".json"):
                target = to if path.is_file() else to / file.relative_to(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                # Dashboards name no port, but numbers.
                target.write_text(file.read_text() if file.suffix == ".json" else self.elsewhere(file.read_text()))

    def test_the_page_is_followed_and_what_it_says_happens(self):
        self.shell.run(STANDS_IN)
        begin = 0
        for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", self.page, re.S | re.M):
            if kind == "sh":
                begin = len(self.alerts())
                self.shell.run(text)
            else:
                for line in text.splitlines():
                    self.wait_for(line, begin)
        self.assertIn(" brought data, 0 did not", (self.work / "filled.log").read_text())

    def alerts(self):
        log = self.work / "alerts.log"
        return log.read_text().splitlines() if log.exists() else []

    def wait_for(self, line, begin):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if line in self.alerts()[begin:]:
                return
            time.sleep(0.2)
        logs = "".join(f"\n== {path.name}\n" + "\n".join(path.read_text().splitlines()[-15:]) for path in self.work.glob("*.log"))
        self.fail(f"{line}\n  did not come; there came\n{self.alerts()[begin:]}{logs}")


if __name__ == "__main__":
    unittest.main()
