# SPDX-License-Identifier: GPL-3.0-or-later
"""The set-up of the package repository: what is right is left alone, what other set-ups left is found."""

from __future__ import annotations

import calendar
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import openpgp, repository
from ansible_collections.neuronops.vllm.plugins.modules import neuron_repository

KEYS = Path(__file__).with_name("fixtures") / "keys"
NEURON = "DB5D6BB72CFE465E5AE487772C2BF4FE7DC7A599"
OTHER = "B2ADFC0C6B124ED953354F7717F56AE4A3AEEB06"
URL = "https://apt.repos.neuron.amazonaws.com"
NOW = calendar.timegm((2026, 1, 1, 0, 0, 0))


def wanted(**changes: Any) -> dict[str, Any]:
    options = {
        "manager": "apt",
        "url": URL,
        "suite": "jammy",
        "components": ["main"],
        "fingerprint": NEURON,
        "renew_days": 30,
    }
    return {**options, **changes}


def write(root: Path, path: str, content: bytes | str) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def set_up(root: Path, key: str = "renewed.gpg") -> None:
    write(root, "/etc/apt/keyrings/aws-neuron.gpg", openpgp.dearmor((KEYS / key).read_bytes()))
    write(root, "/etc/apt/sources.list.d/aws-neuron.sources", repository.source_text(wanted()))


def compare(root: Path, now: int = NOW, **changes: Any) -> dict[str, Any]:
    result: dict[str, Any] = repository.compare(wanted(**changes), str(root), now)
    return result


def test_a_bare_host_lacks_key_and_source(tmp_path: Path) -> None:
    found = compare(tmp_path)
    assert (found["current"], found["key_needed"], found["source_needed"], found["leftovers"]) == (
        False,
        True,
        True,
        {},
    )


def test_nothing_is_to_be_done_where_all_is_as_wanted(tmp_path: Path) -> None:
    set_up(tmp_path)
    found = compare(tmp_path)
    assert found["current"]
    assert found["reasons"] == []
    assert found["key"]["expires"] == "2042-11-06"


def test_a_copy_of_the_key_that_expired_is_not_there_already(tmp_path: Path) -> None:
    set_up(tmp_path, "expired.asc")
    found = compare(tmp_path)
    assert found["key_needed"]
    assert found["reasons"] == ["/etc/apt/keyrings/aws-neuron.gpg: the key expired on 2022-11-10"]


@pytest.mark.parametrize(("days", "needed"), [(31, False), (29, True)])
def test_a_key_is_renewed_before_its_end(tmp_path: Path, days: int, needed: bool) -> None:
    set_up(tmp_path)
    end = 2298844800
    assert compare(tmp_path, now=end - days * repository.DAY)["key_needed"] is needed


@pytest.mark.parametrize("key", ["other.asc", "two.gpg", "README.md"])
def test_a_keyring_holds_the_one_wanted_key_alone(tmp_path: Path, key: str) -> None:
    set_up(tmp_path, key)
    assert compare(tmp_path)["key_needed"]


def test_apt_reads_no_armour_in_a_binary_keyring_and_rpm_nothing_else(tmp_path: Path) -> None:
    set_up(tmp_path)
    armoured = (KEYS / "renewed.asc").read_bytes()
    write(tmp_path, "/etc/apt/keyrings/aws-neuron.gpg", armoured)
    assert compare(tmp_path)["key_needed"]
    write(tmp_path, "/etc/pki/rpm-gpg/RPM-GPG-KEY-aws-neuron", armoured)
    assert not compare(tmp_path, manager="dnf")["key_needed"]
    write(tmp_path, "/etc/pki/rpm-gpg/RPM-GPG-KEY-aws-neuron", openpgp.dearmor(armoured))
    assert compare(tmp_path, manager="dnf")["key_needed"]


