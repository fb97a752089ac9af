# SPDX-License-Identifier: GPL-3.0-or-later
"""The version, written in by whoever makes the wheel."""

__version__ = "@VERSION@"
