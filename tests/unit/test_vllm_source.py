# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources are those of the wanted commit, whole and unchanged, or there is a message that says what to do."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import (
    SourceError,
    checkout,
    extract_safely,
    is_local,
    kind,
    shown,
    unpack,
    verify_signature,
)

AUTHOR = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.invalid"}
COMMITTER = {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.invalid"}


def git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, **AUTHOR, **COMMITTER, "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "setup.py").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository with two releases, of which the second has an annotated tag, and one commit after them."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "first")
    git(folder, "tag", "v0.1.0")
    commit(folder, "second")
    git(folder, "tag", "-a", "-m", "second", "v0.2.0")
    commit(folder, "third")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("ref", "text"), [("v0.1.0", "first"), ("v0.2.0", "second"), ("main", "third")])
def test_a_tag_or_branch_is_checked_out_without_its_history(upstream: Path, target: Path, ref: str, text: str) -> None:
    actual = checkout(upstream.as_uri(), ref, None, str(target))
    assert (target / "setup.py").read_text() == text
    assert actual == git(upstream, "rev-parse", f"{ref}^{{commit}}")
    assert git(target, "rev-list", "--count", "HEAD") == "1"
    assert git(target, "status", "--porcelain") == ""


def test_a_commit_is_checked_out(upstream: Path, target: Path) -> None:
    wanted = git(upstream, "rev-parse", "v0.1.0")
    assert checkout(upstream.as_uri(), wanted, None, str(target)) == wanted
    assert (target / "setup.py").read_text() == "first"


