# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys are read as gpg reads them: whose they are, until when they hold, whether they are whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import openpgp

from tests.unit.openpgp_maker import (
    CREATED,
    MARKER,
    PUBLIC_KEY,
    PUBLIC_SUBKEY,
    SIGNATURE,
    TRUST,
    USER_ATTRIBUTE,
    USER_ID,
    Key,
    dated,
    packet,
    part,
)

KEYS = Path(__file__).with_name("fixtures") / "keys"
NEURON = "DB5D6BB72CFE465E5AE487772C2BF4FE7DC7A599"
OTHER = "B2ADFC0C6B124ED953354F7717F56AE4A3AEEB06"


def day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def test_a_renewed_key_has_the_same_fingerprint_and_another_end() -> None:
    (expired,) = openpgp.public_keys((KEYS / "expired.asc").read_bytes())
    (renewed,) = openpgp.public_keys((KEYS / "renewed.asc").read_bytes())
    assert expired["fingerprint"] == renewed["fingerprint"] == NEURON
    assert (day(expired["expires"]), day(renewed["expires"])) == ("2022-11-10", "2042-11-06")
    assert expired["user_ids"] == ["Example Neuron (synthetic) <neuron@example.invalid>"]


def test_armour_comes_off_and_goes_on_again() -> None:
    binary = (KEYS / "renewed.gpg").read_bytes()
    assert openpgp.dearmor((KEYS / "renewed.asc").read_bytes()) == binary
    assert openpgp.dearmor(openpgp.armor(binary)) == binary


def test_each_key_of_a_keyring_comes_with_its_own_packets() -> None:
    first, second = openpgp.public_keys((KEYS / "two.gpg").read_bytes())
    assert (first["fingerprint"], second["fingerprint"]) == (NEURON, OTHER)
    assert first["packets"] == (KEYS / "renewed.gpg").read_bytes()
    assert second["expires"] is None


def test_a_revoked_key_is_recognised() -> None:
    (key,) = openpgp.public_keys((KEYS / "revoked.asc").read_bytes())
    assert key["revoked"]
    (key,) = openpgp.public_keys((KEYS / "other.asc").read_bytes())
    assert not key["revoked"]


def test_a_damaged_or_foreign_file_is_refused() -> None:
    whole = (KEYS / "renewed.asc").read_bytes()
    binary = (KEYS / "renewed.gpg").read_bytes()
    damaged = whole.replace(b"mQENBF", b"mQENBG", 1)
    assert damaged != whole
    for data in (damaged, whole[:400], binary[:300], b"<html>404</html>", b"", binary[:0]):
        with pytest.raises(openpgp.OpenPGPError):
            openpgp.public_keys(data)


