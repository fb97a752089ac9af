# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys, the signed repository, the git remote, the release archives, and when each is made again."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.repositories import apt, build, git_remote, keys, python_index, sdists, server
from sandbox.repositories.deb import Deb
from sandbox.settings import SandboxError
from tests.unit.sandbox.conftest import ARCHIVES, archive

# The real one: the fixture `archives` puts another in its place.
FETCH = sdists.fetch
PACKAGE = Deb({"Package": "p", "Version": "1", "Architecture": "amd64", "Maintainer": "m", "Description": "d"})


def show(signing: keys.Keys, name: str) -> dict[str, str]:
    """Validity and fingerprint of a public key, as gpg sees it."""
    command = ["gpg", "--show-keys", "--with-colons", str(signing.folder / f"{name}.asc")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    fields = {line.split(":")[0]: line.split(":") for line in reversed(lines)}
    return {"validity": fields["pub"][1], "expires": fields["pub"][6], "fingerprint": fields["fpr"][9]}


def test_the_expired_copies_are_the_same_key(signing: keys.Keys) -> None:
    right = show(signing, "signing")
    assert right["fingerprint"] == signing.fingerprints["signing"]
    assert (right["validity"], right["expires"]) == ("-", "")
    for copy, validity in (("expired", "e"), ("expiring", "-")):
        found = show(signing, copy)
        assert (found["fingerprint"], found["validity"]) == (right["fingerprint"], validity)
        assert found["expires"]


def test_keys_are_four_and_stay(signing: keys.Keys) -> None:
    assert len(set(signing.fingerprints.values())) == len(signing.fingerprints) == 4
    assert keys.ensure(signing.folder).fingerprints == signing.fingerprints


def test_the_copy_that_is_about_to_expire_stays_so(tmp_path: Path) -> None:
    signing = keys.ensure(tmp_path / "keys")
    copy = signing.folder / "expiring.asc"
    copy.write_text("made long ago")
    os.utime(copy, (0, 0))
    keys.ensure(signing.folder)
    assert show(signing, "expiring")["fingerprint"] == signing.fingerprints["signing"]
    days = (int(show(signing, "expiring")["expires"]) - time.time()) / 86400
    assert 6 < days <= 7
    copy.write_text("made today")
    keys.ensure(signing.folder)
    assert copy.read_text() == "made today"


def test_private_keys_are_private(signing: keys.Keys) -> None:
    assert signing.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in signing.folder.glob("*.private"))
    assert b"PRIVATE" not in signing.public("signing")


