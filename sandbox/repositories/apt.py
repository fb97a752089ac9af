# SPDX-License-Identifier: GPL-3.0-or-later
"""A signed apt repository, laid out as AWS's is."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from sandbox.repositories.deb import Deb
from sandbox.repositories.keys import Keys

UBUNTU = ("focal", "jammy", "noble")
DEBIAN = ("bullseye", "bookworm", "trixie")
# apt refuses a date in the future and one before the last it saw: one fixed date of the past suits every rebuild.
DATE = "Sat, 01 Nov 2025 00:00:00 UTC"


def write(
    folder: Path, debs: list[Deb], keys: Keys, suites: tuple[str, ...], label: str, signers: tuple[str, ...]
) -> None:
    """Write pool/ and dists/ under the folder. All suites have the same packages.

    The first of the signers signs what is served; each further one signs a copy, `InRelease.<name>`, that the server
    hands out instead when it is told to.
    """
    pool = folder / "pool"
    pool.mkdir(parents=True)
    packages = "\n".join(_stanza(deb, pool) for deb in debs).encode()
    indexes = {
        "main/binary-amd64/Packages": packages,
        "main/binary-amd64/Packages.gz": gzip.compress(packages, mtime=0),
    }
    releases = {suite: _release(suite, label, indexes).encode() for suite in suites}
    for suite, release in releases.items():
        for name, content in {**indexes, "Release": release}.items():
            path = folder / "dists" / suite / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for signer_name in signers:
        extension = "" if signer_name == signers[0] else f".{signer_name}"
        with keys.signer(signer_name) as signer:
            for suite, release in releases.items():
                (folder / "dists" / suite / f"InRelease{extension}").write_bytes(signer.clear(release))
                (folder / "dists" / suite / f"Release.gpg{extension}").write_bytes(signer.detached(release))


def _stanza(deb: Deb, pool: Path) -> str:
    path = deb.write(pool)
    content = path.read_bytes()
    place = f"Filename: pool/{path.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    return deb.fields + place


def _release(suite: str, label: str, indexes: dict[str, bytes]) -> str:
    sums = "".join(
        f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n" for name, content in indexes.items()
    )
    return (
        f"Origin: neuronops sandbox\nLabel: {label}\nSuite: {suite}\nCodename: {suite}\nDate: {DATE}\n"
        f"Architectures: amd64\nComponents: main\nDescription: {label}\nSHA256:\n{sums}"
    )
