# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for neuronx-distributed where it computes: it gives what one device alone would give.

The environment of the unit tests has no torch; tests/served runs all of this with the real plugin. Where a Python has
torch and safetensors: python -m pytest --noconftest tests/unit/sandbox/test_distributed_emulation_torch.py
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
pytest.importorskip("safetensors")

EMULATION = Path(__file__).resolve().parents[3] / "sandbox" / "emulation"
FOLDERS = ("libneuronxla", "neuronx-cc", "neuronx-distributed", "torch-neuronx")
RANKS = 2
KEPT = 5


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(str(EMULATION / folder))
    monkeypatch.setenv("NEURONOPS_EMULATED_CORES", str(RANKS))
    monkeypatch.setenv("NEURON_COMPILE_CACHE_URL", str(tmp_path / "cache"))
    monkeypatch.delenv("NEURON_CC_FLAGS", raising=False)


@pytest.fixture
def group() -> Any:
    state = importlib.import_module("neuronx_distributed.parallel_layers.parallel_state")
    state.initialize_model_parallel(RANKS)
    return state.get_tensor_model_parallel_group()


def layers() -> Any:
    return importlib.import_module("neuronx_distributed.parallel_layers.layers")


def builder() -> Any:
    return importlib.import_module("neuronx_distributed.trace.model_builder")


