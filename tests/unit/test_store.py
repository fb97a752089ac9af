# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made once for all: who makes it, who waits, who hears why it could not be made, and what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.neuronops.vllm.plugins.module_utils import turns
from ansible_collections.neuronops.vllm.plugins.plugin_utils import store

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of one run of Ansible."""
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(store.constants, "DEFAULT_LOCAL_TMP", str(folder))
    return folder


class Thing:
    """A file that is made once, and how often that was tried."""

    def __init__(self, place: Path, fails: Exception | None = None, seconds: float = 0.3) -> None:
        self.place, self.fails, self.seconds, self.tried = place, fails, seconds, 0

    def look(self) -> str | None:
        return self.place.read_text() if self.place.exists() else None

    def make(self) -> str:
        self.tried += 1
        time.sleep(self.seconds)
        if self.fails:
            raise self.fails
        self.place.write_text(f"made {self.tried}")
        return f"made {self.tried}"

    def once(self, **options: Any) -> tuple[str, bool]:
        made: tuple[str, bool] = store.once(self.place, self.look, self.make, **options)
        return made

    def at_once(self, count: int = 4, **options: Any) -> list[Any]:
        """Ask for it as many hosts at a time; returns what each got or heard."""
        answers: list[Any] = []

        def ask() -> None:
            try:
                answers.append(self.once(**options))
            except (store.NotMadeError, store.UnreachableError) as error:
                answers.append(error)

        threads = [threading.Thread(target=ask) for _number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store" / "thing"


def test_one_makes_it_and_all_have_it(place: Path) -> None:
    thing = Thing(place)
    assert sorted(thing.at_once()) == [("made 1", False)] * 3 + [("made 1", True)]
    assert thing.tried == 1


def test_what_is_kept_needs_no_turn_and_no_right_to_write(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Thing(place).at_once(1)
    monkeypatch.setattr(store, "turn", None)
    assert Thing(place).once(prepare=lambda: pytest.fail("nothing is to be made")) == ("made 1", False)


def test_those_who_waited_hear_why_it_could_not_be_made_and_the_next_tries(place: Path) -> None:
    thing = Thing(place, store.NotMadeError("no room"))
    assert [str(answer) for answer in thing.at_once()] == ["no room"] * 4
    assert thing.tried == 1
    thing.fails = None
    assert thing.once() == ("made 2", True)


def test_the_next_tries_where_a_host_was_not_reached(place: Path) -> None:
    thing = Thing(place, store.UnreachableError({"msg": "no route"}), seconds=0)
    assert [type(answer) for answer in thing.at_once()] == [store.UnreachableError] * 4
    assert thing.tried == 4


def test_what_is_made_anew_is_made_once_in_a_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thing = Thing(place)
    thing.once()
    assert thing.once(anew=True) == ("made 1", False), "it was made in this run"
    (tmp_path / "another run").mkdir()
    monkeypatch.setattr(store.constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "another run"))
    assert sorted(thing.at_once(anew=True)) == [("made 2", False)] * 3 + [("made 2", True)]


def test_what_speaks_against_it_is_said_before_the_turn(place: Path) -> None:
    def refuse() -> None:
        raise store.NotMadeError("no room")

    with pytest.raises(store.NotMadeError, match="no room"):
        Thing(place).once(prepare=refuse)
    assert not place.parent.exists()


@pytest.mark.parametrize("fails", [None, store.NotMadeError("no room"), ValueError("x"), KeyboardInterrupt()])
def test_nothing_of_the_turn_is_left_in_the_store(place: Path, fails: Any) -> None:
    place.parent.mkdir()
    (place.parent / ".another.turn").touch()  # as a killed run leaves it, or an older release
    other, _nobody = turns.take(place.parent / ".third.turn", 0)
    try:
        Thing(place, fails, seconds=0).once()
    except (store.NotMadeError, ValueError, KeyboardInterrupt):
        assert fails is not None
    assert [path.name for path in place.parent.iterdir() if path != place] == [".third.turn"], "which is at work"
    turns.leave(other, place.parent / ".third.turn")


@pytest.mark.parametrize("content", [b'{"a"', b"[1]", b"\xff\xfe", b"\0" * 40, b"[" * 100000, b'{"failures": "x"}'])
def test_what_is_cut_off_or_of_another_kind_counts_as_nothing(place: Path, run_folder: Path, content: bytes) -> None:
    thing = Thing(place, store.NotMadeError("no room"), seconds=0)
    with pytest.raises(store.NotMadeError):
        thing.once()
    (notes,) = run_folder.iterdir()
    assert json.loads(notes.read_text()) == {"made": False, "failures": 1, "msg": "no room"}
    notes.write_bytes(content)
    thing.fails = None
    assert thing.once() == ("made 2", True)
    assert json.loads(notes.read_text())["made"] is True


def test_a_full_disk_of_the_notes_fails_nothing(place: Path, run_folder: Path) -> None:
    run_folder.rmdir()
    assert Thing(place).once() == ("made 1", True)


def test_a_turn_that_never_comes_is_a_sentence_that_names_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.parent.mkdir()
    held, _nobody = turns.take(place.parent / ".thing.turn", 0, "alice on laptop")
    monkeypatch.setattr(store, "LIMIT", 0)
    with pytest.raises(AnsibleError, match=rf"process {os.getpid()}, .*by alice on laptop.* holds .*thing\.turn"):
        Thing(place).once()
    held.close()


def test_a_store_that_cannot_be_written_to_is_a_sentence(place: Path) -> None:
    place.parent.mkdir()
    (place.parent / ".thing.turn").symlink_to("elsewhere")
    with pytest.raises(AnsibleError, match=r"The turn at thing cannot be taken: .*must be writable"):
        Thing(place).once()
    with pytest.raises(OSError, match="cannot be written to"):
        store.check_can_be_made(Path("/proc/version/store"))
    with pytest.raises(OSError, match="/proc/version"):
        store.check_writable(Path("/proc/version/store"))
    store.check_can_be_made(place.parent / "below" / "it")
    assert not (place.parent / "below").exists()


def test_two_runs_on_one_machine_make_it_once(place: Path, tmp_path: Path) -> None:
    code = """
import pathlib, sys, time
from ansible import constants
from ansible_collections.neuronops.vllm.plugins.plugin_utils import store
place, run = map(pathlib.Path, sys.argv[1:])
run.mkdir()
constants.DEFAULT_LOCAL_TMP = str(run)
def make():
    time.sleep(1)
    place.write_text(run.name)
    return run.name
print("ready", flush=True)
sys.stdin.readline()
print(*store.once(place, lambda: place.read_text() if place.exists() else None, make))
"""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".build" / "collections")}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(place), str(tmp_path / name)],
            env=environment,
            stdin=-1,
            stdout=-1,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(made for _who, made in said) == ["False", "True"]
    assert {who for who, _made in said} == {place.read_text()}
    assert [path.name for path in place.parent.iterdir()] == ["thing"]


def test_a_person_is_a_line_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found: 1000")

    monkeypatch.setattr(store.getpass, "getuser", nobody)
    monkeypatch.setattr(store.socket, "gethostname", lambda: "laptop\x1b\n" + "x" * 300)
    assert store.person().startswith(f"user {os.getuid()} on laptop??xx") and len(store.person()) == 200
