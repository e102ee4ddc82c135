"""ops/conclave.service under a real systemd, which is the first process of namespaces of its own (machine.sh)."""

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from packages_lab import (
    BINARY, OPS, PATIENCE_SECONDS, SECONDS, TREE, Door, default, free_port, get, metrics, pair, quantity, run, secret, until, write,
)  # fmt: skip
from client import Client

UNITS = sorted(OPS.glob("conclave.s*"))
# "systemd-analyze security": 0 is shut, 10 is open. A service on the network does not come far below 1.5.
EXPOSURE_MAX = 1.8
# Where somebody stands who follows README, in the machine.
FOLDER = "/run/here"


def settings(unit):
    """Key and values of a unit's lines, in order."""
    found = {}
    for line in unit.read_text().splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def readme():
    """The commands of README's section on systemd."""
    (block,) = re.findall(r"<!-- systemd -->\n```sh\n(.*?)```\n<!-- /systemd -->", (TREE / "README.md").read_text(), re.S)
    return block.splitlines()


class OnPaper(unittest.TestCase):
    def test_systemd_understands_every_line(self):
        # The binary is not installed here.
        with tempfile.TemporaryDirectory() as folder:
            for unit in UNITS:
                write(Path(folder) / unit.name, unit.read_text().replace("/usr/local/bin/conclave", "/bin/true"))
            said = run("systemd-analyze", "verify", *Path(folder).iterdir(), ok=False)
        self.assertEqual((said.returncode, said.stderr), (0, ""))

    def test_little_is_left_open(self):
        said = run("systemd-analyze", "security", "--offline=true", OPS / "conclave.service")
        exposure = float(re.search(r"Overall exposure level for conclave.service: ([\d.]+)", said)[1])
        self.assertLessEqual(exposure, EXPOSURE_MAX)

    def test_the_socket_is_the_one_that_the_server_looks_for(self):
        socket = settings(OPS / "conclave.socket")
        self.assertEqual(socket["FileDescriptorName"], ["main"])

    def test_there_is_time_to_drain(self):
        (stop,) = settings(OPS / "conclave.service")["TimeoutStopSec"]
        drain = sum(quantity(default(f"drain.{name}"), SECONDS) for name in ("grace", "time"))
        self.assertGreaterEqual(float(stop), drain + 10)


class Machine:
    """A systemd with nothing else in it."""

    def __init__(self):
        self.process = subprocess.Popen(
            # Told when this test ends without a word.
            ["setpriv", "--pdeathsig", "TERM", TREE / "tests/ops/machine.sh", BINARY], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        until(lambda: self.run("systemctl", "is-active", "machine.target", ok=False).returncode == 0)

    def first_process(self):
        """`systemd` as the machine's first process, seen from here."""
        left = [self.process.pid]
        while left:
            pid = left.pop()
            try:
                if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                    return pid
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    left += (thread / "children").read_text().split()
            except OSError:
                pass
        raise OSError("systemd does not run yet")

    def run(self, *words, **how):
        return run("nsenter", "--target", self.first_process(), "--all", *words, **how)

    def write(self, path, data, mode="0644", group="root"):
        run(
            "nsenter", "--target", self.first_process(), "--all", "install", "-D", "-m", mode, "-g", group, "/dev/stdin", path,
            input=data,
        )  # fmt: skip

    def show(self, unit, key):
        return self.run("systemctl", "show", "--value", "--property", key, unit).strip()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_SECONDS)