@pytest.mark.skipif(not shutil.which("gpg"), reason="gpg is the other opinion, and it is not installed")
# Debian's removed keys are of DSA, which is refused.
@pytest.mark.parametrize(
    "file", [*sorted(KEYS.glob("*.[ag]*")), *sorted(Path("/usr/share/keyrings").glob("debian*[!s].gpg"))]
)
def test_gpg_says_the_same(file: Path, tmp_path: Path) -> None:
    command = ["gpg", "--homedir", str(tmp_path), "--show-keys", "--with-colons", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    expected, primary = [], None
    for fields in (line.split(":") for line in lines):
        if fields[0] == "pub":
            primary = (int(fields[6]) if fields[6] else None, fields[1] == "r")
        elif fields[0] == "fpr" and primary:
            expected.append((fields[9], *primary))
            primary = None
    found = openpgp.public_keys(file.read_bytes())
    assert [(key["fingerprint"], key["expires"], key["revoked"]) for key in found] == expected


OURS, SUBKEY, EVIL = Key(1), Key(2, CREATED + 1), Key(3)
WHOLE = OURS.packet + OURS.named()


def read(data: bytes) -> dict[str, Any]:
    (key,) = openpgp.public_keys(data)
    found: dict[str, Any] = key
    return found


@pytest.mark.parametrize("length", [0, 191, 192, 2048])
def test_packets_of_every_length_are_read_and_written_the_shortest_way(length: int) -> None:
    keyring = OURS.packet + OURS.named(b"x" * length) + OURS.named(b"last")
    key = read(keyring)
    assert key["user_ids"] == ["x" * length, "last"]
    assert (key["created"], key["expires"]) == (CREATED, None)
    assert len(key["packets"]) <= len(keyring)
    assert read(key["packets"]) == key
    long = b"\xff\x00\x00".join([WHOLE[:1], len(OURS.body).to_bytes(2, "big") + OURS.body + OURS.named()])
    assert read(long) == read(WHOLE)


def test_a_name_that_gpg_does_not_read_is_left_out() -> None:
    assert read(WHOLE + OURS.named(b"x" * 8384))["user_ids"] == ["me"]


def named(said: bytes) -> bytes:
    return OURS.packet + OURS.named(said=said)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (OURS.named() + WHOLE, "it does not start with a public key"),
        (packet(PUBLIC_KEY, b"\x03" + OURS.body[1:]), "only keys of version 4 can be read"),
        (packet(PUBLIC_KEY, OURS.body[:5] + b"\x63" + OURS.body[6:]), "the key is of the algorithm 99"),
        (packet(PUBLIC_KEY, OURS.body[:5] + b"\x16\x01\x00" + OURS.body[6:]), "on a curve that is not known"),
        (packet(PUBLIC_KEY, OURS.body + b"\0"), "a key does not end where its numbers do"),
        (packet(PUBLIC_KEY, OURS.body + WHOLE), "does not end where its numbers do"),
        (packet(PUBLIC_KEY, OURS.body[:-1]), "a key is damaged or cut off"),
        (packet(PUBLIC_KEY, OURS.body[:6] + b"\x08\x01" + OURS.body[8:]), "a number that is too long or not of its"),
        (WHOLE[:-1], "it is damaged or cut off"),
        (WHOLE[:1], "it is damaged or cut off"),
        (b"\xc6\xff\x00", "it is damaged or cut off"),
        (b"\xc6\xe1\x00", "it uses partial packets"),
        (b"\x9b" + OURS.body, "a packet without a length"),
        (b"", "there is no public key in it"),
        (WHOLE + b"\0", "it is not in OpenPGP format"),
        (b"\n" + WHOLE, "it is not in OpenPGP format"),
        (OURS.packet, "it has no name that the key itself signed"),
        (OURS.packet + packet(USER_ID, b"me"), "it has no name that the key itself signed"),
        (OURS.packet + packet(USER_ID, b"you") + OURS.signature(0x13, OURS.of_name(b"me")), "no name that the key"),
        (OURS.packet + packet(USER_ID, b"me") + EVIL.signature(0x13, OURS.of_name(b"me")), "no name that the key"),
        (WHOLE + packet(SIGNATURE, b"\x04\x13\x01\x08\0\xff"), "a signature is damaged or cut off"),
        (WHOLE + packet(SIGNATURE, b"\x04\x13\x01\x08\0\x02\0\0" + b"\0" * 9), "a part of it is empty"),
        (WHOLE + packet(SIGNATURE, b"\x05\x13\x01\x08" + b"\0" * 20), "only signatures of version 4"),
        (WHOLE + packet(SIGNATURE, b"\x03\x05\x20\0\0\0\0" + OURS.id + b"\x01\x08"), "in the form of version 3"),
        (named(dated() + dated()), "signed something twice"),
        (named(dated(flags=1) + part(27, b"\x02")), "signed something twice"),
        (named(dated() + part(9, b"\1")), "in a form that is not known"),
        (named(b""), "without a date, or before it was made"),
        (named(dated(CREATED - 1)), "without a date, or before it was made"),
        (named(dated(0xFFFFFFFF)), "signed in the future"),
        (named(dated() + part(3, b"\0\0\0\1")), "under a condition or in a form that is not known"),
        (named(dated() + part(4, b"\0")), "under a condition or in a form that is not known"),
        (named(dated() + part(25, b"")), "under a condition or in a form that is not known"),
        (named(dated() + part(100, b"x")), "under a condition or in a form that is not known"),
        (named(dated() + part(20, b"\0" * 7 + b"\1")), "under a condition or in a form that is not known"),
        (named(dated() + part(32, OURS.signature_body(0x19, b""))), "under a condition or in a form that is not"),
        (named(dated() + part(0x80 | 99, b"")), "under a condition or in a form that is not known"),
        (named(dated() + part(0x80 | 20, b"notation")), "under a condition or in a form that is not known"),
        (named(dated(lifetime=0xFFFFFFFF)), "after the last second that gpg can count"),
        (WHOLE + OURS.signature(0x1F, OURS.hashed, dated(lifetime=5)), "it says different things of when it ends"),
        (WHOLE + OURS.named(b"too", dated(lifetime=5)), "it says different things of when it ends"),
        (named(dated() + part(9, b"\0\0\0\5")) + OURS.signature(0x13, OURS.of_name(b"me")), "different things"),
        (
            OURS.packet
            + packet(USER_ID, b"me")
            + packet(SIGNATURE, b"\x04\x13\x01\x01\0\0\0\x0a\x09\x10" + OURS.id + b"\0\0"),
            "with an algorithm or a hash that is not known",
        ),
    ],
)
def test_what_is_wrong_with_a_key_is_said(data: bytes, says: str) -> None:
    with pytest.raises(openpgp.OpenPGPError, match=says):
        openpgp.public_keys(data)


