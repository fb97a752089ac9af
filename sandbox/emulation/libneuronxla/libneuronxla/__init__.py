# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's libneuronxla."""

__version__ = "@VERSION@"
