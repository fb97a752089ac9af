# SPDX-License-Identifier: GPL-3.0-or-later
"""managed_python brings an interpreter with the real uv, from a mirror of this test's own.

What uv knows is a list of this test's own too, with the checksum of the archive that it made; in it is an interpreter
that hands on to the one that runs the test, as a real one would be 30 MB.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import uv_version
from ansible_collections.neuronops.vllm.plugins.modules import managed_python
from ansible_collections.neuronops.vllm.plugins.plugin_utils import uv

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
THIS = f"{VERSION}.{sys.version_info[2]}"
SERVED = "https://github.com/astral-sh/python-build-standalone/releases/download"


class Mirror:
    """A mirror of python-build-standalone's releases, and a uv that knows what is on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"file://{root}/mirror"
        self.tools = root / "tools"
        program = self.tools / f"uv-{uv_version(uv.requirement())}" / "bin" / "uv"
        program.parent.mkdir(parents=True)
        real = Path(sys.executable).parent / "uv"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {root}/asked\nUV_PYTHON_DOWNLOADS_JSON_URL={root}/list.json exec {real} "$@"\n'
        )
        program.chmod(0o755)
        self.publish(99)

    def publish(self, patch: int) -> None:
        """Make the archive of a release, closed to others as far as an archive can be, and let uv know of it alone."""
        tree = self.root / "tree" / "python"
        for folder in ("bin", f"lib/python{VERSION}"):
            (tree / folder).mkdir(parents=True, exist_ok=True)
        interpreter = tree / "bin" / f"python{VERSION}"
        interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        interpreter.chmod(0o700)
        # uv looks for it, and changes paths in it.
        settings = tree / "lib" / f"python{VERSION}" / "_sysconfigdata__linux_x86_64-linux-gnu.py"
        settings.write_text("# system configuration generated and used by the sysconfig module\nbuild_time_vars = {}\n")
        name = f"cpython-{VERSION}.{patch}+20990101-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"
        self.archive = self.root / "mirror" / "20990101" / name
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(self.archive, "w:gz") as file:
            file.add(tree, "python")
        known = {
            "name": "cpython",
            "arch": {"family": "x86_64", "variant": None},
            "os": "linux",
            "libc": "gnu",
            "major": sys.version_info[0],
            "minor": sys.version_info[1],
            "patch": patch,
            "prerelease": "",
            "url": f"{SERVED}/20990101/{name.replace('+', '%2B')}",
            "sha256": hashlib.sha256(self.archive.read_bytes()).hexdigest(),
            "variant": None,
            "build": "20990101",
        }
        (self.root / "list.json").write_text(json.dumps({f"cpython-{VERSION}.{patch}-linux-x86_64-gnu": known}))

    def asked(self) -> list[str]:
        """Return what uv was called with since the last time."""
        file = self.root / "asked"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return Mirror(tmp_path)


@pytest.fixture
def run(run_module: Callable[..., dict[str, Any]], mirror: Mirror) -> Iterator[Any]:
    """Run the module, under the umask of a cautious administrator, and return its answer."""

    def run(**arguments: Any) -> dict[str, Any]:
        os.umask(0o077)
        given = {"path": str(mirror.root / "python"), "mirror": mirror.url, "tools_path": str(mirror.tools)}
        return run_module(
            managed_python, **{"version": VERSION, "uv_requirement": uv.requirement(), **given, **arguments}
        )

    before = os.umask(0o077)
    yield run
    os.umask(before)


def installed(mirror: Mirror) -> Path:
    return mirror.root / "python" / VERSION / "bin" / f"python{VERSION}"


def test_an_interpreter_is_brought_once_and_every_user_can_start_it(run: Any, mirror: Mirror) -> None:
    checked = run(check=True)
    assert (checked["changed"], checked["release"], checked["reason"]) == (True, None, f"there is no Python {VERSION}")
    assert not (mirror.root / "python").exists() and mirror.asked() == []
    first = run()
    assert not first["failed"], first["msg"]
    assert (first["changed"], first["release"]) == (True, THIS)
    assert first["diff"] == {"before": f"there is no Python {VERSION}\n", "after": ""}
    assert len(mirror.asked()) == 1
    link = mirror.root / "python" / VERSION
    assert os.readlink(link) == f"cpython-{VERSION}.99-linux-x86_64-gnu"
    for entry in (mirror.root / "python", link, link / "bin", installed(mirror)):
        assert stat.S_IMODE(entry.stat().st_mode) == 0o755
    second = run()
    assert (second["changed"], second["release"], second["reason"]) == (False, THIS, "")
    assert not run(check=True)["changed"] and mirror.asked() == []


def test_a_file_that_is_not_the_one_uv_knows_is_refused(run: Any, mirror: Mirror) -> None:
    with mirror.archive.open("ab") as file:
        file.write(b"more")
    answer = run()
    assert answer["failed"] and "Hash mismatch" in answer["msg"]
    assert f"Python {VERSION} could not be brought" in answer["msg"] and "neuron_venv_python_mirror" in answer["msg"]
    assert not (mirror.root / "python" / VERSION).is_symlink()


def test_a_newer_release_does_not_replace_one_that_environments_run_with(run: Any, mirror: Mirror) -> None:
    run()
    before = os.readlink(mirror.root / "python" / VERSION)
    mirror.publish(100)
    assert not run()["changed"]
    assert os.readlink(mirror.root / "python" / VERSION) == before


def test_what_is_damaged_is_brought_again(run: Any, mirror: Mirror) -> None:
    run()
    real = installed(mirror).resolve()
    real.write_text("#!/bin/sh\nexit 3\n")
    checked = run(check=True)
    assert checked["changed"] and "does not run" in checked["reason"]
    assert run()["release"] == THIS
    assert "exit 3" not in real.read_text()
    assert not run()["changed"]


def test_a_run_that_was_cut_off_before_its_last_step_is_completed(run: Any, mirror: Mirror) -> None:
    run()
    link = mirror.root / "python" / VERSION
    link.unlink()
    assert run()["changed"] and link.is_symlink()
    assert not run()["changed"]


def test_a_folder_of_somebodys_is_not_replaced(run: Any, mirror: Mirror) -> None:
    (mirror.root / "python" / VERSION).mkdir(parents=True)
    answer = run()
    assert answer["failed"] and "is no link of this module's" in answer["msg"] and mirror.asked() == []


def test_the_host_has_no_say_in_what_uv_downloads(run: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", "file:///nowhere")
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(mirror.root / "elsewhere"))
    assert run()["release"] == THIS
    assert not (mirror.root / "elsewhere").exists()


def test_a_version_that_is_none_is_refused(run: Any) -> None:
    answer = run(version="3.12; rm")
    assert answer["failed"] and "version is" in answer["msg"]
