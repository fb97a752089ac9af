# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations of the hardware, as torch_neuronx.utils.get_platform_target() names them."""

import enum


class hardware(enum.Enum):  # noqa: N801 - AWS's name
    INF2 = "inf2"
    TRN1 = "trn1"
    TRN2 = "trn2"
