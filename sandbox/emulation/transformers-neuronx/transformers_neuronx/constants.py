# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of tensor layouts: batch, sequence, hidden. The emulation computes the same with each."""

LAYOUT_BSH = "BSH"
LAYOUT_HSB = "HSB"
LAYOUT_SBH = "SBH"
