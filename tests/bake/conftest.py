# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the light stack behind the stand-in for EC2."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox import lifecycle
from sandbox.settings import Settings
from tests.bake.account import Account


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONOPS_SANDBOX_NAME", "neuronops-bake")
        patch.setenv("NEURONOPS_SANDBOX_SUBNET", "10.250.0.0/24")
        settings = Settings.from_environment()
        try:
            lifecycle.up(settings)
            yield Account(settings, tmp_path_factory.mktemp("fleet"))
        finally:
            lifecycle.down(settings)
