# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the stand-in for neuronx-distributed-inference that need no torch: options, and where tokens lie."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

from sandbox.repositories.python_index import EMULATION

SOURCE = EMULATION / "neuronx-distributed-inference"
PACKAGE = SOURCE / "neuronx_distributed_inference"
# What vllm-neuron 0.2.2, 0.4.1 and 0.5.0 import of it, all three together.
IMPORTED = {
    "models/config.py": {"NeuronConfig", "OnDeviceSamplingConfig", "ChunkedPrefillConfig", "FusedSpecNeuronConfig"},
    "modules/lora_serving.py": {"LoraServingConfig", "LoraModelManager"},
    "modules/padding.py": {"pad_tensor"},
    "modules/generation/sampling.py": {"prepare_sampling_params"},
    "utils/constants.py": {"MODEL_TYPES"},
    "utils/hf_adapter.py": {"load_pretrained_config"},
}
LINES = {"batch_size": 2, "seq_len": 8}
# Four blocks of four tokens, of which vLLM gives away three.
BLOCKS = {**LINES, "is_block_kv_layout": True, "pa_num_blocks": 4, "pa_block_size": 4}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SOURCE))
    return importlib.import_module("neuronx_distributed_inference.models.config")


@pytest.fixture
def memory(config: Any) -> Any:
    module = importlib.import_module("neuronx_distributed_inference.modules.memory")
    return lambda **options: module.TokenMemory(config.NeuronConfig(**options))


@pytest.mark.parametrize(("path", "names"), IMPORTED.items())
def test_it_has_what_the_plugin_imports(path: str, names: set[str]) -> None:
    found = set()
    for statement in ast.parse((PACKAGE / path).read_text()).body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            found.add(statement.name)
        elif isinstance(statement, ast.Assign):
            found |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
    assert names <= found
    for folder in (PACKAGE / path).relative_to(SOURCE).parents[:-1]:
        assert (SOURCE / folder / "__init__.py").is_file()


def test_it_says_what_it_is() -> None:
    for name in ("neuronx-distributed-inference", "neuronx-distributed", "nki"):
        text = ast.get_docstring(ast.parse((EMULATION / name / name.replace("-", "_") / "__init__.py").read_text()))
        assert text and f"A stand-in of the sandbox for AWS's {name}" in " ".join(text.split())


def test_a_compiled_model_is_read_with_the_options_it_was_compiled_with(config: Any, tmp_path: Path) -> None:
    def load_config(written: Any) -> None:
        written.model_type = "llama"

    options = config.NeuronConfig(on_device_sampling_config=config.OnDeviceSamplingConfig(dynamic=True), **LINES)
    written = config.InferenceConfig(options, load_config=load_config)
    written.save(str(tmp_path))
    read = config.InferenceConfig.load(str(tmp_path))
    assert read.to_json_string() == written.to_json_string()
    assert (read.model_type, read.neuron_config.batch_size, read.neuron_config.max_context_length) == ("llama", 2, 8)
    assert read.neuron_config.on_device_sampling_config.global_topk == 256
    other = config.InferenceConfig(config.NeuronConfig(**{**LINES, "batch_size": 4}), load_config=load_config)
    assert other.to_json_string() != written.to_json_string()


def test_sampling_on_the_host_stays_so_in_a_compiled_model(config: Any, tmp_path: Path) -> None:
    config.InferenceConfig(config.NeuronConfig(on_device_sampling_config=None)).save(str(tmp_path))
    assert config.InferenceConfig.load(str(tmp_path)).neuron_config.on_device_sampling_config is None


def test_no_compiled_model_is_told_as_the_plugin_expects(config: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        config.InferenceConfig.load(str(tmp_path))


def test_what_it_cannot_do_is_known(config: Any) -> None:
    assert config.NeuronConfig(**LINES).unsupported() == []
    chunked = config.NeuronConfig(chunked_prefill_config=config.ChunkedPrefillConfig(max_num_seqs=4), quantized=True)
    assert chunked.is_chunked_prefill
    assert chunked.unsupported() == ["chunked_prefill_config", "quantized"]


def test_sequences_lie_each_in_its_line(memory: Any) -> None:
    tokens = memory(**LINES)
    assert tokens.sequence([5, 6, 7], [0, 1, 2], 0) == [5, 6, 7]
    assert tokens.sequence([8], [0], 1) == [8]
    assert tokens.sequence([9], [3], 0) == [5, 6, 7, 9]
    assert tokens.sequence([4], [1], 1) == [8, 4]
    assert tokens.sequence([1, 2], [0, 1], 0) == [1, 2]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (([1], [0], 2), "sequence id 2 is outside of batch_size=2"),
        (([1], [0], -1), "sequence id -1 is outside"),
        (([1], [8], 0), "position 8 is outside of seq_len=8"),
        (([1] * 7, list(range(7)), 0), "7 tokens exceed max_context_length=6"),
        # Positions 1 and 2 were of the sequence that was there before, which nobody may read.
        (([1], [3], 0), "nothing was stored at position 1"),
    ],
)
def test_what_a_device_would_answer_wrongly_is_an_error(memory: Any, row: tuple[Any, ...], told: str) -> None:
    tokens = memory(max_context_length=6, **LINES)
    tokens.sequence([5, 6, 7], [0, 1, 2], 0)
    tokens.sequence([5], [0], 0)
    with pytest.raises(ValueError, match=told):
        tokens.sequence(*row)


def test_sequences_lie_in_the_blocks_that_vllm_gave_them(memory: Any) -> None:
    tokens = memory(**BLOCKS)
    prompt = [5, 6, 7, 8, 9]
    assert tokens.sequence(prompt, range(5), 0, slots=[12, 13, 14, 15, 4, -1, -1, -1], blocks=[3, 1]) == prompt
    assert tokens.sequence([2], [5], 0, computed=5, slots=[5], blocks=[3, 1]) == [*prompt, 2]
    # The second request begins with the first block of the first, so only what follows it is stored.
    other = [5, 6, 7, 8, 1]
    assert tokens.sequence(other, range(5), 1, computed=4, slots=[8, -1], blocks=[3, 2]) == other
    assert tokens.sequence([3], [6], 0, computed=6, slots=[6], blocks=[3, 1]) == [*prompt, 2, 3]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"blocks": [0], "slots": [0, 1]}, "position 0 is at slot 0, outside of 16 slots"),
        ({"blocks": [4], "slots": [16, 17]}, "position 0 is at slot 16, outside of 16 slots"),
        ({"blocks": [2], "slots": [4, 5]}, r"slots \[4, 5\] are not those of the block table"),
        ({"blocks": [2], "slots": [9], "computed": 1}, "nothing was stored at position 0"),
        ({"blocks": [3], "slots": [13], "computed": 1}, "its prefix are others than those in the memory"),
    ],
)
def test_a_wrong_block_is_an_error(memory: Any, row: dict[str, Any], told: str) -> None:
    tokens = memory(**BLOCKS)
    tokens.sequence([5, 6], [0, 1], 0, slots=[12, 13], blocks=[3])
    with pytest.raises(ValueError, match=told):
        tokens.sequence([1, 6], [0, 1], 1, **row)