def test_a_keyring_that_others_may_read_more_in_is_written_again(tmp_path: Path) -> None:
    set_up(tmp_path)
    key = (KEYS / "renewed.gpg").read_bytes()
    assert not compare(tmp_path)["key_needed"]
    for more in (b"\x88\x05\x04\x10\x01\x08\0", b"\xd1\x01x", b"\xc5\x00"):  # a signature, a picture, a secret key
        write(tmp_path, "/etc/apt/keyrings/aws-neuron.gpg", key + more)
        found = compare(tmp_path)
        assert (found["key_needed"], found["key"]) == (True, None)
        if more[:1] == b"\xd1":
            assert found["reasons"][0].endswith("may be more in it for apt")


def test_the_trust_that_gpg_notes_in_a_keyring_does_not_hide_the_key(tmp_path: Path) -> None:
    set_up(tmp_path)
    trust, other = b"\xb0\x02\0\0", openpgp.dearmor((KEYS / "other.asc").read_bytes())
    write(tmp_path, "/etc/apt/trusted.gpg", (KEYS / "renewed.gpg").read_bytes() + trust + other + trust)
    assert compare(tmp_path)["leftovers"] == {"/etc/apt/trusted.gpg": other + trust}
    write(tmp_path, "/etc/apt/trusted.gpg", (KEYS / "renewed.gpg").read_bytes() + trust)
    assert compare(tmp_path)["leftovers"] == {"/etc/apt/trusted.gpg": None}
    write(tmp_path, "/etc/apt/trusted.gpg", (KEYS / "renewed.gpg").read_bytes() + b"\xff")
    assert compare(tmp_path)["leftovers"] == {}


def test_a_change_of_any_option_changes_the_source(tmp_path: Path) -> None:
    set_up(tmp_path)
    for change in ({"url": "https://mirror.example.com/neuron"}, {"suite": "noble"}, {"components": ["main", "beta"]}):
        assert compare(tmp_path, **change)["source_needed"], change


def test_the_source_names_its_own_key() -> None:
    assert repository.source_text(wanted()) == (
        "# Written by role neuronops.vllm.neuron_driver.\n"
        "Types: deb\n"
        "URIs: https://apt.repos.neuron.amazonaws.com\n"
        "Suites: jammy\n"
        "Components: main\n"
        "Architectures: amd64\n"
        "Signed-By: /etc/apt/keyrings/aws-neuron.gpg\n"
    )
    assert "Components" not in repository.source_text(wanted(suite="./"))
    assert "gpgcheck=1\n" in repository.source_text(wanted(manager="dnf"))


def test_the_documented_commands_set_up_is_migrated(tmp_path: Path) -> None:
    set_up(tmp_path)
    write(tmp_path, "/etc/apt/sources.list.d/neuron.list", f"deb {URL} jammy main\n")
    write(tmp_path, "/etc/apt/trusted.gpg", (KEYS / "two.gpg").read_bytes())
    found = compare(tmp_path)
    assert not found["current"]
    assert set(found["leftovers"]) == {"/etc/apt/sources.list.d/neuron.list", "/etc/apt/trusted.gpg"}
    assert found["leftovers"]["/etc/apt/sources.list.d/neuron.list"] is None
    (kept,) = openpgp.public_keys(found["leftovers"]["/etc/apt/trusted.gpg"])
    assert kept["fingerprint"] == OTHER


def test_what_stands_beside_it_stays(tmp_path: Path) -> None:
    set_up(tmp_path)
    debian = "deb http://mirror.example.com/debian bookworm main\n"
    write(tmp_path, "/etc/apt/sources.list", f"{debian}deb [arch=amd64] {URL} jammy main\n# deb {URL} jammy main\n")
    stanza = "Types: deb\nURIs: http://mirror.example.com/debian\nSuites: bookworm\nComponents: main\n"
    write(tmp_path, "/etc/apt/sources.list.d/two.sources", f"{stanza}\nTypes: deb\nURIs: {URL}/\nSuites: jammy\n")
    write(tmp_path, "/etc/apt/sources.list.d/other.sources", stanza)
    write(tmp_path, "/etc/apt/sources.list.d/off.list", f"# deb {URL} jammy main\n")
    write(tmp_path, "/etc/apt/sources.list.d/folder.list", f"deb {URL}/elsewhere jammy main\n")
    write(tmp_path, "/etc/apt/trusted.gpg.d/other.asc", (KEYS / "other.asc").read_bytes())
    leftovers = compare(tmp_path)["leftovers"]
    assert leftovers == {
        "/etc/apt/sources.list": f"{debian}# deb {URL} jammy main\n".encode(),
        "/etc/apt/sources.list.d/two.sources": stanza.encode(),
    }


