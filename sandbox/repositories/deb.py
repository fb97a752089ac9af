# SPDX-License-Identifier: GPL-3.0-or-later
"""Write Debian packages: an `ar` archive of two tar archives, the same bytes for the same contents."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# All files carry one date, so that a package's hash depends on its contents only.
DATE = 1700000000


@dataclass
class Deb:
    """Contents of one package. `files` maps absolute paths to (content, mode); `scripts` are the maintainer's."""

    control: dict[str, str]
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)
    conffiles: list[str] = field(default_factory=list)

    @property
    def filename(self) -> str:
        return "{Package}_{Version}_{Architecture}.deb".format(**self.control)

    @property
    def fields(self) -> str:
        return "".join(f"{name}: {value}\n" for name, value in self.control.items())

    def write(self, folder: Path) -> Path:
        path = folder / self.filename
        path.write_bytes(self.content())
        return path

    def content(self) -> bytes:
        control = {"control": (self.fields.encode(), 0o644), "md5sums": (self._md5sums(), 0o644)}
        if self.conffiles:
            control["conffiles"] = ("".join(f"{path}\n" for path in self.conffiles).encode(), 0o644)
        control |= {name: (text.encode(), 0o755) for name, text in self.scripts.items()}
        members = {
            "debian-binary": b"2.0\n",
            "control.tar.gz": _tar(control),
            "data.tar.gz": _tar({path.lstrip("/"): entry for path, entry in self.files.items()}),
        }
        return b"!<arch>\n" + b"".join(_member(name, content) for name, content in members.items())

    def _md5sums(self) -> bytes:
        # dpkg's own format for `dpkg --verify`; nothing trusts it.
        lines = (
            f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}  {path.lstrip('/')}\n"
            for path, (content, _) in sorted(self.files.items())
            if path not in self.conffiles
        )
        return "".join(lines).encode()


def _member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{DATE:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents if str(parent) != "."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in ["", *sorted(folders)]:
            entry = tarfile.TarInfo(f"./{path}")
            entry.type, entry.mode, entry.mtime, entry.uname, entry.gname = tarfile.DIRTYPE, 0o755, DATE, "root", "root"
            archive.addfile(entry)
        for path, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(f"./{path}")
            entry.size, entry.mode, entry.mtime, entry.uname, entry.gname = len(content), mode, DATE, "root", "root"
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)
