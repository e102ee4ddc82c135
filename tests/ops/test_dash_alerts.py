"""A plug is pulled, and the right alert reaches a person: real nodes, Redis, Prometheus, Alertmanager and our own files,
only with shorter waits. Then what the runbook says is done, and the alert ends."""

import asyncio
import json
import re
import unittest

from dash_cluster import Cluster
from dash_names import TREE
from dash_prometheus import Alertmanager, Sink

from lab.process import until

PROMETHEUS = TREE / "ops/prometheus"
PATIENCE_SECONDS = 60
# What may well be true of a machine that builds and tests at the same time.
OF_A_BUSY_MACHINE = {"DeliveryErrorBudgetBurn", "ProbeErrorBudgetBurn", "BackplaneLag", "ProbeSlow", "CpuSaturated"}
# So many without anything but the certificate to report.
SCRAPES = 15
# In five minutes, more than one a second.
STALLED = 500


def hurried(folder):
    """The rules, with `for` of two seconds."""
    rules = folder / "rules"
    rules.mkdir()
    for path in (PROMETHEUS / "rules").glob("*.yml"):
        (rules / path.name).write_text(re.sub(r"for: \w+", "for: 2s", path.read_text()))
    return rules / "*.yml"


def routed(receiver):
    """Alertmanager's file, with a receiver of ours and without waiting for more."""
    text = (PROMETHEUS / "alertmanager.yml").read_text().replace("http://127.0.0.1:9099", receiver)
    return re.sub(r"group_(wait|interval): \w+", r"group_\1: 1s", text)


class Pager:
    """What reached the receivers."""

    def __init__(self):
        self.sink = Sink()

    def states(self):
        """(alert, severity, instance) -> how it was last reported."""
        found = {}
        for _, _, body in list(self.sink.posts):
            for alert in json.loads(body)["alerts"]:
                labels = alert["labels"]
                found[labels["alertname"], labels["severity"], labels.get("instance", "")] = alert["status"]
        return found

    def names(self, status):
        return {name for (name, _, _), said in self.states().items() if said == status}

    async def reached(self, name, status):
        """Reported so for every instance that it was ever reported for."""

        def is_so():
            mine = {said for (alert, _, _), said in self.states().items() if alert == name}
            return mine == {status}

        try:
            await until(f"{name} {status}", is_so, PATIENCE_SECONDS)
        except TimeoutError as late:
            raise AssertionError(f"{late}; reported so far: {self.states()}") from None


class Alerts(unittest.TestCase):
    def test_each_plug_that_is_pulled_is_reported_and_what_the_runbook_says_ends_it(self):
        asyncio.run(self.all_of_it())

    async def all_of_it(self):
        pager = Pager()
        try:
            async with Hurried(pager) as cluster:
                await self.certificate_near_its_end(cluster, pager)
                await self.backplane(cluster, pager)
                await self.flood(cluster, pager)
                await self.node(cluster, pager)
        finally:
            pager.sink.close()

    async def certificate_near_its_end(self, cluster, pager):
        """The lab's certificate is good for two days."""
        await pager.reached("CertificateExpiry", "firing")
        self.assertIn("page", {severity for name, severity, _ in pager.states() if name == "CertificateExpiry"})
        await until("some scrapes", lambda: (cluster.prometheus.number("min(count_over_time(up[5m]))") or 0) >= SCRAPES, PATIENCE_SECONDS)
        others = pager.names("firing") - {"CertificateExpiry", "ServedCertificateExpiry"} - OF_A_BUSY_MACHINE
        self.assertEqual(others, set(), "a healthy cluster alerts nobody else")
        # Of what is served: renewed, and SIGHUP.
        await asyncio.to_thread(cluster.renew)
        cluster.hang_up()
        await pager.reached("CertificateExpiry", "resolved")

    async def backplane(self, cluster, pager):
        await cluster.redis.kill()
        await pager.reached("BackplaneDown", "firing")
        followers = {"BackplaneLinkDown", "BackplaneRefused", "LeaseNotRenewed", "RevocationStale"}
        self.assertEqual(pager.names("firing") & followers, set(), "what follows from it is held back")
        await cluster.redis.start()
        await pager.reached("BackplaneDown", "resolved")

    async def flood(self, cluster, pager):
        """Connections that never begin their handshake."""
        target = cluster.nodes[0]
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", target.listen) for _ in range(STALLED)), return_exceptions=True)
        try:
            await pager.reached("HandshakesDropped", "firing")
        finally:
            for each in opened:
                if isinstance(each, tuple):
                    each[1].close()

    async def node(self, cluster, pager):
        victim = cluster.nodes[2]
        await victim.kill()
        await pager.reached("TargetDown", "firing")
        await cluster.world.start_node(victim)
        await pager.reached("TargetDown", "resolved")


class Hurried(Cluster):
    """With our rules and our Alertmanager."""

    def __init__(self, pager):
        super().__init__()
        self.pager = pager

    async def prepare(self):
        self.rules = hurried(self.folder)
        manager = Alertmanager(self.folder, self.ports.take(), routed(self.pager.sink.url))
        self.alertmanager = manager.port
        await self._start(manager)


if __name__ == "__main__":
    unittest.main()
