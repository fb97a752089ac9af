# SPDX-License-Identifier: GPL-3.0-or-later
"""One process after the other, each of which can be named: with real processes, as a lock ends with its process."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import turns

CHECKOUT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from ansible_collections.neuronops.vllm.plugins.module_utils import turns
file, before = turns.take(sys.argv[1], 60, "alice on laptop")
print("has it", flush=True)
sys.stdin.readline()
turns.leave(file, sys.argv[1]) if sys.argv[2] == "leave" else file.close()
"""


@contextmanager
def another(path: Path, how: str = "close") -> Iterator[subprocess.Popen[str]]:
    """Another process that has its turn until it reads a line."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(CHECKOUT / ".build" / "collections"),
        "SSH_CONNECTION": "192.0.2.7 1",
    }
    command = [sys.executable, "-c", HOLD, str(path), how]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline() == "has it\n"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go on\n")
    process.stdin.flush()


def test_who_waits_too_long_hears_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "turn"
    with another(path) as process:
        with pytest.raises(turns.BusyError) as error:
            turns.take(path, 0.3)
        assert error.value.holder.startswith(f"process {process.pid}, since 2")
        assert error.value.holder.endswith(", started from 192.0.2.7 by alice on laptop")
        assert str(path) in str(error.value)


@pytest.mark.parametrize("how", ["close", "leave"])
def test_who_waits_gets_it_and_hears_whom_it_waited_for(tmp_path: Path, how: str) -> None:
    path = tmp_path / "turn"
    heard: list[str] = []
    with another(path, how) as process:
        threading.Timer(1.6, tell, [process]).start()
        file, before = turns.take(path, 30, waiting=lambda _waited, holder: heard.append(holder))
        assert f"process {process.pid}" in before and heard == [before], "once a second, and no more often"
        assert f"process {os.getpid()}" in turns.holder(file)
        with pytest.raises(turns.BusyError):
            turns.take(path, 0)
        turns.leave(file, path)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "turn"
    with another(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        file, _before = turns.take(path, 5)
        file.close()


def test_a_turn_at_a_file_that_was_removed_is_none(tmp_path: Path) -> None:
    """Who waited for the file that its holder removed, and who comes later, must not both have their turn."""
    path = tmp_path / "turn"
    first, _nobody = turns.take(path, 0)
    old = turns.open_file(path)
    turns.leave(first, path)
    assert turns.attempt(old), "the lock of the old file is free"
    second, _nobody = turns.take(path, 0)
    assert os.fstat(second.fileno()).st_ino != os.fstat(old.fileno()).st_ino
    turns.leave(old, path)
    assert path.exists(), "what is another's turn is not removed"
    turns.leave(second, path)
    assert not path.exists()


def test_many_processes_are_never_at_work_together(tmp_path: Path) -> None:
    code = """
import pathlib, sys
from ansible_collections.neuronops.vllm.plugins.module_utils import turns
folder = pathlib.Path(sys.argv[1])
turns.PAUSE = 0.001
for _time in range(40):
    file, _before = turns.take(folder / "turn", 60)
    number = int((folder / "number").read_text())
    (folder / "number").write_text(str(number + 1))
    turns.leave(file, folder / "turn")
"""
    (tmp_path / "number").write_text("0")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".build" / "collections")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, env=environment) for _number in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "160"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_what_a_killed_one_left_goes_and_what_is_held_stays(tmp_path: Path) -> None:
    (tmp_path / "left").touch()
    held, _nobody = turns.take(tmp_path / "held", 0)
    for name in ("left", "held", "none"):
        turns.remove_unused(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["held"]
    held.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"pid": 1',
        b"[1]",
        b"\xff\xfe",
        b"\0" * 40,
        b"[" * 5000,
        b'{"pid": "1", "since": "x"}',
        b'{"pid": 1, "since": "x\\u001b[2J"}',
        b'{"pid": 1, "since": "x", "by": ["y"]}',
    ],
)
def test_what_another_says_of_itself_is_looked_at(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "turn").write_bytes(content)
    with (tmp_path / "turn").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(turns.BusyError, match="a process that has not said yet who it is"):
            turns.take(tmp_path / "turn", 0)


def test_a_long_word_before_does_not_stay_behind_a_short_one(tmp_path: Path) -> None:
    (tmp_path / "turn").write_text("x" * 3000)
    file, _nobody = turns.take(tmp_path / "turn", 0, by="bob on desk")
    assert json.loads((tmp_path / "turn").read_text())["by"] == "bob on desk"
    assert "by bob on desk" in turns.holder(file)
    file.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("kept")
    (tmp_path / "turn").symlink_to("theirs")
    with pytest.raises(OSError, match="symbolic links"):
        turns.take(tmp_path / "turn", 0)
    assert (tmp_path / "theirs").read_text() == "kept"


def test_a_program_that_the_holder_started_does_not_hold_it_too(tmp_path: Path) -> None:
    file, _nobody = turns.take(tmp_path / "turn", 0)
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        file.close()
        start = time.monotonic()
        turns.take(tmp_path / "turn", 5)[0].close()
        assert time.monotonic() - start < 1
        child.kill()
