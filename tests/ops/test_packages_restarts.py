"""ops/conclave.socket and ops/conclave.service under a real systemd: restarts that refuse nobody."""

import asyncio
import os
import shutil
import tempfile
import time
import unittest
from pathlib import Path

from packages_lab import OPS, PATIENCE_SECONDS, Door, free_port, get, pair, secret, until, write
from client import Client
import test_packages_systemd as systemd

VISITORS = 4
AFTER = 10


@unittest.skipIf(os.geteuid() != 0, "only root can have a systemd of its own")
class Restarts(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="conclave-restarts-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.machine = systemd.Machine()
        cls.addClassCleanup(cls.machine.end)
        cls.port, cls.admin = free_port(), free_port()
        pair(cls.folder)
        word = secret()
        write(cls.folder / "jwt", word)

        def toml(folder, jwt):
            return (
                # Not used: the socket unit has the port.
                f'[server]\nlisten = "127.0.0.1:{free_port()}"\nadmin_listen = "127.0.0.1:{cls.admin}"\n'
                f'[tls]\ncertificate = "{folder}/tls.crt"\nkey = "{folder}/tls.key"\n'
                f'[[auth.keys]]\nalgorithm = "HS256"\nsecret_file = "{jwt}"\n'
                '[drain]\ngrace = "200ms"\ntime = "2s"\n'
            )

        config = write(cls.folder / "conclave.toml", toml(cls.folder, cls.folder / "jwt"))
        cls.door = Door(cls.port, cls.folder / "tls.crt", config)
        cls.machine.run("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "conclave")
        cls.machine.write("/etc/conclave/conclave.toml", toml("/etc/conclave", "/run/credentials/conclave.service/jwt"))
        cls.machine.write("/etc/conclave/jwt.secret", word, "0600")
        cls.machine.write("/etc/conclave/tls.crt", (cls.folder / "tls.crt").read_text())
        cls.machine.write("/etc/conclave/tls.key", (cls.folder / "tls.key").read_text(), "0640", "conclave")
        units = "/etc/systemd/system"
        socket = (OPS / "conclave.socket").read_text().replace("ListenStream=443", f"ListenStream=127.0.0.1:{cls.port}")
        cls.machine.write(f"{units}/conclave.socket", socket)
        cls.machine.write(f"{units}/conclave.service", (OPS / "conclave.service").read_text())
        # There is no journal.
        log = "[Service]\nStandardOutput=append:/run/conclave.log\nStandardError=append:/run/conclave.log\n"
        cls.machine.write(f"{units}/conclave.service.d/log.conf", log)
        cls.machine.run("systemctl", "daemon-reload")
        cls.machine.run("systemctl", "start", "conclave.socket")

    def status(self):
        status = self.machine.run("systemctl", "status", "--no-pager", "conclave.service", ok=False).stdout
        return status + self.machine.run("tail", "-n", "30", "/run/conclave.log", ok=False).stdout

    async def systemctl(self, *words):
        return await asyncio.to_thread(self.machine.run, "systemctl", *words, timeout=PATIENCE_SECONDS)

    async def test_nobody_is_refused(self):
        welcomed, stop = 0, asyncio.Event()

        async def visitor(name):
            """Comes again and again; an attempt that fails fails the test."""
            nonlocal welcomed
            while not stop.is_set():
                async with asyncio.timeout(PATIENCE_SECONDS):
                    client = await Client.signed_in(self.door, name)
                welcomed += 1
                await client.socket.close()

        async def more():
            wanted, deadline = welcomed + AFTER, time.monotonic() + PATIENCE_SECONDS
            while welcomed < wanted:
                for task in visitors:
                    if task.done():
                        task.result()
                self.assertLess(time.monotonic(), deadline, self.status())
                await asyncio.sleep(0.02)

        # The first one starts the service.
        self.assertEqual(self.machine.show("conclave.service", "ActiveState"), "inactive")
        visitors = [asyncio.create_task(visitor(f"v{number}")) for number in range(VISITORS)]
        await more()
        pids = {self.machine.show("conclave.service", "MainPID")}
        self.assertIn("serving", self.machine.show("conclave.service", "StatusText"))
        for _ in range(2):
            await self.systemctl("restart", "conclave.service")
            # It has said that it is ready.
            self.assertEqual(self.machine.show("conclave.service", "ActiveState"), "active")
            self.assertEqual(get(f"http://127.0.0.1:{self.admin}/readyz")[0], 200)
            pids.add(self.machine.show("conclave.service", "MainPID"))
            await more()
        self.assertEqual(len(pids), 3)
        # Reload is told to systemd too, and ends.
        await self.systemctl("reload", "conclave.service")
        until(lambda: self.machine.show("conclave.service", "ActiveState") == "active", why=self.status)
        await more()
        # Killed is killed: whoever is inside is cut, but the port stays.
        stop.set()
        await asyncio.gather(*visitors)
        await self.systemctl("kill", "--signal=KILL", "conclave.service")
        async with asyncio.timeout(PATIENCE_SECONDS):
            client = await Client.signed_in(self.door, "patient")
        await client.socket.close()

    def tearDown(self):
        self.machine.run("systemctl", "stop", "conclave.socket", "conclave.service", ok=False)


if __name__ == "__main__":
    unittest.main()
