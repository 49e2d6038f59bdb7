#!/usr/bin/env python3
"""Makes seeds for the fuzz targets from evidence of real phones.

    fuzz/seeds.py VECTORS

VECTORS is a folder like the one that KEYTRAIL_VECTORS names to the tests. The
seeds go to fuzz/corpus/, which is never committed: the vectors are others' work.
"""

import base64
import json
import pathlib
import re
import sys

KEY_DESCRIPTION = bytes.fromhex("060a2b06010401d679020111")


def decoded(text):
    text = text.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4))


def length(octets, at):
    """Where the content of a DER value begins whose length stands at `at`, and its length."""
    first = octets[at]
    if first < 0x80:
        return at + 1, first
    count = first & 0x7F
    return at + 1 + count, int.from_bytes(octets[at + 1 : at + 1 + count], "big")


def descriptions(der):
    at = der.find(KEY_DESCRIPTION)
    while at >= 0:
        tag = at + len(KEY_DESCRIPTION)
        if der[tag] == 0x04:
            begin, size = length(der, tag + 1)
            yield der[begin : begin + size]
        at = der.find(KEY_DESCRIPTION, tag)


def main():
    vectors = pathlib.Path(sys.argv[1])
    corpus = pathlib.Path(__file__).parent / "corpus"
    written = 0

    def seed(target, name, octets):
        nonlocal written
        folder = corpus / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / re.sub(r"[^A-Za-z0-9]+", "-", name)).write_bytes(octets)
        written += 1

    for path in sorted(vectors.rglob("*.pem")):
        text = path.read_text()
        blocks = re.findall("-----BEGIN CERTIFICATE-----(.*?)-----END", text, re.S)
        der = b"".join(base64.b64decode("".join(block.split())) for block in blocks)
        name = str(path.relative_to(vectors))
        seed("key_attestation", name, der)
        seed("key_attestation", name + "-pem", text.encode())
        for number, description in enumerate(descriptions(der)):
            seed("key_description", f"{name}-{number}", description)
    for path in sorted(vectors.rglob("*.json")):
        try:
            found = json.loads(path.read_text())
        except ValueError:
            continue
        if not isinstance(found, dict):
            continue
        name = str(path.relative_to(vectors))
        if isinstance(found.get("attestation"), str):
            seed("app_attest", name, decoded(found["attestation"]))
        if isinstance(found.get("assertion"), str):
            seed("assertion", name, decoded(found["assertion"]))
        if "entries" in found:
            seed("revocation_list", name, path.read_bytes())
    print(f"{written} seeds in {corpus}")


if __name__ == "__main__":
    main()
