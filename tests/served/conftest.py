# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases between the five main stacks are served with --all alone: `make test-all`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="serve the releases between the main ones too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "between: a release between the main ones")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all"):
        left_out = [item for item in items if item.get_closest_marker("between")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
