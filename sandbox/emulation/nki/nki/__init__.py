# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's nki, the Neuron Kernel Interface: it has a version."""

__version__ = "@VERSION@"