@unittest.skipIf(os.geteuid() != 0, "only root can have a systemd of its own")
class UnderSystemd(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="conclave-systemd-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.machine = Machine()
        cls.addClassCleanup(cls.machine.end)
        cls.port, cls.admin = free_port(), free_port()
        pair(cls.folder)
        cls.secret = secret()
        cls.config = write(cls.folder / "conclave.toml", cls.toml(cls.folder / "tls.crt", cls.folder / "tls.key", cls.folder / "jwt"))
        write(cls.folder / "jwt", cls.secret)
        cls.door = Door(cls.port, cls.folder / "tls.crt", cls.config)
        cls.lay_out()
        for line in readme():
            # The binary is there already; what starts it is left to the tests.
            if "cargo" not in line and "enable" not in line:
                cls.in_folder(line)
        # There is no journal.
        cls.machine.write(
            "/etc/systemd/system/conclave.service.d/log.conf",
            "[Service]\nStandardOutput=append:/run/conclave.log\nStandardError=append:/run/conclave.log\n",
        )
        cls.machine.run("systemctl", "daemon-reload")

    @classmethod
    def toml(cls, certificate, key, jwt):
        return (
            f'[server]\nlisten = "127.0.0.1:{cls.port}"\nadmin_listen = "127.0.0.1:{cls.admin}"\n'
            f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
            f'[[auth.keys]]\nalgorithm = "HS256"\nsecret_file = "{jwt}"\n'
            '[drain]\ngrace = "200ms"\ntime = "1s"\n'
        )

    @classmethod
    def in_folder(cls, line):
        cls.machine.run("sh", "-ec", f"cd {FOLDER}; {line}")

    @classmethod
    def lay_out(cls):
        """The folder that README's commands are for, in the machine."""
        cls.machine.write(
            f"{FOLDER}/conclave.toml",
            cls.toml("/etc/conclave/tls.crt", "/etc/conclave/tls.key", "/run/credentials/conclave.service/jwt"),
        )
        cls.machine.write(f"{FOLDER}/jwt.secret", cls.secret)
        for name in ("tls.crt", "tls.key"):
            cls.machine.write(f"{FOLDER}/{name}", (cls.folder / name).read_text())
        for file in UNITS:
            cls.machine.write(f"{FOLDER}/ops/{file.name}", file.read_text())

    @classmethod
    def install(cls, name):
        """As README does it the first time."""
        (line,) = [line for line in readme() if line.startswith("install") and f" {name} " in line]
        cls.in_folder(line)

    def setUp(self):
        self.machine.run("systemctl", "reset-failed", "conclave.service", ok=False)
        started = self.machine.run("systemctl", "start", "conclave.service", ok=False, timeout=PATIENCE_SECONDS)
        self.assertEqual(started.returncode, 0, self.status())
        self.ready()

    def ready(self):
        until(lambda: get(f"http://127.0.0.1:{self.admin}/readyz")[0] == 200, why=self.status)

    def status(self):
        status = self.machine.run("systemctl", "status", "--no-pager", "conclave.service", ok=False).stdout
        return status + self.machine.run("tail", "-n", "30", "/run/conclave.log", ok=False).stdout

    async def joined(self, name):
        client = await Client.joined(self.door, name, "lobby")
        self.addAsyncCleanup(client.socket.close)
        return client

    async def test_rooms_work_in_the_sandbox(self):
        ann, bob = await self.joined("ann"), await self.joined("bob")
        await ann.ask("chat", room="lobby", content="hello")
        self.assertEqual((await bob.next(type="chat"))["content"], "hello")
        # Nothing that the node tells of itself is missing there.
        plain = subprocess.Popen(
            [BINARY, "serve", "--config", self.config, "--listen", "127.0.0.1:0", "--admin-listen", f"127.0.0.1:{(admin := free_port())}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            names = until(lambda: metrics(admin)).keys()
        finally:
            plain.kill()
            plain.wait()
        process = {name for name in names if name.startswith("process_")}
        self.assertIn("process_open_fds", process)
        self.assertLessEqual(process, metrics(self.admin).keys())

    def test_it_is_nobody_with_nothing(self):
        pid = self.machine.show("conclave.service", "MainPID")
        status = dict(line.split(":\t", 1) for line in self.machine.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)
        self.assertNotEqual(status["Uid"].split()[0], "0")
        # Only CAP_NET_BIND_SERVICE (10), for port 443.
        self.assertEqual(int(status["CapEff"], 16), 1 << 10)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        # As many files as the unit asks for, or as this machine lets anybody have.
        (asked,) = settings(OPS / "conclave.service")["LimitNOFILE"]
        files = min(int(asked), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        self.assertRegex(self.machine.run("cat", f"/proc/{pid}/limits"), rf"Max open files +{files} +{files}")

    async def test_reload_takes_the_new_certificate_and_keeps_sockets(self):
        ann = await self.joined("ann")
        before = metrics(self.admin)["conclave_tls_certificate_expiry_timestamp_seconds"]
        pair(self.folder, days=30)
        self.lay_out()
        self.install("tls.key")
        self.install("tls.crt")
        self.machine.run("systemctl", "reload", "conclave.service")
        await asyncio.to_thread(
            until, lambda: metrics(self.admin)["conclave_tls_certificate_expiry_timestamp_seconds"] < before, why=self.status
        )
        await ann.ask("chat", room="lobby", content="still here")
        type(self).door = Door(self.port, self.folder / "tls.crt", self.config)
        await self.joined("bob")

    async def test_stop_drains(self):
        ann = await self.joined("ann")
        stop = asyncio.create_task(asyncio.to_thread(self.machine.run, "systemctl", "stop", "conclave.service"))
        await ann.next(type="closing", reason="restart")
        await ann.socket.wait_closed()
        self.assertEqual(ann.socket.close_code, 1012)
        await stop
        self.assertEqual(self.machine.show("conclave.service", "Result"), "success")

    def test_killed_it_comes_back(self):
        before = self.machine.show("conclave.service", "MainPID")
        self.machine.run("systemctl", "kill", "--signal=KILL", "conclave.service")
        until(lambda: self.machine.show("conclave.service", "MainPID") not in (before, "0"), why=self.status)
        self.ready()

    def test_a_wrong_configuration_is_not_tried_again(self):
        self.addCleanup(self.install, "conclave.toml")
        self.machine.run("systemctl", "stop", "conclave.service")
        self.machine.run("sed", "-i", "s/^grace = .*/grace = 5/", "/etc/conclave/conclave.toml")
        self.machine.run("systemctl", "start", "conclave.service", ok=False)
        until(lambda: self.machine.show("conclave.service", "ActiveState") == "failed", why=self.status)
        self.assertEqual(self.machine.show("conclave.service", "ExecMainStatus"), "64")
        self.assertEqual(self.machine.show("conclave.service", "NRestarts"), "0")


if __name__ == "__main__":
    unittest.main()
