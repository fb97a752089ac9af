# SPDX-License-Identifier: GPL-3.0-or-later
"""What ranks tell each other."""

from typing import Any

import torch

from neuronx_distributed.importable import refused
from neuronx_distributed.parallel_layers import parallel_state

gather_from_sequence_parallel_region = refused("gather_from_sequence_parallel_region")
scatter_to_sequence_parallel_region = refused("scatter_to_sequence_parallel_region")


def _gather_along_dim(tensor: Any, partition_dim: int, process_group: Any = None) -> Any:
    """The parts of all ranks, one after another."""
    group = process_group or parallel_state.get_tensor_model_parallel_group()
    return torch.cat(group.gather(tensor), dim=partition_dim)


def reduce_from_tensor_model_parallel_region(tensor: Any, process_group: Any = None) -> Any:
    """The sum over all ranks, added in the same order on each."""
    group = process_group or parallel_state.get_tensor_model_parallel_group()
    return torch.stack(group.gather(tensor)).sum(dim=0)
