# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives and git's answers: nothing is written outside of the folder, and nothing but files, folders and links."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from ansible_collections.neuronops.vllm.plugins.module_utils import vllm_source
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import SourceError
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.lists(
    st.sampled_from(["top", "a", "b", "link", "..", ".", "", "/", "a\\b", "\x01", "\u2028", "x" * 300, "~", "-rf"]),
    min_size=1,
    max_size=5,
).map("/".join)
TYPES = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.CONTTYPE,
        b"Z",
    ]
)
SUFFIXES = st.sampled_from([".tar", ".zip", ".tar.gz"])
MEMBERS = st.lists(st.tuples(NAMES, TYPES, NAMES, st.integers(0, 0o7777), st.integers(0, 70000)), max_size=6)


def tar_of(members: list[tuple[str, bytes, str, int, int]]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as opened:
        for name, kind, link, mode, owner in members:
            made = tarfile.TarInfo(name)
            made.type, made.linkname, made.mode, made.uid, made.gid = kind, link, mode, owner, owner
            if kind == tarfile.REGTYPE:
                made.size = 3
            opened.addfile(made, io.BytesIO(b"abc"))
    return archive.getvalue()


def zip_of(members: list[tuple[str, bytes, str, int, int]]) -> bytes:
    archive = io.BytesIO()
    kinds = {tarfile.REGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "w") as opened:
        # A name that is there twice is what is wanted here.
        warnings.simplefilter("ignore")
        for name, kind, link, mode, _owner in members:
            made = zipfile.ZipInfo(name)
            made.external_attr = (kinds.get(kind, stat.S_IFCHR) | mode) << 16
            opened.writestr(made, link)
    return archive.getvalue()


def unpacked(content: bytes, suffix: str) -> None:
    """Unpack an archive, and look at what it has done, also when it was refused."""
    with tempfile.TemporaryDirectory() as outside:
        folder = Path(outside, "in", "folder")
        folder.mkdir(parents=True)
        archive = Path(outside, "archive" + suffix)
        archive.write_bytes(content)
        with contextlib.suppress(SourceError):
            vllm_source.unpack(str(archive), "", str(folder))
        assert sorted(path.name for path in Path(outside).iterdir()) == ["archive" + suffix, "in"]
        assert [path.name for path in folder.parent.iterdir()] == ["folder"]
        root = os.path.realpath(folder)
        for path in folder.rglob("*"):
            found = path.lstat()
            assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
            if stat.S_ISLNK(found.st_mode):
                assert (os.path.realpath(path) + "/").startswith(root + "/"), f"{path} -> {os.readlink(path)}"
            else:
                assert stat.S_IFMT(found.st_mode) in (stat.S_IFREG, stat.S_IFDIR)
                assert stat.S_IMODE(found.st_mode) in (0o644, 0o755)
                assert found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)


@given(members=MEMBERS)
def test_a_tar_archive_stays_in_its_folder(
    members: list[tuple[str, bytes, str, int, int]], tried: Callable[[str], None]
) -> None:
    tried("tar archive")
    unpacked(tar_of(members), ".tar")


@given(members=MEMBERS)
def test_a_zip_archive_stays_in_its_folder(
    members: list[tuple[str, bytes, str, int, int]], tried: Callable[[str], None]
) -> None:
    tried("zip archive")
    unpacked(zip_of(members), ".zip")


@given(
    members=MEMBERS,
    damage=st.binary(min_size=1, max_size=20),
    place=st.floats(0, 1),
    suffix=SUFFIXES,
)
def test_a_damaged_archive_stays_in_its_folder(
    members: list[tuple[str, bytes, str, int, int]],
    damage: bytes,
    place: float,
    suffix: str,
    tried: Callable[[str], None],
) -> None:
    tried("damaged archive")
    content = zip_of(members) if suffix == ".zip" else tar_of(members)
    start = int(place * min(len(content), 4000))
    unpacked(content[:start] + damage + content[start + len(damage) :], suffix)


@given(text=st.text(max_size=300))
def test_what_a_repository_lists_is_refs(text: str, tried: Callable[[str], None]) -> None:
    tried("list of refs")
    for name, number in vllm_source.listed(text).items():
        assert len(number) == 40 and not name.startswith("-") and "\n" not in name and ".." not in name
