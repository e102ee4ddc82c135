"""Dashboards, rules and runbooks as files: whole, in agreement with each other and with what the server exports."""

import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

from dash_lint import lint
from dash_names import TREE, metrics, problems, words

DASHBOARDS = sorted((TREE / "dashboards").glob("*.json"))
PROMETHEUS = TREE / "ops/prometheus"
RUNBOOKS = TREE / "ops/runbooks"
BASE = "https://runbooks.conclave.example/"
PARTS = ("- Confirm:", "- Do:", "- Worked:")
SUBSTITUTES = {"$__rate_interval": "1m", "$__range_s": "3600", "$__range": "1h", "$job": "j", "$instance": "i"}


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def rules():
    """Every rule of every file."""
    for path in sorted((PROMETHEUS / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def headings():
    """`file.md#heading` -> its text."""
    found = {}
    for path in sorted(RUNBOOKS.glob("*.md")):
        for part in re.split(r"(?m)^## ", path.read_text())[1:]:
            heading, _, text = part.partition("\n")
            found[f"{path.name}#{heading.strip().lower().replace(' ', '-')}"] = text
    return found


class Dashboards(unittest.TestCase):
    def test_there_are_seven_and_they_are_what_the_builder_writes(self):
        self.assertEqual(len(DASHBOARDS), 7)
        built = run(sys.executable, "-B", TREE / "dashboards/build.py", "--check")
        self.assertEqual((built.returncode, built.stderr), (0, ""))

    def test_each_meets_every_rule_of_dashboard_linter(self):
        for path in DASHBOARDS:
            with self.subTest(path.name):
                self.assertEqual(lint(json.loads(path.read_text())), [])

    def test_a_dashboard_that_breaks_the_rules_is_found_out(self):
        good = DASHBOARDS[0].read_text()
        panel = next(panel for panel in panels(json.loads(good)) if panel["type"] == "timeseries")
        for broken, finding in (
            (good.replace('"editable": false', '"editable": true'), "editable"),
            (good.replace('"refresh": 2', '"refresh": 1'), "time range"),
            (good.replace('"allValue": ".+"', '"allValue": ".*"', 1), "allValue"),
            (good.replace("$__rate_interval", "5m", 1), "__rate_interval"),
            (good.replace(', instance=~\\"$instance\\"', "", 1), "instance"),
            (good.replace(json.dumps(panel["description"]), '""'), "description"),
            (good.replace('"unit": "', '"unit": "furlongs', 1), "unit"),
        ):
            with self.subTest(finding):
                self.assertIn(finding, " ".join(lint(json.loads(broken))))

    def test_each_panel_has_an_identity_and_a_runbook(self):
        known, uids = set(headings()), set()
        for path in DASHBOARDS:
            dashboard = json.loads(path.read_text())
            uids.add(dashboard["uid"])
            self.assertNotIn("id", dashboard)
            self.assertEqual(dashboard["schemaVersion"], 41)
            self.assertEqual(dashboard["links"][0]["tags"], ["conclave"])
            numbers = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(numbers), len(set(numbers)))
            for panel in panels(dashboard):
                with self.subTest(path.name, panel=panel["title"]):
                    self.assertGreater(len(panel["description"].split()), 8, "say what to do")
                    link = panel["links"][0]["url"].removeprefix(BASE)
                    self.assertTrue(link in known or link == "closes.md", link)
        self.assertEqual(len(uids), 7)

    def test_panels_lie_side_by_side_within_the_page(self):
        for path in DASHBOARDS:
            taken = set()
            for panel in json.loads(path.read_text())["panels"]:
                at = panel["gridPos"]
                cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
                self.assertFalse(cells & taken, (path.name, panel["title"]))
                self.assertLessEqual(at["x"] + at["w"], 24)
                taken |= cells

    def test_queries_ask_for_what_there_is(self):
        known, said = metrics(), words()
        for path in DASHBOARDS:
            for panel in panels(json.loads(path.read_text())):
                for target in panel["targets"]:
                    with self.subTest(path.name, panel=panel["title"], query=target["expr"]):
                        self.assertEqual(problems(target["expr"], known, said), [])

    def test_every_metric_is_on_a_panel(self):
        asked = " ".join(target["expr"] for path in DASHBOARDS for panel in panels(json.loads(path.read_text())) for target in panel["targets"])
        # A histogram has three names, of which one is enough.
        shown = {name for name in metrics() if re.search(rf"\b{name}\b", asked)}
        missing = [name for name in metrics() if name not in shown and not any(re.sub("_(bucket|count|sum)$", "", name) == re.sub("_(bucket|count|sum)$", "", other) for other in shown)]
        self.assertEqual(missing, [])

    def test_every_query_is_promql(self):
        """By the real parser: as rules of a file that is thrown away."""
        exprs = [target["expr"] for path in DASHBOARDS for panel in panels(json.loads(path.read_text())) for target in panel["targets"]]
        for variable, value in SUBSTITUTES.items():
            exprs = [expr.replace(variable, value) for expr in exprs]
        written = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "panels.yml"
            path.write_text(json.dumps({"groups": [{"name": "panels", "rules": written}]}))
            checked = run("promtool", "check", "rules", path)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)


