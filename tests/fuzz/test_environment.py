# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in an environment on a host: whatever it is, it is damaged or understood, and the observation ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import environment, release
from hypothesis import given
from hypothesis import strategies as st

RECORD = b"demo/__init__.py,sha256=x,6\r\n../../../bin/demo,,\r\ndemo-1.0.dist-info/METADATA,,4\r\n"
MANIFEST = {"role": "demo", "inputs": "x", "packages": {"demo": "1.0"}, "files": {"/etc/hostname": "a" * 64}}
PIECES = st.sampled_from(
    [b"\0", b"\0" * 100, b"\n", b'"', b",", b",,", b"\xff", b"../" * 9, b"/etc/passwd,,\n", b"-1", b"9" * 30, b"\x85"]
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=40)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Return bytes with some pieces put in, taken out or cut off."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, len(content)))
        piece = draw(st.one_of(PIECES, st.binary(max_size=6)))
        content = content[:start] + piece + content[draw(st.sampled_from([start, end, len(content)])) :]
    return content


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of packages of an environment with one whole package."""
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for path in (site / "demo", site / "demo-1.0.dist-info", tmp_path / "bin", tmp_path / "neuronops"):
        path.mkdir(parents=True)
    (site / "demo" / "__init__.py").write_text("x = 1\n")
    (tmp_path / "bin" / "demo").touch()
    (site / "demo-1.0.dist-info" / "METADATA").write_text("Name")
    (site / "demo-1.0.dist-info" / "RECORD").write_bytes(RECORD)
    yield site
    shutil.rmtree(tmp_path, ignore_errors=True)


@given(record=st.one_of(mutated(RECORD), st.binary(max_size=300)))
def test_a_record_is_understood_or_damaged(record: bytes, folder: Path, tried: Callable[[str], None]) -> None:
    tried("RECORD")
    (folder / "demo-1.0.dist-info" / "RECORD").write_bytes(record)
    packages, damaged = environment.observe_packages(str(folder.parents[2]))
    assert packages == {"demo": "1.0"}
    json.dumps(damaged).encode()
    if not damaged:
        assert b"\0" not in record
        lines = [line for line in record.decode().splitlines() if line.strip()]
        assert lines, "an empty list of files promises nothing"
        assert all(line.count(",") >= 2 for line in lines if '"' not in record.decode())


@given(metadata=st.binary(max_size=200))
def test_metadata_is_read_whatever_it_is(metadata: bytes, folder: Path, tried: Callable[[str], None]) -> None:
    tried("METADATA")
    (folder / "demo-1.0.dist-info" / "METADATA").write_bytes(metadata)
    _packages, damaged = environment.observe_packages(str(folder.parents[2]))
    assert bool(damaged) is (b"\0" in metadata or len(metadata) != 4)


@given(content=st.one_of(JSON.map(lambda value: json.dumps(value).encode()), mutated(json.dumps(MANIFEST).encode())))
def test_a_manifest_has_its_types_or_counts_as_none(content: bytes, folder: Path, tried: Callable[[str], None]) -> None:
    tried("manifest")
    (folder.parents[2] / "neuronops" / "demo.json").write_bytes(content)
    manifests, changed, ignored = release.observe_manifests(str(folder.parents[2]))
    assert (len(manifests), len(ignored)) in ((1, 0), (0, 1))
    for manifest in manifests.values():
        assert all(isinstance(text, str) for text in manifest.get("packages", {}).values())
        assert all(len(digest) == 64 for digest in manifest.get("files", {}).values())
        assert all(
            isinstance(manifest.get(name, ""), str) for name in ("role", "inputs", "stack") if manifest.get(name)
        )
    assert all(isinstance(path, str) and path.startswith("/") for path in changed)


@given(name=st.one_of(NAMES, NAMES.map(lambda name: name + "-1.0")), ending=st.sampled_from([".dist-info", ""]))
def test_a_folder_of_any_name_is_a_package_or_damage(
    name: str, ending: str, folder: Path, tried: Callable[[str], None]
) -> None:
    tried("*.dist-info")
    path = folder / (name + ending)
    try:
        path.mkdir()
    except OSError:
        return  # too long for a file system, . or .., or there already
    try:
        found: tuple[dict[str, Any], dict[str, Any]] = environment.observe_packages(str(folder.parents[2]))
        packages, damaged = found
        assert all(environment.normalised(package) == package and package.isascii() for package in packages)
        assert all(text.isprintable() and text.isascii() for text in damaged)
        assert set(packages) - set(damaged) == {"demo"}, "nothing in it, and it counts as whole"
    finally:
        path.rmdir()
