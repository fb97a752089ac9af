# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of versions, in which every part of the collection puts them."""

from __future__ import annotations

import pytest
from ansible_collections.neuronops.vllm.plugins.module_utils import versions
from ansible_collections.neuronops.vllm.plugins.plugin_utils import driver, stacks


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("0.9.2", "0.10.0"),
        ("0.4.0", "0.4.0.post1"),
        ("2.9", "2.19.64.0"),
        ("6.8.0-1021-aws", "6.8.0-1024-aws"),
        ("5.10.230-223.885.amzn2.x86_64", "6.1.115-126.197.amzn2023.x86_64"),
        ("", "0"),
    ],
)
def test_numbers_are_compared_as_numbers(lower: str, higher: str) -> None:
    assert versions.numbers(lower) < versions.numbers(higher)


def test_everybody_compares_with_the_same_numbers() -> None:
    assert versions.numbers("2.19.64.0-1a2b") == (2, 19, 64, 0, 1, 2)
    assert driver.version_key("2.19.64.0-1a2b") == (2, 19, 64, 0), "the hash of a build is no part of the order"
    assert driver.kernel_key("6.8.0-1021-aws") == (6, 8, 0), "the bounds of a driver are those of upstream's kernels"
    assert stacks.release("0.4.0.post1") == (0, 4, 0, 1)
