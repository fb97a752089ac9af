# SPDX-License-Identifier: GPL-3.0-or-later
"""Observing an environment: what is installed, and each way in which it can be damaged."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import environment
from ansible_collections.neuronops.vllm.plugins.modules import python_venv

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Make an environment with a package `demo` 1.0 in it."""
    path = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    site = path / "lib" / f"python{VERSION}" / "site-packages"
    (site / "demo").mkdir()
    (site / "demo" / "__init__.py").write_text("x = 1\n")
    (path / "bin" / "demo").write_text("#!/a/longer/path/than/the/recorded/one\n")
    info = site / "demo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: demo\nVersion: 1.0\n")
    (info / "RECORD").write_text(
        "demo/__init__.py,sha256=x,6\ndemo/__pycache__/a.pyc,,\n../../../bin/demo,sha256=x,3\n"
        "demo-1.0.dist-info/METADATA,sha256=x,24\ndemo-1.0.dist-info/RECORD,,\n"
    )
    return path


def site(path: Path) -> Path:
    return path / "lib" / f"python{VERSION}" / "site-packages"


def test_a_good_environment(venv: Path) -> None:
    found = environment.observe(str(venv))
    assert found["exists"]
    assert found["python"]["works"]
    assert found["python"]["version"].startswith(VERSION + ".")
    assert found["packages"] == {"demo": "1.0"}
    assert found["damaged"] == {}


def test_no_environment(tmp_path: Path) -> None:
    found = environment.observe(str(tmp_path / "none"))
    assert not found["exists"]
    assert not found["python"]["works"]
    assert found["packages"] == {}


def test_a_link_leads_to_the_environment(venv: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(venv)
    found = environment.observe(str(tmp_path / "link"))
    assert found["real_path"] == str(venv)
    assert found["python"]["works"]


def remove_interpreter(path: Path) -> None:
    for name in (path / "bin").glob("python*"):
        name.unlink()


def break_interpreter(path: Path) -> None:
    remove_interpreter(path)
    (path / "bin" / "python").write_text("#!/bin/sh\necho cannot start >&2\nexit 3\n")
    (path / "bin" / "python").chmod(0o755)


def change_version(path: Path) -> None:
    (path / "lib" / f"python{VERSION}").rename(path / "lib" / "python3.4")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove_interpreter, "does not run"),
        (break_interpreter, "cannot start"),
        (change_version, "the packages are installed for another"),
    ],
)
def test_an_interpreter_that_does_not_work(venv: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(venv)
    found = environment.observe(str(venv))["python"]
    assert not found["works"]
    assert words in found["problem"]
    assert words in python_venv.reason_to_build(str(venv), sys.executable)


def delete_file(path: Path) -> None:
    (site(path) / "demo" / "__init__.py").unlink()


def cut_file_off(path: Path) -> None:
    (site(path) / "demo" / "__init__.py").write_text("x")


def delete_script(path: Path) -> None:
    (path / "bin" / "demo").unlink()


def delete_record(path: Path) -> None:
    (site(path) / "demo-1.0.dist-info" / "RECORD").unlink()


def delete_metadata(path: Path) -> None:
    (site(path) / "demo-1.0.dist-info" / "METADATA").unlink()


def install_twice(path: Path) -> None:
    other = site(path) / "demo-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").touch()
    (other / "RECORD").touch()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (delete_file, "demo/__init__.py is missing"),
        (cut_file_off, "has 1 bytes in place of 6"),
        (delete_script, "bin/demo is missing"),
        (delete_record, "its RECORD is missing"),
        (delete_metadata, "its METADATA is missing"),
        (install_twice, "installed twice"),
    ],
)
def test_a_damaged_package(venv: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(venv)
    assert words in environment.observe(str(venv))["damaged"]["demo"]


def test_a_file_that_two_packages_bring_is_that_of_either(venv: Path) -> None:
    other = site(venv) / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").touch()
    (other / "RECORD").write_text(
        "demo/__init__.py,,9\nother-2.0.dist-info/METADATA,,0\nother-2.0.dist-info/RECORD,,\n"
    )
    for size, damaged in ((6, set()), (9, set()), (7, {"demo", "other"})):
        (site(venv) / "demo" / "__init__.py").write_text("x" * size)
        assert set(environment.observe(str(venv))["damaged"]) == damaged


def test_what_an_interrupted_pip_leaves(venv: Path) -> None:
    (site(venv) / "~emo").mkdir()
    assert environment.observe(str(venv))["damaged"] == {"~emo": "left behind by an interrupted installation"}


def test_manifests_and_the_files_they_name(venv: Path, tmp_path: Path) -> None:
    kept, changed = tmp_path / "kept", tmp_path / "changed"
    kept.write_text("as it was")
    changed.write_text("changed by somebody")
    digest = hashlib.sha256(b"as it was").hexdigest()
    manifest = {"role": "demo", "files": {str(kept): digest, str(changed): digest, str(tmp_path / "gone"): digest}}
    own = venv / environment.MANIFESTS
    own.mkdir()
    (own / "demo.json").write_text(json.dumps(manifest))
    (own / "cut_off.json").write_text(json.dumps(manifest)[:20])
    found = environment.observe(str(venv))
    assert found["manifests"] == {"demo": manifest}
    assert found["changed_files"] == [str(changed), str(tmp_path / "gone")]


def test_names_are_compared_as_the_index_does() -> None:
    assert environment.normalised("Environment__Kernels.X") == "environment-kernels-x"


def test_a_removal_that_is_killed_leaves_what_is_known_as_an_environment(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(python_venv.shutil, "rmtree", lambda path: removed.append(Path(path).name))
    (venv / "neuronops").mkdir()
    python_venv.remove(str(venv))
    assert removed[0] == "neuronops"  # so that it counts as unfinished from the first moment
    assert (venv / "pyvenv.cfg").exists()  # until the last one
    assert removed[-1] == "venv"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\0" * 200, "has zeros in it"),
        (b"demo/__init__.py,sha256=x,6\n\0\0\0\0", "has zeros in it"),
        (b"demo/\xc3,,1\n", "is not written in UTF-8"),
        (b"demo/__init__.py,,abc\n", "has the size 'abc'"),
        (b"demo/__init__.py,,-6\n", "has the size '-6'"),
        ("demo/__init__.py,,\u0666\n".encode(), "has the size"),
        (b"demo/__init__.py,,6\n../../../../elsewhere,,\n", "outside of the environment"),
        (b"/etc/passwd,,\n", "outside of the environment"),
        (b"demo/__init__.py\n", "a line that is not understood"),
        (b'"demo/__init__.py,,6\n', "cannot be understood"),
        (b"", "is empty"),
        (b"x" * 100000 + b",,\n", "is missing"),
    ],
)
def test_a_record_that_cannot_be_read_is_damage(venv: Path, record: bytes, words: str) -> None:
    (site(venv) / "demo-1.0.dist-info" / "RECORD").write_bytes(record)
    assert words in environment.observe(str(venv))["damaged"]["demo"]


