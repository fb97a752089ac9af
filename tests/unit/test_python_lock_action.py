# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks on the controller: what decides on them, and who resolves while the others wait."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.action import python_lock as action

NEURON = "https://neuron.example.com"
LOCK = "# head\nidna==3.10 \\\n    --hash=sha256:aa\n"


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


def test_a_relative_folder_is_one_of_where_ansible_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert action.lock_file(arguments(Path("locks"))).parent == tmp_path / "locks"


class Host(action.ActionModule):  # type: ignore[misc]  # ansible has no types
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
