# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between the releases of the light stand-in; the sandbox fills it in."""

VERSION = "@VERSION@"
STARTS = "@STARTS@" == "yes"
