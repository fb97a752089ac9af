# SPDX-License-Identifier: GPL-3.0-or-later
"""The runner of the proof counts what the parts really did."""

from __future__ import annotations

import pytest

from tests.run import NOT_RUN, Part, count

PART = Part("some", "true")
FAILED = "FAILED tests/x.py::y\n==== 2 failed, 3 passed, 1 skipped in 1.23s ====\n"


@pytest.mark.parametrize(
    ("log", "exit_status", "counted"),
    [
        ("", 0, (1, 0)),  # a part without pytest is one test
        ("", 1, (0, 1)),
        ("12 passed in 0.11s\n", 0, (12, 0)),
        ("===== 12 passed, 1 warning in 61.02s (0:01:01) =====\n", 0, (12, 0)),
        (FAILED, 1, (3, 2)),
        ("5 passed in 1.00s\n7 passed in 1.00s\n", 0, (12, 0)),  # molecule runs pytest for each verify
        ("5 passed in 1.00s\nfatal: [host]: FAILED!\n", 2, (5, 1)),  # what follows the tests can fail as well
        ("  \x1b[2m│\x1b[0m ============= 4 passed in 28.03s ==============\n", 0, (4, 0)),
        ("1 error in 0.10s\n", 2, (0, 1)),
        ("There is no Python 3.13 here.\n", NOT_RUN, (0, 0)),
    ],
)
def test_count(log: str, exit_status: int, counted: tuple[int, int]) -> None:
    assert count(PART, log, exit_status) == counted
