# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers that are divided among the ranks, and the ranks. The layers need torch, and come when they are imported."""

from neuronx_distributed.parallel_layers import pad, parallel_state, random, utils
from neuronx_distributed.parallel_layers.parallel_state import initialize_model_parallel

__all__ = ["initialize_model_parallel", "pad", "parallel_state", "random", "utils"]
