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
