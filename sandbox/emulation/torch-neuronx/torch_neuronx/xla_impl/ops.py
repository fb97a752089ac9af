# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations that a device has."""

from typing import Any, Callable

import torch

from torch_neuronx.xla_impl.base import xla_hlo_call

__all__ = ["RmsNorm", "nki_jit", "xla_hlo_call"]


class RmsNorm:
    @staticmethod
    def apply(hidden: Any, weight: Any, eps: float, dim: int) -> Any:
        return hidden * torch.rsqrt(hidden.pow(2).mean(dim, keepdim=True) + eps) * weight


class _Kernel:
    """A kernel writes its result into one of its arguments; [grid] says on how many cores it runs at a time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __getitem__(self, grid: Any) -> "_Kernel":
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._function(*arguments, **options)


def nki_jit() -> Callable[[Callable[..., Any]], _Kernel]:
    return _Kernel
