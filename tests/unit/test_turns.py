# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns on the controller: what one host leaves for the next, and what a full disk or another run leaves."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible_collections.neuronops.vllm.plugins.plugin_utils import turns


def test_what_one_leaves_is_the_next_ones(tmp_path: Path) -> None:
    for number in range(3):
        with turns.turn(tmp_path / "turn") as notes:
            assert notes.get("number", 0) == number
            notes["number"] = number + 1


@pytest.mark.parametrize("content", [b'{"a"', b"[1]", b"\xff\xfe", b"\0" * 40, b"[" * 100000, b'{"a": {"b": 1}}'])
def test_what_is_cut_off_or_of_another_kind_counts_as_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "turn").write_bytes(content)
    with turns.turn(tmp_path / "turn") as notes:
        assert notes == {}
        notes["whole"] = "again"
    with turns.turn(tmp_path / "turn") as notes:
        assert notes == {"whole": "again"}


def test_a_turn_that_never_comes_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LIMIT", 0)
    with (tmp_path / "turn").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AnsibleError, match=r"holds .*turn"), turns.turn(tmp_path / "turn"):
            pass
