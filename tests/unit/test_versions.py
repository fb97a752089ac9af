# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/versions.md says what the data says."""

from __future__ import annotations

import pytest

from docs import versions
from plugins.plugin_utils import stacks


def test_the_document_is_up_to_date() -> None:
    assert versions.TARGET.read_text() == versions.text(), "run `make docs`"


def test_every_entry_and_every_refusal_is_in_it() -> None:
    text = versions.text()
    for name, entry in stacks.load()["stacks"].items():
        assert f"| `{name}`" in text
        assert entry["sdk"] in text
    for refusal in stacks.load()["refused"]:
        assert refusal["reason"] in text


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ("vllm-0.9.2", "Ubuntu 22.04, Debian 11, Debian 12"),
        ("vllm-0.3.3", "Ubuntu 20.04, Ubuntu 22.04 (with a kernel older than 6.3), Debian 11"),
    ],
)
def test_systems_are_told_by_python_and_kernel(stack: str, expected: str) -> None:
    assert versions.systems(stacks.resolve(stack)) == expected
