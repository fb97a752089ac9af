# SPDX-License-Identifier: GPL-3.0-or-later
"""The Neuron backend of the light stand-in: the packages that the real one needs have to be there."""

import libneuronxla  # noqa: F401 - that it is there is the point
import neuronxcc  # noqa: F401 - as above
import torch
import torch_neuronx
import transformers_neuronx


def versions():
    """Return what the environment serves with."""
    return {module.__name__: module.__version__ for module in (torch, torch_neuronx, transformers_neuronx)}
