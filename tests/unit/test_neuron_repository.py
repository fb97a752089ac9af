# SPDX-License-Identifier: GPL-3.0-or-later
"""neuron_repository, run on a host laid out in a folder: no key but the wanted one, and nothing on a second run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import openpgp, repository
from ansible_collections.neuronops.vllm.plugins.modules import neuron_repository

KEYS = Path(__file__).with_name("fixtures") / "keys"
NEURON = "DB5D6BB72CFE465E5AE487772C2BF4FE7DC7A599"
URL = "https://apt.repos.neuron.amazonaws.com"
CENTURY = 36500  # days, in which every key that has an end ends


class Host:
    """A host's files below a folder, and the module run on them."""

    def __init__(self, root: Path, run_module: Callable[..., dict[str, Any]]) -> None:
        self.root, self.run_module = root, run_module
        self.copies = root.with_name("copies")
        self.keyring, self.source = root / "keyrings" / "aws-neuron.gpg", root / "sources" / "aws-neuron.sources"

    def run(self, key: str | None = "renewed.asc", **arguments: Any) -> dict[str, Any]:
        given = {"manager": "apt", "url": URL, "suite": "jammy", "fingerprint": NEURON, **arguments}
        return self.run_module(neuron_repository, key=key and (KEYS / key).as_uri(), **given)

    def write(self, path: str, content: bytes | str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path / "host", run_module)
    host.root.mkdir()
    own = {"keyring": str(host.keyring), "source": str(host.source)}
    monkeypatch.setattr(neuron_repository, "REPLACED", str(host.copies))
    monkeypatch.setattr(repository, "PLACES", {"apt": own, "dnf": own})
    find = repository.find_leftovers

    def below(wanted: dict[str, Any], _root: str) -> dict[str, bytes | None]:
        return {f"{host.root}{path}": content for path, content in find(wanted, str(host.root)).items()}

    monkeypatch.setattr(repository, "find_leftovers", below)
    return host


def test_the_repository_is_set_up_once(host: Host) -> None:
    first = host.run()
    assert first["changed"], first
    assert first["paths"] == [str(host.keyring), str(host.source)]
    assert first["key"]["fingerprint"] == NEURON
    assert host.keyring.read_bytes() == (KEYS / "renewed.gpg").read_bytes()
    assert f"Signed-By: {host.keyring}\n" in host.source.read_text()
    assert [file.stat().st_mode & 0o777 for file in (host.keyring, host.source)] == [0o644, 0o644]
    shown = {part["after_header"]: part["after"] for part in first["diff"]}
    assert shown == {str(host.keyring): f"key {NEURON}\n", str(host.source): host.source.read_text()}
    second = host.run("no such file")
    assert (second["changed"], second["paths"], second["reasons"], second["diff"]) == (False, [], [], [])


@pytest.mark.parametrize("there", [b"\xff\0no key", b"\x99\0", (KEYS / "renewed.gpg").read_bytes() + b"\xc5\0"])
def test_a_keyring_that_cannot_be_read_is_replaced(host: Host, there: bytes) -> None:
    host.write("keyrings/aws-neuron.gpg", there)
    done = host.run()
    assert done["changed"], done
    assert [part["before"] for part in done["diff"]] == [f"{len(there)} bytes that are not text\n", ""]
    assert host.keyring.read_bytes() == (KEYS / "renewed.gpg").read_bytes()


@pytest.mark.parametrize("manager", ["apt", "dnf"])
def test_what_others_put_beside_the_key_is_not_installed_and_changes_nothing_later(host: Host, manager: str) -> None:
    packets, name = (KEYS / "renewed.gpg").read_bytes(), b"\xcd\x08somebody"
    beside = host.write("beside.gpg", packets + name + b"\xd1\x01x")
    host.run(key=None, state="absent")
    for changed in (True, False):
        assert host.run(str(beside), manager=manager)["changed"] is changed
    installed = host.keyring.read_bytes()
    assert installed == (openpgp.armor(packets) if manager == "dnf" else packets)


def test_a_check_run_shows_the_same_and_writes_nothing(host: Host) -> None:
    checked = host.run(check=True)
    assert host.files() == {}
    done = host.run()
    for name in ("changed", "paths", "reasons", "diff"):
        assert checked[name] == done[name]


def test_dnf_gets_the_key_in_armour(host: Host) -> None:
    host.run("renewed.gpg", manager="dnf")
    assert host.keyring.read_bytes().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert openpgp.dearmor(host.keyring.read_bytes()) == (KEYS / "renewed.gpg").read_bytes()
    assert not host.run("renewed.gpg", manager="dnf")["changed"]


@pytest.mark.parametrize(
    ("key", "fault", "says"),
    [
        ("other.asc", "is not to be trusted", "Trust another one only after you have it from a second source"),
        ("expired.asc", "is not to be trusted", "it expired on 2022-11-10"),
        ("there is none", "cannot be had", "it cannot be fetched from file:///"),
    ],
)
def test_a_key_that_must_not_be_trusted_changes_nothing(host: Host, key: str, fault: str, says: str) -> None:
    host.write("etc/apt/sources.list.d/neuron.list", f"deb {URL} jammy main\n")
    before = host.files()
    answer = host.run(key)
    assert answer["failed"]
    assert f"{URL} {fault}, and nothing was changed" in answer["msg"]
    assert says in answer["msg"]
    assert (answer["paths"], host.files()) == ([], before)


