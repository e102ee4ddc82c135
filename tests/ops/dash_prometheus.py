"""The real Prometheus and Alertmanager as child processes, and the panels' queries as Grafana would ask them."""

import asyncio
import http.server
import json
import math
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "tests/faults"))
# Debian keeps servers where only root looks.
os.environ["PATH"] += ":/usr/sbin"

from lab.process import Process, until  # noqa: E402  (its folder is known only now)

ASK_SECONDS = 30


def get(url, **words):
    query = urllib.parse.urlencode(words)
    with urllib.request.urlopen(f"{url}?{query}" if query else url, timeout=ASK_SECONDS) as answer:
        return answer.read()


class Server(Process):
    """Something with an HTTP port that says when it is ready."""

    READY = "/-/ready"

    def __init__(self, name, command, folder, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        super().__init__(name, [str(word) for word in command], folder)

    async def start(self):
        self.spawn()
        await until(self.name, self.answers, process=self)

    async def answers(self):
        try:
            await asyncio.to_thread(get, self.url + self.READY)
            return True
        except OSError:
            return False


class Prometheus(Server):
    def __init__(self, folder, port, config):
        path = folder / "prometheus.yml"
        # JSON is YAML.
        path.write_text(json.dumps(config))
        storage = ["--storage.tsdb.path", folder / "prometheus", "--log.level", "warn"]
        super().__init__("prometheus", ["prometheus", "--config.file", path, *storage, "--web.listen-address", f"127.0.0.1:{port}"], folder, port)

    def api(self, what, **words):
        try:
            answer = json.loads(get(f"{self.url}/api/v1/{what}", **words))
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{words}: {refused.read().decode()}") from None
        return answer["data"]

    def series(self, expr, begin, end, step=1):
        """[(labels, [(time, value)])] over a time; what is not a number is left out."""
        return [pruned(each["metric"], each["values"]) for each in self.api("query_range", query=expr, start=begin, end=end, step=step)["result"]]

    def at(self, expr, when):
        """The same at one moment."""
        return [pruned(each["metric"], [each["value"]]) for each in self.api("query", query=expr, time=when)["result"]]

    def number(self, expr):
        """The one value there is, or None."""
        values = [points[-1][1] for _, points in self.at(expr, time.time()) if points]
        return values[0] if values else None


class Alertmanager(Server):
    def __init__(self, folder, port, config):
        path = folder / "alertmanager.yml"
        path.write_text(config)
        command = ["prometheus-alertmanager", "--config.file", path, "--storage.path", folder / "alertmanager"]
        command += ["--web.listen-address", f"127.0.0.1:{port}", "--cluster.listen-address", ""]
        super().__init__("alertmanager", command, folder, port)


def pruned(labels, values):
    return labels, [(float(at), float(value)) for at, value in values if math.isfinite(float(value))]


def substituted(expr, jobs, instances, rate_interval, range_seconds):
    """As Grafana does with all jobs and instances chosen, of each a list."""

    def any_of(values):
        # Grafana escapes what is special in regular expressions, and doubles the backslash for PromQL's string.
        return "|".join("".join("\\\\" + c if c in ".+*?()[]{}^$|\\/" else c for c in value) for value in values)

    for variable, value in (
        ("$__rate_interval", rate_interval),
        ("$__range_s", str(range_seconds)),
        ("$__range", f"{range_seconds}s"),
        ("$job", f"({any_of(jobs)})"),
        ("$instance", f"({any_of(instances)})"),
    ):
        expr = expr.replace(variable, value)
    return expr


class Sink:
    """Takes what is posted: spans, or alerts. `paths` and `bodies` grow."""

    def __init__(self):
        sink = self
        self.posts = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                sink.posts.append((time.time(), self.path, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
