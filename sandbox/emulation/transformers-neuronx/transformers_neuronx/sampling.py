# SPDX-License-Identifier: GPL-3.0-or-later
"""Causal language models behind the interface of transformers-neuronx.

The model is transformers' own, in float32 on the CPU whatever `amp` says, with a key-value cache for each slot of the
batch. So the answer is that of plain decoding of the same checkpoint, and depends on nothing else in the batch.
"""

import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import torch
import transformers
from libneuronxla import cores

from transformers_neuronx.config import GenerationConfig, NeuronConfig
from transformers_neuronx.module import is_split, load_split


def _as_list(value: Union[int, Sequence[int], None]) -> List[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [int(value)]  # type: ignore[arg-type]  # a number by now


class ModelForSampling(torch.nn.Module):
    """Prefill takes [batch, length] padded with zeros, decoding [batch, 1]; `start_ids` names the slot of each row."""

    architecture = ""

    def __init__(
        self,
        model: Any,
        tp_degree: int,
        n_positions: List[int],
        context_length_estimate: List[int],
        neuron_config: NeuronConfig,
    ) -> None:
        super().__init__()
        heads = model.config.num_attention_heads
        if heads % tp_degree:
            raise ValueError(f"Number of attention heads ({heads}) must be divisible by tp_degree ({tp_degree})")
        self.chkpt_model = model
        self.tp_degree = tp_degree
        self.neuron_config = neuron_config
        self.context_buckets = sorted(context_length_estimate) or [max(n_positions)]
        self.n_positions = max(n_positions)
        self.generation: Optional[GenerationConfig] = getattr(neuron_config, "on_device_generation", None)
        self._cache: Dict[int, Any] = {}
        self._length: Dict[int, int] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        tp_degree: int = 1,
        amp: str = "f32",
        neuron_config: Optional[NeuronConfig] = None,
        n_positions: Union[int, Sequence[int]] = 2048,
        context_length_estimate: Union[int, Sequence[int], None] = None,
        batch_size: int = 1,
        **_: Any,
    ) -> "ModelForSampling":
        architecture = getattr(transformers, cls.architecture)
        if is_split(path):
            config = transformers.AutoConfig.from_pretrained(path)
            config.torch_dtype = torch.float32
            model = architecture(config).to(torch.float32)
            model.load_state_dict(load_split(path))
        else:
            model = architecture.from_pretrained(path, torch_dtype=torch.float32)
        return cls(
            model.eval(),
            tp_degree,
            _as_list(n_positions),
            _as_list(context_length_estimate),
            neuron_config or NeuronConfig(),
        )

    def to_neuron(self) -> "ModelForSampling":
        """Take the cores and leave something in the compile cache, as the compiler does."""
        cores.take(self.tp_degree)
        cache = os.environ.get("NEURON_COMPILE_CACHE_URL", "/var/tmp/neuron-compile-cache")  # noqa: S108 - AWS's default
        if "://" not in cache:
            from neuronxcc.version import __version__ as compiler

            module = f"MODULE_{self.chkpt_model.config.model_type}_{self.n_positions}"
            folder = Path(cache, f"neuronxcc-{compiler}", module)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.neff").write_text("stand-in: nothing was compiled\n")
        return self

    def update_generation_config(self, generation: GenerationConfig) -> None:
        self.generation = generation

    def forward(self, input_ids: Any, cache_ids: Any = None, start_ids: Any = None) -> Any:
        """Logits of the last token [batch, vocabulary], or token ids [batch] where sampling is on the device."""
        rows = [
            self._row(tokens, positions, int(slot))
            for tokens, positions, slot in zip(input_ids, cache_ids, start_ids.flatten())
        ]
        if self.generation is None:
            return torch.stack(rows)
        return torch.stack([self._sample(row, int(slot)) for row, slot in zip(rows, start_ids.flatten())])

    def _row(self, tokens: Any, positions: Any, slot: int) -> Any:
        # Padding repeats position 0, so the last real token is where the largest position is.
        last = int(positions.argmax())
        first = int(positions[0])
        if int(positions[last]) >= self.n_positions:
            raise ValueError(f"position {int(positions[last])} is outside n_positions={self.n_positions}")
        if first == 0:
            self._cache.pop(slot, None)
            if last + 1 > self.context_buckets[-1]:
                raise ValueError(f"context length ({last + 1}) exceeds {self.context_buckets[-1]}")
        elif self._length.get(slot) != first:
            raise ValueError(f"slot {slot} holds {self._length.get(slot)} tokens, not {first}")
        with torch.inference_mode():
            output = self.chkpt_model(
                input_ids=tokens[: last + 1].unsqueeze(0), past_key_values=self._cache.get(slot), use_cache=True
            )
        self._cache[slot] = output.past_key_values
        self._length[slot] = int(positions[last]) + 1
        return output.logits[0, -1].to(torch.float32)

    def _sample(self, logits: Any, slot: int) -> Any:
        def of_slot(name: str) -> Any:
            value = getattr(self.generation, name)
            return value[slot] if isinstance(value, (list, tuple)) else value

        top_k, temperature = int(of_slot("top_k")), float(of_slot("temperature"))
        # Each vLLM release has its own way to ask for the best token.
        if top_k == 1 or temperature == 0:
            return logits.argmax()
        values, tokens = torch.topk(logits, min(top_k, logits.numel()) if top_k > 0 else logits.numel())
        odds = torch.softmax(values / temperature, dim=-1)
        # A token stays when the ones before it do not reach top_p yet; the first always stays.
        odds = torch.where(odds.cumsum(-1) - odds < float(of_slot("top_p")), odds, torch.zeros_like(odds))
        return tokens[torch.multinomial(odds, 1)[0]]