def test_a_bundle_is_a_repository(upstream: Path, target: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "vllm.bundle"
    git(upstream, "bundle", "create", "-q", str(bundle), "--all")
    assert checkout(str(bundle), "v0.2.0", None, str(target)) == git(upstream, "rev-parse", "v0.2.0^{commit}")
    assert (target / "setup.py").read_text() == "second"


@pytest.mark.parametrize("length", [7, 9, 39])
def test_a_short_commit_names_nothing(upstream: Path, target: Path, length: int) -> None:
    pin = git(upstream, "rev-parse", "v0.2.0^{commit}")
    with pytest.raises(SourceError, match="A commit has 40 hexadecimal digits"):
        checkout(upstream.as_uri(), "v0.2.0", pin[:length], str(target))
    with pytest.raises(SourceError, match="has no tag or branch"):
        checkout(upstream.as_uri(), pin[:length], None, str(target))
    assert not (target / "setup.py").exists()


@pytest.mark.parametrize("pin", ["commit", "locked"])
def test_a_moved_tag_is_refused(upstream: Path, target: Path, pin: str) -> None:
    before = git(upstream, "rev-parse", "v0.1.0")
    git(upstream, "tag", "-f", "v0.1.0", "main")
    with pytest.raises(SourceError, match="the tag was moved"):
        checkout(upstream.as_uri(), "v0.1.0", before if pin == "commit" else None, str(target), before)
    assert not (target / "setup.py").exists()


def test_a_commit_that_is_not_the_pinned_one_is_refused(upstream: Path, target: Path) -> None:
    first, main = git(upstream, "rev-parse", "v0.1.0"), git(upstream, "rev-parse", "main")
    with pytest.raises(SourceError, match=f"is commit {first}, and not {main}"):
        checkout(upstream.as_uri(), first, main, str(target))


def test_a_branch_may_move_unless_a_commit_is_pinned(upstream: Path, target: Path) -> None:
    before = git(upstream, "rev-parse", "main")
    after = commit(upstream, "fourth")
    assert checkout(upstream.as_uri(), "main", None, str(target), before) == after


def test_an_unknown_tag_is_refused_with_those_near_it(upstream: Path, target: Path) -> None:
    with pytest.raises(SourceError, match=r"no tag or branch 'v0\.2\.00'; near it are: v0\.2\.0"):
        checkout(upstream.as_uri(), "v0.2.00", None, str(target))


def test_an_unknown_commit_is_refused(upstream: Path, target: Path) -> None:
    with pytest.raises(SourceError, match=f"has no commit {'12345678' * 5}"):
        checkout(upstream.as_uri(), "12345678" * 5, None, str(target))


def test_a_repository_that_cannot_be_reached_is_named_without_its_password(target: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read") as failure:
        checkout("http://me:secret@127.0.0.1:9/vllm.git", "v0.1.0", None, str(target))
    assert "secret" not in str(failure.value)
    assert "http://127.0.0.1:9/vllm.git" in str(failure.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("https://github.com/vllm-project/vllm.git", "git"),
        ("git@mirror.example:vllm", "git"),
        ("/srv/vllm", "git"),
        ("/srv/vllm.bundle", "bundle"),
        ("https://mirror.example/vllm-0.9.2.tar.gz", "archive"),
        ("/srv/vllm-0.9.2.zip", "archive"),
    ],
)
def test_the_kind_of_a_source_is_told_by_its_name(source: str, expected: str) -> None:
    assert kind(source) == expected
    assert is_local(source) == source.startswith("/")


def test_a_password_is_not_shown() -> None:
    assert shown("https://me:secret@mirror.example/vllm.git") == "https://mirror.example/vllm.git"
    assert shown("https://mirror.example/vllm.git") == "https://mirror.example/vllm.git"


def archive_of(folder: Path, name: str) -> Path:
    """Write an archive with the one folder that release archives have at their top."""
    (folder / "setup.py").write_text("hello")
    path = folder.parent / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as opened:
            opened.write(folder / "setup.py", "vllm-0.9.2/setup.py")
    else:
        with tarfile.open(path, "w:gz") as opened_tar:
            opened_tar.add(folder / "setup.py", "vllm-0.9.2/setup.py")
    (folder / "setup.py").unlink()
    return path


@pytest.mark.parametrize("name", ["vllm.tar.gz", "vllm.zip"])
def test_an_archive_is_unpacked_without_the_folder_at_its_top(target: Path, name: str) -> None:
    path = archive_of(target, name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert unpack(str(path), digest.upper(), str(target)) == digest
    assert [entry.name for entry in target.iterdir()] == ["setup.py"]


def test_an_archive_with_another_checksum_is_refused(target: Path) -> None:
    path = archive_of(target, "vllm.tar.gz")
    with pytest.raises(SourceError, match="it is another file or was cut off"):
        unpack(str(path), "0" * 64, str(target))
    assert list(target.iterdir()) == []


def test_an_archive_that_was_cut_off_is_refused(target: Path) -> None:
    path = archive_of(target, "vllm.tar.gz")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(SourceError, match="cannot be unpacked"):
        unpack(str(path), "", str(target))


@pytest.mark.parametrize("name", ["../outside", "/outside", "vllm/../../outside"])
def test_an_archive_cannot_write_outside_of_its_folder(target: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as opened:
        opened.addfile(tarfile.TarInfo(name))
    with tarfile.open(path) as opened, pytest.raises(SourceError, match="not trustworthy"):
        extract_safely(opened, str(target))


def test_an_archive_cannot_link_outside_of_its_folder(target: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    link = tarfile.TarInfo("vllm/link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../../etc"
    with tarfile.open(path, "w") as opened:
        opened.addfile(link)
    with tarfile.open(path) as opened, pytest.raises(SourceError, match="not trustworthy"):
        extract_safely(opened, str(target))


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Two keys: the one that signs, in the user's own keyring, and somebody else's."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    exported = {}
    for name in ("signer", "other"):
        base = ["gpg", "--homedir", str(home), "--batch", "--passphrase", ""]
        make = [*base, "--quick-gen-key", f"{name}@b.invalid", "ed25519", "sign"]
        subprocess.run(make, check=True, capture_output=True)
        key = subprocess.run([*base, "--armor", "--export", f"{name}@b.invalid"], check=True, capture_output=True)
        exported[name] = key.stdout.decode()
    return {**exported, "home": str(home)}


def test_a_signature_is_verified_with_the_given_key_alone(
    upstream: Path, target: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", keys["home"])
    git(upstream, "-c", "user.signingkey=signer@b.invalid", "tag", "-s", "-m", "signed", "v0.3.0")
    git(upstream, "-c", "user.signingkey=signer@b.invalid", "commit", "-q", "-S", "--allow-empty", "-m", "signed")
    monkeypatch.delenv("GNUPGHOME")
    checkout(upstream.as_uri(), "v0.3.0", None, str(target))
    verify_signature(str(target), "v0.3.0", keys["signer"])
    with pytest.raises(SourceError, match="is not signed with the key in vllm_source_key"):
        verify_signature(str(target), "v0.3.0", keys["other"])
    with pytest.raises(SourceError, match="no key that gpg can read"):
        verify_signature(str(target), "v0.3.0", "nonsense")


def test_a_signed_commit_will_do_where_the_tag_is_not_signed(
    upstream: Path, target: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", keys["home"])
    git(upstream, "-c", "user.signingkey=signer@b.invalid", "commit", "-q", "-S", "--allow-empty", "-m", "signed")
    git(upstream, "tag", "v0.4.0")
    monkeypatch.delenv("GNUPGHOME")
    checkout(upstream.as_uri(), "v0.4.0", None, str(target))
    verify_signature(str(target), "v0.4.0", keys["signer"])
