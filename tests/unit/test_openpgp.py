# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys are read as gpg reads them: whose they are, until when they hold, whether they are whole."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import openpgp

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
@pytest.mark.parametrize(
    "file", [*sorted(KEYS.glob("*.[ag]*")), *sorted(Path("/usr/share/keyrings").glob("debian*.gpg"))]
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


def packet(tag: int, body: bytes) -> bytes:
    """A packet of the newer format, with its length in one, two or five bytes."""
    if len(body) < 192:
        length = bytes([len(body)])
    elif len(body) < 8384:
        length = bytes([((len(body) - 192) >> 8) + 192, (len(body) - 192) & 0xFF])
    else:
        length = b"\xff" + len(body).to_bytes(4, "big")
    return bytes([0xC0 | tag]) + length + body


PUBLIC_KEY, SIGNATURE, USER_ID = 6, 2, 13
NUMBER = b"\x00\x08\xff"  # its length in bits, and its bytes
BODY = b"\x04" + (1_600_000_000).to_bytes(4, "big") + b"\x01" + NUMBER + NUMBER


@pytest.mark.parametrize("length", [0, 191, 192, 8383, 8384, 70000])
def test_packets_of_every_length_are_read(length: int) -> None:
    keyring = packet(PUBLIC_KEY, BODY) + packet(USER_ID, b"x" * length) + packet(USER_ID, b"last")
    (key,) = openpgp.public_keys(keyring)
    assert key["user_ids"] == ["x" * length, "last"]
    assert (key["packets"], key["created"], key["expires"]) == (keyring, 1_600_000_000, None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (packet(USER_ID, b"somebody") + packet(PUBLIC_KEY, BODY), "it does not start with a public key"),
        (packet(PUBLIC_KEY, b"\x03" + BODY[1:]), "only keys of version 4 can be read"),
        (packet(PUBLIC_KEY, BODY)[:-1], "it is cut off"),
        (packet(PUBLIC_KEY, BODY)[:1], "it is damaged or cut off"),
        (b"\xc6\xff\x00", "it is damaged or cut off"),
        (b"\xc6\xe1\x00", "it uses partial packets"),
        (b"\x9b" + BODY, "it is damaged or cut off"),
        (b"", "there is no public key in it"),
        *(
            (packet(PUBLIC_KEY, BODY) + packet(tag, BODY), f"a packet of the kind {tag}")
            for tag in (5, 7, 1, 3, 4, 8, 11, 12, 18, 60)
        ),
        (packet(PUBLIC_KEY, BODY + packet(PUBLIC_KEY, BODY)), "it does not end where its numbers do"),
        (packet(PUBLIC_KEY, BODY.replace(b"\x01" + NUMBER, b"\x63" + NUMBER)), "the algorithm 99"),
        (packet(PUBLIC_KEY, BODY) + packet(SIGNATURE, b"\x04\x13\x01\x08\0\xff"), "a signature"),
        (packet(PUBLIC_KEY, BODY) + packet(SIGNATURE, b"\x03" + b"x" * 20), "only signatures of version 4"),
        (packet(PUBLIC_KEY, BODY) + packet(14, BODY) + packet(USER_ID, b"late"), "behind a subkey"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(data: bytes, says: str) -> None:
    with pytest.raises(openpgp.OpenPGPError, match=says):
        openpgp.public_keys(data)


@pytest.mark.parametrize(
    "around",
    [
        b"garbage\n%s",
        b"%s\n-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nxxxx\n-----END PGP PRIVATE KEY BLOCK-----\n",
        b"%sgarbage",
        b"\xc5\x00%s",
    ],
)
def test_nothing_stands_around_armoured_keys(around: bytes) -> None:
    whole = (KEYS / "renewed.asc").read_bytes()
    assert openpgp.public_keys(whole + b"\n")
    with pytest.raises(openpgp.OpenPGPError):
        openpgp.public_keys(around.replace(b"%s", whole))


def test_armour_that_holds_no_base64_is_damaged() -> None:
    whole = openpgp.armor(packet(PUBLIC_KEY, BODY))
    assert openpgp.dearmor(whole) == packet(PUBLIC_KEY, BODY)
    lines = whole.split(b"\n")
    lines[2] = b"*" + lines[2][1:]
    with pytest.raises(openpgp.OpenPGPError, match="the key is damaged"):
        openpgp.dearmor(b"\n".join(lines))


def signature(kind: int, subpackets: bytes, issuer: bytes) -> bytes:
    """A signature packet of version 4; what it signs with is not looked at."""
    issued = bytes([9, 16]) + issuer
    lengths = len(subpackets).to_bytes(2, "big"), len(issued).to_bytes(2, "big")
    return packet(
        SIGNATURE, b"\x04" + bytes([kind, 1, 8]) + lengths[0] + subpackets + lengths[1] + issued + b"\0\0" + NUMBER
    )


def ends_after(seconds: int, signed: int) -> bytes:
    return b"\x05\x02" + signed.to_bytes(4, "big") + b"\x05\x09" + seconds.to_bytes(4, "big")


def test_only_the_keys_own_signatures_say_when_it_ends_and_the_newest_counts() -> None:
    (bare,) = openpgp.public_keys(packet(PUBLIC_KEY, BODY))
    own = bytes.fromhex(bare["fingerprint"][-16:])
    old = signature(0x13, ends_after(100, signed=1), own)
    new = signature(0x13, ends_after(200, signed=2), own)
    others = signature(0x13, ends_after(300, signed=3), b"somebody")
    revoked_by_others = signature(0x20, ends_after(0, signed=4), b"somebody")
    of_another_kind = signature(0x18, ends_after(400, signed=5), own)
    keyring = (
        packet(PUBLIC_KEY, BODY) + packet(USER_ID, b"me") + new + old + others + revoked_by_others + of_another_kind
    )
    (key,) = openpgp.public_keys(keyring)
    assert (key["expires"], key["revoked"]) == (1_600_000_000 + 200, False)
    (key,) = openpgp.public_keys(keyring + signature(0x20, b"", own))
    assert key["revoked"]
