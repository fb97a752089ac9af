# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWS published with each Neuron SDK release: the versions that the sandbox's repositories offer.

releases.json comes from the release notes of SDK 2.14.0 to 2.32.0. It is the sandbox's own, on purpose: a version in
data/stacks.yml that AWS never published is not to be had here either.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("releases.json")


def number(version: str) -> tuple[int, ...]:
    """A version as something that sorts; only numbers count, so `2.0.1b0` is (2, 0, 1)."""
    parts = []
    for part in version.split("."):
        digits = "".join(digit for digit in part.partition("b")[0] if digit.isdigit())
        parts.append(int(digits or 0))
    return tuple(parts)


def build_hash(name: str, version: str, length: int) -> str:
    """The hash that AWS's versions end in; here a made-up one that stays the same."""
    return hashlib.sha256(f"{name} {version}".encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Package:
    """One version of one package, with the first SDK release that it came with and that release's neighbours."""

    name: str
    version: str
    sdk: str
    pythons: tuple[str, ...]
    siblings: dict[str, Any]


def _packages(kind: str) -> list[Package]:
    found: dict[tuple[str, str], Package] = {}
    for release in json.loads(FILE.read_text(encoding="utf-8")):
        for name, versions in release[kind].items():
            for version in versions:
                pythons = tuple(versions[version]) if isinstance(versions, dict) else ()
                found.setdefault((name, version), Package(name, version, release["sdk"], pythons, release["python"]))
    return list(found.values())


def host_packages() -> list[Package]:
    return _packages("host")


def python_packages() -> list[Package]:
    return _packages("python")
