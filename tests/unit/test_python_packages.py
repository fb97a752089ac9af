# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks: what decides on them, which index a package may come from, who resolves, and what is installed from them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import tomllib
from ansible_collections.neuronops.vllm.plugins.action import python_lock as action
from ansible_collections.neuronops.vllm.plugins.module_utils import packages
from ansible_collections.neuronops.vllm.plugins.modules import python_lock, python_packages
from ansible_collections.neuronops.vllm.plugins.plugin_utils.uv import requirement

CHECKOUT = Path(__file__).resolve().parents[2]
NEURON = "https://neuron.example.com"
LOCK = """\
# head
idna==3.10 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
setuptools==79.0.1 \\
    --hash=sha256:cc
torch-neuronx==2.5.1.2.7.5413+113e6810 \\
    --hash=sha256:dd
"""


def test_a_lock_is_read() -> None:
    assert packages.parse_lock(LOCK) == {
        "idna": "3.10",
        "setuptools": "79.0.1",
        "torch-neuronx": "2.5.1.2.7.5413+113e6810",
    }


def test_a_part_of_a_lock_keeps_its_hashes() -> None:
    assert python_packages.lock_part(LOCK, ["idna", "torch-neuronx"]) == LOCK.replace("# head\n", "").replace(
        "setuptools==79.0.1 \\\n    --hash=sha256:cc\n", ""
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2024.01.02", "2024.1.2", True),
        ("2.18.121.0+9e31e41a", "2.18.121.0+9E31E41A", True),
        ("1.0.post1", "1.0_post1", True),
        ("2.5.1", "2.5.1+cpu", False),
        ("1.10", "1.1", False),
    ],
)
def test_versions_are_compared_as_folders_spell_them(one: str, other: str, same: bool) -> None:
    assert packages.same_version(one, other) is same


def test_a_host_trusts_the_given_certificates_or_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, own = tmp_path / "given.crt", tmp_path / "own.crt"
    given.touch()
    own.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(own))
    for sources, bundle in (({"ca_file": str(given)}, given), ({"ca_file": str(tmp_path / "none")}, own), ({}, own)):
        environment = packages.program_environment(sources)
        assert {environment[name] for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")} == {str(bundle)}


def test_a_mirror_that_only_pip_knows_is_used_by_uv_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.com/simple")
    assert packages.program_environment({})["UV_DEFAULT_INDEX"] == "https://mirror.example.com/simple"
    environment = packages.program_environment({"index_url": "https://other.example.com"})
    assert environment["UV_DEFAULT_INDEX"] == environment["PIP_INDEX_URL"] == "https://other.example.com"


def test_a_wheelhouse_excludes_every_index() -> None:
    sources = {"wheelhouse": "/srv/wheels", "neuron_index_url": NEURON}
    for installer in ("uv", "pip"):
        assert packages.index_arguments(sources, installer) == ["--no-index", "--find-links", "/srv/wheels"]


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


def arguments(path: Path, **others: Any) -> dict[str, Any]:
    return {
        "name": "demo",
        "path": str(path),
        "requirements": ["idna"],
        "python": "/usr/bin/python3.11",
        "python_version": "3.11",
        "architecture": "x86_64",
        **others,
    }


def test_a_lock_is_another_when_what_goes_into_it_is(tmp_path: Path) -> None:
    first = action.lock_file(arguments(tmp_path))
    assert first.name.startswith("demo-cp311-x86_64-")
    # Where files are downloaded from does not matter, as their hashes are known.
    assert action.lock_file(arguments(tmp_path, sources={"index_url": NEURON}, python="/opt/python3.11")) == first
    for change in (
        {"requirements": ["idna<4"]},
        {"constraints": ["idna<4"]},
        {"excluded": ["idna"]},
        {"python_version": "3.10"},
        {"architecture": "aarch64"},
        {"sources": {"torch_index_url": NEURON}},
    ):
        assert action.lock_file(arguments(tmp_path, **change)) != first


class Host(action.ActionModule):  # type: ignore[misc]
    """The action on one host, with a resolution that takes a while and is counted."""

    resolutions: list[str]

    def __init__(self, resolutions: list[str], answer: dict[str, Any], check_mode: bool = False, **args: Any) -> None:
        self.resolutions, self.answer = resolutions, answer
        self._task = type("Task", (), {"args": args, "check_mode": check_mode, "diff": True, "async_val": 0})()
        self._connection = None

    def _execute_module(self, **_arguments: Any) -> dict[str, Any]:
        self.resolutions.append("resolved")
        threading.Event().wait(0.3)
        return self.answer


@pytest.fixture
def run_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the action on four hosts at the same time; returns their results and the resolutions."""
    monkeypatch.setattr(action.ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.setattr(action.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))

    def run(answer: dict[str, Any], **others: Any) -> tuple[list[dict[str, Any]], list[str]]:
        resolutions: list[str] = []
        results: list[dict[str, Any]] = []
        check_mode = others.pop("check_mode", False)
        args = arguments(tmp_path / "locks", **others)

        def one(number: int) -> None:
            host = Host(resolutions, answer, check_mode, **args)
            results.append(host.run(task_vars={"inventory_hostname": f"host{number}"}))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results, resolutions

    return run


def test_one_host_resolves_for_all(run_hosts: Any) -> None:
    results, resolutions = run_hosts({"lock": LOCK})
    assert resolutions == ["resolved"]
    assert sorted(result["resolved"] for result in results) == [False, False, False, True]
    assert {result["lock"] for result in results} == {results[0]["lock"]}
    assert results[0]["packages"]["idna"] == "3.10"
    results, resolutions = run_hosts({"lock": LOCK})
    assert resolutions == []
    assert not any(result["changed"] for result in results)


def test_a_failure_is_not_repeated_by_those_who_waited_for_it(run_hosts: Any) -> None:
    results, resolutions = run_hosts({"failed": True, "msg": "Neuron's index is down"})
    assert resolutions == ["resolved"]
    assert all(result["failed"] and "Neuron's index is down" in result["msg"] for result in results)
    results, _resolutions = run_hosts({"lock": LOCK})
    assert not any(result.get("failed") for result in results)


def test_a_refresh_happens_once_in_a_run(run_hosts: Any) -> None:
    run_hosts({"lock": LOCK}, refresh=True)
    _results, resolutions = run_hosts({"lock": LOCK}, refresh=True)
    assert resolutions == []


def test_a_check_run_resolves_nothing(run_hosts: Any, tmp_path: Path) -> None:
    results, resolutions = run_hosts({"lock": LOCK}, check_mode=True)
    assert resolutions == []
    assert all(result["changed"] and result["lock"] == "" for result in results)
    assert not (tmp_path / "locks").exists()


def test_uv_is_the_one_that_the_collection_is_tested_with() -> None:
    pinned = (CHECKOUT / "requirements" / "dev.txt").read_text().split("\nuv==")[1].split("\n")
    lines = ["uv==" + pinned[0]]
    for line in pinned[1:]:
        if not line.startswith(" "):
            break
        lines.append(line)
    assert "\n".join(lines) in requirement()