class Rules(unittest.TestCase):
    def test_promtool_and_amtool_have_nothing_against_the_files(self):
        for command in (
            ["promtool", "check", "config", PROMETHEUS / "prometheus.yml"],
            ["promtool", "check", "rules", "--lint-fatal", *sorted((PROMETHEUS / "rules").glob("*.yml"))],
            ["amtool", "check-config", PROMETHEUS / "alertmanager.yml"],
            [sys.executable, "-B", PROMETHEUS / "slo.py", "--check"],
        ):
            with self.subTest(command[0:3]):
                checked = run(*command)
                self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_promtool_test_rules(self):
        files = sorted((PROMETHEUS / "tests").glob("*.yml"))
        tested = run("promtool", "test", "rules", *files)
        self.assertEqual(tested.returncode, 0, tested.stdout + tested.stderr)

    def test_each_alert_is_tested_firing_and_not_firing(self):
        tests = [
            expectation
            for path in (PROMETHEUS / "tests").glob("*.yml")
            for test in yaml.safe_load(path.read_text())["tests"]
            for expectation in test["promql_expr_test"]
        ]
        for alert in alerts():
            labels = {"alertname": alert["alert"], **{k: v for k, v in alert["labels"].items() if k in ("severity", "long")}}
            asks = [f'{name}="{value}"' for name, value in labels.items()]
            mine = [test for test in tests if all(ask in test["expr"] for ask in asks)]
            with self.subTest(labels):
                self.assertTrue(any(test["exp_samples"] for test in mine), "never fires in a test")
                self.assertTrue(any(not test["exp_samples"] for test in mine), "never holds its peace in a test")

    def test_each_alert_says_what_a_person_needs(self):
        known = headings()
        for alert in alerts():
            with self.subTest(alert["alert"]):
                self.assertIn(alert["labels"]["severity"], ("page", "ticket"))
                self.assertRegex(alert["for"], r"^(30s|\d+[mh])$")
                said = alert["annotations"]
                self.assertEqual(set(said), {"summary", "description", "runbook_url"})
                self.assertIn("$value", said["description"])
                runbook = said["runbook_url"].removeprefix(BASE)
                self.assertIn(runbook, known)

    def test_each_runbook_heading_says_how_to_confirm_what_to_do_and_how_to_know_that_it_worked(self):
        pointed_at = {alert["annotations"]["runbook_url"].removeprefix(BASE) for alert in alerts()}
        for name, text in headings().items():
            if name.startswith("closes.md") and name not in pointed_at:
                continue
            with self.subTest(name):
                places = [text.find(part) for part in PARTS]
                self.assertTrue(all(place >= 0 for place in places) and places == sorted(places), text)

    def test_rules_and_runbooks_ask_for_what_there_is(self):
        known, said = metrics(), words()
        records = {rule["record"] for rule in rules() if "record" in rule}
        for rule in rules():
            with self.subTest(rule.get("alert") or rule["record"]):
                self.assertEqual(problems(rule["expr"], known, said, records), [])
        for path in sorted(RUNBOOKS.glob("*.md")):
            named = re.findall(r"(?<!job:)\b(?:conclave|process|tokio)_[a-z_]+[a-z]\b", path.read_text())
            histograms = {re.sub("_(bucket|count|sum)$", "", name) for name in known}
            for name in sorted(set(named)):
                with self.subTest(path.name, metric=name):
                    self.assertIn(name, set(known) | histograms)

    def test_overview_and_objectives_count_the_same(self):
        """The dashboards do without recorded rules, so their SLIs are written twice."""
        overview = json.loads((TREE / "dashboards/overview.json").read_text())
        burn = next(panel for panel in panels(overview) if panel["title"].startswith("Error budget"))
        recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
        recorded_all = " ".join(recorded.values())
        for target in burn["targets"]:
            expr = target["expr"].replace('job=~"$job", instance=~"$instance", ', "").replace('{job=~"$job", instance=~"$instance"}', "")
            for asked in re.findall(r"conclave_\w+(?:\{[^}]*\})?", expr):
                with self.subTest(target["legendFormat"], asked=asked):
                    self.assertIn(asked, recorded_all)


if __name__ == "__main__":
    unittest.main()
