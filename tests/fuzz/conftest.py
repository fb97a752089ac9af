# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign input for every reader of foreign text: how much of it, and how much was tried.

A test draws inputs with hypothesis and calls `tried("reader")` once for each. NEURONOPS_FUZZ is the number of inputs
that a test draws, 200 when not set; `make test-all` draws more. The seed of the day is printed; NEURONOPS_SEED sets it.
"""

from __future__ import annotations

import collections
import datetime
import os
from collections.abc import Callable

import hypothesis
import pytest

INPUTS = int(os.environ.get("NEURONOPS_FUZZ") or 200)
SEED = int(os.environ.get("NEURONOPS_SEED") or datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d"))
COUNTED: collections.Counter[str] = collections.Counter()

hypothesis.settings.register_profile(
    "foreign",
    max_examples=INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("foreign")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        function = getattr(item, "function", None)
        if function is not None and hypothesis.is_hypothesis_test(function):
            hypothesis.seed(SEED)(function)


@pytest.fixture(scope="session")
def tried() -> Callable[[str], None]:
    """Count one input that a reader was given."""

    def count(reader: str) -> None:
        COUNTED[reader] += 1

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reader, inputs in sorted(COUNTED.items()):
        terminalreporter.write_line(f"{inputs:8} foreign inputs: {reader}")
    terminalreporter.write_line(f"{sum(COUNTED.values())} foreign inputs tried, seed {SEED}")
