#!/usr/bin/env python3
"""Checks an export of a keytrail log, without keytrail.

    python3 verify.py [--key VKEY] [--since CHECKPOINT] [--jobs N] [FOLDER]

Needs Python 3.8 or later, its standard library, and the openssl program (for
P-256). FOLDER is the export; the one that this file lies in if none is given.

  files        every file is the one that the manifest names, and none is beside
  1 records    each record is one, in its place, and continues the chain (BLAKE3);
               events.jsonl says of it what its bytes say, read by schema/
  2 tree       the tree's hashes give the root that the checkpoint signs, and hold
               each record of the range at its place (RFC 6962, C2SP tlog-tiles)
  3 since      the tree continues that of a checkpoint kept earlier
  5 signatures every signature in the range again, refused ones included, over the
               transcript rebuilt from the event, against the verdict recorded

Exit code 0: all of it holds. 1: something does not, and is named. 2: it could
not be checked. Bring the log's key (--key) and an earlier checkpoint (--since)
from where you trust them: with those that lie in the folder the export is
whole in itself, and no more.
"""

import argparse
import base64
import concurrent.futures
import datetime
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import uuid


class Wrong(Exception):
    """Something is not as it must be."""


def check(holds, what):
    if not holds:
        raise Wrong(what)


def b64(text, what):
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Wrong("%s is not base64" % what)


def b64url(text, what):
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, TypeError):
        raw = None
    check(raw is not None and b64url_text(raw) == text, "%s is not base64url" % what)
    return raw


