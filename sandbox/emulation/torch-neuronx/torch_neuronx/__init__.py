# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for AWS's torch-neuronx: it needs torch, and has a version and what optimum-neuron uses."""

import torch

__version__ = "@VERSION@"


class DataParallel(torch.nn.Module):
    """For models that were traced with torch_neuronx.trace(), which the stand-in has not."""
