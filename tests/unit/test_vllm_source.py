# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources are those of the wanted commit, whole and unchanged, or there is a message that says what to do."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import vllm_source
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import (
    SourceError,
    check_address,
    checkout,
    extract_safely,
    is_local,
    kind,
    listed,
    shown,
    trusting,
    unpack,
    verify_signature,
)

module_git = vllm_source.git
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


@pytest.fixture
def signed(upstream: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository with a signed tag of a signed commit."""
    monkeypatch.setenv("GNUPGHOME", keys["home"])
    git(upstream, "-c", "user.signingkey=signer@b.invalid", "commit", "-q", "-S", "--allow-empty", "-m", "signed")
    git(upstream, "-c", "user.signingkey=signer@b.invalid", "tag", "-s", "-m", "signed", "v0.9.1")
    monkeypatch.delenv("GNUPGHOME")
    return upstream


def test_a_signed_tag_under_another_name_is_refused(signed: Path, target: Path, keys: dict[str, str]) -> None:
    git(signed, "update-ref", "refs/tags/v0.9.2", git(signed, "rev-parse", "v0.9.1"))
    checkout(signed.as_uri(), "v0.9.2", None, str(target))
    with pytest.raises(SourceError, match="shows another tag under this name"):
        verify_signature(str(target), "v0.9.2", keys["signer"])


def test_the_signed_tag_is_that_of_what_is_checked_out(signed: Path, target: Path, keys: dict[str, str]) -> None:
    checkout(signed.as_uri(), "v0.9.1", None, str(target))
    git(target, "commit", "-q", "--allow-empty", "-m", "another")
    with pytest.raises(SourceError, match="shows another tag under this name"):
        verify_signature(str(target), "v0.9.1", keys["signer"])


def test_an_annotated_tag_is_not_vouched_for_by_its_commit(signed: Path, target: Path, keys: dict[str, str]) -> None:
    git(signed, "tag", "-a", "-m", "not signed", "v0.9.2")
    checkout(signed.as_uri(), "v0.9.2", None, str(target))
    with pytest.raises(SourceError, match="is not signed with the key"):
        verify_signature(str(target), "v0.9.2", keys["signer"])


def test_a_tag_of_a_signed_tag_is_refused(
    signed: Path, target: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", keys["home"])
    git(signed, "-c", "user.signingkey=signer@b.invalid", "tag", "-s", "-m", "nested", "v0.9.2", "v0.9.1")
    monkeypatch.delenv("GNUPGHOME")
    checkout(signed.as_uri(), "v0.9.2", None, str(target))
    with pytest.raises(SourceError, match="shows another tag under this name"):
        verify_signature(str(target), "v0.9.2", keys["signer"])


@pytest.mark.parametrize("ref", ["--upload-pack=x", "a..b", "v1 v2", "v1\nv2", "", "x" * 300, "@{1}"])
def test_a_ref_that_is_none_never_reaches_git(upstream: Path, target: Path, ref: str) -> None:
    with pytest.raises(SourceError, match="git ref"):
        checkout(upstream.as_uri(), ref, None, str(target))
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "source",
    ["ext::sh -c 'touch /srv/x'", "--upload-pack=x", "relative", "fd::7", "https://x/y\n", "hg://x/y", "-x@host:path"],
)
def test_an_address_that_is_none_never_reaches_git(target: Path, source: str) -> None:
    with pytest.raises(SourceError, match="vllm_source is"):
        checkout(source, "v0.1.0", None, str(target))
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "source", ["ssh://git@gitlab.example.com:2222/ml/vllm.git", "git@mirror.example:ml/vllm", "/srv/vllm.git"]
)
def test_an_address_over_ssh_is_one(source: str) -> None:
    check_address(source)


def test_git_takes_nothing_from_outside(
    upstream: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    hooks = tmp_path / "templates" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (hooks / name).chmod(0o755)
    configuration = tmp_path / "home" / ".gitconfig"
    configuration.parent.mkdir()
    configuration.write_text(f"[core]\n\thooksPath = {hooks}\n[init]\n\ttemplateDir = {hooks.parent}\n")
    monkeypatch.setenv("HOME", str(configuration.parent))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(hooks.parent))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_EXEC_PATH", str(tmp_path))
    checkout(upstream.as_uri(), "v0.2.0", None, str(target))
    assert (target / "setup.py").read_text() == "second"
    assert not ran.exists() and not (target / ".git" / "hooks").exists()


def test_the_configuration_of_the_hosts_administrator_counts(
    upstream: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".gitconfig").write_text(
        f'[url "{upstream.as_uri()}"]\n\tinsteadOf = https://mirror.invalid/vllm.git\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    checkout("https://mirror.invalid/vllm.git", "v0.2.0", None, str(target))
    with trusting(str(upstream)) as environment:
        assert upstream.as_uri() in module_git(["config", "--global", "--includes", "--list"], str(target), environment)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("url", [False, True])
def test_a_repository_of_another_user_is_read(
    upstream: Path, target: Path, tmp_path: Path, bare: bool, url: bool
) -> None:
    source = tmp_path / "mirror.git"
    git(tmp_path, "clone", "-q", *(["--bare"] if bare else []), str(upstream), str(source))
    for path in [source, *source.rglob("*")]:
        os.chown(path, 12345, 12345)
    assert checkout(source.as_uri() if url else str(source), "v0.2.0", None, str(target))
    assert (target / "setup.py").read_text() == "second"


def test_a_repository_that_lists_nonsense_is_no_repository(upstream: Path) -> None:
    head = git(upstream, "rev-parse", "main")
    answer = f"{head}\trefs/tags/v1\n{head}\trefs/tags/v1^{{}}\nx\trefs/tags/v2\n{head}\t--exec\n{head}\trefs/a..b\n\n"
    assert listed(answer) == {"refs/tags/v1": head, "refs/tags/v1^{}": head}


def member(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, content in fields.items():
        setattr(made, field, content)
    return made


def tar_of(tmp_path: Path, *members: tarfile.TarInfo) -> str:
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        for one in members:
            opened.addfile(one, io.BytesIO(b"x" * one.size))
    return str(tmp_path / "a.tar")


def test_an_archive_decides_on_no_owner_and_no_rights(target: Path, tmp_path: Path) -> None:
    evil = member("top/setup.py", mode=0o4777, uid=12345, gid=12345, uname="nobody")
    script = member("top/run", mode=0o6755, uid=12345)
    folder = member("top/vllm", mode=0o1777, uid=12345, type=tarfile.DIRTYPE)
    before = os.umask(0o077)
    try:
        unpack(tar_of(tmp_path, evil, script, folder, member("top/hidden", mode=0)), "", str(target))
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o7777) for path in target.iterdir()}
    assert modes == {"setup.py": "0o755", "run": "0o755", "vllm": "0o755", "hidden": "0o644"}
    assert {(path.stat().st_uid, path.stat().st_gid) for path in target.iterdir()} == {(os.geteuid(), os.getegid())}


LINK = {"type": tarfile.SYMTYPE}
HARD = {"type": tarfile.LNKTYPE}


@pytest.mark.parametrize(
    "members",
    [
        [member("top/a"), member("top/link", linkname="/etc", **LINK)],
        [member("top/a"), member("top/link", linkname="..", **LINK)],
        [member("top/a"), member("top/b/link", linkname="../..", **LINK)],
        [member("top/d", linkname=".", **LINK), member("top/a"), member("top/e", linkname="d/../..", **LINK)],
        [member("top/sub", linkname="other", **LINK), member("top/sub/x")],
        [member("top/a"), member("top/passwd", linkname="/etc/passwd", **HARD)],
        [member("top/a"), member("top/passwd", linkname="top/../../x", **HARD)],
        [member("top/l", linkname="a", **LINK), member("top/h", linkname="top/l", **HARD)],
        [member("top/a"), member("top/pipe", type=tarfile.FIFOTYPE)],
        [member("top/a"), member("top/device", type=tarfile.CHRTYPE)],
        [member("top/a"), member("top/a")],
        [member("top/a"), member("top/a/b")],
        [member("top/a\\b")],
        [member("top/a\x1b")],
        [member("top/x", linkname="a", **LINK), member("top/x")],
    ],
)
def test_what_is_in_an_archive_stays_in_its_folder(
    target: Path, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    with pytest.raises(SourceError, match="not trustworthy"):
        unpack(tar_of(tmp_path, *members), "", str(target))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "target"]


def test_links_within_an_archive_are_links(target: Path, tmp_path: Path) -> None:
    members = [
        member("top/docs/a", size=2),
        member("top/docs/link", linkname="../docs/a", **LINK),
        member("top/link", linkname="docs", **LINK),
        member("top/hard", linkname="top/docs/a", **HARD),
    ]
    unpack(tar_of(tmp_path, *members), "", str(target))
    assert (target / "docs" / "link").read_text() == (target / "hard").read_text() == "xx"
    assert (target / "link").is_symlink() and (target / "link" / "a").exists()


def test_an_archive_without_a_folder_at_its_top_is_unpacked_as_it_is(target: Path, tmp_path: Path) -> None:
    unpack(tar_of(tmp_path, member("./setup.py"), member("./vllm/a")), "", str(target))
    assert sorted(path.name for path in target.iterdir()) == ["setup.py", "vllm"]


@pytest.mark.parametrize(("name", "most"), [("MOST_MEMBERS", 2), ("MOST_BYTES", 10)])
def test_an_archive_has_an_end(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(vllm_source, name, most)
    with pytest.raises(SourceError, match="is one of more than"):
        unpack(tar_of(tmp_path, *(member(f"top/{number}", size=5) for number in range(3))), "", str(target))


@pytest.mark.parametrize(
    ("name", "mode", "flags"),
    [
        ("../outside", 0o100644, 0),
        ("/outside", 0o100644, 0),
        ("top/../../outside", 0o100644, 0),
        ("top\\..\\outside", 0o100644, 0),
        ("top/link", 0o120777, 0),
        ("top/device", 0o020644, 0),
        ("top/secret", 0o100644, 1),
    ],
)
def test_what_is_in_a_zip_stays_in_its_folder(target: Path, tmp_path: Path, name: str, mode: int, flags: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("top/setup.py", "x")
        made = zipfile.ZipInfo(name)
        made.external_attr = mode << 16
        opened.writestr(made, "../../etc")
        made.flag_bits |= flags
    with pytest.raises(SourceError, match="not trustworthy"):
        unpack(str(path), "", str(target))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.zip", "target"]


def test_a_zip_decides_on_no_rights(target: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        for name, mode, text in (("top/run", 0o104777, "x"), ("top/a", 0, "y"), ("top/link", 0o120777, "a")):
            made = zipfile.ZipInfo(name)
            made.external_attr = mode << 16
            opened.writestr(made, text)
    unpack(str(tmp_path / "a.zip"), "", str(target))
    assert oct((target / "run").stat().st_mode) == "0o100755"
    assert (target / "link").is_symlink() and (target / "link").read_text() == "y"
