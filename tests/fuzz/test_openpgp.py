# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys: what is written into a keyring is the wanted key alone, and gpg and Sequoia's sqv read in it what was reported.

Both are asked about each keyring that would be written, and once about each: most inputs give the same one or none.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import openpgp
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.openpgp_maker import (
    CREATED,
    MARKER,
    PUBLIC_KEY,
    PUBLIC_SUBKEY,
    SECRET_KEY,
    SECRET_SUBKEY,
    SIGNATURE,
    TRUST,
    USER_ATTRIBUTE,
    USER_ID,
    Key,
    dated,
    packet,
    part,
)

pytestmark = pytest.mark.skipif(
    not all(shutil.which(program) for program in ("gpg", "gpgv", "sqv")), reason="gpg, gpgv and sqv are the oracles"
)

FOLDER = Path(tempfile.mkdtemp(prefix="neuronops-fuzz-openpgp-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
DATA = b"what apt verifies"
KEYS = [path.read_bytes() for path in sorted(Path("tests/unit/fixtures/keys").glob("*.[ag]*"))]
REAL = sorted({openpgp.dearmor(key) for key in KEYS})
OURS, SUBKEY, EVIL = Key(1), Key(2), Key(3)
# No lifetime that is drawn ends before this, and every signature on a key is older.
LATER = CREATED + 1000
FORMS = ["old 1", "old 2", "old 4", "new 1", "new 2", "new 5", "partial", "endless"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, cwd=FOLDER)


def file(name: str, content: bytes) -> Path:
    (FOLDER / name).write_bytes(content)
    return FOLDER / name


@functools.cache
def gpg(keyring: bytes) -> list[dict[str, Any]]:
    """Return the keys that gpg reads in a keyring, as public_keys() reports them."""
    shown = run("gpg", "--homedir", FOLDER, "--batch", "--show-keys", "--with-colons", file("shown.gpg", keyring))
    keys: list[dict[str, Any]] = []
    subkey = False
    for fields in (line.split(":") for line in shown.stdout.splitlines()):
        if fields[0] == "pub":
            expires = int(fields[6]) if fields[6] else None
            keys.append({"expires": expires, "revoked": fields[1] == "r", "user_ids": 0, "subkeys": []})
        elif fields[0] == "sub":
            subkey = True
        elif fields[0] == "fpr" and subkey:
            keys[-1]["subkeys"].append(fields[9])
        elif fields[0] == "fpr":
            keys[-1]["fingerprint"] = fields[9]
        elif fields[0] == "uid":
            keys[-1]["user_ids"] += 1
    return keys


@functools.cache
def verifies(program: str, keyring: bytes, signed: bytes) -> bool:
    """Tell whether gpgv or sqv takes a signature of DATA by a keyring."""
    options: list[str | Path] = ["--homedir", FOLDER] if program == "gpgv" else []
    keys, signature, data = file("keys.gpg", keyring), file("data.sig", signed), file("data", DATA)
    return run(program, *options, "--keyring", keys, signature, data).returncode == 0


@functools.cache
def of_data(key: Key, when: int) -> bytes:
    return key.signature(0, DATA, dated(when))


def understood(data: bytes) -> list[dict[str, Any]]:
    """Return what the reader finds, which others must find too in what is written; nothing where it refuses."""
    try:
        keys: list[dict[str, Any]] = openpgp.public_keys(data)
    except openpgp.OpenPGPError as error:
        assert str(error)
        return []
    for key in keys:
        reported = {name: key[name] for name in ("fingerprint", "expires", "revoked", "subkeys")}
        assert gpg(key["packets"]) == [{**reported, "user_ids": len(key["user_ids"])}]
        assert openpgp.public_keys(key["packets"]) == [key], "a second run would write another keyring"
        for program in ("gpgv", "sqv"):
            assert not verifies(program, key["packets"], of_data(EVIL, LATER)) or key["fingerprint"] == EVIL.fingerprint
    return keys


def split(packets: bytes) -> list[tuple[int, bytes]]:
    return [(tag, body) for tag, body, _whole in openpgp._packets(packets)]


def headed(tag: int, body: bytes, form: str) -> bytes:
    """A packet with its header in one of the forms; in the usual one where that has no room for the length."""
    kind, _space, size = form.partition(" ")
    length = len(body)
    if kind == "old" and tag < 16 and length < 1 << 8 * int(size):
        return bytes([0x80 | tag << 2 | int(size) // 2]) + length.to_bytes(int(size), "big") + body
    if kind == "endless" and tag < 16:
        return bytes([0x83 | tag << 2]) + body
    if kind == "partial" and length > 1:
        power = length.bit_length() - 1
        return bytes([0xC0 | tag, 0xE0 | power]) + body[: 1 << power] + packet(tag, body[1 << power :])[1:]
    if form == "new 5":
        return bytes([0xC0 | tag]) + b"\xff" + length.to_bytes(4, "big") + body
    return packet(tag, body)


@st.composite
def said(draw: st.DrawFn, lifetimes: tuple[int | None, ...], flags: int | None) -> bytes:
    """What a signature may say; now and then what no reader needs to know, or must know, or may not know."""
    text = dated(CREATED + draw(st.integers(0, 3)), draw(st.sampled_from(lifetimes)), flags)
    if not draw(st.sampled_from([False] * 7 + [True])):
        return text
    kind = draw(st.sampled_from([*range(1, 41), 60, 100, 110]))
    content = draw(st.sampled_from([b"", b"\0", b"\1", b"\0\0\x17\x70", OURS.id, b"\x04" + b"x" * 20, b"\x80" * 22]))
    extra = part(kind | draw(st.sampled_from([0, 0x80])), content)
    return draw(st.sampled_from([text + extra, extra + text]))


NAME = st.sampled_from([b"me", b"too", b"", b"\xff\n\x1b"])
LIFETIMES = (5000, 5000, 5000, 6000, None, 0)
METHOD = st.sampled_from([8, 8, 8, 2])


@st.composite
def ours(draw: st.DrawFn) -> bytes:
    """Something that the owner of the key made."""
    kind = draw(st.sampled_from(["name", "name", "name", "renewal", "direct", "subkey", "subkey", "taken", "revoked"]))
    name, method = draw(NAME), draw(METHOD)
    what = OURS.of_name(name)
    if kind == "direct":
        return OURS.signature(0x1F, OURS.hashed, draw(said(LIFETIMES, 3)), method=method)
    if kind == "renewal":
        return OURS.signature(0x13, what, draw(said(LIFETIMES, 3)))
    if kind == "taken":
        return packet(USER_ID, name) + OURS.signature(0x30, what, draw(said((None,), None)))
    if kind == "revoked":
        where, how = draw(st.sampled_from([(OURS.hashed, 0x20), (OURS.of_subkey(SUBKEY), 0x28)]))
        return OURS.signature(how, where, draw(said((None,), None)))
    if kind == "subkey":
        back = part(32, SUBKEY.signature_body(0x19, OURS.of_subkey(SUBKEY), draw(said((None,), None))))
        text = draw(said((None, None, 5000), draw(st.sampled_from([2, 2, 2, 2, 12, None]))))
        places = [(b"", back), (b"", back), (back, b""), (b"", b""), (b"", back + back)]
        hashed, unhashed = draw(st.sampled_from(places))
        binding = OURS.signature(0x18, OURS.of_subkey(SUBKEY), text + hashed, unhashed)
        return packet(PUBLIC_SUBKEY, SUBKEY.body) + binding
    certification = draw(st.sampled_from([0x10, 0x12, 0x13]))
    return packet(USER_ID, name) + OURS.signature(certification, what, draw(said(LIFETIMES, 3)), method=method)


def attacks() -> list[bytes]:
    """What somebody with a key of his own can put beside ours, also with signatures of ours from elsewhere."""
    evil, of_evil, flags = packet(PUBLIC_SUBKEY, EVIL.body), OURS.of_subkey(EVIL), dated(flags=2)
    back = part(32, EVIL.signature_body(0x19, of_evil))
    found = [
        EVIL.packet + EVIL.named(said=dated(flags=3)),
        EVIL.packet,
        packet(SECRET_KEY, EVIL.body + b"\0" + b"\x00\x01\x01" * 4 + b"\0\0"),
        packet(SECRET_SUBKEY, EVIL.body + b"\0" + b"\x00\x01\x01" * 4 + b"\0\0"),
        evil,
        evil + EVIL.signature(0x18, of_evil, flags, back),
        evil + EVIL.signature(0x18, of_evil, flags, back, issuer=OURS.id),
        evil + OURS.signature(0x18, OURS.of_subkey(SUBKEY), flags, back),
        evil + OURS.signature(0x18, of_evil, flags),
        evil + OURS.signature(0x18, of_evil, dated(flags=12), back),
        evil + OURS.signature(0x18, of_evil, dated()),
        evil + OURS.signature(0x18, of_evil, flags, part(32, OURS.signature_body(0x19, of_evil))),
        packet(USER_ID, b"evil") + EVIL.signature(0x13, OURS.of_name(b"evil"), dated(lifetime=9000)),
        packet(USER_ID, b"evil") + EVIL.signature(0x13, OURS.of_name(b"evil"), issuer=OURS.id),
        packet(USER_ID, b"evil") + OURS.signature(0x13, OURS.of_name(b"me"), dated(lifetime=7000)),
        EVIL.signature(0x20, OURS.hashed, issuer=OURS.id),
        EVIL.signature(0x1F, OURS.hashed, dated(lifetime=7000), issuer=OURS.id),
        packet(USER_ATTRIBUTE, b"\x05\x01abcd") + EVIL.signature(0x13, OURS.of_name(b"me")),
        packet(TRUST, b"\0\0"),
        packet(MARKER, b"PGP"),
        packet(60, b"private"),
        packet(SIGNATURE, b"\x03\x05\x10\x5f\x5e\x10\0" + EVIL.id + b"\x01\x08\0\0\0\x01\x01"),
        packet(USER_ID, EVIL.packet + EVIL.named()),
    ]
    return found


ATTACKS = attacks()


def written(keys: list[dict[str, Any]], fingerprint: str) -> dict[str, Any] | None:
    return next((key for key in keys if key["fingerprint"] == fingerprint), None)


@given(
    start=st.sampled_from([OURS.packet + OURS.named(said=dated(CREATED, 5000, 3))] * 3 + [OURS.packet]),
    pieces=st.lists(st.one_of(ours(), ours(), st.sampled_from(ATTACKS)), max_size=7),
    forms=st.lists(st.sampled_from(FORMS), max_size=3),
)
def test_gpg_and_sqv_read_in_a_keyring_what_was_reported_and_no_more(
    start: bytes, pieces: list[bytes], forms: list[str], tried: Callable[[str], None]
) -> None:
    tried("key with parts of others")
    packets = split(start + b"".join(pieces))
    shapes = dict(enumerate(forms))
    data = b"".join(headed(tag, body, shapes.get(number, "")) for number, (tag, body) in enumerate(packets))
    key = written(understood(data), OURS.fingerprint)
    if not key:
        return
    keyring = key["packets"]
    for program in ("gpgv", "sqv"):
        assert SUBKEY.fingerprint in key["subkeys"] or not verifies(program, keyring, of_data(SUBKEY, LATER))
    modern = all(body[3] == 8 for tag, body in split(keyring) if tag == SIGNATURE)
    last = key["expires"] - 1 if key["expires"] else LATER
    # Sequoia takes no self-signatures with SHA-1 any more, so that such a key signs nothing for it.
    assert verifies("sqv", keyring, of_data(OURS, last)) == (modern and not key["revoked"]) or not modern
    if key["expires"]:
        assert not verifies("sqv", keyring, of_data(OURS, key["expires"]))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Return bytes of which some are changed, taken out, doubled or cut off, or come from elsewhere."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 400)))
        how = draw(st.sampled_from(["change", "change", "out", "twice", "cut", "other", "after"]))
        if how == "change" and start < len(data):
            data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
        elif how == "out":
            data = data[:start] + data[end:]
        elif how == "twice":
            data = data[:end] + data[start:]
        elif how == "cut":
            data = data[:start]
        elif how == "other":
            piece = st.one_of(st.sampled_from([b"\n", b"=", b"-----BEGIN", b"\xff\xff\xff\xff", *ATTACKS]), st.binary())
            data = data[:start] + draw(piece) + data[end:]
        else:
            data += draw(st.sampled_from([*KEYS, *ATTACKS]))
    return data


@given(data=st.one_of(st.sampled_from(KEYS).flatmap(damaged), st.sampled_from(KEYS), st.binary(max_size=300)))
def test_damaged_keys_are_read_as_gpg_reads_what_is_written_or_refused(
    data: bytes, tried: Callable[[str], None]
) -> None:
    tried("damaged key")
    understood(data)
    try:
        rest = openpgp.without(data, OURS.fingerprint)
    except openpgp.OpenPGPError as error:
        assert str(error)
        return
    assert rest is None or OURS.fingerprint in [key["fingerprint"] for key in gpg(data)]


@given(
    packets=st.sampled_from([*REAL, OURS.packet + OURS.named(said=dated(flags=3)) + OURS.bound(SUBKEY)]).flatmap(
        lambda key: st.lists(st.sampled_from(split(key)), min_size=1, max_size=12)
    ),
    others=st.lists(st.sampled_from([part for key in REAL for part in split(key)]), max_size=3),
    forms=st.lists(st.sampled_from(FORMS), max_size=12),
    armoured=st.booleans(),
)
def test_packets_in_any_order_and_form(
    packets: list[tuple[int, bytes]],
    others: list[tuple[int, bytes]],
    forms: list[str],
    armoured: bool,
    tried: Callable[[str], None],
) -> None:
    tried("packets in another order")
    packets = sorted(packets, key=lambda one: one[0] != PUBLIC_KEY) + others
    shapes = dict(enumerate(forms))
    data = b"".join(headed(tag, body, shapes.get(number, "")) for number, (tag, body) in enumerate(packets))
    keys = understood(openpgp.armor(data) if armoured else data)
    plain = [form for form in forms[: len(packets)] if form not in ("partial", "endless")]
    assume(len(plain) == len(forms[: len(packets)]))
    # The form of a header changes nothing.
    assert keys == understood(b"".join(packet(tag, body) for tag, body in packets))
