# SPDX-License-Identifier: GPL-3.0-or-later
"""An account of AWS in this process, by moto."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from moto import mock_aws


@contextmanager
def moto_account() -> Iterator[None]:
    """Have boto3 reach moto with keys of no meaning, whatever the shell has set."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "MOTO_AMIS_PATH"):
            patch.delenv(name, raising=False)
        # To read moto's own list of images takes seconds.
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        with mock_aws():
            yield
