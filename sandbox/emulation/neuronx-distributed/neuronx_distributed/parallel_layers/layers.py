# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers of which each rank has a part: the weight says along which dimension it is divided, for those who load it."""

from typing import Any, Optional

import torch
from torch.nn import functional

from neuronx_distributed.importable import refused
from neuronx_distributed.parallel_layers import mappings, parallel_state
from neuronx_distributed.parallel_layers.utils import divide, get_padding_length

create_local_weight = refused("create_local_weight")


def _parameter(*shape: int, dtype: Any, partition_dim: Optional[int]) -> torch.nn.Parameter:
    made = torch.nn.Parameter(torch.empty(*shape, dtype=dtype), requires_grad=False)
    made.tensor_model_parallel = partition_dim is not None  # type: ignore[attr-defined]  # as AWS does
    made.partition_dim = partition_dim  # type: ignore[attr-defined]  # as AWS does
    return made


class SPMDRank(torch.nn.Module):
    """The number of the rank, which is loaded as weights are: all ranks run one program."""

    def __init__(self, world_size: int) -> None:
        super().__init__()
        self.rank = torch.nn.Parameter(torch.zeros(1, dtype=torch.int32), requires_grad=False)
        self.rank.tensor_model_parallel = True  # type: ignore[attr-defined]  # as AWS does
        self.rank.partition_dim = 0  # type: ignore[attr-defined]  # as AWS does

    def get_rank(self) -> Any:
        return self.rank


class _Parallel(torch.nn.Module):
    """A layer whose `divided` features are padded, where that is asked for, and divided among the ranks."""

    def __init__(self, divided: int, pad: bool, group: Any) -> None:
        super().__init__()
        self.tensor_parallel_group = group or parallel_state.get_tensor_model_parallel_group()
        size = self.tensor_parallel_group.size()
        self.pad, self.pad_size = pad, get_padding_length(divided, size) if pad else 0
        self.features, self.features_per_rank = divided, divide(divided + self.pad_size, size)

    def _all_features(self, output: Any) -> Any:
        gathered = mappings._gather_along_dim(output, -1, self.tensor_parallel_group)
        return gathered[..., : self.features]


class BaseParallelLinear(_Parallel):
    pass


class ColumnParallelLinear(BaseParallelLinear):
    """Each rank computes some of the output."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        gather_output: bool = True,
        dtype: Any = torch.float32,
        pad: bool = False,
        tensor_model_parallel_group: Any = None,
    ) -> None:
        super().__init__(output_size, pad, tensor_model_parallel_group)
        self.gather_output = gather_output
        self.weight = _parameter(self.features_per_rank, input_size, dtype=dtype, partition_dim=0)
        self.bias = _parameter(self.features_per_rank, dtype=dtype, partition_dim=0) if bias else None

    def forward(self, hidden: Any) -> Any:
        output = functional.linear(hidden, self.weight, self.bias)
        return self._all_features(output) if self.gather_output else output


class RowParallelLinear(BaseParallelLinear):
    """Each rank takes some of the input; the output is the sum over all."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        bias: bool = True,
        input_is_parallel: bool = False,
        dtype: Any = torch.float32,
        pad: bool = False,
        tensor_model_parallel_group: Any = None,
        reduce_dtype: Any = None,
    ) -> None:
        super().__init__(input_size, pad, tensor_model_parallel_group)
        if not input_is_parallel:
            raise NotImplementedError("the sandbox's stand-in of neuronx-distributed takes divided input alone here")
        self.reduce_dtype = reduce_dtype
        self.weight = _parameter(output_size, self.features_per_rank, dtype=dtype, partition_dim=1)
        self.bias = _parameter(output_size, dtype=dtype, partition_dim=None) if bias else None

    def forward(self, hidden: Any) -> Any:
        part = functional.linear(hidden, self.weight)
        output = mappings.reduce_from_tensor_model_parallel_region(
            part.to(self.reduce_dtype or part.dtype), self.tensor_parallel_group
        ).to(part.dtype)
        return output if self.bias is None else output + self.bias


class ParallelEmbedding(_Parallel):
    """Each rank has some of the features of every token."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: Optional[int] = None,
        dtype: Any = torch.float32,
        shard_across_embedding: bool = False,
        pad: bool = False,
        tensor_model_parallel_group: Any = None,
    ) -> None:
        super().__init__(embedding_dim, pad, tensor_model_parallel_group)
        if not shard_across_embedding:
            raise NotImplementedError("the sandbox's stand-in of neuronx-distributed divides no vocabulary here")
        self.padding_idx = padding_idx
        self.weight = _parameter(num_embeddings, self.features_per_rank, dtype=dtype, partition_dim=1)

    def forward(self, tokens: Any) -> Any:
        return self._all_features(functional.embedding(tokens, self.weight))
