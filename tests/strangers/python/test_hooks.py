"""The application's side of hooks in Python, as ops/hooks.md has it, with the library that it names."""

import base64
import os
import re
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from client import Client
from server import Server

SECRET = "whsec_" + base64.b64encode(os.urandom(32)).decode()
PAGE = Path(__file__).parents[3] / "ops" / "hooks.md"


def example():
    """The function that the page has for Python, in a module of its own."""
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = {}
    exec(compile(text.replace('os.environ["HOOK_SECRET"]', repr(SECRET)), "ops/hooks.md", "exec"), module)
    return module["event_of"]


class Hooks(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.requests = requests = []

        class Backend(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                requests.append((dict(self.headers), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        cls.backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        threading.Thread(target=cls.backend.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{cls.backend.server_port}/"
        hook = {"url": url, "events": ["join", "chat", "call"]}
        cls.server = Server(**{"hooks": {"secret": SECRET}, "[hooks.ask]": hook})

    @classmethod
    def tearDownClass(cls):
        cls.server.close()
        cls.backend.shutdown()
        cls.backend.server_close()

    async def test_the_example_verifies_what_comes_and_nothing_else(self):
        ann = await Client.joined(self.server, "ann", "lobby")
        for content in ("hi", {"text": "grüß 👋"}, [1.5, None]):
            await ann.ask("chat", room="lobby", content=content)
        await ann.ask("call", name="x", data=1)
        await ann.close()
        self.assertEqual(len(self.requests), 5)
        event_of = example()
        for headers, body in self.requests:
            event = event_of(headers, body)
            self.assertEqual(event["user"]["id"], "ann")
            with self.assertRaises(WebhookVerificationError):
                event_of(headers, body.replace(b"ann", b"bob"))
            with self.assertRaises(WebhookVerificationError):
                Webhook("whsec_" + base64.b64encode(os.urandom(24)).decode()).verify(body, headers)


if __name__ == "__main__":
    unittest.main()
