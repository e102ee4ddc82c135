"""Published examples of RFC 7515 (JWS), 7516 (JWE), 7519 (JWT) and 7520 (the JOSE cookbook), as jwcrypto's own tests carry
them. They are no claims of a user, or long expired, or encrypted, or in a form that no URL carries: none is a token here, although
the node knows the keys of many and their signatures are good."""

import importlib.util
import json
import re
from pathlib import Path

import jwcrypto
import jwcrypto.tests as rfcs
from lab import encoded

COMPACT = re.compile(r"[\w-]*(\.[\w-]*){2}((\.[\w-]*){2})?")


def module(name):
    path = Path(jwcrypto.__file__).parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


cookbook = module("tests-cookbook")

A1, A2, A3 = rfcs.SymmetricKeys["keys"][1], rfcs.A2_key, rfcs.A3_key

# Which of them the node has, so that a good signature alone gets nobody in: private halves, by the name that it knows them by.
KEYS = {
    "rfc7515-a1": {**A1, "alg": "HS256"},
    "rfc7515-a2": {**A2, "alg": "RS256"},
    "rfc7515-a3": {**A3, "alg": "ES256"},
    "rfc8037": {**rfcs.PrivateKeys_EdDsa["keys"][0], "alg": "EdDSA"},
    # RFC 7520 signs with it as PS384 and RS256; a key has one algorithm here.
    "bilbo.baggins@hobbiton.example": {**cookbook.RSA_Private_Key_3_4, "alg": "PS384"},
    "018c0ae5-4d9b-471b-bfd6-eef314bc7037": {**cookbook.Symmetric_Key_MAC_3_5, "alg": "HS256"},
}


def serialised(value):
    """Texts and objects that are a JWS or a JWE."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        if COMPACT.fullmatch(value) and len(value) > 20 or value.startswith("{") and '"protected"' in value:
            yield value
    elif isinstance(value, dict) and value.keys() & {"signatures", "signature", "ciphertext", "recipients"} and "key" not in value:
        if all(isinstance(one, (str, dict, list)) for one in value.values()):
            yield json.dumps(value)
    elif isinstance(value, dict) and isinstance(value.get("protected"), str) and isinstance(value.get("signature"), bytes):
        yield ".".join(map(encoded, (value["protected"], value["payload"], value["signature"])))


def vectors():
    for source, loaded in [("RFCs 7515 to 7519", rfcs), ("RFC 7520", cookbook)]:
        for name, value in vars(loaded).items():
            if not name.startswith("__"):
                for token in serialised(value):
                    yield source, name, token
