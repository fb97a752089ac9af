# SPDX-License-Identifier: GPL-3.0-or-later
"""Padding as the plugin's 0.2 uses it for pictures."""

from typing import Any, List, Optional, Sequence, Tuple

import torch


def pad_tensor(
    unpadded_tensor: Any, target_shape: Sequence[int], pad_value: Optional[float] = None
) -> Tuple[Any, List[slice]]:
    """The tensor at the start of one of the wanted shape, and where in it."""
    slices = [slice(0, size) for size in unpadded_tensor.shape]
    padded = torch.full(tuple(target_shape), pad_value or 0, dtype=unpadded_tensor.dtype)
    padded[tuple(slices)] = unpadded_tensor
    return padded, slices
