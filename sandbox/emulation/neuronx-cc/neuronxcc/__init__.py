# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's compiler: it has a version and compiles nothing."""

from neuronxcc.version import __version__

__all__ = ["__version__"]
