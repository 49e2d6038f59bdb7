#!/usr/bin/env python3
"""Checks the evidence of an operation without any of the server's code.

    evidence.py JWKS JWS    the two files; prints what was signed, or why not

Python 3's standard library only. Checks the server's signature (ES256, RFC 7515
and 7518), each signature of the device, and that what the device signed is what
the evidence says was shown and answered: docs/protocol.md, "Evidence".
"""

import base64
import hashlib
import json
import struct
import sys
import uuid

from transcript import G, N, P, add, field, multiply, salted_hash, spki

PURPOSES = {"AUTHENTICATION": "authentication", "TRANSACTION": "transaction"}


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def point(jwk):
    assert (jwk["kty"], jwk["crv"]) == ("EC", "P-256"), "another kind of key"
    x, y = (int.from_bytes(decode(jwk[name]), "big") for name in "xy")
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    assert (y * y - (x**3 - 3 * x + b)) % P == 0, "not a point of the curve"
    return x, y


def key_id(jwk):
    head = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
    return hashlib.sha256(head + decode(jwk["x"]) + decode(jwk["y"])).digest()


def verifies(jwk, message, r, s):
    if not (0 < r < N and 0 < s < N):
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, N)
    total = add(multiply(digest * inverse % N, G), multiply(r * inverse % N, point(jwk)))
    return total is not None and total[0] % N == r


def from_der(octets):
    assert octets[0] == 0x30 and octets[1] == len(octets) - 2, "no DER"
    numbers, at = [], 2
    for _ in range(2):
        assert octets[at] == 2, "no DER"
        length = octets[at + 1]
        numbers.append(int.from_bytes(octets[at + 2:at + 2 + length], "big"))
        at += 2 + length
    assert at == len(octets), "no DER"
    return numbers


def fields(octets):
    found, at = [], 0
    while at < len(octets):
        (length,) = struct.unpack(">I", octets[at:at + 4])
        found.append(octets[at + 4:at + 4 + length])
        at += 4 + length
    return found


def content_hash(name, content):
    if content is None:
        return bytes(32)
    octets = decode(content["octets"])
    if name == "context":
        octets = field(content["title"].encode()) + field(content["type"].encode()) + octets
    return salted_hash(name, decode(content["salt"]), octets)


def answer_of(evidence):
    extra = evidence.get("reject_reason", evidence.get("number"))
    return evidence["decision"] + ("" if extra is None else ":%s" % extra)


def check_device(evidence, signed):
    transcript = decode(signed["transcript"])
    if signed["verdict"] == "VALID":
        assert verifies(signed["key"], transcript, *from_der(decode(signed["signature"]))), \
            "a signature of the device does not verify"
    found = fields(transcript)
    expected = {
        0: b"keytrail/transcript/v1",
        1: PURPOSES[evidence["kind"]].encode(),
        2: uuid.UUID(evidence["application_id"]).bytes,
        3: uuid.UUID(evidence["registration_id"]).bytes,
        4: uuid.UUID(evidence["jti"]).bytes,
        6: key_id(signed["key"]),
        7: signed["role"].encode(),
        8: evidence["method"].encode(),
        9: answer_of(evidence).encode(),
        13: evidence["level"].encode(),
        14: content_hash("context", evidence.get("context")),
        15: content_hash("data-to-sign", evidence.get("data_to_sign")),
        16: content_hash("client-data", evidence.get("client_data")),
    }
    assert len(found) == 18, "another transcript"
    for place, value in expected.items():
        assert found[place] == value, "field %d of a transcript is another" % (place + 1)


def check(jwks, jws):
    head, payload, signature = jws.strip().split(".")
    header = json.loads(decode(head))
    assert header["alg"] == "ES256" and header["typ"] == "keytrail-evidence", "another header"
    (key,) = [key for key in jwks["keys"] if key["kid"] == header["kid"]]
    raw = decode(signature)
    assert len(raw) == 64, "another signature"
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    assert verifies(key, ("%s.%s" % (head, payload)).encode("ascii"), r, s), \
        "the server's signature does not verify"
    evidence = json.loads(decode(payload))
    valid = [signed for signed in evidence["signatures"] if signed["verdict"] == "VALID"]
    assert valid, "no signature of a device"
    for signed in evidence["signatures"]:
        check_device(evidence, signed)
    return evidence, len(valid)


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    assert spki(1)[27:59] == G[0].to_bytes(32, "big")
    with open(arguments[0]) as keys, open(arguments[1]) as text:
        try:
            evidence, valid = check(json.load(keys), text.read())
        except (AssertionError, KeyError, ValueError) as error:
            sys.exit("does not hold: %s" % error)
    print("%s %s %s by %s: %d signatures of the device hold"
          % (evidence["kind"], evidence["jti"], evidence["state"], evidence["method"], valid))


if __name__ == "__main__":
    main(sys.argv[1:])
