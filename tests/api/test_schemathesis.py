"""The server API, by schemathesis: requests that its own description allows, requests that it does not, methods and
media types that are not there, and sequences of calls. Nothing of it may be answered in a way that the description does
not have.

`SEED=7` repeats a run.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request

CONCLAVE = os.environ["CONCLAVE"]
SEED = int(os.environ.get("SEED", "7"))
# Per operation and phase; together with the phase of fixed cases well under a minute on two cores.
EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
RUN_SECONDS = 300

CONFIG = """
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[tls]
certificate = "tls.crt"
key = "tls.key"
[api]
requests_per_second = 100000
requests_burst = 100000
[[auth.keys]]
algorithm = "HS256"
secret_file = "secret"
"""


class Node:
    """A node with a key that may do everything, in a folder of its own."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        ca = ["-addext", "basicConstraints=critical,CA:FALSE"]
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9"]
        files = ["-keyout", "tls.key", "-out", "tls.crt"]
        subprocess.run([*new, *files, *subject, *ca], cwd=folder, check=True, capture_output=True)
        (self.folder / "secret").write_bytes(os.urandom(48).hex().encode())
        for name in ["tls.key", "secret"]:
            (self.folder / name).chmod(0o600)
        made = subprocess.run(
            [CONCLAVE, "api-key", "new", "--name", "tester", "--scope", "*", "--quiet"], capture_output=True, text=True, check=True
        )
        self.key = made.stdout.strip()
        (self.folder / "conclave.toml").write_text(CONFIG + made.stderr)
        self.log = (self.folder / "log").open("w")
        self.process = subprocess.Popen(
            [CONCLAVE, "serve", "--config", "conclave.toml"], cwd=folder, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        for line in self.process.stdout:
            said = json.loads(line)
            if said["message"] == "ready":
                self.listen, self.admin = said["listen"], said["admin_listen"]
                break
        else:
            raise AssertionError((self.folder / "log").read_text())
        # What it says from now on is not looked at, but has to go somewhere.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=self.log)

    @property
    def url(self):
        return f"https://localhost:{self.listen.rsplit(':', 1)[1]}/api/v1/openapi.json"

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=30) as answer:
            return answer.read().decode()

    def close(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.drain.wait()
        self.process.stdout.close()
        self.log.close()


class Schemathesis(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.node = Node(folder.name)
        self.addCleanup(self.node.close)

    def test_finds_nothing(self):
        command = [pathlib.Path(sys.executable).with_name("schemathesis"), "--no-color", "run", self.node.url]
        options = ["--checks", "all", "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--continue-on-failure"]
        to = ["--tls-verify", str(self.node.folder / "tls.crt"), "--header", f"Authorization: Bearer {self.node.key}"]
        run = subprocess.run(
            [*command, *options, *to], cwd=self.node.folder, capture_output=True, text=True, timeout=RUN_SECONDS
        )
        print(run.stdout[-1500:], file=sys.stderr)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("No issues found", run.stdout)
        # It did reach all of them, and none was let in to do nothing.
        metrics = self.node.metrics()
        operations = ["chat", "message", "users", "history", "remove", "kick", "revoke", "rooms", "nodes", "batch"]
        for operation in operations:
            done = [line for line in metrics.splitlines() if f'operation="{operation}",result="ok"' in line]
            self.assertTrue(done and float(done[0].rsplit(" ", 1)[1]) > 0, operation)
        failed = [line for line in metrics.splitlines() if 'conclave_api_requests_total{' in line and 'result="failed"' in line]
        self.assertTrue(all(float(line.rsplit(" ", 1)[1]) == 0 for line in failed), failed)


if __name__ == "__main__":
    unittest.main()
