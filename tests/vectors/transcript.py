#!/usr/bin/env python3
"""A second encoder of keytrail's transcripts, written from docs/protocol.md.

    transcript.py                      prints the test vectors (transcript.json)
    transcript.py --encode             reads a JSON list of inputs, prints their bytes
    transcript.py --extract CASE DIR   writes a case's files for openssl

Python 3's standard library only. The arithmetic below is neither fast nor free
of side channels: it makes and checks test vectors and must do nothing else.
"""

import base64
import hashlib
import hmac
import json
import os
import struct
import sys
import uuid

# --- Encoding -----------------------------------------------------------------


def u32(number):
    return struct.pack(">I", number)


def field(octets):
    return u32(len(octets)) + octets


def salted_hash(name, salt, octets):
    domain = ("keytrail/hash/%s/v1" % name).encode("ascii")
    return hashlib.sha256(field(domain) + salt + octets).digest()


def content_hash(name, content):
    if content is None:
        return bytes(32)
    return salted_hash(name, bytes.fromhex(content["salt"]), bytes.fromhex(content["octets"]))


def context_hash(context):
    if context is None:
        return bytes(32)
    title, kind = (context[name].encode("utf-8") for name in ["title", "type"])
    octets = field(title) + field(kind) + bytes.fromhex(context["octets"])
    return salted_hash("context", bytes.fromhex(context["salt"]), octets)


SLOTS = ["DEVICE", "DEVICE:PIN", "DEVICE:BIOMETRIC", "HARDWARE"]


def key_set_hash(key_set):
    present = [slot for slot in SLOTS if slot in key_set]
    octets = u32(len(present))
    for slot in present:
        octets += field(slot.encode("ascii")) + field(bytes.fromhex(key_set[slot]))
    return salted_hash("key-set", bytes(32), octets)


def hashes_of(given):
    hashes = {
        "context_hash": context_hash(given["context"]),
        "data_to_sign_hash": content_hash("data-to-sign", given["data_to_sign"]),
        "client_data_hash": content_hash("client-data", given["client_data"]),
        "risk_data_hash": content_hash("risk-data", given["risk_data"]),
    }
    if given["purpose"] == "activation":
        token = bytes.fromhex(given["device_token"])
        hashes["key_set_hash"] = key_set_hash(given["key_set"])
        hashes["device_token_hash"] = salted_hash("device-token", bytes(32), token)
        hashes["attestation_hash"] = content_hash("attestation", given["attestation"])
    return hashes


TEXTS = ["role", "method", "decision", "client_version", "hw_key_client_status"]


def transcript(given):
    octets = field(b"keytrail/transcript/v1")
    octets += field(given["purpose"].encode("ascii"))
    for name in ["application_id", "registration_id", "operation_id"]:
        octets += field(uuid.UUID(given[name]).bytes)
    for name in ["challenge", "key_id"]:
        octets += field(bytes.fromhex(given[name]))
    for name in TEXTS:
        octets += field(given[name].encode("ascii"))
    octets += field(bytes.fromhex(given["channel_binding"]))
    octets += field(given["level"].encode("ascii"))
    for value in hashes_of(given).values():
        octets += field(value)
    return octets


