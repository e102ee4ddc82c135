"""Backends that lie: a web server that answers in every wrong way, a name server that says what a test wants, certificates that fit or do not."""

import contextlib
import datetime
import gzip
import ipaddress
import json
import re
import select
import socket
import ssl
import struct
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lab import DNS_PORT, METADATA

# The longest that any lie goes on; whoever asks has a deadline far below it.
LIE_SECONDS = 20
HUGE_BYTES = 64 * 2**20
REQUEST_BYTES = 64 * 1024


class Liar:
    """Listens at `address`; `truth(path, head, body)` is what an honest backend would answer as JSON. Which lie it tells instead stands in
    the path (`/lie/drip`) or in a cookie (`lie=drip`)."""

    def __init__(self, address, port, truth, context=None):
        self._listener = socket.create_server((address, port))
        self.truth, self.context, self.asked = truth, context, []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw):
        try:
            raw.settimeout(LIE_SECONDS)
            with self.context.wrap_socket(raw, server_side=True) if self.context else raw as peer:
                head, body = request(peer)
                path = head.split(b" ", 2)[1].decode()
                named = re.search(rb"lie=([\w-]+)", head)
                lie = named[1].decode() if named else path.rsplit("/", 1)[-1] if path.startswith("/lie/") else "honest"
                self.asked.append(lie)
                LIES.get(lie, honest)(peer, lambda: json.dumps(self.truth(path, head.decode("latin-1"), body)).encode())
        except (OSError, IndexError, ValueError):
            # Whoever asked has gone, which is the point of most of it.
            raw.close()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def request(peer):
    data = b""
    while b"\r\n\r\n" not in data and len(data) < REQUEST_BYTES:
        more = peer.recv(4096)
        if not more:
            raise ValueError("no request")
        data += more
        if data.startswith(b"\x16"):
            # TLS, spoken to one who speaks none.
            return b"GET / HTTP/1.1", b""
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while length and len(body) < min(int(length[1]), REQUEST_BYTES):
        body += peer.recv(4096)
    return head, body


def answer(peer, body, status="200 OK", kind="application/json", more=()):
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close", *more]
    peer.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def honest(peer, truth):
    answer(peer, truth())


def drip(peer, truth):
    body = truth()
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
    slowly(peer, body)


def drip_head(peer, truth):
    slowly(peer, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 1000)


def slowly(peer, data):
    end = time.monotonic() + LIE_SECONDS
    for at in range(len(data)):
        if time.monotonic() > end or hung_up(peer, 0.2):
            return
        peer.sendall(data[at : at + 1])
    silent(peer, None)


def hung_up(peer, seconds):
    """Waits, unless the other side goes."""
    try:
        return bool(select.select([peer], [], [], seconds)[0])
    except (OSError, ValueError):
        return True


def silent(peer, truth):
    hung_up(peer, LIE_SECONDS)


def reset(peer, truth):
    raw = peer
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half(peer, truth):
    body = truth()
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body) + 100, body))


def garbage(peer, truth):
    peer.sendall(bytes(range(256)) * 16)


def huge(peer, truth):
    """As announced."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (10 * 2**30))
    pour(peer, b" " * 65536)


def endless(peer, truth):
    """Nothing is announced."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    pour(peer, b"10000\r\n" + b" " * 65536 + b"\r\n")


def endless_head(peer, truth):
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    pour(peer, b"X-More: " + b"a" * 8000 + b"\r\n")


def endless_waiting(peer, truth):
    """Interim answers, without end."""
    pour(peer, b"HTTP/1.1 100 Continue\r\n\r\n")


def pour(peer, piece):
    end, sent = time.monotonic() + LIE_SECONDS, 0
    while sent < HUGE_BYTES and time.monotonic() < end:
        peer.sendall(piece)
        sent += len(piece)
    silent(peer, None)


def page(peer, truth):
    answer(peer, b"<!doctype html><title>Sign in</title>", kind="text/html")


