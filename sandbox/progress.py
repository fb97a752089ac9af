# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person sees of a job that takes minutes: its phases, what it is doing, how long each phase took."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

# A step is shown when it has taken this long, and again after each such time.
SHOWN_AFTER_SECONDS = 3
HEARTBEAT_SECONDS = 15


class Progress:
    """Prints the phases, the steps that take a while, and how long each phase took."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.phases: list[tuple[str, float]] = []
        self._doing = ""
        self._show_at = self.start
        self._ended = threading.Event()
        threading.Thread(target=self._heartbeat, daemon=True).start()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def step(self, text: str) -> None:
        self._doing, self._show_at = text, time.monotonic() + SHOWN_AFTER_SECONDS

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        self.say(f"\n== {name}")
        self.step(name)
        yield
        self._doing = ""
        self.phases.append((name, time.monotonic() - begin))

    def table(self) -> str:
        rows = [*self.phases, ("total", time.monotonic() - self.start)]
        return "\n".join(f"  {name:44} {seconds:7.1f} s" for name, seconds in rows)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        return f"{minutes}:{seconds:02d}"

    def _heartbeat(self) -> None:
        while not self._ended.wait(1):
            if self._doing and time.monotonic() >= self._show_at:
                self._show_at = time.monotonic() + HEARTBEAT_SECONDS
                self.say(f"  {self._clock()}  {self._doing} ...")