def test_dnf_keeps_other_sections_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, "/etc/yum.repos.d/neuron.repo", "[neuron]\nbaseurl=https://yum.repos.neuron.amazonaws.com\n")
    write(tmp_path, "/etc/yum.repos.d/mixed.repo", f"[a]\nbaseurl=https://example.com/a\n[n]\nbaseurl={URL}\n")
    leftovers = compare(tmp_path, manager="dnf", url="https://yum.repos.neuron.amazonaws.com")["leftovers"]
    assert leftovers == {
        "/etc/yum.repos.d/neuron.repo": None,
        "/etc/yum.repos.d/mixed.repo": b"[a]\nbaseurl=https://example.com/a\n",
    }


def test_a_short_key_id_is_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no fingerprint"):
        compare(tmp_path, fingerprint="646D9185")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("other.asc", f"its fingerprint is {OTHER} and should be {NEURON}"),
        ("expired.asc", "it expired on 2022-11-10, and so has the copy on the server"),
        ("README.md", "what was fetched is no key"),
    ],
)
def test_a_key_that_must_not_be_trusted_is_refused(key: str, reason: str) -> None:
    with pytest.raises(neuron_repository.KeyRefusedError, match=reason):
        neuron_repository.verified((KEYS / key).read_bytes(), NEURON, NOW)


def test_a_revoked_key_is_refused() -> None:
    with pytest.raises(neuron_repository.KeyRefusedError, match="revoked"):
        neuron_repository.verified((KEYS / "revoked.asc").read_bytes(), OTHER, NOW)


def test_of_several_keys_only_the_wanted_one_is_taken() -> None:
    key = neuron_repository.verified((KEYS / "two.gpg").read_bytes(), NEURON, NOW)
    assert key["packets"] == (KEYS / "renewed.gpg").read_bytes()


def test_the_key_can_be_given_as_text_or_as_a_file() -> None:
    text = (KEYS / "renewed.asc").read_text()
    assert neuron_repository.fetch(text) == text.encode()
    assert neuron_repository.fetch((KEYS / "renewed.gpg").as_uri()) == (KEYS / "renewed.gpg").read_bytes()
    with pytest.raises(neuron_repository.KeyRefusedError, match="cannot be fetched"):
        neuron_repository.fetch("file:///nowhere/at.all")


MIRROR = "https://mirror.example.com/apt"


def left(root: Path, path: str, content: str, **changes: Any) -> str | None:
    """Return what the role leaves of a file that others wrote."""
    write(root, path, content)
    found = compare(root, **{"url": MIRROR, "suite": "neuron-jammy", **changes})["leftovers"]
    assert set(found) <= {path}
    text = found.get(path, content.encode())
    return None if text is None else str(text, "utf-8")


@pytest.mark.parametrize(
    "entry",
    [
        f"{MIRROR} neuron-jammy main",
        f"{MIRROR}/ neuron-jammy main",
        "https://mirror.example.com:443/apt neuron-jammy main",
        "https://mirror.example.com//apt neuron-jammy main",
        "http://MIRROR.example.com/apt neuron-jammy main universe",
        "https://user@mirror.example.com/./apt neuron-jammy main",
        f"[signed-by=/x arch=amd64] {MIRROR} neuron-jammy main",
        f"{URL} focal main",  # AWS's own by the address alone
    ],
)
def test_an_entry_is_ours_by_address_and_suite(tmp_path: Path, entry: str) -> None:
    others = f"deb {MIRROR} jammy main universe\n"
    assert left(tmp_path, "/etc/apt/sources.list", f"{others}deb {entry}\ndeb-src {entry}\n") == others
    stanza = re.sub(r"^\[.*\] ", "", entry).split()
    text = f"Types: deb\nURIs: {stanza[0]}\nSuites: {stanza[1]}\nComponents: main\n"
    (tmp_path / "etc/apt/sources.list").unlink()
    assert left(tmp_path, "/etc/apt/sources.list.d/x.sources", text) is None


