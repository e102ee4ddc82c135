"""ops/kubernetes: what renders is valid by the strict schemas, and true of the binary that it runs."""

import os
import shutil
import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml
from packages_lab import BINARY, BYTES, OPS, SECONDS, TOOLS, TREE, default, pair, quantity, run, secret, write

FOLDER = OPS / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
# The oldest and the newest that this is written for.
VERSIONS = ["1.30", "1.37"]
SPARE_SECONDS = 10
# Of what the image's user may not be.
USER = 65532


def kustomize():
    """kubectl has it inside; where that is not installed, tests/run has brought it."""
    own = TREE / "tests/ops/.bin/kustomize"
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else [str(own if own.exists() else "kustomize"), "build"]


def render(folder):
    return run(*kustomize(), folder)


class Rendered:
    """One overlay, as the cluster would be told."""

    def __init__(self, overlay):
        self.text = render(FOLDER / "overlays" / overlay)
        self.all = [entry for entry in yaml.safe_load_all(self.text) if entry]

    def of(self, kind, name="conclave"):
        found = [entry for entry in self.all if entry["kind"] == kind and entry["metadata"]["name"].startswith(name)]
        return found[0] if found else None

    @property
    def deployment(self):
        return self.of("Deployment")

    @property
    def pod(self):
        return self.deployment["spec"]["template"]["spec"]

    @property
    def container(self):
        (only,) = self.pod["containers"]
        return only

    @property
    def env(self):
        return {entry["name"]: entry["value"] for entry in self.container.get("env", [])}

    @property
    def toml(self):
        return self.of("ConfigMap", "conclave-config")["data"]["conclave.toml"]

    @property
    def config(self):
        return tomllib.loads(self.toml)

    def key(self, name):
        """The value that the pod's Conclave goes by: the environment's, else the file's, else the default."""
        section, key = name.split(".")
        variable = f"CONCLAVE_{section.upper()}__{key.upper()}"
        return self.env.get(variable) or self.config.get(section, {}).get(key) or default(name)

    def workloads(self):
        return [entry for entry in self.all if entry["kind"] in ("Deployment", "StatefulSet")]


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.overlays = {name: Rendered(name) for name in OVERLAYS}

    def each(self):
        for name, rendered in self.overlays.items():
            with self.subTest(overlay=name):
                yield rendered

    def test_strict_schemas(self):
        for rendered in self.each():
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(rendered.text)
                file.flush()
                for version in VERSIONS:
                    said = run(TOOLS / "kubernetes-validate", "--strict", "-k", version, file.name, ok=False)
                    self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
                    self.assertEqual(said.stderr.count(" passed ") + said.stdout.count(" passed "), len(rendered.all))

    def test_a_misspelt_key_would_be_seen(self):
        wrong = self.overlays["redis"].text.replace("terminationGracePeriodSeconds", "terminationGraceSeconds")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(wrong)
            file.flush()
            self.assertNotEqual(run(TOOLS / "kubernetes-validate", "--strict", file.name, ok=False).returncode, 0)

    def test_kustomize_has_nothing_to_say(self):
        """Deprecated fields are a warning on standard error."""
        for name in OVERLAYS:
            said = run(*kustomize(), FOLDER / "overlays" / name, ok=False)
            self.assertEqual(said.stderr, "", name)

    def test_yaml_style(self):
        run(TOOLS / "yamllint", "--strict", "-c", TREE / "tests/ops/.yamllint", FOLDER)

    def test_every_file_is_part_of_something(self):
        named = {"kustomization.yaml", "README.md"}
        for path in FOLDER.rglob("kustomization.yaml"):
            said = yaml.safe_load(path.read_text())
            lists = [said.get("resources", []), [patch["path"] for patch in said.get("patches", [])]]
            lists += [entry["files"] for entry in said.get("configMapGenerator", [])]
            named |= {Path(entry).name for entries in lists for entry in entries}
        left = [path for path in FOLDER.rglob("*") if path.is_file() and path.name not in named]
        self.assertEqual(left, [])

    def test_the_pods_have_time_to_drain(self):
        for rendered in self.each():
            hook = rendered.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            drain = sum(quantity(rendered.key(f"drain.{name}"), SECONDS) for name in ("grace", "time"))
            self.assertGreaterEqual(rendered.pod["terminationGracePeriodSeconds"], hook + drain + SPARE_SECONDS)
            # Readiness is asked often enough that the endpoint is gone before the listener is.
            probe = rendered.container["readinessProbe"]
            self.assertLess(
                probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"],
                quantity(rendered.key("drain.grace"), SECONDS),
            )

    def test_ports_and_paths_are_those_of_the_configuration(self):
        for rendered in self.each():
            ports = {port["name"]: port["containerPort"] for port in rendered.container["ports"]}
            listens = {"https": rendered.config["server"]["listen"], "admin": rendered.config["server"]["admin_listen"]}
            for name, address in listens.items():
                self.assertEqual(int(address.rsplit(":", 1)[1]), ports[name])
            service = rendered.of("Service")["spec"]
            self.assertEqual([(port["port"], port["targetPort"]) for port in service["ports"]], [(443, "https")])
            self.assertEqual(service["externalTrafficPolicy"], "Local")
            self.assertEqual(service["sessionAffinity"], "None")
            annotations = rendered.deployment["spec"]["template"]["metadata"]["annotations"]
            self.assertEqual(int(annotations["prometheus.io/port"]), ports["admin"])
            for probe, path in (("startup", "/livez"), ("liveness", "/livez"), ("readiness", "/readyz")):
                self.assertEqual(rendered.container[f"{probe}Probe"]["httpGet"], {"path": path, "port": "admin"})
            startup = rendered.container["startupProbe"]
            self.assertEqual(startup["periodSeconds"] * startup["failureThreshold"], 30)

    def test_labels_find_the_pods(self):
        for rendered in self.each():
            for workload in rendered.workloads():
                labels = workload["spec"]["template"]["metadata"]["labels"]
                name = workload["metadata"]["name"]
                self.assertLessEqual(workload["spec"]["selector"]["matchLabels"].items(), labels.items())
                self.assertLessEqual(rendered.of("Service", name)["spec"]["selector"].items(), labels.items())
                policy = rendered.of("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
                self.assertLessEqual(policy.items(), labels.items())
            labels = rendered.deployment["spec"]["template"]["metadata"]["labels"]
            budget = rendered.of("PodDisruptionBudget")["spec"]
            self.assertEqual(budget["maxUnavailable"], 1)
            self.assertLessEqual(budget["selector"]["matchLabels"].items(), labels.items())
            for spread in rendered.pod["topologySpreadConstraints"]:
                self.assertLessEqual(spread["labelSelector"]["matchLabels"].items(), labels.items())
            self.assertEqual(
                {spread["topologyKey"] for spread in rendered.pod["topologySpreadConstraints"]},
                {"topology.kubernetes.io/zone", "kubernetes.io/hostname"},
            )

    def test_security_context(self):
        for rendered in self.each():
            self.assertEqual(rendered.pod["securityContext"]["runAsUser"], USER)
            self.assertIn(f"USER {USER}:{USER}", (TREE / "Dockerfile").read_text())
            for workload in rendered.workloads():
                pod = workload["spec"]["template"]["spec"]
                self.assertFalse(pod["automountServiceAccountToken"])
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertFalse({"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys())
                for container in pod["containers"]:
                    context = container["securityContext"]
                    self.assertTrue(context["readOnlyRootFilesystem"])
                    self.assertFalse(context["allowPrivilegeEscalation"])
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                    self.assertIn("memory", container["resources"]["limits"])
                    self.assertEqual(container["resources"]["requests"].keys(), {"cpu", "memory"})
            namespace = rendered.of("Namespace")["metadata"]
            self.assertEqual(namespace["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
            for entry in rendered.all:
                if entry["kind"] != "Namespace":
                    self.assertEqual(entry["metadata"]["namespace"], namespace["name"])

    def test_only_monitoring_reaches_the_admin_port(self):
        for rendered in self.each():
            for rule in rendered.of("NetworkPolicy")["spec"]["ingress"]:
                ports = [port["port"] for port in rule["ports"]]
                if "admin" in ports:
                    self.assertEqual(ports, ["admin"])
                    (source,) = rule["from"]
                    self.assertEqual(
                        source["namespaceSelector"]["matchLabels"], {"kubernetes.io/metadata.name": "monitoring"}
                    )
            self.assertNotIn("admin", [port["targetPort"] for port in rendered.of("Service")["spec"]["ports"]])

    def test_rollouts(self):
        # One node in memory is never two at once; nodes that share rooms get their successor first.
        self.assertEqual(self.overlays["single"].deployment["spec"]["strategy"], {"type": "Recreate"})
        self.assertEqual(self.overlays["single"].deployment["spec"]["replicas"], 1)
        self.assertEqual(self.overlays["single"].key("backplane.kind"), "memory")
        redis = self.overlays["redis"]
        self.assertEqual(
            redis.deployment["spec"]["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1}
        )
        self.assertNotIn("replicas", redis.deployment["spec"], "the autoscaler's")
        self.assertIsNone(self.overlays["single"].of("HorizontalPodAutoscaler"))

    def test_autoscaler(self):
        rendered = self.overlays["redis"]
        scaler = rendered.of("HorizontalPodAutoscaler")["spec"]
        self.assertEqual(scaler["scaleTargetRef"]["name"], rendered.deployment["metadata"]["name"])
        by_connections, by_cpu = scaler["metrics"]
        metric = by_connections["pods"]["metric"]["name"]
        self.assertIn(f'"{metric}"', (TREE / "src/telemetry/metrics/names.rs").read_text())
        # Below what a pod takes, by so much that those who are left take the clients of the one that goes.
        limit, least = rendered.config["limits"]["connections"], scaler["minReplicas"]
        target = int(by_connections["pods"]["target"]["averageValue"])
        self.assertLessEqual(target, limit * (least - 1) / least)
        self.assertEqual(by_cpu["resource"]["name"], "cpu")
        self.assertGreaterEqual(scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 600)

    def test_memory_is_enough_for_what_the_limits_allow(self):
        for rendered in self.each():
            # What README's "Performance" says of a connection (4.8 KiB), with what the kernel counts against a pod.
            connections = rendered.config["limits"]["connections"] * 16 * 2**10
            queues = quantity(rendered.key("limits.node_outbox_bytes"), BYTES)
            history = quantity(rendered.key("history.node_bytes"), BYTES)
            limit = quantity(rendered.container["resources"]["limits"]["memory"], BYTES)
            self.assertLess(connections + queues + history, limit)

    def test_the_image(self):
        version = tomllib.loads((TREE / "Cargo.toml").read_text())["package"]["version"]
        for rendered in self.each():
            self.assertTrue(rendered.container["image"].endswith(f"/conclave:{version}"))
            self.assertNotIn("command", rendered.container, "the image's entry point")
            # The image's CMD names this file.
            self.assertIn('"/etc/conclave/conclave.toml"', (TREE / "Dockerfile").read_text())
            self.assertIn(
                ("config", "/etc/conclave/conclave.toml"),
                [(mount["name"], mount["mountPath"]) for mount in rendered.container["volumeMounts"]],
            )

    def test_secrets_are_those_that_the_page_says_to_make(self):
        page = (FOLDER / "README.md").read_text()
        for rendered in self.each():
            own = {entry["metadata"]["name"] for entry in rendered.all if entry["kind"] in ("ConfigMap", "Secret")}
            for workload in rendered.workloads():
                for volume in workload["spec"]["template"]["spec"]["volumes"]:
                    if "secret" in volume:
                        self.assertIn(f" {volume['secret']['secretName']} ", page)
                        for item in volume["secret"].get("items", []):
                            self.assertIn(f"--from-file={item['key']}", page)
                    if "configMap" in volume:
                        self.assertIn(volume["configMap"]["name"], own)
            self.assertFalse([entry for entry in rendered.all if entry["kind"] == "Secret"], "no secret in the tree")

    def test_conclave_accepts_the_configuration(self):
        for rendered in self.each():
            root = Path(tempfile.mkdtemp(prefix="conclave-kustomize-"))
            self.addCleanup(shutil.rmtree, root)
            pair(root / "tls")
            for name, content in (("jwt.secret", secret()), ("redis.url", "redis://:pw@conclave-redis:6379\n"), ("admin.token", secret())):
                write(root / "secrets" / name, content)
            file = write(root / "conclave.toml", rendered.toml.replace("/etc/conclave", str(root)))
            env = {name: value.replace("/etc/conclave", str(root)) for name, value in rendered.env.items()}
            run(BINARY, "check-config", "--config", file, env={**os.environ, **env})

    def test_redis_reads_its_configuration_and_keeps_what_the_overlay_says(self):
        rendered = self.overlays["redis"]
        data = rendered.of("ConfigMap", "redis-config")["data"]["redis.conf"]
        settings = [line.split() for line in data.splitlines() if line and not line.startswith("#")]
        self.assertIn(["appendonly", "yes"], settings)
        self.assertIn(["appendfsync", "always"], settings)
        self.assertEqual(rendered.key("backplane.kept"), "disk")
        (container,) = rendered.of("StatefulSet", "conclave-redis")["spec"]["template"]["spec"]["containers"]
        (maximum,) = (words[1] for words in settings if words[0] == "maxmemory")
        # The rewrite of its log copies pages that change meanwhile.
        self.assertLessEqual(
            quantity(maximum, BYTES) * 2, quantity(container["resources"]["limits"]["memory"], BYTES)
        )
        service = rendered.of("Service", "conclave-redis")["spec"]["ports"][0]["port"]
        for rule in rendered.of("NetworkPolicy")["spec"]["egress"]:
            if "podSelector" in rule["to"][0]:
                self.assertEqual(rule["ports"], [{"protocol": "TCP", "port": service}])

    def test_the_pod_monitor(self):
        """No schema of the operator's can be had from the registries: its few fields, by hand."""
        with tempfile.TemporaryDirectory(dir=FOLDER / "overlays", prefix=".test-") as folder:
            write(
                Path(folder) / "kustomization.yaml",
                "namespace: conclave\nresources: [../redis, ../../pod-monitor]\n",
            )
            found = [entry for entry in yaml.safe_load_all(render(folder)) if entry["kind"] == "PodMonitor"]
        (monitor,) = found
        self.assertEqual(monitor["apiVersion"], "monitoring.coreos.com/v1")
        self.assertEqual(monitor["spec"].keys(), {"selector", "jobLabel", "podMetricsEndpoints"})
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        self.assertEqual(endpoint.keys(), {"port", "path", "interval", "scrapeTimeout"})
        rendered = self.overlays["redis"]
        self.assertIn(endpoint["port"], [port["name"] for port in rendered.container["ports"]])
        labels = rendered.deployment["spec"]["template"]["metadata"]["labels"]
        self.assertLessEqual(monitor["spec"]["selector"]["matchLabels"].items(), labels.items())
        self.assertIn(monitor["spec"]["jobLabel"], labels)


if __name__ == "__main__":
    unittest.main()
