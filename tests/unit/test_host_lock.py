# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time changes what a host serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.action import host_lock as action
from ansible_collections.neuronops.vllm.plugins.modules import host_lock

ONE = {"who": "ann@laptop", "controller": "a" * 64, "pid": 7, "began": "100"}
TWO = {"who": "ben@ci", "controller": "b" * 64, "pid": 9, "began": "5"}


def options(run: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"state": "taken", "take_over": False, "run": run, "ended": None, **changes}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "neuronops" / "run.json")


def test_a_second_run_is_told_who_holds_the_host(file: str) -> None:
    assert host_lock.change(options(ONE), file, now=1000) is None
    assert host_lock.change(options(TWO), file, now=1060) == {**ONE, "seconds": 60}
    # It holds the host still, and knows its own lock again.
    assert host_lock.change(options(ONE), file, now=1070) is None
    assert host_lock.change(options(TWO), file, now=1071) == {**ONE, "seconds": 1}


def test_a_released_host_is_free_and_only_its_holder_releases_it(file: str) -> None:
    host_lock.change(options(ONE), file, now=1000)
    host_lock.change(options(TWO, state="released"), file, now=1000)
    assert host_lock.change(options(TWO), file, now=1000)
    host_lock.change(options(ONE, state="released"), file, now=1000)
    assert host_lock.change(options(TWO), file, now=1000) is None


def test_a_run_that_has_ended_holds_nothing(file: str) -> None:
    host_lock.change(options(ONE), file, now=1000)
    assert host_lock.change(options(TWO, ended=ONE), file, now=1000) is None


def test_a_run_is_taken_over_on_request_or_when_nothing_was_heard_of_it(file: str) -> None:
    host_lock.change(options(ONE), file, now=1000)
    assert host_lock.change(options(TWO), file, now=1000 + host_lock.LAPSES)
    assert host_lock.change(options(TWO), file, now=1001 + host_lock.LAPSES) is None
    assert host_lock.change(options(ONE, take_over=True), file, now=2000 + host_lock.LAPSES) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"run": {"who": 1}, "seen": 5}', '{"run": null, "seen": 5}'])
def test_a_damaged_lock_holds_nothing(file: str, content: str) -> None:
    Path(file).parent.mkdir()
    Path(file).write_text(content)
    assert host_lock.change(options(ONE), file, now=5) is None
    assert json.loads(Path(file).read_text())["run"] == ONE


def test_a_check_run_writes_nothing(file: str) -> None:
    assert host_lock.change(options(ONE), file, check_mode=True) is None
    assert not Path(file).parent.exists()


def test_the_action_knows_a_process_of_this_machine_that_has_ended() -> None:
    me = {"who": "me", "controller": action.controller(), "pid": os.getpid(), "began": action.began(os.getpid())}
    assert not action.has_ended(me)
    assert action.has_ended({**me, "began": "1"})  # another process has its number now
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert action.has_ended({**me, "pid": ended.pid})
    assert not action.has_ended({**me, "pid": ended.pid, "controller": "c" * 64})
