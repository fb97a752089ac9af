# SPDX-License-Identifier: GPL-3.0-or-later
"""The best few of all ranks."""

from typing import Any

import torch

from neuronx_distributed.parallel_layers.mappings import _gather_along_dim


def topk(
    tensor: Any, k: int, dim: int, gather_dim: int, process_group: Any = None, stages: int = 1, rank_id: Any = None
) -> Any:
    """Values and places among those of all ranks; a device does it in `stages`, with the same result."""
    return torch.topk(_gather_along_dim(tensor, gather_dim, process_group), k, dim=dim)
