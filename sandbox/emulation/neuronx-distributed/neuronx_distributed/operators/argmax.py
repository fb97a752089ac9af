# SPDX-License-Identifier: GPL-3.0-or-later
"""The best of all ranks."""

from typing import Any

from neuronx_distributed.parallel_layers.mappings import _gather_along_dim


def argmax(tensor: Any, dim: int, gather_dim: int, keepdim: bool = False, process_group: Any = None) -> Any:
    return _gather_along_dim(tensor, gather_dim, process_group).argmax(dim=dim, keepdim=keepdim)
