"""ops/compose/compose.yml brought up without a container engine: each service that a Debian package or this repository has
is started with the file's own command, files, secrets, names and addresses, in a network and a root of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml
from packages_lab import BINARY, OPS, PATIENCE_SECONDS, changed, run, until

FOLDER = OPS / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yml").read_text())
# Not to be had from the registries. For Jaeger, somebody who takes what is sent to it stands in.
ABSENT = {"grafana"}
STANDS_IN = """
import http.server

class Taker(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        print("took", self.path, self.headers["Content-Type"], flush=True)
        self.send_response(200)
        self.end_headers()

http.server.ThreadingHTTPServer(("", 4318), Taker).serve_forever()
"""
# What the images start where compose.yml says nothing, by the names of Debian; "conclave" stands for our binary.
STARTS = {
    "a": ["conclave", "serve", "--config", "/etc/conclave/conclave.toml"],
    "b": ["conclave", "serve", "--config", "/etc/conclave/conclave.toml"],
    "balancer": ["haproxy", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
    "redis": [],
    "traces": ["python3", "-c", STANDS_IN],
    "probe": ["conclave"],
    "prometheus": ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
    "alertmanager": [
        "prometheus-alertmanager", "--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager",
        "--cluster.listen-address=",
    ],
}  # fmt: skip
# The image's user, who must be able to read the secrets.
NOBODY = {"a", "b", "probe"}
NETWORK = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
ip link add inside type bridge
ip addr add 10.80.0.1/24 dev inside
ip link set inside up
echo ready
exec sleep infinity
"""


@unittest.skipIf(os.geteuid() != 0, "only root can make networks")
class Up(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="conclave-up-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        shutil.copytree(FOLDER, cls.folder / "ops/compose", ignore=shutil.ignore_patterns("secrets"))
        shutil.copytree(OPS / "prometheus", cls.folder / "ops/prometheus")
        shutil.copytree(OPS / "haproxy", cls.folder / "ops/haproxy")
        run("sh", cls.folder / "ops/compose/prepare.sh")
        # This machine may have fewer files.
        balancer = cls.folder / "ops/haproxy/passthrough.cfg"
        balancer.write_text(changed(balancer.read_text(), {"maxconn 60000": "maxconn 2000"}))
        # Everything in it ends with it.
        cls.holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", NETWORK],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        cls.addClassCleanup(cls.end)
        assert cls.holder.stdout.readline() == "ready\n"
        (cls.first,) = Path(f"/proc/{cls.holder.pid}/task/{cls.holder.pid}/children").read_text().split()
        cls.addresses = cls.give_addresses()
        cls.running = {}
        for name in ("redis", "traces", "a", "b", "balancer", "probe", "alertmanager", "prometheus"):
            cls.start(name)
            if name == "redis":
                until(lambda: cls.inside("redis", "redis-cli", "ping").stdout, why=cls.logs)

    @classmethod
    def end(cls):
        cls.holder.send_signal(signal.SIGKILL)
        cls.holder.communicate(timeout=PATIENCE_SECONDS)
        for server in cls.running.values():
            server.wait(PATIENCE_SECONDS)

    @classmethod
    def inside(cls, name, *words, ok=False):
        """In that service's network; None is the bridge's, which is the host's side."""
        netns = ["ip", "netns", "exec", name] if name else []
        return run("nsenter", "--target", cls.first, "--net", "--mount", "--pid", *netns, *words, ok=ok)

    @classmethod
    def give_addresses(cls):
        addresses, free = {}, 20
        for name in STARTS:
            networks = COMPOSE["services"][name]["networks"]
            fixed = networks["inside"] if isinstance(networks, dict) else {}
            addresses[name] = fixed.get("ipv4_address", f"10.80.0.{free}")
            free += 1
            for alias in fixed.get("aliases", []):
                addresses[alias] = addresses[name]
            cls.inside(
                None, "sh", "-ec",
                f"ip netns add {name}; ip link add v{free} type veth peer name eth0 netns {name}; ip link set v{free} master inside up;"
                f"ip -n {name} addr add {addresses[name]}/24 dev eth0; ip -n {name} link set eth0 up; ip -n {name} link set lo up;"
                f"ip netns exec {name} sysctl -q -w net.ipv4.ip_unprivileged_port_start=0", ok=True,
            )  # fmt: skip
        hosts = "".join(f"{address} {name}\n" for name, address in addresses.items())
        (cls.folder / "hosts").write_text("127.0.0.1 localhost\n" + hosts)
        return addresses

    @classmethod
    def start(cls, name):
        """A root of its own: this machine's with a layer above it, and the service's files where it expects them."""
        service, here = COMPOSE["services"][name], cls.folder / "ops/compose"
        root = cls.folder / "roots" / name
        lines = [f"mkdir -p {root}/upper {root}/work {root}/root"]
        lines.append(f"mount -t tmpfs tmpfs {root}")
        lines.append(f"mkdir {root}/upper {root}/work {root}/root")
        lines.append(f"mount -t overlay overlay -o lowerdir=/,upperdir={root}/upper,workdir={root}/work {root}/root")
        binds = [(cls.folder / "hosts", "/etc/hosts"), (Path(BINARY).resolve(), "/usr/local/bin/conclave")]
        binds += [(here / COMPOSE["configs"][entry["source"]]["file"], entry["target"]) for entry in service.get("configs", [])]
        binds += [(here / COMPOSE["secrets"][secret]["file"], f"/run/secrets/{secret}") for secret in service.get("secrets", [])]
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                binds.append((here / source, target))
            else:
                lines.append(f"mkdir -p {root}/root{target}")
        for source, target in binds:
            make = "mkdir -p" if Path(source).is_dir() else f"mkdir -p {root}/root{Path(target).parent}; touch"
            lines.append(f"{make} {root}/root{target}; mount --bind {source} {root}/root{target}")
        lines += [f"mount --rbind /{folder} {root}/root/{folder}" for folder in ("proc", "dev")]
        words = [*STARTS[name], *service.get("command", [])]
        user = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs"] if name in NOBODY else []
        env = [f"{key}={value}" for key, value in service.get("environment", {}).items()]
        command = ["env", *env, *user, *words]
        script = "\n".join(lines) + f'\nexec chroot {root}/root "$@"'
        with (cls.folder / f"{name}.log").open("wb") as log:
            cls.running[name] = subprocess.Popen(
                ["nsenter", "--target", cls.first, "--net", "--mount", "--pid", "ip", "netns", "exec", name, "unshare", "--mount",
                 "sh", "-ec", script, "sh", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @classmethod
    def logs(cls):
        return "".join(f"\n== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-12:]) for path in cls.folder.glob("*.log"))

    def query(self, expr):
        port = f"{self.addresses['prometheus']}:9090"
        said = self.inside(
            None, "curl", "--silent", "--noproxy", "*", "--get", "--data-urlencode", f"query={expr}", f"http://{port}/api/v1/query"
        ).stdout
        result = json.loads(said)["data"]["result"] if said else []
        return [float(each["value"][1]) for each in result]

    def test_everything_that_it_names_is_here_or_known_to_be_absent(self):
        self.assertEqual(set(COMPOSE["services"]), set(STARTS) | ABSENT)

    def test_nodes_say_that_they_are_healthy(self):
        for name in "ab":
            until(lambda: self.inside(name, BINARY, "healthcheck", "--url", "http://127.0.0.1:9464/readyz").returncode == 0, why=self.logs)

    def test_a_message_goes_through_the_balancer_and_redis(self):
        def came_through():
            said = self.inside(
                None, "curl", "--silent", "--max-time", "15", "--noproxy", "*", "--get", "--data-urlencode",
                "target=wss://realtime.example.com/ws", f"http://{self.addresses['probe']}:9115/probe",
            ).stdout  # fmt: skip
            return re.search(r"^conclave_probe_success(\{.*\})? 1$", said, re.M)

        until(came_through, why=self.logs)

    def test_traces_leave(self):
        until(lambda: "took /v1/traces application/x-protobuf" in (self.folder / "traces.log").read_text(), why=self.logs)

    def test_prometheus_sees_all_of_it(self):
        until(lambda: self.query("count(up == 1) == count(up) and count(up) == 6") == [6], why=lambda: f"{self.query('up')}{self.logs()}")
        until(lambda: self.query("count(conclave_probe_success == 1)") == [3], why=self.logs)
        # Both nodes hear each other through Redis, and what is promised holds there.
        until(lambda: self.query("min(conclave_nodes)") == [2], why=self.logs)
        until(lambda: self.query("min(conclave_backplane_up)") == [1], why=self.logs)
        active = json.loads(self.inside(None, "curl", "--silent", f"http://{self.addresses['prometheus']}:9090/api/v1/alertmanagers").stdout)
        self.assertEqual(len(active["data"]["activeAlertmanagers"]), 1)
        self.assertEqual(self.query('count(ALERTS{alertstate="firing", severity="page"})'), [])


if __name__ == "__main__":
    unittest.main()
