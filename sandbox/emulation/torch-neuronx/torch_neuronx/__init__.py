# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's torch-neuronx: it needs torch and has a version."""

import torch  # noqa: F401 - as AWS's does

__version__ = "@VERSION@"
