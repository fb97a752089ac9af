# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let one host do on the controller what all others wait for."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def turn(file: Path) -> Iterator[dict[str, Any]]:
    """Wait until no other process has its turn at this file; what is put into the dictionary is the next one's."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        opened.seek(0)
        notes = json.loads(opened.read() or "{}")
        yield notes
        opened.seek(0)
        opened.truncate()
        json.dump(notes, opened)
