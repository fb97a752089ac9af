# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program is compiled for."""

import os
from pathlib import Path

_PRODUCT = Path("/sys/devices/virtual/dmi/id/product_name")


def get_platform_target() -> str:
    """NEURON_PLATFORM_TARGET_OVERRIDE, or the family of the instance this runs on."""
    override = os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE")
    return override or _PRODUCT.read_text(encoding="ascii").strip().partition(".")[0].replace("trn1n", "trn1")