def test_a_packet_that_no_public_key_has_refuses_all() -> None:
    """Another program may read it: sqv takes the signatures of a secret key that lies in a keyring."""
    for tag in sorted(set(range(64)) - {SIGNATURE, PUBLIC_KEY, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE}):
        for keyring in (WHOLE + packet(tag, OURS.body), OURS.packet + packet(tag, b"") + OURS.named()):
            with pytest.raises(openpgp.OpenPGPError, match=f"a packet of the kind {tag}, which no public key has"):
                openpgp.public_keys(keyring)


ARMOURED = openpgp.armor(WHOLE)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\n" + ARMOURED,
        ARMOURED + b"garbage",
        ARMOURED + WHOLE,
        ARMOURED.replace(b"PUBLIC", b"PRIVATE"),
        ARMOURED + ARMOURED.replace(b"PUBLIC", b"PRIVATE"),
        b"\xc5\x00" + ARMOURED,
        ARMOURED.replace(b"\n\n", b"\n\n" + ARMOURED, 1),
        ARMOURED.replace(b"\n=", b"\n=AAAA\n=", 1),
        ARMOURED.replace(b"-----\n\n", b"-----\nno head\n\n", 1),
        ARMOURED.replace(b"\n\n", b"\n\n*", 1),
        re.sub(rb"\n=....", b"\n=AAAA", ARMOURED),
        ARMOURED.rpartition(b"-----END")[0],
    ],
)
def test_nothing_stands_around_armoured_keys(data: bytes) -> None:
    for good in (b"\n" + ARMOURED.replace(b"\n", b"\r\n") + b"\n", re.sub(rb"\n=....", b"", ARMOURED), ARMOURED * 2):
        assert read(good) == read(WHOLE)
    with pytest.raises(openpgp.OpenPGPError):
        openpgp.public_keys(data)


def test_armour_in_a_name_is_a_name() -> None:
    assert read(OURS.packet + OURS.named(ARMOURED))["user_ids"] == [ARMOURED.decode()]


def test_only_what_the_key_itself_signed_is_handed_on() -> None:
    """Names, subkeys and signatures that anybody may have put beside it are left out."""
    good = WHOLE + OURS.bound(SUBKEY)
    forged = OURS.signature(0x13, OURS.of_name(b"another name"))
    binding = OURS.signature(0x18, OURS.of_subkey(SUBKEY), dated(flags=2))
    added = (
        OURS.packet
        + EVIL.signature(0x20, OURS.hashed)
        + EVIL.signature(0x20, OURS.hashed, issuer=OURS.id)
        + packet(USER_ID, b"not mine")
        + forged
        + OURS.named()
        + EVIL.signature(0x13, OURS.of_name(b"me"))
        + forged
        + packet(USER_ATTRIBUTE, b"a picture")
        + EVIL.signature(0x13, OURS.of_name(b"me"))
        + packet(PUBLIC_SUBKEY, EVIL.body)
        + binding
        + packet(PUBLIC_SUBKEY, b"\x04\0\0\0\0\x63")
        + OURS.bound(SUBKEY)
        + EVIL.signature(0x18, OURS.of_subkey(SUBKEY))
    )
    key = read(added)
    assert key == read(good)
    assert (key["user_ids"], key["subkeys"]) == (["me"], [SUBKEY.fingerprint])
    assert read(key["packets"]) == key
    unsigned = OURS.signature(0x13, OURS.of_name(b"me"), unsigned=part(9, b"\0\0\0\1") + part(99, b"unsigned"))
    assert read(OURS.packet + packet(USER_ID, b"me") + unsigned)["packets"] == read(WHOLE)["packets"]