@pytest.mark.parametrize(
    "entry",
    [
        f"{MIRROR} jammy main",
        f"{MIRROR}/deeper neuron-jammy main",
        "https://mirror.example.com:8443/apt neuron-jammy main",
        "https://other.example.com/apt neuron-jammy main",
        "https://apt.repos.neuron.amazonaws.com.example.com jammy main",
        "https://[::1 neuron-jammy main",
    ],
)
def test_an_entry_of_somebody_else_stays(tmp_path: Path, entry: str) -> None:
    assert left(tmp_path, "/etc/apt/sources.list", f"deb {entry}\n") == f"deb {entry}\n"
    words = entry.split()
    text = f"Types: deb\nURIs: {words[0]}\nSuites: {words[1]}\nComponents: main\n"
    assert left(tmp_path, "/etc/apt/sources.list.d/x.sources", text) == text


def test_one_address_or_suite_is_cut_out_of_a_stanza(tmp_path: Path) -> None:
    path = "/etc/apt/sources.list.d/both.sources"
    tools = "https://pkgs.example.com/tools"
    assert (
        left(tmp_path, path, f"Types: deb\nURIs: {MIRROR} {tools}\nSuites: neuron-jammy\nComponents: main\n")
        == f"Types: deb\nURIs: {tools}\nSuites: neuron-jammy\nComponents: main\n"
    )
    assert (
        left(
            tmp_path,
            path,
            f"# system\nTypes: deb\nURIs: {MIRROR}\nSuites: jammy neuron-jammy\n jammy-updates\nComponents: main\n",
        )
        == f"# system\nTypes: deb\nURIs: {MIRROR}\nSuites: jammy jammy-updates\nComponents: main\n"
    )
    both = f"Types: deb\nURIs: {tools}\n {MIRROR}\nSuites: jammy neuron-jammy\nComponents: main\n"
    assert left(tmp_path, path, both) == (
        f"Types: deb\nURIs: {tools}\nSuites: jammy neuron-jammy\nComponents: main\n\n"
        f"Types: deb\nURIs: {MIRROR}\nSuites: jammy\nComponents: main\n"
    )


def test_what_is_switched_off_stays(tmp_path: Path) -> None:
    off = f"Enabled: no\nTypes: deb\nURIs: {MIRROR}\nSuites: neuron-jammy\nComponents: main\n"
    assert left(tmp_path, "/etc/apt/sources.list.d/off.sources", off) == off


def test_a_comment_may_be_in_any_encoding(tmp_path: Path) -> None:
    path = "/etc/apt/sources.list"
    write(tmp_path, path, b"# f\xfcr uns\ndeb http://a.example.com x main\n" + f"deb {URL} jammy main\n".encode())
    found = compare(tmp_path)["leftovers"]
    assert found == {path: b"# f\xfcr uns\ndeb http://a.example.com x main\n"}


def test_one_address_is_cut_out_of_a_section_of_dnf(tmp_path: Path) -> None:
    path = "/etc/yum.repos.d/company.repo"
    text = (
        f"[all]\nbaseurl={MIRROR}\n    https://pkgs.example.com/tools\nenabled=1\n[off]\nbaseurl={MIRROR}\nenabled=0\n"
    )
    assert left(tmp_path, path, text, manager="dnf") == (
        f"[all]\nbaseurl=https://pkgs.example.com/tools\nenabled=1\n[off]\nbaseurl={MIRROR}\nenabled=0\n"
    )


@pytest.mark.parametrize(
    ("name", "word"), [("url", f"{URL}\nTrusted: yes"), ("suite", "jammy x"), ("suite", ""), ("components", ["main\n"])]
)
def test_a_source_says_nothing_that_was_not_asked_for(name: str, word: Any) -> None:
    with pytest.raises(ValueError, match="is not one word"):
        repository.source_text(wanted(**{name: word}))