def test_metadata_of_zeros_is_damage(venv: Path) -> None:
    (site(venv) / "demo-1.0.dist-info" / "METADATA").write_bytes(b"\0" * 24)
    assert "zeros" in environment.observe(str(venv))["damaged"]["demo"]


def test_a_folder_in_place_of_a_record_and_a_file_in_place_of_a_folder_are_damage(venv: Path) -> None:
    delete_record(venv)
    (site(venv) / "demo-1.0.dist-info" / "RECORD").mkdir()
    (site(venv) / "other-1.0.dist-info").touch()
    assert set(environment.observe(str(venv))["damaged"]) == {"demo", "other"}


def test_a_folder_that_is_named_as_no_package_is(venv: Path) -> None:
    for name in ("-1.0.dist-info", "a b-1.0.dist-info", "x-\n.dist-info", "\udcff-1.dist-info"):
        (site(venv) / name).mkdir()
    found = environment.observe(str(venv))
    assert found["packages"] == {"demo": "1.0"}
    assert set(found["damaged"].values()) == {"it is named as no package is"}
    json.dumps(found).encode()


def test_what_other_users_cannot_read_is_damage(venv: Path) -> None:
    (site(venv) / "demo" / "__init__.py").chmod(0o600)
    assert "cannot be read by other users" in environment.observe(str(venv))["damaged"]["demo"]
    (site(venv) / "demo" / "__init__.py").chmod(0o644)
    (site(venv) / "demo").chmod(0o700)
    assert "cannot be read by other users" in environment.observe(str(venv))["damaged"]["demo"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"files": ["a"], "packages": {}}',
        b'{"packages": ["a"]}',
        b'{"packages": {"a": 1}}',
        b'{"packages": {"a": "1\\n--index-url x"}}',
        b'{"files": {"a": "b"}}',
        b'{"files": {"/a": null}}',
        b'{"inputs": ["a"]}',
        b'{"role": {"a": "b"}}',
        b"[]",
        b"null",
        b"\0\0\0",
        b"\xff",
        b"",
        b"[" * 100000,
        b'{"a": NaN}',
    ],
)
def test_a_manifest_that_is_not_understood_counts_as_none_and_is_said(venv: Path, content: bytes) -> None:
    own = venv / environment.MANIFESTS
    own.mkdir()
    (own / "vllm.json").write_bytes(content)
    found = environment.observe(str(venv))
    assert (found["manifests"], found["changed_files"]) == ({}, [])
    assert len(found["ignored"]) == 1
    assert "vllm.json counts as none" in found["ignored"][0]


def test_what_an_interpreter_prints_besides_its_answer_is_no_answer(venv: Path) -> None:
    own = venv / "bin" / "python"
    real = own.resolve()
    own.unlink()
    own.write_text(f'#!/bin/sh\necho "3.9.9"\n(exec -a {own} {real} "$@")\necho "bye"\n')
    own.write_text(f'#!/bin/bash\necho "3.9.9"\n(exec -a {own} {real} "$@")\necho "bye"\n')
    own.chmod(0o755)
    found = environment.observe(str(venv))["python"]
    assert found["version"] == f"{VERSION}.{sys.version_info[2]}"
