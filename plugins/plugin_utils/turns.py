# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let one host do on the controller what all others wait for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

LIMIT = 4 * 3600  # seconds; a build takes up to an hour
SAY = 60  # seconds
LARGEST = 1 << 20  # bytes


@contextmanager
def turn(file: Path) -> Iterator[dict[str, Any]]:
    """Wait until no other process has its turn at this file; what is put into the dictionary is the next one's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as opened:
        wait(file, opened)
        opened.seek(0)
        notes = understood(opened.read(LARGEST))
        yield notes
        # They save work and decide on nothing: a full disk must not fail what has succeeded.
        with contextlib.suppress(OSError):
            opened.truncate(0)
            opened.write(json.dumps(notes).encode())
            opened.flush()


def wait(file: Path, opened: IO[bytes]) -> None:
    """Wait for the turn, and say now and then what for."""
    started, said = time.monotonic(), 0.0
    while True:
        try:
            return fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - started
        if waited > LIMIT:
            raise AnsibleError(
                f"Another run of Ansible on this machine has been at work for {LIMIT // 3600} hours and holds {file}. "
                "End it if it hangs (`fuser` names its process), and run again."
            )
        if waited - said > SAY:
            said = waited
            Display().display(f"Waiting for {waited:.0f} s for what another host or run does first ({file})")
        time.sleep(0.2)


def understood(content: bytes) -> dict[str, Any]:
    """Return the notes in a file; none where it was cut off by a full disk or holds something else."""
    try:
        notes = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(notes, dict):
        return {}
    return {name: value for name, value in notes.items() if isinstance(value, (str, int, float))}