def test_a_subkey_that_must_not_sign_or_did_not_agree_is_left_out() -> None:
    for said in (dated(CREATED + 1), dated(CREATED + 1, flags=12)):
        assert read(WHOLE + OURS.bound(SUBKEY, said)) == read(WHOLE)
    what, flags = OURS.of_subkey(SUBKEY), dated(CREATED + 1, flags=2)
    own = part(32, OURS.signature_body(0x19, what, dated(CREATED + 1)))
    agreed = part(32, SUBKEY.signature_body(0x19, what, dated(CREATED + 1)))
    stranger = packet(PUBLIC_SUBKEY, SUBKEY.body)
    for unsigned in (b"", own, agreed + agreed):
        assert read(WHOLE + stranger + OURS.signature(0x18, what, flags, unsigned)) == read(WHOLE)
    assert read(WHOLE + stranger + OURS.signature(0x18, what, flags + agreed))["subkeys"] == [SUBKEY.fingerprint]


def test_the_newest_of_the_keys_own_signatures_says_when_it_ends() -> None:
    name = packet(USER_ID, b"me")
    old = OURS.signature(0x13, OURS.of_name(b"me"), dated(CREATED + 1, 100))
    new = OURS.signature(0x13, OURS.of_name(b"me"), dated(CREATED + 2, 200))
    key = read(OURS.packet + name + new + old + new)
    assert key["expires"] == CREATED + 200
    # Sequoia takes a signature of the time before the renewal only where the key's own of that time is there.
    assert old.split(OURS.id)[1] in key["packets"] and key["packets"].count(new.split(OURS.id)[1]) == 1
    direct = OURS.signature(0x1F, OURS.hashed, dated(CREATED, 200))
    assert read(OURS.packet + direct + name + new)["expires"] == CREATED + 200
    assert read(OURS.packet + OURS.signature(0x1F, OURS.hashed) + name + new)["expires"] == CREATED + 200


def test_what_is_signed_with_sha1_counts_where_there_is_nothing_else() -> None:
    name, what = packet(USER_ID, b"me"), OURS.of_name(b"me")
    old = OURS.signature(0x13, what, dated(CREATED + 1, 100), method=2)
    assert read(OURS.packet + name + old)["expires"] == CREATED + 100
    for beside in (old, OURS.signature(0x1F, OURS.hashed, dated(CREATED, 400), method=2)):
        assert read(WHOLE + beside) == read(WHOLE)
    assert read(WHOLE + OURS.signature(0x20, OURS.hashed, method=2))["revoked"]


def test_what_a_file_says_of_one_key_in_two_places_is_taken_together() -> None:
    expired, renewed = (KEYS / "expired.asc").read_bytes(), (KEYS / "renewed.asc").read_bytes()
    for key in (read(expired + renewed), read(renewed + expired)):
        assert key["expires"] == read(renewed)["expires"]
    revoked = WHOLE + OURS.signature(0x20, OURS.hashed)
    assert read(WHOLE + revoked)["revoked"] and read(revoked + WHOLE)["revoked"]


@pytest.mark.parametrize("file", ["other.asc", "renewed.asc"])
def test_a_signature_of_which_one_bit_differs_does_not_hold(file: str) -> None:
    packets = openpgp.dearmor((KEYS / file).read_bytes())
    with pytest.raises(openpgp.OpenPGPError, match="no name that the key itself signed"):
        openpgp.public_keys(packets[:-1] + bytes([packets[-1] ^ 1]))


def test_a_revoked_key_and_a_revoked_name() -> None:
    assert not read(WHOLE)["revoked"]
    assert read(WHOLE + OURS.signature(0x20, OURS.hashed))["revoked"], "wherever it stands"
    taken = OURS.signature(0x30, OURS.of_name(b"too"), dated(CREATED + 5))
    assert read(WHOLE + OURS.named(b"too") + taken) == read(WHOLE)
    back = OURS.signature(0x13, OURS.of_name(b"too"), dated(CREATED + 6))
    assert read(WHOLE + OURS.named(b"too") + taken + back)["user_ids"] == ["me", "too"]


def test_one_key_is_cut_out_of_a_keyring_of_others() -> None:
    mine, other = (KEYS / "renewed.gpg").read_bytes(), openpgp.dearmor((KEYS / "other.asc").read_bytes())
    picture = packet(USER_ATTRIBUTE, b"a picture")
    keyring = other + picture + mine + packet(TRUST, b"x") + packet(MARKER, b"PGP") + WHOLE
    assert openpgp.without(keyring, NEURON) == other + picture + packet(MARKER, b"PGP") + WHOLE
    assert openpgp.without(openpgp.armor(mine), NEURON) == b""
    assert openpgp.without(other, NEURON) is None
    for damaged in (mine + b"\0", packet(PUBLIC_KEY, b"\x04" * 70000)):
        with pytest.raises(openpgp.OpenPGPError):
            openpgp.without(damaged, NEURON)
