"""A server as a child process: its output in a file, ended with the lab whatever happens to the lab."""

import asyncio
import ctypes
import signal
import socket
import subprocess
import time

START_SECONDS = 30
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_the_lab():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Ports:
    """Ports of this schedule alone: below those that the kernel gives out, and each job has a range of its own."""

    FIRST, EACH, RANGES = 11_000, 250, 80

    def __init__(self, job):
        begin = self.FIRST + job % self.RANGES * self.EACH
        self._next, self._end = begin, begin + self.EACH

    def take(self):
        while self._next < self._end:
            port, self._next = self._next, self._next + 1
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    pass
        raise RuntimeError("no free port left in this job's range")


class Process:
    def __init__(self, name, command, folder, env=None):
        self.name, self.command, self.env = name, command, env
        self.log = folder / f"{name}.log"
        self.child, self.stopped = None, False

    @property
    def pid(self):
        return self.child.pid if self.child else None

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def spawn(self):
        """Starts it; what earlier lives wrote stays in the log."""
        self.offset = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as output:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                preexec_fn=_die_with_the_lab,
            )
        self.stopped = False

    def said(self):
        """What this life wrote so far."""
        with open(self.log, "rb") as output:
            output.seek(self.offset)
            return output.read().decode(errors="replace")

    async def kill(self):
        """SIGKILL, which a stopped process obeys too."""
        if self.alive():
            self.child.kill()
            await asyncio.to_thread(self.child.wait)
        self.stopped = False

    def stop(self):
        if self.alive():
            self.child.send_signal(signal.SIGSTOP)
            self.stopped = True

    def cont(self):
        if self.alive():
            self.child.send_signal(signal.SIGCONT)
        self.stopped = False


async def until(what, found, seconds=START_SECONDS, process=None):
    """Polls `found` (a function, or one that returns an awaitable) until it says something true."""
    deadline = time.monotonic() + seconds
    while True:
        result = found()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        if process is not None and not process.alive():
            raise RuntimeError(f"{process.name} ended with {process.child.returncode}: {process.said()[-2000:]}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds} s")
        await asyncio.sleep(0.02)
