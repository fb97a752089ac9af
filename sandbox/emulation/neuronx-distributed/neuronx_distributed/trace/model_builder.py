# SPDX-License-Identifier: GPL-3.0-or-later
# torch is untyped here, and TorchScript reads a comment with `type:` that something follows as a signature of its own.
# mypy: disable-error-code=no-any-return
"""Models that are "compiled" once, saved as TorchScript, and run by a process that has the weights.

Nothing is compiled: the program of a model is how to make it, pickled, and torch.jit saves it as a tensor. As on a
device each graph takes inputs of the shapes alone that it was compiled for, and what it keeps from one call to the
next, the cache of keys and values, is shared by all graphs of a rank.
"""

import copy
import io
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from libneuronxla import cores, neuron_cc_cache
from safetensors.torch import save_file
from torch import Tensor

from neuronx_distributed.parallel_layers import parallel_state
from neuronx_distributed.parallel_layers.utils import divide

_loaded: List["_Model"] = []


class BaseModelInstance:
    """How to make a model: load_module() makes it; get(0) returns it and {what it keeps: which output renews it}."""

    def initialize_process_group(self, world_size: int) -> None:
        raise NotImplementedError

    def load_module(self) -> None:
        raise NotImplementedError

    def get(self, bucket_rank: int, **kwargs: Any) -> Tuple[Any, Dict[Any, int]]:
        raise NotImplementedError


def _make(instance: BaseModelInstance) -> Tuple[Any, Dict[str, int]]:
    """The module of a rank, and {the name of what it keeps: which output renews it}."""
    own = copy.copy(instance)
    own.load_module()
    module, aliases = own.get(0)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return module, {names[id(parameter)]: output for parameter, output in aliases.items()}


class _Graph:
    """One of a model's graphs, on all ranks."""

    def __init__(self, shapes: List[Tuple[int, ...]], size: int) -> None:
        self.shapes = shapes
        self.modules: List[Any] = [None] * size
        self.aliases: List[Dict[str, int]] = [{}] * size

    def load(self, rank: int, instance: BaseModelInstance, weights: Dict[str, Tensor], kept: Dict[str, Tensor]) -> None:
        module, self.aliases[rank] = _make(instance)
        for name in self.aliases[rank]:
            kept.setdefault(name, module.get_parameter(name).data)
        lacks = module.load_state_dict({**weights, **kept}, strict=False, assign=True).missing_keys
        if lacks:
            raise ValueError(f"rank {rank}: the sharded checkpoint lacks {', '.join(lacks)}")
        self.modules[rank] = module

    def step(self, rank: int, inputs: List[Tensor]) -> Tensor:
        module = self.modules[rank]
        with torch.no_grad():
            outputs = module(*inputs)
            for name, output in self.aliases[rank].items():
                module.get_parameter(name).data.copy_(outputs[output])
        told = [value for number, value in enumerate(outputs) if number not in self.aliases[rank].values()]
        if len(told) != 1:
            raise NotImplementedError(f"the sandbox's stand-in of neuronx-distributed has 1 output, not {len(told)}")
        return told[0]


class _Model:
    """A model with its weights, on the cores of this process."""

    def __init__(self, program: Tensor, weights: List[Dict[str, Tensor]]) -> None:
        # Whoever can write the model's folder could put any TorchScript there too.
        found = pickle.load(io.BytesIO(program.numpy().tobytes()))  # noqa: S301 - see above
        size = found["tp_degree"]
        if len(weights) != size:
            raise ValueError(f"the model was compiled for {size} ranks, and {len(weights)} have weights")
        cores.take(size)
        parallel_state.initialize_model_parallel(size)
        self._group = parallel_state.get_tensor_model_parallel_group()
        self._graphs = [_Graph(graph["shapes"], size) for graph in found["graphs"]]

        def load(rank: int) -> None:
            # Copies of this thread's own: whoever read them may have done it in the inference mode of torch.
            own = {name: weight.clone() for name, weight in weights[rank].items()}
            kept: Dict[str, Tensor] = {}
            for graph, of in zip(self._graphs, found["graphs"]):
                graph.load(rank, of["instance"], own, kept)

        self._group.run(load)

    def __call__(self, inputs: List[Tensor]) -> Tensor:
        shapes = [tuple(value.shape) for value in inputs]
        fitting = [graph for graph in self._graphs if graph.shapes == shapes]
        if not fitting:
            compiled = "; ".join(str(graph.shapes) for graph in self._graphs)
            raise ValueError(f"no graph takes inputs of the shapes {shapes}: there are {compiled}")
        given: List[Tensor] = self._group.run(lambda rank: fitting[0].step(rank, [value.clone() for value in inputs]))
        return given[0]


def _initialize(program: Tensor, weights: List[Dict[str, Tensor]], start_rank: Tensor) -> int:
    if int(start_rank):
        raise NotImplementedError("the sandbox's stand-in of neuronx-distributed runs on one host alone")
    _loaded.append(_Model(program, weights))
    return len(_loaded) - 1


def _run(program: Tensor, number: int, inputs: List[Tensor]) -> Tensor:
    if number < 0:
        raise RuntimeError("the model has no weights yet: initialize() was not called")
    return _loaded[number](inputs)


# TorchScript calls no Python, but operators, which may be written in it.
_operators = torch.library.Library("neuronx_distributed_stand_in", "DEF")
_operators.define("initialize(Tensor program, Dict(str, Tensor)[] weights, Tensor start_rank) -> int")
_operators.define("run(Tensor program, int number, Tensor[] inputs) -> Tensor")
_operators.impl("initialize", _initialize, "CompositeExplicitAutograd")
_operators.impl("run", _run, "CompositeExplicitAutograd")


