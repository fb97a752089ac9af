# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that asks a server twice a second, and counts what it lost."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

PERIOD = 0.5
TIMEOUT = 5.0


class Asked(NamedTuple):
    """When a request was sent and when it ended, and whether the server answered it."""

    sent: float
    ended: float
    answered: bool


def lost(requests: list[Asked]) -> int:
    """How many requests got no answer."""
    return sum(not request.answered for request in requests)


def longest_gap(requests: list[Asked]) -> float:
    """The longest time in which no request that was answered was sent, in seconds."""
    answered = sorted(request.sent for request in requests if request.answered)
    ends = [min(request.sent for request in requests), max(request.sent for request in requests)] if requests else []
    times = sorted([*answered, *ends])
    return max((after - before for before, after in zip(times, times[1:], strict=False)), default=0.0)


def outages(requests: list[Asked]) -> list[tuple[float, float]]:
    """From when to when a server was away: from a request that got no answer to the next one that did."""
    found: list[tuple[float, float]] = []
    since: float | None = None
    for request in sorted(requests):
        if not request.answered:
            since = request.sent if since is None else since
        elif since is not None:
            found.append((since, request.sent))
            since = None
    return [*found, (since, float("inf"))] if since is not None else found


def most_away_at_once(servers: list[list[Asked]]) -> int:
    """How many servers were away at the same moment, at most."""
    spans = [span for requests in servers for span in outages(requests)]
    return max((sum(begin <= moment < end for begin, end in spans) for moment, _ in spans), default=0)


@dataclass
class Client:
    """Asks from the beginning of the block to its end."""

    address: str
    port: int
    key: str
    model: str
    requests: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Client:
        self._end = threading.Event()
        self._asking: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._clock.join()
        for thread in self._asking:
            thread.join()

    def _tick(self) -> None:
        # One that waits keeps none waiting: a server that hangs loses one after the other, as for many clients.
        while not self._end.wait(PERIOD):
            thread = threading.Thread(target=self._ask, daemon=True)
            thread.start()
            self._asking.append(thread)

    def _ask(self) -> None:
        sent = time.monotonic()
        answered = self.answers()
        self.requests.append(Asked(sent, time.monotonic(), answered))

    def answers(self) -> bool:
        """Whether the server gives an answer to one request."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=TIMEOUT)
        try:
            headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
            body = json.dumps({"model": self.model, "prompt": "Hello", "max_tokens": 1})
            connection.request("POST", "/v1/completions", body, headers)
            answer = connection.getresponse()
            return answer.status == 200 and b'"choices"' in answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
