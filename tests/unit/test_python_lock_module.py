# SPDX-License-Identifier: GPL-3.0-or-later
"""The module python_lock asks uv for a lock, and takes none that has what must never be installed.

uv is a stand-in here that answers as told; the scenarios of the roles have the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import packages, resolve
from ansible_collections.neuronops.vllm.plugins.modules import python_lock

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings the same for an older Python
    import tomli as tomllib

A, B = "a" * 64, "b" * 64
NEURON = "https://neuron.example.com"
ANSWER = (
    f"idna==3.10 \\\n    --hash=sha256:{A}\n    # from https://public.example.com/simple\n"
    f"torch-neuronx==2.5 \\\n    --hash=sha256:{B}\n    # from {NEURON}/\n"
)


class Uv:
    """Answers as told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: str | packages.PackagesError = ANSWER
        self.answers: dict[str, str] = {}
        self.commands: list[list[str]] = []
        self.files: dict[str, str] = {}

    def __call__(self, command: list[str], _sources: Any, cwd: str) -> str:
        self.commands.append(command)
        self.folder = Path(cwd)
        self.files = {path.name: path.read_text() for path in self.folder.iterdir()}
        if isinstance(self.answer, packages.PackagesError):
            raise self.answer
        answers = [text for name, text in self.answers.items() if f'"{name}' in self.files["pyproject.toml"]]
        (self.folder / command[command.index("--output-file") + 1]).write_text("".join(answers) or self.answer)
        return ""


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> Uv:
    stand_in = Uv()
    monkeypatch.setattr(resolve, "run", stand_in)
    monkeypatch.setattr(python_lock, "have_uv", lambda *_arguments: "/tools/uv")
    return stand_in


@pytest.fixture
def lock(run_module: Callable[..., dict[str, Any]], uv: Uv) -> Any:
    """Run the module and return its answer."""

    def lock(**arguments: Any) -> dict[str, Any]:
        given = {
            "name": "demo",
            "path": "/unused",
            "requirements": ["idna", "torch-neuronx==2.5"],
            "python": sys.executable,
            "python_version": "3.11",
            "architecture": "x86_64",
            "sources": {"neuron_index_url": NEURON},
        }
        return run_module(python_lock, **{**given, **arguments})

    return lock


def test_a_lock_is_what_uv_resolved_without_its_remarks(lock: Any) -> None:
    answer = lock()
    assert not answer["failed"], answer
    assert answer["lock"] == (f"idna==3.10 \\\n    --hash=sha256:{A}\ntorch-neuronx==2.5 \\\n    --hash=sha256:{B}\n")
    assert answer["packages"] == {"idna": "3.10", "torch-neuronx": "2.5"}


def test_uv_is_asked_for_the_environments_python_with_hashes(lock: Any, uv: Uv) -> None:
    lock(constraints=["idna<4", "torch<3"], excluded=["pyairports"], resolver="host")
    (command,) = uv.commands
    assert command[:3] == ["/tools/uv", "pip", "compile"]
    assert command[command.index("--python") + 1] == sys.executable
    assert "--python-platform" not in command, "it is the host itself"
    assert {"--generate-hashes", "--emit-index-annotation"} < set(command)
    assert command[command.index("--index-strategy") + 1] == "unsafe-first-match"
    assert uv.files["constraints.txt"] == "idna<4\ntorch<3\n"
    assert uv.files["excluded.txt"] == "pyairports\n"
    project = tomllib.loads(uv.files["pyproject.toml"])
    assert project["project"]["dependencies"] == ["idna", "torch-neuronx==2.5"]
    assert not uv.folder.exists(), "left behind"


def test_a_wheelhouse_is_all_that_uv_may_look_into(lock: Any, uv: Uv) -> None:
    uv.answer = f"torch-neuronx==2.5 \\\n    --hash=sha256:{B}\n"
    answer = lock(
        requirements=["torch-neuronx==2.5"], sources={"neuron_index_url": NEURON, "wheelhouse": "/srv/wheels"}
    )
    assert not answer["failed"], "what is in a wheelhouse somebody put there"
    (command,) = uv.commands
    assert command[-3:] == ["--no-index", "--find-links", "/srv/wheels"]
    assert "--index-strategy" not in command


def test_what_cannot_be_resolved_says_what_uv_said(lock: Any, uv: Uv) -> None:
    uv.answer = packages.PackagesError("there is no version of idna==99")
    answer = lock()
    assert answer["failed"]
    assert "The packages for demo could not be resolved, and nothing was installed." in answer["msg"]
    assert "there is no version of idna==99" in answer["msg"]
    assert not uv.folder.exists()


def test_a_stub_of_a_neuron_package_is_refused(lock: Any, uv: Uv) -> None:
    uv.answer = ANSWER.replace(f"{NEURON}/", "https://public.example.com/simple")
    answer = lock()
    assert answer["failed"]
    assert f"torch-neuronx would come from an index that is not Neuron's ({NEURON})" in answer["msg"]
    assert "lock" not in answer


def test_what_must_never_be_installed_is_refused(lock: Any) -> None:
    answer = lock(excluded=["IDNA"])
    assert answer["failed"]
    assert "The packages for demo include ['idna'], which must never be installed." in answer["msg"]


def test_a_check_run_starts_no_program(lock: Any, uv: Uv) -> None:
    answer = lock(check=True)
    assert (answer["changed"], answer["lock"], answer["packages"]) == (True, "", {})
    assert uv.commands == []