class _Executor(torch.nn.Module):
    def __init__(self, program: Tensor) -> None:
        super().__init__()
        self.register_buffer("program", program)
        self.number = -1

    @torch.jit.export
    def initialize(self, weights: List[Dict[str, Tensor]], start_rank: Tensor) -> None:
        self.number = torch.ops.neuronx_distributed_stand_in.initialize(self.program, weights, start_rank)

    def forward(self, inputs: List[Tensor]) -> Tensor:
        return torch.ops.neuronx_distributed_stand_in.run(self.program, self.number, inputs)


class _Traced(torch.nn.Module):
    def __init__(self, program: Tensor) -> None:
        super().__init__()
        self.nxd_model = _Executor(program)

    def forward(
        self,
        first: Tensor,
        second: Optional[Tensor] = None,
        third: Optional[Tensor] = None,
        fourth: Optional[Tensor] = None,
    ) -> Tensor:
        inputs = [first]
        for value in [second, third, fourth]:
            if value is not None:
                inputs.append(value)
        return self.nxd_model(inputs)


class ModelBuilder:
    def __init__(
        self,
        router: Any,
        tp_degree: int,
        checkpoint_loader: Optional[Callable[[], Dict[str, Tensor]]] = None,
        compiler_workdir: str = "/tmp/nxd_model/",  # noqa: S108 - AWS's own place
        pp_degree: int = 1,
        ep_degree: int = 1,
        **_: Any,
    ) -> None:
        parallel_state.initialize_model_parallel(tp_degree, pp_degree, ep_degree)
        self._tp_degree = tp_degree
        self._checkpoint_loader = checkpoint_loader
        self._workdir = compiler_workdir
        self._graphs: Dict[str, Dict[str, Any]] = {}

    def add(
        self,
        key: str,
        model_instance: BaseModelInstance,
        example_inputs: List[Tuple[Tensor, ...]],
        compiler_args: Optional[str] = None,
        priority_model_idx: Optional[int] = None,
    ) -> "ModelBuilder":
        if len(example_inputs) != 1:
            raise NotImplementedError("the sandbox's stand-in of neuronx-distributed has no buckets")
        shapes = [tuple(value.shape) for value in example_inputs[0]]
        self._graphs[key] = {"instance": model_instance, "shapes": shapes}
        return self

    def trace(self, initialize_model_weights: bool = True) -> Any:
        """A model without weights, which torch.jit.save() can save."""
        if initialize_model_weights:
            raise NotImplementedError("the sandbox's stand-in of neuronx-distributed traces without weights alone")
        program = pickle.dumps({"tp_degree": self._tp_degree, "graphs": list(self._graphs.values())})
        # Where the compiler works, and where it keeps what it made; optimum-neuron asks the hub for it there.
        cache = neuron_cc_cache.create_compile_cache(neuron_cc_cache.CacheUrl.get_cache_url())
        for key in self._graphs:
            for place in (self._workdir, cache.cache_path):
                Path(place, key).mkdir(parents=True, exist_ok=True)
                Path(place, key, "stand-in.txt").write_text("nothing was compiled\n", encoding="utf-8")
        return torch.jit.script(_Traced(torch.frombuffer(bytearray(program), dtype=torch.uint8)))

    def shard_checkpoint(self, serialize_path: Optional[str] = None) -> List[Dict[str, Tensor]]:
        """The weights of each rank; with a path they are saved there, a file for each."""
        if self._checkpoint_loader is None:
            raise ValueError("no checkpoint_loader was given")
        module, aliases = _make(next(iter(self._graphs.values()))["instance"])
        state = self._checkpoint_loader()
        for name, child in module.named_modules():
            if hasattr(child, "preshard_hook"):
                child.preshard_hook(state, f"{name}.weight")
        ranks: List[Dict[str, Tensor]] = [{} for _ in range(self._tp_degree)]
        for name, parameter in module.named_parameters():
            if name in aliases:
                continue
            if name not in state:
                raise KeyError(f"the checkpoint lacks {name}")
            owner = module.get_submodule(name.rpartition(".")[0])
            for rank, part in zip(ranks, self._parts(state[name], parameter, getattr(owner, "weight", parameter))):
                rank[name] = part.clone().contiguous()
        if serialize_path is not None:
            Path(serialize_path).mkdir(parents=True, exist_ok=True)
            for number, rank in enumerate(ranks):
                save_file(rank, Path(serialize_path, f"tp{number}_sharded_checkpoint.safetensors"))
        return ranks

    def _parts(self, whole: Tensor, parameter: Any, weight: Any) -> List[Tensor]:
        """The parts of the ranks, padded at the end; queries, keys and values in one tensor are divided each."""
        if not getattr(parameter, "tensor_model_parallel", False):
            return [whole] * self._tp_degree
        dim = parameter.partition_dim
        missing = parameter.shape[dim] * self._tp_degree - whole.shape[dim]
        if missing:
            padding = list(whole.shape)
            padding[dim] = missing
            whole = torch.cat([whole, whole.new_zeros(padding)], dim=dim)
        sizes = [whole.shape[dim]]
        if getattr(weight, "fused_qkv", False):
            keys = weight.num_key_value_heads * weight.head_dim
            sizes = [weight.num_attention_heads * weight.head_dim, keys, keys]
        divided = [
            section.split(divide(section.shape[dim], self._tp_degree), dim=dim)
            for section in whole.split(sizes, dim=dim)
        ]
        return [torch.cat(parts, dim=dim) for parts in zip(*divided)]

    def transform_weight_layout_with_overriden_option(self, sharded_checkpoint_dir: str) -> None:
        raise NotImplementedError("the sandbox's stand-in of neuronx-distributed changes no layout of weights")