class Model(torch.nn.Module):  # type: ignore[misc]  # torch is Any here
    """An embedding, a layer that divides its output and one that divides its input, and the tokens it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = layers().ParallelEmbedding(11, 3, shard_across_embedding=True, pad=True)
        self.up = layers().ColumnParallelLinear(3, 5, gather_output=False, pad=True)
        self.down = layers().RowParallelLinear(5, 7, input_is_parallel=True, pad=True)
        self.head = layers().ColumnParallelLinear(7, 9, bias=False, pad=True)
        self.rank_util = layers().SPMDRank(world_size=RANKS)
        self.kept = torch.nn.Parameter(torch.zeros(KEPT, dtype=torch.int64), requires_grad=False)

    def forward(self, tokens: Any, place: Any) -> list[Any]:
        output = self.head(self.down(torch.relu(self.up(self.embedding(tokens)))))
        kept = self.kept.scatter(0, place + torch.arange(len(tokens)), tokens)
        return [output + self.kept.sum() + 0 * self.rank_util.get_rank(), kept]


class Instance:
    """How to make that model; a module of this file, as a saved model names it."""

    def load_module(self) -> None:
        self.module = Model()

    def get(self, bucket_rank: int, **_: Any) -> Any:
        return self.module, {self.module.kept: 1}


def checkpoint() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"embedding.weight": (11, 3), "up.weight": (5, 3), "up.bias": (5,), "down.weight": (7, 5)}
    shapes |= {"down.bias": (7,), "head.weight": (9, 7)}
    made = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    return {**made, "rank_util.rank": torch.arange(RANKS, dtype=torch.int32)}


def plain(weights: dict[str, Any], tokens: Any) -> Any:
    hidden = torch.nn.functional.embedding(tokens, weights["embedding.weight"])
    hidden = torch.relu(torch.nn.functional.linear(hidden, weights["up.weight"], weights["up.bias"]))
    hidden = torch.nn.functional.linear(hidden, weights["down.weight"], weights["down.bias"])
    return torch.nn.functional.linear(hidden, weights["head.weight"])


def compiled(tmp_path: Path) -> Any:
    made = builder().ModelBuilder(
        router=None, tp_degree=RANKS, checkpoint_loader=checkpoint, compiler_workdir=str(tmp_path / "work"), debug=False
    )
    for key, length in (("prompt", 3), ("token", 1)):
        example = (torch.zeros(length, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        made.add(
            key=key, model_instance=Instance(), example_inputs=[example], compiler_args="", priority_model_idx=None
        )
    return made


def test_a_saved_model_computes_with_all_ranks_what_one_device_would(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    torch.jit.save(made.trace(initialize_model_weights=False), str(tmp_path / "model.pt"))
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"prompt", "token"}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"prompt", "token"}
    made.shard_checkpoint(serialize_path=str(tmp_path / "weights"))
    load_file = importlib.import_module("safetensors.torch").load_file
    weights = [load_file(tmp_path / "weights" / f"tp{rank}_sharded_checkpoint.safetensors") for rank in range(RANKS)]
    assert [int(rank["rank_util.rank"]) for rank in weights] == [0, 1]
    assert weights[0]["up.weight"].shape == (3, 3), "5 rows are padded to 6"

    model = torch.jit.load(str(tmp_path / "model.pt"))
    with pytest.raises(RuntimeError, match="no weights yet"):
        model(torch.tensor([1]), torch.tensor([0]))
    with torch.inference_mode():  # as vLLM does
        model.nxd_model.initialize(weights, torch.tensor([0], dtype=torch.int32))
        prompt = torch.tensor([4, 2, 9])
        assert torch.allclose(model(prompt, torch.tensor([0])), plain(checkpoint(), prompt), atol=1e-5)
        # The other graph finds what this one kept, and renews it.
        token = torch.tensor([3])
        assert torch.allclose(model(token, torch.tensor([3])), plain(checkpoint(), token) + 15, atol=1e-5)
        assert torch.allclose(model(token, torch.tensor([0])), plain(checkpoint(), token) + 18, atol=1e-5)
        assert torch.allclose(model(token, torch.tensor([0])), plain(checkpoint(), token) + 17, atol=1e-5)


def test_a_graph_takes_the_shapes_alone_that_it_was_compiled_for(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    model = made.trace(initialize_model_weights=False)
    model.nxd_model.initialize(made.shard_checkpoint(), torch.tensor([0]))
    with pytest.raises(Exception, match=r"no graph takes inputs of the shapes \[\(2,\), \(1,\)\]"):
        model(torch.tensor([1, 2]), torch.tensor([0]))


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    made = compiled(tmp_path)
    model = made.trace(initialize_model_weights=False)
    weights = made.shard_checkpoint()
    del weights[1]["up.bias"]
    with pytest.raises(Exception, match=r"rank 1: the sharded checkpoint lacks up\.bias"):
        model.nxd_model.initialize(weights, torch.tensor([0]))
    with pytest.raises(Exception, match="compiled for 2 ranks, and 1 have weights"):
        model.nxd_model.initialize(weights[:1], torch.tensor([0]))


def test_each_rank_gets_its_heads_of_queries_keys_and_values(group: Any) -> None:
    class Fused(torch.nn.Module):  # type: ignore[misc]  # torch is Any here
        def __init__(self) -> None:
            super().__init__()
            self.qkv = layers().ColumnParallelLinear(1, 8, gather_output=False)
            weight = self.qkv.weight
            weight.fused_qkv, weight.num_attention_heads, weight.num_key_value_heads, weight.head_dim = True, 4, 2, 1

        def preshard_hook(self, state: dict[str, Any], prefix: str) -> bool:
            state["block.qkv.weight"] = state.pop("renamed").reshape(8, 1)
            assert prefix == "block.weight"
            return True

    class FusedInstance:
        def load_module(self) -> None:
            self.module = torch.nn.ModuleDict({"block": Fused()})

        def get(self, bucket_rank: int, **_: Any) -> Any:
            return self.module, {}

    values = torch.arange(8.0)
    made = builder().ModelBuilder(
        None, RANKS, checkpoint_loader=lambda: {"renamed": values, "block.qkv.bias": values.clone()}
    )
    made.add("only", FusedInstance(), [()])
    first, second = made.shard_checkpoint()
    assert first["block.qkv.weight"].flatten().tolist() == [0, 1, 4, 6]
    assert second["block.qkv.bias"].tolist() == [2, 3, 5, 7]


def test_the_best_are_those_of_all_ranks(group: Any) -> None:
    topk = importlib.import_module("neuronx_distributed.operators.topk").topk
    argmax = importlib.import_module("neuronx_distributed.operators.argmax").argmax
    logits = torch.tensor([[1.0, 5.0, 2.0, 9.0, 0.0, 7.0]])

    def best(rank: int) -> Any:
        part = logits[:, 3 * rank : 3 * rank + 3]
        return topk(part, 3, dim=1, gather_dim=1, stages=1)[1].tolist(), argmax(part, dim=1, gather_dim=1).tolist()

    assert group.run(best) == [([[3, 5, 1]], [3])] * RANKS


def test_an_update_that_does_not_fit_moves_back_as_on_a_device() -> None:
    xla_hlo_call = importlib.import_module("torch_neuronx.xla_impl.ops").xla_hlo_call

    @xla_hlo_call  # type: ignore[untyped-decorator]  # as torch is
    def update(tensor: Any, part: Any, start: Any) -> Any:
        return tensor.dtype[tensor.sizes].DynamicUpdateSlice(tensor, part, start)

    @xla_hlo_call  # type: ignore[untyped-decorator]  # as torch is
    def draw(tensor: Any) -> Any:
        zero, one = (tensor.dtype.Constant(constant_value=value) for value in (0, 1))
        return tensor.dtype[tensor.sizes].Rng(zero, one, distribution=1)

    zeros, ones = torch.zeros(5), torch.ones(2)
    assert update(zeros, ones, torch.tensor(1)).tolist() == [0, 1, 1, 0, 0]
    assert update(zeros, ones, torch.tensor(4)).tolist() == [0, 0, 0, 1, 1]
    assert zeros.sum() == 0
    drawn = draw(torch.zeros(1000))
    assert 0 <= drawn.min() < 0.1 and 0.9 < drawn.max() < 1


def test_kernels_write_what_torch_says_into_their_output() -> None:
    ops = importlib.import_module("torch_neuronx.xla_impl.ops")
    kernels = importlib.import_module("neuronxcc.nki._private_kernels.attention")
    sums = importlib.import_module("neuronxcc.nki._private_kernels.cumsum")
    query, key = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    value, output = torch.randn(2, 6, 4), torch.zeros(2, 4, 6)
    kernel = ops.nki_jit()(kernels.attention_isa_kernel)
    kernel[(1,)](query, key, value, 1.0, output, kernel_name="CausalAttentionMMSoftmaxMMWithoutSwap")
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value, is_causal=True, scale=1.0
    )
    assert torch.allclose(output.transpose(1, 2), expected, atol=1e-5)
    with pytest.raises(NotImplementedError, match="no kernel Other"):
        kernel(query, key, value, 1.0, output, kernel_name="Other")
    output = torch.zeros(1, 3)
    ops.nki_jit()(sums.cumsum)(torch.tensor([[1.0, 2.0, 3.0]]), output, axis=1)
    assert output.tolist() == [[1, 3, 6]]
    hidden, weight = torch.randn(2, 8), torch.randn(8)
    expected = torch.nn.functional.rms_norm(hidden, (8,), weight, 1e-5)
    assert torch.allclose(ops.RmsNorm.apply(hidden, weight, 1e-5, 1), expected, atol=1e-5)