# --- P-256 --------------------------------------------------------------------

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def add(one, two):
    if one is None:
        return two
    if two is None:
        return one
    if one[0] == two[0]:
        if (one[1] + two[1]) % P == 0:
            return None
        slope = (3 * one[0] ** 2 - 3) * pow(2 * one[1], -1, P)
    else:
        slope = (two[1] - one[1]) * pow(two[0] - one[0], -1, P)
    x = (slope**2 - one[0] - two[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def multiply(scalar, point):
    total = None
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def spki(private):
    x, y = multiply(private, G)
    head = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
    return head + b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def deterministic_nonces(private, digest):
    """Candidates for k by RFC 6979 section 3.2, with HMAC-SHA-256."""
    seed = private.to_bytes(32, "big") + (int.from_bytes(digest, "big") % N).to_bytes(32, "big")
    key, value = bytes(32), b"\x01" * 32
    for step in [b"\x00", b"\x01"]:
        key = hmac.new(key, value + step + seed, hashlib.sha256).digest()
        value = hmac.new(key, value, hashlib.sha256).digest()
    while True:
        value = hmac.new(key, value, hashlib.sha256).digest()
        yield int.from_bytes(value, "big")
        key = hmac.new(key, value + b"\x00", hashlib.sha256).digest()
        value = hmac.new(key, value, hashlib.sha256).digest()


def der_integer(number):
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return b"\x02" + bytes([len(octets)]) + octets


def sign(private, message):
    digest = hashlib.sha256(message).digest()
    for nonce in deterministic_nonces(private, digest):
        if not 0 < nonce < N:
            continue
        r = multiply(nonce, G)[0] % N
        s = pow(nonce, -1, N) * (int.from_bytes(digest, "big") + r * private) % N
        if r and s:
            body = der_integer(r) + der_integer(s)
            return b"\x30" + bytes([len(body)]) + body


# --- Test vectors -------------------------------------------------------------


def known(label):
    """32 bytes that anyone can make again."""
    return hashlib.sha256(("keytrail test vector: " + label).encode("ascii")).digest()


def known_id(label):
    octets = bytearray(known(label)[:16])
    octets[6], octets[8] = 0x70 | octets[6] & 0x0F, 0x80 | octets[8] & 0x3F
    return str(uuid.UUID(bytes=bytes(octets)))


def content(label, octets):
    return {"salt": known(label + " salt").hex(), "octets": octets.hex()}


def shown(label, title, kind, octets):
    return dict(content(label, octets), title=title, type=kind)


PRIVATE = {
    name: int.from_bytes(known("private key " + name), "big") % (N - 1) + 1
    for name in ["device", "pin", "biometric", "hardware", "previous"]
}
PUBLIC = {name: spki(private) for name, private in PRIVATE.items()}


def keys(**slots):
    names = {"device": "DEVICE", "pin": "DEVICE:PIN", "biometric": "DEVICE:BIOMETRIC"}
    return {names.get(slot, "HARDWARE"): PUBLIC[key].hex() for slot, key in slots.items()}


def case(name, signer, **given):
    inputs = {
        "purpose": "authentication",
        "application_id": known_id("application"),
        "registration_id": known_id("registration"),
        "operation_id": known_id("operation " + name),
        "challenge": known("challenge " + name).hex(),
        "key_id": hashlib.sha256(PUBLIC[signer]).hexdigest(),
        "role": "SOFTWARE",
        "method": "DEVICE",
        "decision": "approve",
        "client_version": "3.8",
        "hw_key_client_status": "SIGNED",
        "channel_binding": bytes(32).hex(),
        "level": "ONE_FACTOR",
        "context": None,
        "data_to_sign": None,
        "client_data": None,
        "risk_data": None,
    }
    if given.get("purpose") == "activation":
        inputs.update(device_token=known("device token").hex(), key_set=None, attestation=None)
    unknown = set(given) - set(inputs)
    assert not unknown, unknown
    inputs.update(given)
    octets = transcript(inputs)
    return {
        "name": name,
        "signer": signer,
        "inputs": inputs,
        "hashes": {name: value.hex() for name, value in hashes_of(inputs).items()},
        "transcript": octets.hex(),
        "sha256": hashlib.sha256(octets).hexdigest(),
        "signature": sign(PRIVATE[signer], octets).hex(),
    }


def cases():
    payment = shown("context", "Zoë's bill", "application/json",
                    '{"text": "Pay 12,50 € to Zoë?"}\r\n'.encode("utf-8"))
    document = content("data to sign", known("document"))
    client = content("client data", b"session=4711")
    risk = content("risk data", b'{ "is_emulator":false, "locale":"nb-NO" }')
    evidence = content("attestation", b"\x30\x03\x02\x01\x00")
    three = keys(hardware="hardware", pin="pin", device="device")
    new = dict(purpose="activation", client_version="3.8.1")
    full = dict(new, key_set=three, attestation=evidence, client_data=client, risk_data=risk)
    asked = dict(context=payment, data_to_sign=document, client_data=client, risk_data=risk)
    pin = dict(asked, method="DEVICE:PIN", level="TWO_FACTOR", client_version="4.0.2.118")
    return [
        case("activation-device-only", "device", key_set=keys(device="device"),
             hw_key_client_status="NOT_SUPPORTED", **new),
        case("activation-device", "device", **full),
        case("activation-pin", "pin", method="DEVICE:PIN", **full),
        case("activation-hardware", "hardware", role="HARDWARE", **full),
        case("activation-biometric-key-generation-failed", "biometric",
             method="DEVICE:BIOMETRIC",
             hw_key_client_status="KEY_GENERATION_FAILED",
             key_set=keys(biometric="biometric", device="device"), **new),
        case("reactivation-previous", "previous", role="PREVIOUS", **full),
        case("authentication-no-content", "device", hw_key_client_status="NOT_SUPPORTED"),
        case("authentication-pin", "pin", **pin),
        case("authentication-pin-possession", "device", role="POSSESSION", **pin),
        case("authentication-pin-hardware", "hardware", role="HARDWARE", **pin),
        case("authentication-reject", "device", decision="reject", context=payment),
        case("authentication-empty-context", "device", context=shown("empty", "", "text/plain", b"")),
        case("authentication-channel-binding", "device", hw_key_client_status="KEY_LOST",
             channel_binding=known("channel binding").hex()),
        case("transaction-pin-number", "pin", **dict(pin, purpose="transaction",
                                                     decision="approve:42")),
        case("authentication-reject-reason", "device", decision="reject:NOT_ME",
             context=payment),
    ]


def vectors():
    return {
        "about": "Test vectors of docs/protocol.md, made by transcript.py. Bytes are hexadecimal.",
        "warning": "The private keys are public. Never use them.",
        "keys": {
            name: {
                "private_key_test_only": private.to_bytes(32, "big").hex(),
                "spki": PUBLIC[name].hex(),
                "key_id": hashlib.sha256(PUBLIC[name]).hexdigest(),
            }
            for name, private in PRIVATE.items()
        },
        "cases": cases(),
    }


def extract(name, folder):
    (found,) = [case for case in cases() if case["name"] == name]
    pem = base64.encodebytes(PUBLIC[found["signer"]]).decode("ascii")
    files = {
        "public.pem": ("-----BEGIN PUBLIC KEY-----\n%s-----END PUBLIC KEY-----\n" % pem).encode(),
        "signature.der": bytes.fromhex(found["signature"]),
        "transcript.bin": bytes.fromhex(found["transcript"]),
    }
    os.makedirs(folder, exist_ok=True)
    for name, octets in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(octets)


def main(arguments):
    if not arguments:
        json.dump(vectors(), sys.stdout, indent=1)
        print()
    elif arguments == ["--encode"]:
        json.dump([transcript(given).hex() for given in json.load(sys.stdin)], sys.stdout)
    elif len(arguments) == 3 and arguments[0] == "--extract":
        extract(arguments[1], arguments[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
