# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make on the controller, once for all hosts, what each of them would make for itself: locks and wheels.

Who needs it looks whether it is kept. Where it is not, one takes the turn at it, looks again, makes it and keeps it,
while all others wait and then find it; where it could not be made, those who waited for it hear why.

The turn is a file beside what is kept, so that every run on this machine sees it, and is removed with the turn. What
the hosts of one run tell each other lies in the run's own temporary folder, and ends with it.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from ansible import constants
from ansible.errors import AnsibleError
from ansible.utils.display import Display
from ansible_collections.neuronops.vllm.plugins.module_utils import files, turns

LIMIT = 4 * 3600  # seconds; a build takes up to an hour, and may wait as long for another one on the same host
SAY = 60  # seconds
LARGEST = 1 << 20  # bytes

Kept = TypeVar("Kept")


class NotMadeError(Exception):
    """What was to be made for all hosts could not be; the message is for all who waited for it."""


class UnreachableError(Exception):
    """The host that was to make it cannot be reached; the next one tries."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer.get("msg"))
        self.answer = answer


def once(
    place: Path,
    look: Callable[[], Kept | None],
    make: Callable[[], Kept],
    prepare: Callable[[], None] | None = None,
    anew: bool = False,
) -> tuple[Kept, bool]:
    """Return what is kept in a place, and whether it was made now.

    look     returns what is kept there, or None
    make     makes and keeps it; raises NotMadeError with what all should hear, and anything else for this host alone
    prepare  is called before the turn is taken to make it, and raises what speaks against that
    anew     whether the first host of a run makes it also where it is kept
    """
    before = _notes(place)
    found = None if anew and not before["made"] else look()
    if found is not None:
        return found, False
    if prepare:
        prepare()
    with turn(place):
        notes = _notes(place)
        found = None if anew and not notes["made"] else look()
        if found is not None:
            return found, False
        if notes["failures"] > before["failures"]:
            # Another host tried while this one waited: no need to hear the same from each host in turn.
            raise NotMadeError(notes["msg"])
        try:
            made = make()
        except NotMadeError as error:
            _note(place, {**notes, "failures": notes["failures"] + 1, "msg": str(error)})
            raise
        _note(place, {**notes, "made": True})
        return made, True


def check_writable(folder: Path) -> None:
    """Make the folder if it is missing; raises OSError unless a file can be written into it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def check_can_be_made(folder: Path) -> None:
    """Raise OSError where the folder could not be made or written into, as far as that is seen without doing it."""
    there = folder
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OSError(f"{there} cannot be written to")


@contextmanager
def turn(place: Path) -> Iterator[None]:
    """Wait until no other process works at this place, and keep others from it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f".{place.name}.turn")
    try:
        opened, _before = turns.take(file, LIMIT, person(), 0o644, _Waiting(file).say)
    except turns.BusyError as error:
        raise AnsibleError(
            f"Another run of Ansible ({error.holder}) has been at work for {LIMIT // 3600} hours and holds {file}. "
            "End it if it hangs, and run again. Nothing was changed."
        ) from error
    except OSError as error:
        raise AnsibleError(
            f"The turn at {place.name} cannot be taken: {error}. {place.parent} and {file.name} in it must be writable "
            "for who runs Ansible. Nothing was changed."
        ) from error
    try:
        yield
    finally:
        turns.leave(opened, file)
        # A run that was killed has left its own; who holds one keeps it.
        for other in place.parent.glob(".*.turn"):
            turns.remove_unused(other)


def person() -> str:
    """Return who runs this, in words for who waits on this machine or on a host: USER on MACHINE."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # In a container there may be no name for the number.
        user = f"user {os.getuid()}"
    said = f"{user} on {socket.gethostname()}"
    return "".join(character if character.isprintable() else "?" for character in said)[:200]


class _Waiting:
    """Says now and then what is waited for."""

    def __init__(self, file: Path) -> None:
        self.file, self.said = file, 0.0

    def say(self, waited: float, holder: str) -> None:
        if waited - self.said > SAY:
            self.said = waited
            Display().display(
                f"Waiting for {waited:.0f} s for what another host or run does first ({self.file}, {holder})"
            )


def _notes_file(place: Path) -> Path:
    """Return where the hosts of one run tell each other about a place: in the run's own temporary folder."""
    name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()[:16]
    return Path(constants.DEFAULT_LOCAL_TMP) / f"neuronops-{name}.json"


def _notes(place: Path) -> dict[str, Any]:
    """Return what the hosts before noted: made (bool), failures (int) and msg (str), the last one's."""
    try:
        with _notes_file(place).open("rb") as file:
            notes = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        notes = {}
    if not isinstance(notes, dict):
        notes = {}
    failures = notes.get("failures")
    return {
        "made": notes.get("made") is True,
        "failures": failures if isinstance(failures, int) else 0,
        "msg": str(notes.get("msg", "")),
    }


def _note(place: Path, notes: dict[str, Any]) -> None:
    # They save work and decide on nothing: a full disk must not fail what has succeeded.
    with suppress(OSError):
        files.write_at_once(_notes_file(place), json.dumps(notes), 0o600)
