# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's transformers-neuronx: the same interface, computed by transformers on the CPU."""

from transformers_neuronx.version import __version__

__all__ = ["__version__"]
