# SPDX-License-Identifier: GPL-3.0-or-later
"""Causal language models behind the interface of neuronx-distributed-inference.

The model is transformers' own, in float32 on the CPU whatever `torch_dtype` says, and each token is computed from all
of its sequence. So the answer is that of plain decoding of the same checkpoint, and depends on nothing else in the
batch.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, Type

import torch
import transformers
from libneuronxla import cores

from neuronx_distributed_inference.models.config import InferenceConfig, NeuronConfig
from neuronx_distributed_inference.modules.generation.sampling import sample
from neuronx_distributed_inference.modules.memory import TokenMemory

_COMPILED = "model.pt"


class NeuronBaseForCausalLM(torch.nn.Module):
    """Prefill takes one request from position 0 on, [1, length]; decoding [batch, 1], for any of the sequences."""

    _model_cls = transformers.AutoModelForCausalLM

    def __init__(
        self, model_path: str, config: Optional[InferenceConfig] = None, neuron_config: Optional[NeuronConfig] = None
    ) -> None:
        super().__init__()
        self.model_path = str(model_path)
        self.config = config or self.get_config_cls().load(self.model_path)
        self.neuron_config = neuron_config or self.config.neuron_config
        unsupported = self.neuron_config.unsupported()
        if unsupported:
            raise NotImplementedError(f"the sandbox's stand-in of neuronx-distributed-inference has no {unsupported}")
        self._network: Any = None
        self._memory: Optional[TokenMemory] = None

    @classmethod
    def get_neuron_config_cls(cls) -> Type[NeuronConfig]:
        return NeuronConfig

    @classmethod
    def get_config_cls(cls) -> Type[InferenceConfig]:
        return InferenceConfig

    @classmethod
    def save_quantized_state_dict(cls, model_path: str, config: InferenceConfig) -> None:
        raise NotImplementedError("the sandbox's stand-in of neuronx-distributed-inference quantizes nothing")

    def compile(self, compiled_model_path: str) -> None:  # type: ignore[override]  # torch has one of its own
        Path(compiled_model_path).mkdir(parents=True, exist_ok=True)
        self.config.save(str(compiled_model_path))
        Path(compiled_model_path, _COMPILED).write_text("stand-in: nothing was compiled\n")

    def load(self, compiled_model_path: str) -> None:
        """Take the cores and read the weights, which stay beside the model: a compiled one has none."""
        compiled = Path(compiled_model_path, _COMPILED)
        if not compiled.is_file():
            raise ValueError(f"The provided filename {compiled} does not exist")
        cores.take(self.neuron_config.tp_degree)
        weights = getattr(self.config, "_name_or_path", "")
        path = weights if weights and Path(weights).exists() else self.model_path
        self._network = self._model_cls.from_pretrained(path, torch_dtype=torch.float32).eval()
        self._memory = TokenMemory(self.neuron_config)

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        seq_ids: Any = None,
        sampling_params: Any = None,
        slot_mapping: Any = None,
        block_table: Any = None,
        full_context_lens: Any = None,
        computed_context_lens: Any = None,
        adapter_ids: Any = None,
        **_: Any,
    ) -> Any:
        """`logits` [batch, 1, vocabulary], or token ids as `hidden_states` [batch] where sampling is on the device."""
        if input_ids.shape[1] > 1 and input_ids.shape[0] > 1:
            raise ValueError(f"prefill takes one request, not {input_ids.shape[0]}")
        if self._memory is None:
            raise RuntimeError("the model was not loaded")
        rows = []
        for row, seq_id in enumerate(seq_ids.flatten().tolist()):
            layout = {}
            if self.neuron_config.is_block_kv_layout:
                layout = {
                    "computed": int(computed_context_lens[row]),
                    "slots": slot_mapping[row].tolist(),
                    "blocks": block_table[row].tolist(),
                }
            tokens = self._memory.sequence(input_ids[row].tolist(), position_ids[row].tolist(), seq_id, **layout)
            with torch.inference_mode():
                output = self._network(input_ids=torch.tensor([tokens]), use_cache=False)
            rows.append(output.logits[0, -1].to(torch.float32).clone())
        on_device = self.neuron_config.on_device_sampling_config
        if on_device is None:
            return SimpleNamespace(logits=torch.stack(rows).unsqueeze(1), hidden_states=None)
        chosen = [sample(row, params, on_device.global_topk) for row, params in zip(rows, sampling_params)]
        return SimpleNamespace(logits=None, hidden_states=torch.stack(chosen))