def b64url_text(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


# --- BLAKE3, derive-key mode (the BLAKE3 paper, sections 2 and 5.1) -------------

IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
      0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
PERMUTED = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
LANES = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
START, END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64
M32 = 0xFFFFFFFF


def compress(cv, block, counter, length, flags):
    """The first eight words of the output: enough for a chaining value or a hash."""
    v = cv + IV[:4] + [counter & M32, counter >> 32, length, flags]
    m = list(block)
    for _ in range(7):
        for i, (a, b, c, d) in enumerate(LANES):
            va, vb, vc, vd = v[a], v[b], v[c], v[d]
            va = (va + vb + m[2 * i]) & M32
            vd ^= va
            vd = (vd >> 16 | vd << 16) & M32
            vc = (vc + vd) & M32
            vb ^= vc
            vb = (vb >> 12 | vb << 20) & M32
            va = (va + vb + m[2 * i + 1]) & M32
            vd ^= va
            vd = (vd >> 8 | vd << 24) & M32
            vc = (vc + vd) & M32
            vb ^= vc
            vb = (vb >> 7 | vb << 25) & M32
            v[a], v[b], v[c], v[d] = va, vb, vc, vd
        m = [m[i] for i in PERMUTED]
    return [v[i] ^ v[i + 8] for i in range(8)]


def words(block):
    return struct.unpack("<16I", block.ljust(64, b"\0"))


def tree(key, data, first, flags, root):
    """The chaining value of `data`, whose first chunk of 1024 bytes has number `first`."""
    if len(data) > 1024:
        left = 1024 << (((len(data) - 1) // 1024).bit_length() - 1)
        halves = (tree(key, data[:left], first, flags, 0)
                  + tree(key, data[left:], first + left // 1024, flags, 0))
        return compress(key, halves, 0, 64, flags | PARENT | root)
    cv, blocks = key, max(1, (len(data) + 63) // 64)
    for i in range(blocks):
        part = data[64 * i:64 * i + 64]
        ends = (START if i == 0 else 0) | (END | root if i == blocks - 1 else 0)
        cv = compress(cv, words(part), first, len(part), flags | ends)
    return cv


def derive_key(context_key, data):
    return struct.pack("<8I", *tree(context_key, data, 0, MATERIAL, ROOT))


def context_key(text):
    return tree(IV, text.encode(), 0, CONTEXT, ROOT)


CHAIN = context_key("keytrail 2026-11 log chain v1")
GENESIS = context_key("keytrail 2026-11 log genesis v1")


# --- Records, and what their clear parts say -----------------------------------

HEADER = struct.Struct(">BBHHHQQ16s16sQQ16s16s16s32sII")


class Record:
    """storage/src/record.rs: a header of 160 bytes, a clear part, a sealed part."""

    def __init__(self, raw):
        check(len(raw) >= HEADER.size, "it is shorter than a record's header")
        (form, codec, self.type, self.schema, reserved, self.position, self.time,
         self.event_id, self.stream, self.stream_version, self.stream_prev, self.correlation,
         self.causation, self.subject, self.prev, clear, sealed) = HEADER.unpack_from(raw)
        check((form, codec, reserved) == (1, 1, 0), "its format is not known")
        check(len(raw) == HEADER.size + clear + sealed, "its length is not the one it gives")
        self.raw, self.sealed_len = raw, sealed
        self.clear = raw[HEADER.size:HEADER.size + clear]


class Reader:
    """Reads values as schema/ describes them: bincode 1, fixed width, little-endian."""

    SIZES = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q",
             "i8": "<b", "i16": "<h", "i32": "<i", "i64": "<q"}

    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, count):
        check(count <= len(self.raw) - self.at, "its clear part is cut short")
        self.at += count
        return self.raw[self.at - count:self.at]

    def number(self, kind):
        form = self.SIZES[kind]
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def read(self, kind):
        if isinstance(kind, str):
            if kind in self.SIZES:
                return self.number(kind)
            if kind == "bool":
                value = self.number("u8")
                check(value < 2, "its clear part has no such truth value")
                return value == 1
            raw = self.take(self.number("u64"))
            return raw if kind == "bytes" else raw.decode("utf-8")
        if "bytes" in kind:
            return self.take(kind["bytes"])
        if "option" in kind:
            present = self.number("u8")
            check(present < 2, "its clear part has no such option")
            return self.read(kind["option"]) if present else None
        if "list" in kind:
            return [self.read(kind["list"]) for _ in range(self.number("u64"))]
        if "array" in kind:
            return [self.read(kind["array"]) for _ in range(kind["length"])]
        if "tuple" in kind:
            return [self.read(item) for item in kind["tuple"]]
        if "struct" in kind:
            return {field["name"]: self.read(field["type"]) for field in kind["fields"]}
        if "word" in kind:
            number = str(self.number("u16"))
            check(number in kind["words"], "it says %s %s" % (kind["word"], number))
            return kind["words"][number]
        value = self.read(kind["type"])
        return uuid.UUID(bytes=value) if kind["named"] == "Id" else value


def shown(value):
    """A value as events.jsonl shows it."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bytes):
        return b64url_text(value) if value else []
    if isinstance(value, list):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {name: shown(item) for name, item in value.items()}
    return value


def read_event(record, schemas):
    schema = schemas.get((record.type, record.schema))
    check(schema is not None, "there is no schema/%d-%d.json" % (record.type, record.schema))
    reader = Reader(record.clear)
    try:
        event = reader.read(schema["clear"])
    except UnicodeDecodeError:
        raise Wrong("its clear part has text that is no UTF-8")
    check(reader.at == len(record.clear), "its clear part has bytes too many")
    return schema["name"], event


def check_line(line, record, name, event):
    """The readable line says of the record what its bytes say."""
    expected = {
        "position": record.position, "type": name, "schema": record.schema,
        "stream": str(uuid.UUID(bytes=record.stream)), "stream_version": record.stream_version,
        "event_id": str(uuid.UUID(bytes=record.event_id)),
        "causation": str(uuid.UUID(bytes=record.causation)),
        "correlation": str(uuid.UUID(bytes=record.correlation)),
        "subject": str(uuid.UUID(bytes=record.subject)) if any(record.subject) else None,
        "sealed_len": record.sealed_len, "event": shown(event),
    }
    for key, value in expected.items():
        check(line.get(key) == value, "events.jsonl says another %s than the record" % key)
    seconds, micros = divmod(record.time, 1000000)
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") + ".%06d" % micros
    said = str(line.get("time")).rstrip("Z")
    whole, _, part = said.partition(".")
    check("%s.%s" % (whole, part.ljust(6, "0")) == text, "events.jsonl says another time")


# --- The tree (RFC 6962, section 2.1; C2SP tlog-tiles) --------------------------


def leaf(raw):
    return hashlib.sha256(b"\0" + raw).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def full(hashes):
    """The root over 2^n hashes."""
    while len(hashes) > 1:
        hashes = [node(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def fold(parts):
    """The root over full subtrees, largest first."""
    if not parts:
        return hashlib.sha256(b"").digest()
    root = parts[-1]
    for part in reversed(parts[:-1]):
        root = node(part, root)
    return root


def root_of(leaves, size):
    """The root over the first `size` leaves."""
    parts, at = [], 0
    for bit in reversed(range(64)):
        if size >> bit & 1:
            parts.append(full(leaves[at:at + (1 << bit)]))
            at += 1 << bit
    return fold(parts)


def split(hashes):
    """The roots of the full subtrees of a partial tile, largest first."""
    parts, at = [], 0
    for bit in reversed(range(8)):
        if len(hashes) >> bit & 1:
            parts.append(full(hashes[at:at + (1 << bit)]))
            at += 1 << bit
    return parts


def tile_name(index, width):
    name = "%03d" % (index % 1000)
    index //= 1000
    while index:
        name = "x%03d/%s" % (index % 1000, name)
        index //= 1000
    return name if width == 256 else "%s.p/%d" % (name, width)


class Tree:
    def __init__(self, folder, size):
        self.folder, self.size = folder, size

    def tile(self, level, index):
        """A tile's hashes; none if the export leaves it out."""
        width = min(256, (self.size >> 8 * level) - 256 * index)
        name = "tile/%d/%s" % (level, tile_name(index, width))
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return None
        raw = read_file(path)
        check(len(raw) == 32 * width, "%s has not %d hashes" % (name, width))
        return [raw[i:i + 32] for i in range(0, len(raw), 32)]

    def root(self):
        """The root; on the way each tile is held against the level above it."""
        parts, level = [], 0
        while self.size >> 8 * level:
            count, above, above_index = self.size >> 8 * level, None, None
            for index in range((count + 255) // 256):
                hashes = self.tile(level, index)
                last = 256 * (index + 1) > count
                if hashes is None:
                    check(level == 0 and not last, "tile/%d/%03d is missing" % (level, index))
                    continue
                if last:
                    parts = split(hashes) + parts
                    continue
                if above_index != index // 256:
                    above_index = index // 256
                    above = self.tile(level + 1, above_index)
                check(above is not None and full(hashes) == above[index % 256],
                      "tile %d of level %d is not what the level above says" % (index, level))
            level += 1
        return fold(parts)


def consistent(old_size, old, size, new, proof):
    """RFC 9162, section 2.1.4.2."""
    if old_size in (0, size):
        return not proof and (old_size == 0 or old == new)
    if old_size > size:
        return False
    proof = list(proof)
    if old_size & (old_size - 1) == 0:
        proof.insert(0, old)
    if not proof:
        return False
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    of_old = of_new = proof[0]
    for value in proof[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            of_old, of_new = node(value, of_old), node(value, of_new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            of_new = node(of_new, value)
        at, last = at >> 1, last >> 1
    return last == 0 and of_old == old and of_new == new


# --- Signatures ----------------------------------------------------------------

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")


def well_formed(der):
    """Whether it is SEQUENCE { r, s } in DER, both from 1 to the order less 1."""
    def element(tag, raw):
        if len(raw) < 2 or raw[0] != tag or raw[1] >= 128 or raw[1] > len(raw) - 2:
            return None, b""
        return raw[2:2 + raw[1]], raw[2 + raw[1]:]

    body, after = element(0x30, der)
    if len(der) > 80 or body is None or after:
        return False
    r, rest = element(2, body)
    s, end = element(2, rest)
    if r is None or s is None or end:
        return False
    for value in (r, s):
        minimal = value and not value[0] & 128 and not (
            value[0] == 0 and (len(value) < 2 or not value[1] & 128))
        if not minimal or not 0 < int.from_bytes(value, "big") < ORDER:
            return False
    return True


class OpenSsl:
    """Asks the openssl program, each process one question, several at a time."""

    def __init__(self, folder):
        self.folder, self.keys = folder, {}

    def key_file(self, spki):
        name = hashlib.sha256(spki).hexdigest()
        if name not in self.keys:
            self.keys[name] = os.path.join(self.folder, name)
            pem = base64.encodebytes(spki).decode("ascii")
            with open(self.keys[name], "w") as out:
                out.write("-----BEGIN PUBLIC KEY-----\n%s-----END PUBLIC KEY-----\n" % pem)
        return self.keys[name]

    def verifies(self, key_file, message, signature):
        handle, path = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(signature)
            asked = subprocess.run(
                ["openssl", "dgst", "-sha256", "-verify", key_file, "-signature", path],
                input=message, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        finally:
            os.unlink(path)
        if asked.returncode == 0 and b"Verified OK" in asked.stdout:
            return True
        said = asked.stdout + asked.stderr
        check(b"erification" in said and b"ailure" in said,
              "openssl does not answer: %s" % said.decode("utf-8", "replace").strip()[:200])
        return False


def lengthed(parts):
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def salted(domain, octets):
    return hashlib.sha256(lengthed([domain.encode()]) + bytes(32) + octets).digest()


def spki(key):
    return SPKI + b"\x04" + key["x"] + key["y"]


SLOTS = ["DEVICE", "DEVICE:PIN", "DEVICE:BIOMETRIC", "HARDWARE"]


KEY_CHANGES = {"ADD_HW_KEY", "ROTATE_HW_KEY", "REPLACE_HW_KEY",
               "ADD_METHOD", "REPLACE_METHOD", "REMOVE_METHOD"}


def key_set_hash(keys):
    found = [(slot["method"], spki(slot["key"])) for slot in keys["software"]]
    if keys["hardware"] is not None:
        found.append(("HARDWARE", spki(keys["hardware"])))
    found.sort(key=lambda item: (SLOTS.index(item[0]), item[1]))
    octets = struct.pack(">I", len(found))
    return salted("keytrail/hash/key-set/v1",
                  octets + b"".join(lengthed([slot.encode(), key]) for slot, key in found))


def transcript(name, record, event, one):
    """docs/protocol.md, "Transcripts": what the key of `one` signed."""
    activation, said = name == "ActivationJudged", event["declared"]
    none = bytes(32)
    operation = event["activation" if activation else "operation"]
    answer = ["approve"]
    if not activation:
        answer = [event[part] for part in ("decision", "reject_reason", "number")]
    answer = ":".join(str(part) for part in answer if part is not None)
    fields = [
        b"keytrail/transcript/v1",
        b"activation" if activation else event["kind"].lower().replace("_", "-").encode(),
        event["application"].bytes, record.stream, operation.bytes, event["challenge"],
        hashlib.sha256(spki(one["key"])).digest(), one["role"].encode(), one["method"].encode(),
        answer.encode(), said["client_version"].encode(),
        said["hw_key_client_status"].encode(),
        said["channel_binding"], b"ONE_FACTOR" if activation else event["level"].encode(),
        none if activation else event["context_hash"],
        none if activation else event["data_to_sign_hash"],
        said["client_data_hash"], said["risk_data_hash"],
    ]
    if activation:
        fields += [key_set_hash(event["keys"]), event["device_token_hash"],
                   event["attestation_hash"], event["device_hash_hash"]]
    elif event["kind"] in KEY_CHANGES:
        new, evidence = event["new_key"], event["attestation"]
        fields += [(event["target"] or "HARDWARE").encode(),
                   none if new is None else hashlib.sha256(spki(new)).digest(),
                   none if evidence is None else evidence["hash"]]
    return lengthed(fields)


# --- Notes ---------------------------------------------------------------------


class Key:
    """A verifier key (C2SP signed-note) of type 2: ECDSA on P-256."""

    def __init__(self, text):
        parts = text.strip().split("+", 2)
        check(len(parts) == 3, "the log's key is no verifier key")
        raw = b64(parts[2], "the log's key")
        check(len(raw) == 92 and raw[0] == 2 and raw[1:27] == SPKI, "the log's key is not P-256")
        self.name, self.spki, self.id = parts[0], raw[1:], hashlib.sha256(raw[1:]).digest()[:4]
        check(self.id.hex() == parts[1], "the log's key has another id than it says")
        self.text = text.strip()


class Checkpoint:
    def __init__(self, text, key, openssl, what):
        head, found, lines = text.rpartition("\n\n")
        check(found, "%s is no signed note" % what)
        body = head + "\n"
        rows = body.split("\n")
        check(len(rows) >= 4 and rows[1].isdigit(), "%s is no checkpoint" % what)
        self.origin, self.size = rows[0], int(rows[1])
        self.root = b64(rows[2], "the root in %s" % what)
        check(str(self.size) == rows[1] and len(self.root) == 32, "%s is no checkpoint" % what)
        signed = False
        for line in lines.splitlines():
            parts = line.split(" ")
            check(len(parts) == 3 and parts[0] == "\u2014", "%s is no signed note" % what)
            raw = b64(parts[2], "a signature of %s" % what)
            if parts[1] == key.name and raw[:4] == key.id:
                check(well_formed(raw[4:]) and openssl.verifies(
                    openssl.key_file(key.spki), body.encode(), raw[4:]),
                    "the signature of %s does not verify" % what)
                signed = True
        check(signed, "%s is not signed by the log's key" % what)
        check(self.origin == key.name, "%s is of another log" % what)


# --- The levels ------------------------------------------------------------------


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def text_of(path, what):
    try:
        return read_file(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Wrong("%s is no text" % what)


def json_of(path, what):
    try:
        return json.loads(text_of(path, what))
    except ValueError:
        raise Wrong("%s is no JSON" % what)


class Export:
    def __init__(self, folder, key, since, jobs, openssl):
        self.folder, self.jobs, self.openssl = folder, jobs, openssl
        self.manifest = json_of(self.path("manifest.json"), "manifest.json")
        check(self.manifest.get("format") == "keytrail-export/1", "manifest.json: another format")
        self.first, self.end = (self.manifest["range"][name] for name in ("from", "to"))
        self.origin = self.manifest["origin"]
        self.since, self.given = since, key
        self.schemas, self.leaves, self.signatures, self.checkpoint = {}, [], [], None
        self.rotations = {}

    def path(self, name):
        return os.path.join(self.folder, *name.split("/"))

    def files(self):
        listed = self.manifest["files"]
        for root, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(root, name)
                short = os.path.relpath(path, self.folder).replace(os.sep, "/")
                check(short in listed or short == "manifest.json",
                      "%s is not in the manifest" % short)
        for name, about in sorted(listed.items()):
            path = self.path(name)
            check(".." not in name.split("/") and os.path.isfile(path), "%s is missing" % name)
            hashed, length = hashlib.sha256(), 0
            with open(path, "rb") as file:
                for chunk in iter(lambda: file.read(1 << 20), b""):
                    hashed.update(chunk)
                    length += len(chunk)
            check((hashed.hexdigest(), length) == (about["sha256"], about["bytes"]),
                  "%s is not the file that the manifest names" % name)
        return "%d files" % len(listed)

    def load_schemas(self):
        for name in os.listdir(self.path("schema")):
            schema = json_of(self.path("schema/" + name), "schema/" + name)
            if "type" in schema:
                self.schemas[schema["type"], schema["schema"]] = schema

    def records(self):
        self.load_schemas()
        chain = bytes.fromhex(self.manifest["chain_before"])
        if self.first == 0:
            check(chain == derive_key(GENESIS, self.origin.encode()),
                  "the chain does not begin with the log's origin line")
        position, time = self.first, 0
        with open(self.path("events.jsonl"), encoding="utf-8") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    raw = b64url(row["record"], "record %d" % position)
                    chain, time = self.record(row, Record(raw), position, chain, time)
                except (ValueError, KeyError, TypeError) as error:
                    raise Wrong("record %d: its line cannot be read: %s" % (position, error))
                except Wrong as error:
                    raise Wrong("record %d: %s" % (position, error))
                position += 1
        check(position == self.end, "events.jsonl ends before record %d, the range before %d"
              % (position, self.end))
        check(chain.hex() == self.manifest["chain"], "the chain ends elsewhere than the manifest says")
        return "records %d to %d" % (self.first, self.end - 1)

    def record(self, row, record, position, chain, time):
        check(record.position == position, "the record is that of position %d" % record.position)
        check(record.prev == chain, "it does not continue the chain")
        check(record.time >= time, "its time is before that of the record before it")
        name, event = read_event(record, self.schemas)
        check_line(row, record, name, event)
        self.leaves.append(leaf(record.raw))
        if name == "KeyRotated":
            self.rotations[position] = event
        if name in ("ActivationJudged", "AuthenticationJudged"):
            for one in event["verifications"]:
                self.signatures.append((position, transcript(name, record, event, one), one))
        else:
            check('"VerificationV1"' not in json.dumps(self.schemas[record.type, record.schema]),
                  "this verifier does not know the signatures of %s" % name)
        return derive_key(CHAIN, record.raw), record.time

    def load_keys(self):
        """The log's keys in order. From --key on, each must be handed over by the one before."""
        self.keys = []
        for row in text_of(self.path("keys.txt"), "keys.txt").splitlines():
            size, _, key = row.partition(" ")
            check(size.isdigit(), "keys.txt cannot be read")
            self.keys.append((int(size), Key(key)))
        check(self.keys, "keys.txt is empty")
        own = Key(text_of(self.path("checkpoint-key"), "checkpoint-key"))
        check(own.text == self.keys[-1][1].text, "checkpoint-key is not the last of keys.txt")
        trusted = Key(self.given) if self.given else own
        names = [key.text for _, key in self.keys]
        check(trusted.text in names, "the export names another key than --key")
        for index in range(names.index(trusted.text), len(names) - 1):
            old, (size, new) = self.keys[index][1], self.keys[index + 1]
            check(old.spki == new.spki or size - 1 in self.rotations,
                  "the log's key was replaced outside the range: use a later --key")
        for position, event in self.rotations.items():
            self.rotation(position, event)

    def rotation(self, position, event):
        """docs/format.md, "Another key"."""
        def named(point):
            raw = spki(point)
            text = base64.b64encode(b"\x02" + raw).decode()
            return "%s+%s+%s" % (event["origin"], hashlib.sha256(raw).hexdigest()[:8], text)

        where = "record %d: the log's new key" % position
        old, new = named(event["old_key"]), named(event["new_key"])
        root = base64.b64encode(event["root"]).decode()
        text = "keytrail key rotation v1\n%s\n%d\n%s\n%s\n%s\n" % (
            event["origin"], event["size"], root, old, new)
        for point, signature in (("old_key", "old_signature"), ("new_key", "new_signature")):
            check(well_formed(event[signature]) and self.openssl.verifies(
                self.openssl.key_file(spki(event[point])), text.encode(), event[signature]),
                "%s is not signed for by its %s" % (where, point.replace("_", " ")))
        check(event["size"] == position, "%s is for another place" % where)
        pair = [key.text for size, key in self.keys if size == position + 1]
        check(new in pair, "%s is not the one of keys.txt" % where)
        check(self.first > 0 or root_of(self.leaves, position) == event["root"],
              "%s was signed for over another history" % where)

    def key_for(self, size):
        return [key for begins, key in self.keys if begins <= size][-1]

    def tree(self):
        self.load_keys()
        text = text_of(self.path("checkpoint"), "checkpoint")
        self.checkpoint = Checkpoint(text, self.keys[-1][1], self.openssl, "checkpoint")
        check(self.end <= self.checkpoint.size, "the range goes beyond the checkpoint")
        tree = Tree(self.folder, self.checkpoint.size)
        check(tree.root() == self.checkpoint.root, "the tiles do not give the root that was signed")
        index, hashes = None, []
        for position, hashed in enumerate(self.leaves, self.first):
            if index != position // 256:
                index, hashes = position // 256, tree.tile(0, position // 256)
            check(hashes and hashes[position % 256] == hashed,
                  "record %d is not in the tree that was signed" % position)
        self.bundles()
        return "size %d, root %s" % (self.checkpoint.size,
                                     base64.b64encode(self.checkpoint.root).decode())

    def bundles(self):
        """The records of tile/entries are those of events.jsonl."""
        size = self.checkpoint.size
        for index in range(self.first // 256, (self.end + 255) // 256):
            width = min(256, size - 256 * index)
            name = "tile/entries/" + tile_name(index, width)
            if not os.path.exists(self.path(name)):
                continue
            raw, at = read_file(self.path(name)), 0
            for position in range(256 * index, 256 * index + width):
                check(at + 2 <= len(raw), "%s is cut short" % name)
                length = int.from_bytes(raw[at:at + 2], "big")
                inside = self.first <= position < self.end
                check(inside and leaf(raw[at + 2:at + 2 + length])
                      == self.leaves[position - self.first],
                      "%s holds another record %d" % (name, position))
                at += 2 + length
            check(at == len(raw), "%s has bytes too many" % name)

    def consistency(self):
        path, what = self.since, "the kept checkpoint"
        if path is None:
            if not os.path.exists(self.path("since-checkpoint")):
                return None
            path, what = self.path("since-checkpoint"), "since-checkpoint"
        try:
            text = text_of(path, what)
            rows = text.split("\n")
            size = int(rows[1]) if len(rows) > 1 and rows[1].isdigit() else 0
            kept = Checkpoint(text, self.key_for(size), self.openssl, what)
        except OSError as error:
            raise Wrong("%s cannot be read: %s" % (what, error))
        check(kept.size <= self.checkpoint.size,
              "the log was cut off: %s covers %d records" % (what, kept.size))
        if self.first == 0 and self.end >= kept.size:
            holds = root_of(self.leaves, kept.size) == kept.root
        else:
            check(os.path.exists(self.path("consistency.txt")),
                  "this export has no proof for it; ask for one made with --since")
            rows = text_of(self.path("consistency.txt"), "consistency.txt").splitlines()
            check(rows and rows[0] == str(kept.size), "consistency.txt is for another checkpoint")
            proof = [b64(row, "consistency.txt") for row in rows[1:]]
            holds = consistent(kept.size, kept.root, self.checkpoint.size, self.checkpoint.root,
                               proof)
        check(holds, "the log does not continue %s: it is another history" % what)
        return "continues size %d" % kept.size

    def verify_signatures(self):
        """In batches, several processes at a time: one question costs a process."""
        for _, _, one in self.signatures:
            self.openssl.key_file(spki(one["key"]))

        def judge(item):
            _, message, one = item
            if not well_formed(one["signature"]):
                return "MALFORMED"
            key_file = self.openssl.key_file(spki(one["key"]))
            valid = self.openssl.verifies(key_file, message, one["signature"])
            return "VALID" if valid else "INVALID"

        counts = {"VALID": 0, "INVALID": 0, "MALFORMED": 0}
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            for (position, _, one), found in zip(self.signatures, pool.map(judge, self.signatures)):
                check(found == one["verdict"],
                      "record %d: the %s signature for %s is recorded as %s and is %s"
                      % (position, one["role"], one["method"], one["verdict"], found))
                counts[found] += 1
        return "%d signatures: %d valid, %d invalid, %d malformed" % (
            len(self.signatures), counts["VALID"], counts["INVALID"], counts["MALFORMED"])


def main():
    parser = argparse.ArgumentParser(description="Checks an export of a keytrail log.")
    parser.add_argument("folder", nargs="?", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--key", help="the log's verifier key, from whom you trust")
    parser.add_argument("--since", help="file with a checkpoint that you kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1,
                        help="openssl processes at a time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            export = Export(given.folder, given.key, given.since, given.jobs, OpenSsl(scratch))
            for name, level in [("files", export.files), ("1 records", export.records),
                                ("2 tree", export.tree), ("3 since", export.consistency),
                                ("5 signatures", export.verify_signatures)]:
                said = level()
                print("%-13s %s" % (name, "nothing to check" if said is None else "holds: " + said))
        except Wrong as error:
            print("FAILS: %s" % error)
            return 1
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            print("FAILS: manifest or schema cannot be understood: %r" % error)
            return 1
        except OSError as error:
            print("cannot be checked: %s" % error)
            return 2
    note = "" if given.key else " (the key is the export's own: compare it with yours)"
    print("every level holds%s" % note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