def parameters(**sources: str) -> dict[str, Any]:
    """What a project is made of."""
    return {
        "requirements": ["torch==2.5.1", "Torch_Neuronx==2.5.1.2.7.5413", "notebook"],
        "python_version": "3.11",
        "sources": {"neuron_index_url": None, "torch_index_url": None, "wheelhouse": None, **sources},
    }


def test_neurons_packages_are_tied_to_neurons_index() -> None:
    project = tomllib.loads(resolve.project(parameters(neuron_index_url=NEURON)))
    assert project["tool"]["uv"]["sources"] == {"torch-neuronx": {"index": "neuron"}}
    assert project["tool"]["uv"]["index"] == [{"name": "neuron", "url": NEURON}]
    assert project["project"]["requires-python"] == "==3.11.*"


def test_an_index_for_torch_provides_torch_and_nothing_else() -> None:
    project = tomllib.loads(
        resolve.project(parameters(neuron_index_url=NEURON, torch_index_url="https://cpu.example.com"))
    )
    assert project["tool"]["uv"]["sources"]["torch"] == {"index": "torch"}
    assert [index.get("explicit") for index in project["tool"]["uv"]["index"]] == [None, True]


def test_a_wheelhouse_needs_no_index_to_resolve() -> None:
    assert "tool" not in tomllib.loads(resolve.project(parameters(neuron_index_url=NEURON, wheelhouse="/srv/wheels")))


def test_one_of_neurons_packages_from_another_index_is_found_out() -> None:
    answer = (
        f"neuronx-distributed==0.1 \\\n    --hash=sha256:{A}\n    # from https://public.example.com/simple\n"
        f"torch-neuronx==2.5 \\\n    --hash=sha256:{B}\n    # from {NEURON}/\n"
    )
    lock, origins = resolve.without_indexes(answer)
    assert lock == f"neuronx-distributed==0.1 \\\n    --hash=sha256:{A}\ntorch-neuronx==2.5 \\\n    --hash=sha256:{B}\n"
    found = resolve.foreign_neuron_packages(packages.parse_lock(lock), origins, NEURON)
    assert found == ["neuronx-distributed"]


def test_an_address_is_the_same_however_it_is_written() -> None:
    for origin in ("https://neuron.example.com", f"{NEURON}/./", "https://Neuron.example.com:443//"):
        assert resolve.foreign_neuron_packages({"torch-neuronx": "2.5"}, {"torch-neuronx": origin}, NEURON) == []
    for origin in ("https://neuron.example.com.evil.org", f"{NEURON}/simple", "http://neuron.example.com", ""):
        assert resolve.foreign_neuron_packages({"torch-neuronx": "2.5"}, {"torch-neuronx": origin}, NEURON)
    assert resolve.foreign_neuron_packages({"torch-neuronx": "2.5"}, {}, None) == ["torch-neuronx"]


def test_elsewhere_nothing_of_a_package_is_run(uv: Uv) -> None:
    given = {**parameters(), "name": "demo", "architecture": "arm64", "constraints": [], "excluded": []}
    given["requirements"] = ["idna", "wget>=3"]
    uv.answers = {"idna": f"idna==3.10 --hash=sha256:{A}\n", "wget": f"wget==3.2 --hash=sha256:{B}\n"}
    lock = resolve.resolve(given, "/tools/uv", "/usr/bin/python3", elsewhere=True)
    assert sorted(packages.parse_lock(lock)) == ["idna", "wget"]
    first, second = uv.commands
    for command in (first, second):
        assert command[command.index("--python-platform") + 1] == "aarch64-manylinux_2_31"
        assert command[command.index("--python-version") + 1] == "3.11"
    assert "--no-build" in first
    # What is published as sources alone: its requirements are said, for every version, so that uv builds none.
    assert tomllib.loads(uv.files[second[second.index("--config-file") + 1]]) == {
        "dependency-metadata": [{"name": "wget", "requires-dist": []}]
    }
    assert tomllib.loads(uv.files["pyproject.toml"])["project"]["dependencies"] == ["wget>=3"]


def test_a_package_without_wheels_is_named_with_the_way_out(uv: Uv) -> None:
    given = {**parameters(), "name": "demo", "architecture": "x86_64", "constraints": [], "excluded": []}
    uv.answer = packages.PackagesError("Because all versions of docopt have no usable wheels and environment depends")
    with pytest.raises(packages.PackagesError, match=r"docopt is published as sources only.*neuron_venv_lock_resolver"):
        resolve.resolve(given, "/tools/uv", "/usr/bin/python3", elsewhere=True)


def test_a_users_name_is_neurons_too(lock: Any, uv: Uv) -> None:
    assert "idna would come from an index that is not Neuron's" in lock(neuron_packages=["IDNA"])["msg"]
    assert tomllib.loads(uv.files["pyproject.toml"])["tool"]["uv"]["sources"]["idna"] == {"index": "neuron"}


def test_a_package_that_only_looks_like_neurons_may_come_from_anywhere(lock: Any, uv: Uv) -> None:
    uv.answer = f"optimum-neuron==1.0 --hash=sha256:{A}\n    # from https://public.example.com/simple\n"
    assert not lock(requirements=["optimum-neuron"])["failed"]


def test_an_answer_of_uv_that_is_no_lock_is_refused(lock: Any, uv: Uv) -> None:
    uv.answer = ANSWER + "evil @ https://attacker.example.com/evil.whl\n"
    assert "could not be resolved" in lock()["msg"]
    uv.answer = ANSWER.replace("2.5", "2.6")
    assert "torch-neuronx==2.5 is asked for" in lock()["msg"]
