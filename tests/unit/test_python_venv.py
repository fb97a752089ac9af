# SPDX-License-Identifier: GPL-3.0-or-later
"""python_venv makes real environments, rebuilds those that do not work, and never touches a folder that is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.modules import python_venv

THIS = f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "releases" / "one"


@pytest.fixture
def run(run_module: Callable[..., dict[str, Any]], path: Path) -> Any:
    """Run the module and return its answer."""

    def run(**arguments: Any) -> dict[str, Any]:
        return run_module(python_venv, **{"path": str(path), "python": sys.executable, "pip": False, **arguments})

    return run


def interpreter(tmp_path: Path, script: str) -> str:
    """An interpreter that is a stand-in; `-c` asks for its version, `-m venv` makes an environment."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def says(version: str) -> str:
    """Shell that answers as an interpreter of that version does."""
    return f"""echo 'neuronops answers: ["{version}", "/usr"]'"""


def test_an_environment_is_made_once(run: Any, path: Path) -> None:
    checked = run(check=True)
    assert (checked["changed"], checked["reason"]) == (True, "there is none")
    assert not path.parent.exists()
    first = run()
    assert (first["failed"], first["changed"], first["reason"]) == (False, True, "there is none")
    assert first["diff"] == {"before": "there is none\n", "after": ""}
    assert (path / "bin" / "python").resolve() == Path(sys.executable).resolve()
    assert path.stat().st_mode & 0o777 == 0o755
    assert not list(path.glob("lib/*/site-packages/pip"))
    (path / "mine").touch()
    second = run()
    assert (second["changed"], second["reason"]) == (False, "")
    assert (path / "mine").exists()


def test_an_environment_whose_interpreter_is_gone_is_rebuilt(run: Any, path: Path) -> None:
    run()
    (path / "left").touch()
    (path / "bin" / "python").unlink()
    checked = run(check=True)
    assert f"{path}/bin/python does not run" in checked["reason"]
    assert (path / "left").exists()
    assert run()["reason"] == checked["reason"]
    assert not (path / "left").exists(), "packages of another interpreter"
    assert not run()["changed"]


def test_an_environment_of_another_python_is_rebuilt(run: Any, tmp_path: Path) -> None:
    run()
    other = interpreter(tmp_path, says("3.99.1"))
    answer = run(python=other, check=True)
    assert answer["reason"] == f"it has Python {THIS} in place of 3.99.1"
    patch = interpreter(tmp_path, says(f"{sys.version_info[0]}.{sys.version_info[1]}.99"))
    assert not run(python=patch)["changed"], "an update of the interpreter is no other Python"


def test_an_interpreter_that_does_not_run_leaves_the_environment(run: Any, path: Path, tmp_path: Path) -> None:
    run()
    for python in (interpreter(tmp_path, "exit 3"), str(tmp_path / "none")):
        answer = run(python=python)
        assert answer["failed"]
        assert f"The environment {path} cannot be changed" in answer["msg"]
        assert python in answer["msg"]
    assert not run()["changed"]


def test_a_folder_with_somebodys_files_is_never_touched(run: Any, path: Path) -> None:
    path.mkdir(parents=True)
    (path / "thesis.txt").write_text("years")
    for state in ("present", "absent"):
        answer = run(state=state)
        assert answer["failed"]
        assert "is no Python environment. Name another folder, or empty it." in answer["msg"]
        assert [file.name for file in path.iterdir()] == ["thesis.txt"]


