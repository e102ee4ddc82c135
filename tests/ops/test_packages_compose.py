"""ops/compose and ops/grafana: the file by Compose's own schema, and every configuration in it by the program that reads it.

There is no Grafana in the package registries: what is said to it is checked by hand here. The services together are in
test_packages_compose_up.py."""

import json
import re
import shutil
import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml
from packages_lab import BINARY, OPS, SECONDS, TOOLS, TREE, Started, changed, default, free_port, quantity, run, write

FOLDER = OPS / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yml").read_text())
SERVICES = COMPOSE["services"]
# Where containers are, of what ops/prometheus/prometheus.yml looks for on one machine.
ADDRESSES = {
    '"127.0.0.1:9093"': '"alertmanager:9093"',
    '"127.0.0.1:9464", "127.0.0.1:9465"': '"a:9464", "b:9464"',
    '"wss://localhost:8443/ws", "wss://localhost:8444/ws"': '"wss://realtime.example.com/ws", "wss://a:8443/ws", "wss://b:8443/ws"',
    "127.0.0.1:9115": "probe:9115",
}


def moved(text, root):
    """A configuration with the containers' folders under `root`."""
    return re.sub(r"(?<![\w.])/(run/secrets|etc/conclave|data)\b", rf"{root}/\1", text)


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """The containers' files, laid out as they see them, with secrets that prepare.sh makes."""
        cls.root = Path(tempfile.mkdtemp(prefix="conclave-compose-"))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        copy = cls.root / "compose"
        shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("secrets"))
        run("sh", copy / "prepare.sh", cwd="/")
        cls.secrets = copy / "secrets"
        cls.before = {path.name: path.read_bytes() for path in cls.secrets.iterdir()}
        run("sh", copy / "prepare.sh", cwd="/")
        (cls.root / "run").mkdir()
        (cls.root / "run/secrets").symlink_to(cls.secrets)
        (cls.root / "data").mkdir()
        for name in ("conclave.toml", "probe.toml", "redis.conf"):
            write(cls.root / "etc/conclave" / name, moved((FOLDER / name).read_text(), cls.root))

    def test_the_schema_of_compose(self):
        run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yml")

    def test_a_misspelt_key_would_be_seen(self):
        wrong = write(self.root / "wrong.yml", (FOLDER / "compose.yml").read_text().replace("stop_grace_period", "stop_grace"))
        done = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", wrong, ok=False)
        self.assertNotEqual(done.returncode, 0)

    def test_yaml_style(self):
        files = [*FOLDER.glob("*.yml"), *(OPS / "grafana").rglob("*.yml")]
        # Braces and brackets of one line are how Compose files are written.
        run(TOOLS / "yamllint", "--strict", "-c", TREE / "tests/ops/.yamllint", *files)

    def test_every_name_is_of_something_and_everything_is_used(self):
        used = {"configs": set(), "secrets": set(), "volumes": set()}
        for name, service in SERVICES.items():
            used["configs"] |= {entry["source"] for entry in service.get("configs", [])}
            used["secrets"] |= set(service.get("secrets", []))
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((FOLDER / source).is_dir(), source)
                else:
                    used["volumes"].add(source)
            for other, how in service.get("depends_on", {}).items():
                if how["condition"] == "service_healthy":
                    self.assertTrue("healthcheck" in SERVICES[other] or "build" in SERVICES[other], f"{name} waits for {other}")
            networks = service["networks"]
            self.assertEqual(list(networks), ["inside"])
        for kind, names in used.items():
            self.assertEqual(names, set(COMPOSE[kind]), kind)
        for entry in COMPOSE["configs"].values():
            self.assertTrue((FOLDER / entry["file"]).is_file(), entry)
        mentioned = {Path(entry["file"]).name for entry in COMPOSE["configs"].values()} | {"compose.yml", "prepare.sh"}
        self.assertEqual({path.name for path in FOLDER.iterdir() if path.is_file()} - mentioned, {".gitignore"})

    def test_prepare_makes_every_secret_once(self):
        self.assertEqual(set(self.before), {Path(entry["file"]).name for entry in COMPOSE["secrets"].values()})
        self.assertEqual({path.name: path.read_bytes() for path in self.secrets.iterdir()}, self.before)
        self.assertEqual(self.secrets.stat().st_mode & 0o777, 0o700)
        self.assertEqual((FOLDER / ".gitignore").read_text(), "secrets/\n")
        names = run("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", self.secrets / "tls.crt")
        # Else the probe would refuse it.
        self.assertIn("CA:FALSE", run("openssl", "x509", "-noout", "-ext", "basicConstraints", "-in", self.secrets / "tls.crt"))
        for target in tomllib.loads((FOLDER / "probe.toml").read_text())["modules"]["default"]["targets"]:
            self.assertIn(f"DNS:{re.match(r'wss://([^:/]+)', target)[1]}", names)

    def test_only_the_balancer_is_reached_from_elsewhere(self):
        for name, service in SERVICES.items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:") or name == "balancer", f"{name}: {port}")
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            self.assertRegex(service["image"], r":v?\d+\.\d+", "a version")

    def test_nodes(self):
        version = tomllib.loads((TREE / "Cargo.toml").read_text())["package"]["version"]
        config = tomllib.loads((FOLDER / "conclave.toml").read_text())
        run(BINARY, "check-config", "--config", self.root / "etc/conclave/conclave.toml")
        for name in "ab":
            node = SERVICES[name]
            self.assertEqual(node["image"], f"conclave:{version}")
            self.assertEqual((FOLDER / node["build"]["context"]).resolve(), TREE)
            self.assertTrue(node["read_only"])
            drain = sum(quantity(config.get("drain", {}).get(key, default(f"drain.{key}")), SECONDS) for key in ("grace", "time"))
            self.assertGreaterEqual(quantity(node["stop_grace_period"], SECONDS), drain + 10)
            self.assertEqual(node["environment"], {"CONCLAVE_SERVER__NAME": name})
        # Named in more than one place.
        balancer = SERVICES["balancer"]["networks"]["inside"]["ipv4_address"]
        self.assertEqual(config["server"]["proxy_from"], [f"{balancer}/32"])
        servers = re.findall(r"^\s*server (\w+) ([\d.]+):(\d+)$", (OPS / "haproxy/passthrough.cfg").read_text(), re.M)
        self.assertEqual([(name, SERVICES[name]["networks"]["inside"]["ipv4_address"], "8443") for name in "ab"], servers)
        self.assertTrue(config["server"]["listen"].endswith(":8443"))
        self.assertEqual(COMPOSE["networks"]["inside"]["ipam"]["config"], [{"subnet": balancer.rsplit(".", 1)[0] + ".0/24"}])
        self.assertEqual(config["traces"]["endpoint"], "http://traces:4318")

    def test_redis_starts_with_its_configuration(self):
        port = free_port()
        server = Started(
            self.root / "redis.log", "redis-server", self.root / "etc/conclave/redis.conf", "--port", port, "--bind", "127.0.0.1"
        ).answers(port)
        self.addCleanup(server.kill)
        refused = run("redis-cli", "-p", port, "ping")
        self.assertIn("NOAUTH", refused)
        # The health check's own words.
        test = SERVICES["redis"]["healthcheck"]["test"][1].replace("$$", "$").replace("/run/secrets", str(self.root / "run/secrets"))
        run("sh", "-ec", test.replace("redis-cli", f"redis-cli -p {port}"))
        password = (self.secrets / "redis.auth").read_text().split()[1]
        self.assertEqual((self.secrets / "redis.url").read_text(), f"redis://:{password}@redis:6379\n")
        for key, value in (("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "noeviction")):
            said = run("redis-cli", "-p", port, "config", "get", key, env={"REDISCLI_AUTH": password, "PATH": "/usr/bin:/bin"})
            self.assertEqual(said.split(), [key, value])
        self.assertEqual(tomllib.loads((FOLDER / "conclave.toml").read_text())["backplane"]["kept"], "disk")

    def test_prometheus(self):
        folder = self.root / "prometheus"
        shutil.copytree(OPS / "prometheus/rules", folder / "rules")
        config = write(folder / "prometheus.yml", (FOLDER / "prometheus.yml").read_text())
        run("promtool", "check", "config", config)
        # It is the one in ops/prometheus but for addresses.
        text = changed((OPS / "prometheus/prometheus.yml").read_text(), ADDRESSES)
        self.assertEqual(yaml.safe_load((FOLDER / "prometheus.yml").read_text()), yaml.safe_load(text))
        targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in yaml.safe_load(text)["scrape_configs"]}
        modules = tomllib.loads((FOLDER / "probe.toml").read_text())["modules"]
        self.assertEqual(targets["conclave"], ["a:9464", "b:9464"])
        self.assertEqual(targets["conclave-probe"], modules["default"]["targets"])
        self.assertIn(":9115", SERVICES["probe"]["command"])
        # The mounts are where its configuration looks.
        (mount,) = [config["target"] for config in SERVICES["prometheus"]["configs"]]
        self.assertIn(f"../prometheus/rules:{Path(mount).parent}/rules:ro", SERVICES["prometheus"]["volumes"])

    def test_alertmanager(self):
        run("amtool", "check-config", FOLDER / "alertmanager.yml")
        here, there = (yaml.safe_load((path / "alertmanager.yml").read_text()) for path in (FOLDER, OPS / "prometheus"))
        self.assertEqual([set(receiver) for receiver in here.pop("receivers")], [{"name"}, {"name"}])
        there.pop("receivers")
        self.assertEqual(here, there)

    def test_the_probe_reads_its_modules(self):
        port = free_port()
        words = [word if word != ":9115" else f"127.0.0.1:{port}" for word in SERVICES["probe"]["command"]]
        words = [moved(word, self.root) for word in words]
        Started(self.root / "probe.log", BINARY, *words).answers(port).kill()

    def test_grafana_finds_what_is_provisioned(self):
        """By hand: the keys that Grafana knows for each kind of file, and what they point at."""
        (sources,) = (OPS / "grafana/provisioning/datasources").glob("*.yml")
        said = yaml.safe_load(sources.read_text())
        self.assertLessEqual(said.keys(), {"apiVersion", "prune", "datasources", "deleteDatasources"})
        known = {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData", "orgId", "version"}
        for source in said["datasources"]:
            self.assertLessEqual(source.keys(), known)
            self.assertIn(re.match(r"http://([^:]+)", source["url"])[1], SERVICES)
        kinds = {source["type"]: source for source in said["datasources"]}
        self.assertEqual(kinds.keys(), {"prometheus", "jaeger"})
        scrape = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["global"]["scrape_interval"]
        self.assertEqual(kinds["prometheus"]["jsonData"]["timeInterval"], scrape)
        (providers,) = (OPS / "grafana/provisioning/dashboards").glob("*.yml")
        (provider,) = yaml.safe_load(providers.read_text())["providers"]
        self.assertLessEqual(
            provider.keys(),
            {"name", "orgId", "folder", "folderUid", "type", "disableDeletion", "allowUiUpdates", "updateIntervalSeconds", "options"},
        )
        volumes = SERVICES["grafana"]["volumes"]
        self.assertIn(f"../../dashboards:{provider['options']['path']}:ro", volumes)
        self.assertIn("../grafana/provisioning:/etc/grafana/provisioning:ro", volumes)
        dashboards = list((TREE / "dashboards").glob("*.json"))
        self.assertTrue(dashboards)
        for path in dashboards:
            variables = json.loads(path.read_text())["templating"]["list"]
            self.assertIn("prometheus", [variable.get("query") for variable in variables if variable["type"] == "datasource"])


if __name__ == "__main__":
    unittest.main()
