# SPDX-License-Identifier: GPL-3.0-or-later
"""packages_ready: others are waited for, and lists and Ansible's own needs are looked at and not guessed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.modules import packages_ready

LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 939 (python3)\n"
AWAY = "W: Failed to fetch http://deb.example.com/x  Temporary failure resolving 'deb.example.com'\n"
LISTED = "Packages http://deb.example.com/debian/ bookworm\nSources http://x/ y\n"


class System:
    """The programs of a host, which answer as told, and its files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[str] = []
        self.answers: dict[str, list[tuple[int, str, str]]] = {}
        self.python_apt, self.clock = True, 0.0
        self.wanted = self.there = LISTED
        (root / "lists").mkdir()
        (root / "sources.list").touch()
        self.age(root / "sources.list", 1000)

    def age(self, path: Path, seconds: float) -> None:
        os.utime(path, (time.time() - seconds,) * 2)

    def run(self, command: list[str], **_options: Any) -> tuple[int, str, str]:
        assert command[0] == "timeout"
        command = command[2:]
        words = [word for word in command if not word.startswith("DPkg::") and word not in ("-q", "-y", "-o")]
        said = " ".join(words)
        if command[0] == packages_ready.PYTHON:
            return (0 if self.python_apt else 1), "", ""
        if "indextargets" in words:
            return 0, self.wanted if "--no-release-info" in words else self.there, ""
        self.commands.append(said)
        answers = self.answers.get(said, [])
        if answers:
            return answers.pop(0)
        if said == "apt-get update":
            self.there = self.wanted
        if said.startswith("apt-get install"):
            self.python_apt = True
        return 0, "", ""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    system = System(tmp_path)
    monkeypatch.setattr(packages_ready, "LISTS", str(tmp_path / "lists"))
    monkeypatch.setattr(packages_ready, "STAMP", str(tmp_path / "stamp"))
    monkeypatch.setattr(packages_ready, "SOURCES", [str(tmp_path / "sources.list")])
    monkeypatch.setattr(packages_ready, "BOOT", str(tmp_path / "cloud-init"))
    monkeypatch.setattr(packages_ready.shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(packages_ready.AnsibleModule, "run_command", lambda _self, *args, **kw: system.run(*args, **kw))
    monkeypatch.setattr(packages_ready.time, "monotonic", lambda: system.clock)
    monkeypatch.setattr(packages_ready.time, "sleep", lambda seconds: setattr(system, "clock", system.clock + seconds))
    return system


@pytest.fixture
def ready(run_module: Callable[..., dict[str, Any]], system: System) -> Callable[..., dict[str, Any]]:
    return lambda **arguments: run_module(packages_ready, **arguments)


def test_nothing_is_done_where_nothing_is_missing(ready: Callable[..., dict[str, Any]], system: System) -> None:
    answer = ready()
    assert (answer["changed"], answer["usable"], answer["reasons"]) == (False, True, [])
    assert system.commands == []


def test_a_stamp_is_not_taken_for_the_lists(ready: Callable[..., dict[str, Any]], system: System) -> None:
    system.there = ""
    (system.root / "stamp").touch()
    assert ready()["reasons"] == ["lists are missing: http://deb.example.com/debian/ bookworm"]
    assert system.commands == ["apt-get update"]
    assert ready()["reasons"] == []


def test_old_lists_and_new_sources_are_a_reason(ready: Callable[..., dict[str, Any]], system: System) -> None:
    system.age(system.root / "lists", 500)
    system.age(system.root / "sources.list", 100)
    assert ready()["reasons"] == ["the sources are newer than the lists"]
    system.age(system.root / "sources.list", 9000)
    system.age(system.root / "lists", 4000)
    assert ready()["reasons"] == ["the lists are older than 3600 seconds"]
    assert system.commands == ["apt-get update"] * 2
    assert ready()["reasons"] == []
    assert ready(apt="usable")["reasons"] == []


def test_what_ansible_needs_is_installed_once(ready: Callable[..., dict[str, Any]], system: System) -> None:
    system.python_apt = False
    checked = ready(check=True)
    assert (checked["changed"], checked["usable"], system.commands) == (True, False, [])
    answer = ready()
    assert (answer["changed"], answer["usable"]) == (True, True)
    assert system.commands == ["apt-get install --no-install-recommends python3-apt"]
    assert not ready()["changed"]


@pytest.mark.parametrize("command", ["apt-get update", "apt-get install --no-install-recommends python3-apt"])
def test_whoever_holds_a_lock_is_waited_for(ready: Callable[..., dict[str, Any]], system: System, command: str) -> None:
    system.python_apt, system.there = False, ""
    system.answers[command] = [(100, "", LOCKED)] * 20
    assert not ready(timeout=120).get("failed")
    assert 100 <= system.clock <= 120
    system.python_apt, system.there = False, ""
    system.answers[command] = [(100, "", LOCKED)] * 200
    answer = ready(timeout=120)
    assert answer["failed"]
    assert "Could not get lock" in answer["msg"] and "process 939" in answer["msg"]


def test_a_server_that_is_away_is_tried_again_and_named(ready: Callable[..., dict[str, Any]], system: System) -> None:
    system.there = ""
    system.answers["apt-get update"] = [(0, "", AWAY)] * 2
    assert not ready().get("failed")
    system.there = ""
    system.answers["apt-get update"] = [(0, "", AWAY)] * 3
    answer = ready()
    assert "Failed to update apt's lists: W: Failed to fetch http://deb.example.com/x" in answer["msg"]


def test_a_boot_is_waited_for_and_what_does_not_end_is_named(
    ready: Callable[..., dict[str, Any]], system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages_ready.shutil, "which", lambda name: f"/usr/bin/{name}")
    ready(apt="unused")
    assert system.commands == [], "cloud-init has no part in this boot"
    (system.root / "cloud-init").mkdir()
    system.there = ""
    ready(apt="unused")
    assert system.commands == ["cloud-init status --wait"]
    ready(check=True)
    assert system.commands == ["cloud-init status --wait"] * 2

    system.answers["cloud-init status --wait"] = [(124, "", "")]
    assert "cloud-init is still at work after 600 seconds, and nothing was changed" in ready()["msg"]


def test_what_cannot_be_imported_after_its_installation_is_said(
    ready: Callable[..., dict[str, Any]], system: System
) -> None:
    system.python_apt = False
    system.answers["apt-get install --no-install-recommends python3-apt"] = [(0, "", "")]
    assert "cannot import it" in ready()["msg"]


def test_a_program_that_cannot_be_started_is_an_error_with_its_name() -> None:
    def missing(*_command: Any, **_options: Any) -> tuple[int, str, str]:
        raise FileNotFoundError(2, "No such file or directory", "timeout")

    status, _output, errors = packages_ready.Host(missing, 5).run("x")
    assert status == 127 and "timeout" in errors


def test_where_there_is_no_apt_there_is_nothing_to_do(
    ready: Callable[..., dict[str, Any]], system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages_ready.shutil, "which", lambda _name: None)
    answer = ready()
    assert (answer["changed"], answer["usable"], answer["reasons"]) == (False, False, [])
    assert system.commands == []
