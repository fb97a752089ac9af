# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions that say in XLA's operations what a device is to do; here they are done at once."""

import functools
from typing import Any, Callable, Tuple

import torch


class _Type:
    """A type of numbers, and with a shape that of a tensor: its methods are the operations that have it as result."""

    def __init__(self, dtype: Any, shape: Tuple[int, ...] = ()) -> None:
        self._dtype, self._shape = dtype, shape

    def __getitem__(self, shape: Any) -> "_Type":
        return _Type(self._dtype, tuple(shape))

    def Constant(self, constant_value: Any) -> Any:  # noqa: N802 - XLA's name
        return torch.tensor(constant_value, dtype=self._dtype)

    def Rng(self, minimum: Any, maximum: Any, distribution: int) -> Any:  # noqa: N802 - XLA's name
        if distribution != 1:
            raise NotImplementedError(f"the sandbox's stand-in of torch-neuronx draws uniformly, not by {distribution}")
        return torch.rand(self._shape, dtype=self._dtype) * (maximum - minimum) + minimum

    def DynamicUpdateSlice(self, operand: Any, update: Any, *starts: Any) -> Any:  # noqa: N802 - XLA's name
        """The operand with the update in it; as XLA says, a start that is too far moves back until it fits."""
        place = []
        for size, length, start in zip(operand.sizes, update.sizes, starts):
            first = min(max(int(_tensor(start)), 0), size - length)
            place.append(slice(first, first + length))
        result = operand.tensor.clone()
        result[tuple(place)] = update.tensor
        return result


class _Scribe:
    u32 = _Type(torch.int64)


class _Operand:
    """A tensor as those functions see it."""

    scribe = _Scribe()

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.dtype = _Type(tensor.dtype)
        self.sizes = tuple(tensor.shape)


def _tensor(value: Any) -> Any:
    return value.tensor if isinstance(value, _Operand) else value


def xla_hlo_call(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*tensors: Any) -> Any:
        return _tensor(function(*(_Operand(tensor) for tensor in tensors)))

    return call
