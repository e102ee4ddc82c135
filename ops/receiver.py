#!/usr/bin/env python3
"""Prints what an Alertmanager sends: a line per alert, and where its runbook is.  receiver.py [PORT]

For trying alerts out (ops/README.md); whoever is to be woken needs a real receiver."""

import http.server
import json
import sys


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in told["alerts"]:
            labels = alert["labels"]
            runbook = alert["annotations"].get("runbook_url", "").rsplit("/", 1)[-1]
            words = [alert["status"], labels.get("severity", ""), labels["alertname"], labels.get("instance", ""), f"ops/runbooks/{runbook}"]
            # In one piece: several may come at once.
            sys.stdout.write(" ".join(filter(None, words)) + "\n")
            sys.stdout.flush()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9099
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()
