# SPDX-License-Identifier: GPL-3.0-or-later
"""Which stacks are served: the main ones; with --all those between too; with --stack or --backend those alone."""

from __future__ import annotations

import pytest

from plugins.plugin_utils import stacks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="serve the releases between the main ones too")
    parser.addoption("--backend", help="serve the stacks of this backend alone")
    parser.addoption("--stack", action="append", default=[], help="serve this one; may be given several times")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "between: a release between the main ones")
    config.addinivalue_line("markers", "named: a stack that is served where it is named alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named, backend = config.getoption("--stack"), config.getoption("--backend")
    entries = stacks.load()["stacks"]

    def wanted(item: pytest.Item) -> bool:
        name = item.callspec.params["name"]  # type: ignore[attr-defined]  # of a test with parameters
        if named or backend:
            return name in named or entries[name]["backend"] == backend
        return not item.get_closest_marker("named") and (
            config.getoption("--all") or not item.get_closest_marker("between")
        )

    left_out = [item for item in items if not wanted(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    if (named or backend) and not items:
        raise pytest.UsageError(f"no stack that can be served is named so: {', '.join([*named, backend or ''])}")
