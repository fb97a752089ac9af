# SPDX-License-Identifier: GPL-3.0-or-later
"""The variable with options for the layout of weights, which the stand-in does not change."""

NXD_LAYOUT_TRANSFORMATION_OPTIONS = "NXD_LAYOUT_TRANSFORMATION_OPTIONS"