def no_json(peer, truth):
    answer(peer, truth()[:-1])


def wrong_shape(peer, truth):
    """JSON, of everything the wrong sort."""
    answer(peer, json.dumps({"keys": {"kid": 1}, "sub": ["root"], "allow": "yes", "expires_in": "1h"}).encode())


def a_list(peer, truth):
    answer(peer, b"[" + truth() + b"]")


def deep(peer, truth):
    answer(peer, b'{"keys":' + b"[" * 20_000 + b"]" * 20_000 + b"}")


def empty(peer, truth):
    answer(peer, b"")


def compressed(peer, truth):
    """Sixteen megabytes in sixteen thousand bytes, which nobody asked for."""
    answer(peer, gzip.compress(b" " * 2**24 + truth()), more=["Content-Encoding: gzip"])


def failing(peer, truth):
    """An error with what would be a good answer."""
    answer(peer, truth(), status="500 Internal Server Error")


def teapot(peer, truth):
    answer(peer, truth(), status="418 I'm a teapot")


def partial(peer, truth):
    answer(peer, truth(), status="206 Partial Content")


def upgraded(peer, truth):
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    silent(peer, None)


def to(where, status):
    def redirect(peer, truth):
        answer(peer, truth(), status=f"{status} Elsewhere", more=[f"Location: {where}"])

    return redirect


LIES = {
    "honest": honest,
    "drip": drip,
    "drip-head": drip_head,
    "silent": silent,
    "reset": reset,
    "half": half,
    "garbage": garbage,
    "huge": huge,
    "endless": endless,
    "endless-head": endless_head,
    "endless-waiting": endless_waiting,
    "page": page,
    "no-json": no_json,
    "wrong-shape": wrong_shape,
    "a-list": a_list,
    "deep": deep,
    "empty": empty,
    "compressed": compressed,
    "failing": failing,
    "teapot": teapot,
    "partial": partial,
    "upgraded": upgraded,
    "to-metadata": to(f"http://{METADATA}/latest/meta-data/iam/", 302),
    "to-loopback": to("http://127.0.0.1:8080/", 301),
    "to-another": to("http://canary.example.com/", 307),
    "to-file": to("file:///etc/passwd", 308),
}


class Names:
    """The name server: `answers[name]` is a list of what to answer in turn, the last one for ever; each a list of addresses."""

    def __init__(self):
        self.answers, self.asked = {}, []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", DNS_PORT))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                question, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            if (said := self._answer(question)) is not None:
                self._socket.sendto(said, peer)

    def _answer(self, question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
            at += 1 + question[at]
        name, (kind,) = ".".join(labels).lower(), struct.unpack(">H", question[at + 1 : at + 3])
        asked = question[12 : at + 5]
        turns = self.answers.get(name)
        if turns == "silent":
            return None
        self.asked.append(name)
        addresses = [ipaddress.ip_address(one) for one in (turns or [[]])[0]]
        # A look-up is two questions; the one for IPv6 comes second.
        if turns and len(turns) > 1 and kind == 28:
            turns.pop(0)
        fitting = [one for one in addresses if one.version == (6 if kind == 28 else 4)]
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(one.packed)) + one.packed for one in fitting)
        flags = 0x8180 if turns else 0x8183
        return question[:2] + struct.pack(">HHHHH", flags, 1, len(fitting), 0, 0) + asked + records

    def close(self):
        # Closing alone does not wake whoever waits there.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Authority:
    """Issues certificates."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of tests")])
        self.certificate = self._sign(self.name, self.key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def _sign(self, subject, key, *extensions, days=2):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def context(self, lab, name, **how):
        """A server's side of TLS, with a certificate for `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        leaf = self._sign(x509.Name([]), key.public_key(), x509.BasicConstraints(ca=False, path_length=None), names, **how)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        path = lab.write(f"{x509.random_serial_number()}.pem", leaf.public_bytes(serialization.Encoding.PEM) + pem)
        context.load_cert_chain(path)
        return context