def test_an_empty_key_is_asked_for(host: Host) -> None:
    answer = host.run_module(neuron_repository, manager="apt", url=URL, suite="jammy", fingerprint=NEURON, key="")
    assert "no key is given; set `key` to its address" in answer["msg"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"suite": None}, "manager is apt but all of the following are missing: suite"),
        ({"key": None}, "state is present but all of the following are missing: key"),
        ({"fingerprint": "7DC7A599"}, "it has 40 hexadecimal digits, not a short key id"),
    ],
)
def test_arguments_that_cannot_do_are_refused(host: Host, arguments: dict[str, Any], says: str) -> None:
    answer = host.run(**arguments)
    assert answer["failed"]
    assert says in answer["msg"]
    assert host.files() == {}


def test_a_key_that_ends_soon_is_renewed_or_warned_of(host: Host) -> None:
    host.run()
    before = host.files()
    answer = host.run("there is none", renew_days=CENTURY)
    assert (answer["failed"], answer["changed"]) == (False, False)
    assert "The key of the Neuron repository ends on 2042-11-06, and it cannot be fetched" in answer["warnings"][0]
    assert host.files() == before
    fetched = host.run(renew_days=CENTURY)
    assert not fetched["changed"], "the server has no newer one"
    assert fetched["warnings"] == []


def test_an_expired_key_is_replaced_by_the_renewed_one(host: Host) -> None:
    host.run()
    host.keyring.write_bytes(openpgp.dearmor((KEYS / "expired.asc").read_bytes()))
    refused = host.run("there is none")
    assert refused["failed"], "apt would not work with the expired one"
    assert refused["key"]["expired"]
    answer = host.run()
    assert (answer["paths"], answer["key"]["expired"]) == ([str(host.keyring)], False)
    assert host.keyring.read_bytes() == (KEYS / "renewed.gpg").read_bytes()


def test_what_other_set_ups_left_goes_in_the_same_run(host: Host) -> None:
    gone = host.write("etc/apt/sources.list.d/neuron.list", f"deb {URL} jammy main\n")
    debian = "deb http://mirror.example.com/debian bookworm main\n"
    kept = host.write("etc/apt/sources.list", f"{debian}deb {URL} jammy main\n")
    answer = host.run(check=True)
    assert {str(gone), str(kept)} < set(answer["paths"])
    assert gone.exists()
    host.run()
    assert not gone.exists()
    assert kept.read_text() == debian
    assert not host.run()["changed"]


def test_a_copy_of_what_others_wrote_is_kept_for_root(host: Host) -> None:
    content = f"deb http://mirror.example.com/debian bookworm main\ndeb {URL} jammy main\n"
    kept = host.write("etc/apt/sources.list", content)
    kept.chmod(0o640)
    answer = host.run()
    (copy,) = [Path(path) for path in answer["backups"]]
    assert (copy.read_text(), copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (
        content,
        0o600,
        0o700,
    )
    assert kept.stat().st_mode & 0o777 == 0o640, "somebody chose that"
    kept.write_text(content)
    (second,) = host.run()["backups"]
    assert second != str(copy) and copy.read_text() == content
    assert host.run()["backups"] == []


@pytest.mark.parametrize("umask", [0o027, 0o077])
def test_apt_may_read_what_was_written_under_any_umask(host: Host, umask: int) -> None:
    before = os.umask(umask)
    try:
        host.run()
    finally:
        os.umask(before)
    for file in (host.keyring, host.source):
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o055) == (0o644, 0o055)


@pytest.mark.parametrize("which", ["keyring", "source"])
def test_a_file_that_apt_cannot_read_is_opened_once(host: Host, which: str) -> None:
    host.run()
    file: Path = getattr(host, which)
    file.chmod(0o600)
    answer = host.run("there is none")
    assert (answer["changed"], answer["paths"]) == (True, [str(file)])
    assert answer["reasons"] == [f"{file} cannot be read by everybody"]
    assert file.stat().st_mode & 0o777 == 0o644
    file.parent.chmod(0o700)
    assert host.run("there is none")["reasons"] == [f"{file.parent} is closed to others than root"]
    assert not host.run("there is none")["changed"]


def test_the_key_comes_first_and_goes_last(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may ever name a key that is not there, and a run can be cut off after each write."""
    write, order = neuron_repository.write, []

    def watched(path: str, content: bytes | None, own: bool) -> None:
        write(path, content, own)
        order.append(path)
        assert host.keyring.exists() or not host.source.exists()

    monkeypatch.setattr(neuron_repository, "write", watched)
    host.run()
    host.run(None, state="absent")
    assert order == [str(path) for path in (host.keyring, host.source, host.source, host.keyring)]


def test_a_file_that_cannot_be_written_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(neuron_repository, "write_at_once", full)
    done = host.run()
    assert done["failed"] and f"{host.keyring} cannot be written: [Errno 28] No space left" in done["msg"]
    assert host.files() == {}


def test_absent_takes_source_and_key_away_once(host: Host) -> None:
    host.run()
    other = host.write("etc/apt/sources.list", "deb http://mirror.example.com/debian bookworm main\n")
    before = host.files()
    checked = host.run(None, state="absent", check=True)
    assert host.files() == before
    answer = host.run(None, state="absent")
    assert checked["paths"] == answer["paths"] == [str(host.keyring), str(host.source)]
    assert answer["reasons"] == [f"{path} is there" for path in answer["paths"]]
    assert {part["after"] for part in answer["diff"]} == {""}
    assert list(host.files()) == [str(other)]
    assert not host.run(None, state="absent")["changed"]