def test_the_repository_is_signed_and_its_hashes_hold(signing: keys.Keys, tmp_path: Path) -> None:
    apt.write(tmp_path, [PACKAGE], signing, ("bookworm",), "test", ("signing",))
    suite = tmp_path / "dists/bookworm"
    keyring = tmp_path / "keyring.gpg"
    dearmored = subprocess.run(["gpg", "--dearmor"], input=signing.public("signing"), capture_output=True, check=True)
    keyring.write_bytes(dearmored.stdout)
    for signed in (["InRelease"], ["Release.gpg", "Release"]):
        files = [str(suite / name) for name in signed]
        done = subprocess.run(["gpgv", "--keyring", str(keyring), *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    sums = re.findall(r"^ ([0-9a-f]{64}) (\d+) (\S+)$", (suite / "Release").read_text(), re.MULTILINE)
    assert {name for _, _, name in sums} == {"main/binary-amd64/Packages", "main/binary-amd64/Packages.gz"}
    for digest, size, name in sums:
        content = (suite / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), str(len(content))) == (digest, size)


def git(repository: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", repository, *words], capture_output=True, text=True, check=True).stdout.strip()


def test_commits_are_like_a_checkout_and_stay_the_same(archives: None, tmp_path: Path) -> None:
    commits = git_remote.write(tmp_path / "one.git")
    assert commits == git_remote.write(tmp_path / "two.git")
    assert list(commits) == list(ARCHIVES)
    files = git(tmp_path / "one.git", "ls-tree", "-r", "--name-only", "v0.9.2").splitlines()
    assert files == [".gitignore", "setup.py", "vllm/__init__.py", "vllm/ignored.py"]
    assert git(tmp_path / "one.git", "rev-parse", "v0.9.2", "main") == f"{commits['0.9.2']}\n{commits['0.9.2']}"


def test_what_the_archive_lacks_is_added_and_named(archives: None, tmp_path: Path) -> None:
    git_remote.write(tmp_path / "one.git")
    stand_ins = ["requirements-neuron.txt", "vllm/model_executor/models/neuron/llama.py"]
    files = git(tmp_path / "one.git", "ls-tree", "-r", "--name-only", "v0.3.3").splitlines()
    assert set(stand_ins) <= set(files)
    # Upstream's folder has none, which is why a plain install of 0.3.3 lacks the models.
    assert "vllm/model_executor/models/neuron/__init__.py" not in files
    message = git(tmp_path / "one.git", "log", "-1", "--format=%B", "v0.3.3")
    assert "stands in" in message and message.splitlines()[-2:] == stand_ins


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, as the only one the machine is set up with."""
    page = tmp_path / "simple" / "vllm"
    page.mkdir(parents=True)
    (page / "vllm-0.9.2.tar.gz").write_bytes(archive("0.9.2"))
    (page / "index.html").write_text('<a href="vllm-0.9.1.tar.gz">x</a><a href="vllm-0.9.2.tar.gz#sha256=0">y</a>')
    monkeypatch.setenv("NEURONOPS_CACHE", str(tmp_path / "cache"))
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    digest = hashlib.sha256((page / "vllm-0.9.2.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(sdists, "PINS", {"0.9.2": digest})
    return page


@pytest.mark.usefixtures("index")
def test_an_archive_comes_from_the_configured_index_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = FETCH("0.9.2")
    assert path.read_bytes() == archive("0.9.2")
    monkeypatch.setattr(sdists, "_settings", lambda: pytest.fail("it asked again"))
    assert FETCH("0.9.2") == path


@pytest.mark.usefixtures("index")
def test_a_damaged_archive_in_the_cache_is_replaced() -> None:
    path = FETCH("0.9.2")
    path.write_bytes(b"half")
    assert FETCH("0.9.2").read_bytes() == archive("0.9.2")


def test_an_archive_with_another_hash_is_refused(index: Path) -> None:
    (index / "vllm-0.9.2.tar.gz").write_bytes(b"something else")
    with pytest.raises(SandboxError, match="another sha256"):
        FETCH("0.9.2")
    assert not list((index.parents[1] / "cache").rglob("*.tar.gz"))


@pytest.mark.usefixtures("index")
def test_an_index_that_cannot_be_reached_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(SandboxError, match=r"http://127\.0\.0\.1:9/simple: .*refused") as caught:
        FETCH("0.9.2")
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("index")
def test_the_public_index_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://me:secret@mirror.invalid/simple")
    assert sdists.public_index() == "https://mirror.invalid/simple"


def test_a_part_is_made_again_only_when_its_inputs_change(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> dict[str, int]:
        made.append(folder)
        (folder / "file").write_text("x")
        return {"number": len(made)}

    def part(inputs: str) -> Any:
        return build._part(tmp_path / "part", inputs, make)

    assert [part("a"), part("a"), part("b")] == [{"number": 1}, {"number": 1}, {"number": 2}]
    (tmp_path / "part" / "file").unlink()
    (tmp_path / "part").rmdir()
    assert part("b") == {"number": 3}
    assert (tmp_path / "part" / "file").exists()


def test_a_build_that_was_killed_is_not_taken_for_done(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build._part(tmp_path / "part", "a", fail)
    assert not (tmp_path / "part").exists()
    assert build._part(tmp_path / "part", "a", lambda folder: "whole") == "whole"


def test_a_build_killed_before_its_stamp_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(inputs: str) -> Any:
        return build._part(tmp_path / "part", inputs, lambda folder: (folder / "made from").write_text(inputs) and None)

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    part("a")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("sandbox.repositories.build.json.dumps", killed)
        part("b")
    part("a")
    assert (tmp_path / "part" / "made from").read_text() == "a"


def test_the_whole_tree(archives: None, tmp_path: Path) -> None:
    facts = build.build(tmp_path, kernel="6.18.44-x")
    www = tmp_path / "www"
    assert facts["fingerprint"] == facts["fingerprints"]["signing"]
    assert set(facts["commits"]) == set(ARCHIVES)
    assert {path.name for path in (www / server.APT / "dists").iterdir()} == {
        "focal",
        "jammy",
        "noble",
        "bullseye",
        "bookworm",
        "trixie",
    }
    assert (www / server.APT / "sandbox/pool/linux-headers-6.18.44-x_0~sandbox1_amd64.deb").exists()
    assert not any("PRIVATE" in path.read_text(errors="ignore") for path in www.rglob("*.asc"))
    before = {path: path.stat().st_mtime_ns for path in www.rglob("*") if path.is_file()}
    assert build.build(tmp_path, kernel="6.18.44-x") == facts
    assert {path: path.stat().st_mtime_ns for path in www.rglob("*") if path.is_file()} == before
    newer = build.build(tmp_path, kernel="6.19.0-x")
    assert newer["fingerprint"] == facts["fingerprint"]
    assert (www / server.APT / "sandbox/pool/linux-headers-6.19.0-x_0~sandbox1_amd64.deb").exists()


def test_changed_stand_ins_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build._inputs("keys", "key", "kernel")
    shutil.copytree(python_index.EMULATION, tmp_path / "emulation")
    (tmp_path / "emulation/libneuronxla/libneuronxla/__init__.py").write_text("changed\n")
    monkeypatch.setattr(python_index, "EMULATION", tmp_path / "emulation")
    after = build._inputs("keys", "key", "another kernel")
    assert {host for host in before if before[host] != after[host]} == {server.PIP, server.APT}
