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
from ansible_collections.neuronops.vllm.plugins.module_utils import packages
from ansible_collections.neuronops.vllm.plugins.modules import python_lock

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings the same for an older Python
    import tomli as tomllib

NEURON = "https://neuron.example.com"
ANSWER = (
    "idna==3.10 \\\n    --hash=sha256:aa\n    # from https://public.example.com/simple\n"
    f"torch-neuronx==2.5 \\\n    --hash=sha256:bb\n    # from {NEURON}/\n"
)


class Uv:
    """Answers as told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: str | packages.PackagesError = ANSWER
        self.commands: list[list[str]] = []
        self.files: dict[str, str] = {}

    def __call__(self, command: list[str], _sources: Any, cwd: str) -> str:
        self.commands.append(command)
        self.folder = Path(cwd)
        self.files = {path.name: path.read_text() for path in self.folder.iterdir()}
        if isinstance(self.answer, packages.PackagesError):
            raise self.answer
        (self.folder / command[command.index("--output-file") + 1]).write_text(self.answer)
        return ""


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> Uv:
    stand_in = Uv()
    monkeypatch.setattr(python_lock, "run", stand_in)
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
            "python": "/usr/bin/python3.11",
            "python_version": "3.11",
            "architecture": "x86_64",
            "sources": {"neuron_index_url": NEURON},
        }
        return run_module(python_lock, **{**given, **arguments})

    return lock


def test_a_lock_is_what_uv_resolved_without_its_remarks(lock: Any) -> None:
    answer = lock()
    assert not answer["failed"], answer
    assert answer["lock"] == ("idna==3.10 \\\n    --hash=sha256:aa\ntorch-neuronx==2.5 \\\n    --hash=sha256:bb\n")
    assert answer["packages"] == {"idna": "3.10", "torch-neuronx": "2.5"}


def test_uv_is_asked_for_the_environments_python_with_hashes(lock: Any, uv: Uv) -> None:
    lock(constraints=["idna<4", "torch<3"], excluded=["pyairports"])
    (command,) = uv.commands
    assert command[:3] == ["/tools/uv", "pip", "compile"]
    assert command[command.index("--python") + 1] == "/usr/bin/python3.11"
    assert {"--generate-hashes", "--emit-index-annotation"} < set(command)
    assert command[command.index("--index-strategy") + 1] == "unsafe-first-match"
    assert uv.files["constraints.txt"] == "idna<4\ntorch<3\n"
    assert uv.files["excluded.txt"] == "pyairports\n"
    project = tomllib.loads(uv.files["pyproject.toml"])
    assert project["project"]["dependencies"] == ["idna", "torch-neuronx==2.5"]
    assert not uv.folder.exists(), "left behind"


def test_a_wheelhouse_is_all_that_uv_may_look_into(lock: Any, uv: Uv) -> None:
    uv.answer = "torch-neuronx==2.5 \\\n    --hash=sha256:bb\n"
    answer = lock(sources={"neuron_index_url": NEURON, "wheelhouse": "/srv/wheels"})
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


class Module:
    """What python_lock needs of an AnsibleModule."""

    def __init__(self, **sources: str) -> None:
        self.params = {
            "requirements": ["torch==2.5.1", "Torch_Neuronx==2.5.1.2.7.5413", "notebook"],
            "python_version": "3.11",
            "sources": {"neuron_index_url": None, "torch_index_url": None, "wheelhouse": None, **sources},
        }


def test_neurons_packages_are_tied_to_neurons_index() -> None:
    project = tomllib.loads(python_lock.project(Module(neuron_index_url=NEURON)))
    assert project["tool"]["uv"]["sources"] == {"torch-neuronx": {"index": "neuron"}}
    assert project["tool"]["uv"]["index"] == [{"name": "neuron", "url": NEURON}]
    assert project["project"]["requires-python"] == "==3.11.*"


def test_an_index_for_torch_provides_torch_and_nothing_else() -> None:
    project = tomllib.loads(
        python_lock.project(Module(neuron_index_url=NEURON, torch_index_url="https://cpu.example.com"))
    )
    assert project["tool"]["uv"]["sources"]["torch"] == {"index": "torch"}
    assert [index.get("explicit") for index in project["tool"]["uv"]["index"]] == [None, True]


def test_a_wheelhouse_needs_no_index_to_resolve() -> None:
    assert "tool" not in tomllib.loads(python_lock.project(Module(neuron_index_url=NEURON, wheelhouse="/srv/wheels")))


def test_one_of_neurons_packages_from_another_index_is_found_out() -> None:
    answer = (
        "neuronx-distributed==0.1 \\\n    --hash=sha256:aa\n    # from https://public.example.com/simple\n"
        f"torch-neuronx==2.5 \\\n    --hash=sha256:bb\n    # from {NEURON}/\n"
    )
    lock, origins = python_lock.without_indexes(answer)
    assert lock == "neuronx-distributed==0.1 \\\n    --hash=sha256:aa\ntorch-neuronx==2.5 \\\n    --hash=sha256:bb\n"
    found = python_lock.foreign_neuron_packages(packages.parse_lock(lock), origins, NEURON)
    assert found == ["neuronx-distributed"]
