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