def test_a_link_is_kept_and_the_folder_behind_it_is_made(run: Any, path: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(path)
    assert run(path=str(link))["changed"]
    assert link.is_symlink()
    assert (path / "bin" / "python").exists()
    assert not run(path=str(link))["changed"]
    assert run(path=str(link), state="absent", check=True)["changed"]
    assert (path / "bin" / "python").exists()
    assert run(path=str(link), state="absent")["changed"]
    assert not link.is_symlink()
    assert not path.exists()
    assert not run(path=str(link), state="absent")["changed"]


def test_absent_needs_no_interpreter(run: Any, path: Path) -> None:
    run()
    answer = run(state="absent", python=None)
    assert (answer["failed"], answer["reason"]) == (False, "it is to be absent")
    assert not path.exists()
    assert "missing: python" in run(python=None)["msg"]


def test_a_failure_names_the_package_and_can_be_repeated(run: Any, path: Path, tmp_path: Path) -> None:
    broken = interpreter(tmp_path, f'[ "$2" = -c ] && {says(THIS)} && exit; echo "ensurepip is not available"; exit 1')
    answer = run(python=broken)
    assert answer["failed"]
    assert "python3-venv" in answer["msg"]
    assert "ensurepip is not available" in answer["msg"]
    assert (path / "pyvenv.cfg").exists(), "the next run would take it for somebody's files"
    assert run()["changed"]
    assert not run()["changed"]


def test_pip_comes_with_it_unless_it_is_not_wanted(run: Any, path: Path, tmp_path: Path) -> None:
    asked = f'[ "$2" = -c ] && {says(THIS)} && exit'
    python = interpreter(tmp_path, f'{asked}; echo "$@" > {tmp_path}/asked; for last; do :; done; mkdir "$last/bin"')
    run(python=python, pip=True)
    assert (tmp_path / "asked").read_text() == f"-I -m venv {path}\n"
    run(python=python, pip=False)
    assert (tmp_path / "asked").read_text() == f"-I -m venv --without-pip {path}\n"


def test_the_part_of_setuptools_that_no_index_has_is_removed(run: Any, path: Path, tmp_path: Path) -> None:
    folder = f"{path}/lib/python3.8/site-packages"
    python = interpreter(tmp_path, f"mkdir -p {folder}/pkg_resources-0.0.0.dist-info {folder}/pip-20.0.2.dist-info")
    assert run(python=python)["changed"]
    assert [entry.name for entry in Path(folder).iterdir()] == ["pip-20.0.2.dist-info"]


def test_a_removal_that_was_cut_off_is_completed(run: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    (path / "neuronops").mkdir()
    (path / "neuronops" / "vllm.json").touch()
    rmtree, removed = python_venv.shutil.rmtree, list[str]()

    def killed_at_the_last(folder: str) -> None:
        if Path(folder) == path:
            raise OSError("killed")
        removed.append(Path(folder).name)
        rmtree(folder)

    with monkeypatch.context() as context:
        context.setattr(python_venv.shutil, "rmtree", killed_at_the_last)
        assert "killed" in run(state="absent")["msg"]
    assert removed[0] == "neuronops", "what says that the roles are done goes first"
    left = [entry.name for entry in path.iterdir()]
    assert left == ["pyvenv.cfg"], "the next run must not take it for somebody's files"
    assert run(state="absent")["changed"]
    assert not path.exists()


def test_what_a_wrapper_prints_is_no_answer(run: Any, path: Path, tmp_path: Path) -> None:
    real = Path(sys.executable).resolve()
    wrapper = tmp_path / "bin" / real.name
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "Loading module python"\n{real} "$@"\necho bye\n')
    wrapper.chmod(0o755)
    assert run(python=str(wrapper))["changed"]
    (path / "mine").touch()
    again = run(python=str(wrapper))
    assert (again["failed"], again["changed"]) == (False, False)
    assert (path / "mine").exists()


@pytest.mark.parametrize(
    "script", ["echo 3.11.7; echo /usr", "exit 0", "kill -9 $$", "echo 'neuronops answers: [3, 11]'", "echo '[1'"]
)
def test_an_answer_that_is_not_understood_removes_nothing(run: Any, path: Path, script: str) -> None:
    run()
    (path / "mine").touch()
    own = path / "bin" / "python"
    own.unlink()
    own.write_text(f"#!/bin/sh\n{script}\n")
    own.chmod(0o755)
    answered = run()
    assert answered["failed"]
    assert "not understood" in answered["msg"]
    assert "Nothing was removed" in answered["msg"]
    assert (path / "mine").exists()


def test_other_users_can_start_it_whatever_the_umask_is(run: Any, path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert run()["changed"]
        folders = [path.parent, path, path / "bin", *path.glob("lib/*")]
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o755}
        path.chmod(0o700)
        (path / "bin").chmod(0o750)
        assert run(check=True)["reason"] == f"other users cannot enter {path}, {path}/bin"
        assert path.stat().st_mode & 0o777 == 0o700
        assert run()["changed"]
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o755}
        assert not run()["changed"]
    finally:
        os.umask(before)
