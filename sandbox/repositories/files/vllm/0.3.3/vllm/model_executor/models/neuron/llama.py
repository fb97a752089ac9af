# SPDX-License-Identifier: GPL-3.0-or-later
# mypy: ignore-errors
# (This is a part of vLLM's tree, whose modules are not here for mypy to read.)
"""Stand-in of the neuronops sandbox for vLLM 0.3.3's Llama on Neuron, which its release archive lacks.

Written for the sandbox after the interface of transformers-neuronx and of the rest of vLLM 0.3.3. The folder has no
__init__.py, as upstream: a plain `pip install` leaves it out.
"""

from pathlib import Path
from typing import Any, List, Optional, Tuple

import torch
import transformers
from transformers_neuronx.llama.model import LlamaForSampling
from transformers_neuronx.module import save_pretrained_split
from vllm.model_executor.input_metadata import InputMetadata
from vllm.model_executor.layers.sampler import Sampler
from vllm.model_executor.sampling_metadata import SamplingMetadata
from vllm.sequence import SamplerOutput


class LlamaForCausalLM(torch.nn.Module):
    """Hands each step to transformers-neuronx, which keeps the caches; a sequence has one block, its slot there."""

    def __init__(self, config: transformers.LlamaConfig, linear_method: Optional[Any] = None) -> None:
        super().__init__()
        self.config = config
        self.model: Any = None
        self.sampler = Sampler(config.vocab_size)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        kv_caches: List[Tuple[torch.Tensor, torch.Tensor]],
        input_metadata: InputMetadata,
    ) -> torch.Tensor:
        block_size = self.model.context_buckets[-1]
        slots = input_metadata.slot_mapping[:, 0] // block_size
        return self.model(input_ids, cache_ids=positions, start_ids=slots)

    def sample(self, hidden_states: torch.Tensor, sampling_metadata: SamplingMetadata) -> Optional[SamplerOutput]:
        return self.sampler(self.model.chkpt_model.lm_head, hidden_states, sampling_metadata)

    def load_weights(
        self,
        model_name_or_path: str,
        cache_dir: Optional[str] = None,
        load_format: str = "auto",
        revision: Optional[str] = None,
        **options: Any,
    ) -> None:
        split = f"{model_name_or_path}-split"
        if not Path(split).exists():
            model = transformers.LlamaForCausalLM.from_pretrained(
                model_name_or_path, cache_dir=cache_dir, revision=revision, low_cpu_mem_usage=True
            )
            save_pretrained_split(model, split)
        self.model = LlamaForSampling.from_pretrained(split, **options)
        self.model.to_neuron()
