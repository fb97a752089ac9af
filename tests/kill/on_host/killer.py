# SPDX-License-Identifier: GPL-3.0-or-later
"""End by SIGKILL all that Ansible runs on this host: `killer.py SECONDS`, so long after the first of it is seen.

It says that it watches, and then how many processes it ended. It watches as long as the file WHILE is there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

WHILE = Path("/run/neuronops-killer")
PAUSE = 0.005


def processes() -> dict[int, tuple[int, str]]:
    """Return {process: (its parent, its name)}."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            text = (folder / "stat").read_text(errors="replace")
            name, rest = text.partition("(")[2].rpartition(")")[0], text.rpartition(")")[2].split()
            if rest[0] != "Z":
                found[int(folder.name)] = int(rest[1]), name
    return found


def of_ansible(found: dict[int, tuple[int, str]]) -> list[int]:
    """Return what runs below a session of sshd, and is none itself."""
    result = []
    for process, (parent, name) in found.items():
        while parent in found and found[parent][1] != "sshd":
            parent = found[parent][0]
        if parent in found and name != "sshd":
            result.append(process)
    return result


def main() -> None:
    delay, seen = float(sys.argv[1]), 0.0
    print("watching", flush=True)
    while WHILE.exists():
        running = of_ansible(processes())
        if running and not seen:
            seen = time.monotonic()
        if running and time.monotonic() - seen >= delay:
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            print(len(running), flush=True)
            return
        time.sleep(PAUSE)
    print(0, flush=True)


main()
