# SPDX-License-Identifier: GPL-3.0-or-later
"""The one worker of a server: it hands on to the model runner."""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec
from vllm.v1.worker.worker_base import WorkerBase

from vllm_neuron.worker.neuronx_distributed_model_runner import NeuronxDistributedModelRunner


class NeuronWorker(WorkerBase):
    def init_device(self) -> None:
        self.device = torch.device("cpu")
        torch.manual_seed(self.model_config.seed or 0)
        self.model_runner = NeuronxDistributedModelRunner(self.vllm_config)

    def load_model(self) -> None:
        self.model_runner.load_model()

    def get_model(self) -> torch.nn.Module:
        return self.model_runner.model

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        """One layer stands for all: the cache is the model's own, and vLLM only counts blocks."""
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=self.model_config.get_num_kv_heads(self.parallel_config),
            head_size=self.model_config.get_head_size(),
            dtype=torch.float32,
        )
        return {"layer": spec}

    def determine_available_memory(self) -> int:
        (spec,) = self.get_kv_cache_spec().values()
        return spec.page_size_bytes * self.cache_config.num_gpu_blocks_override

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        """The cache was made with the model."""

    def initialize_cache(self, num_gpu_blocks: int, num_cpu_blocks: int) -> None:
        self.cache_config.num_gpu_blocks = num_gpu_blocks
        self.cache_config.num_cpu_blocks = num_cpu_blocks

    def compile_or_warm_up_model(self) -> float:
        return 0.0

    def execute_model(self, scheduler_output: Any) -> Any:
        return self.model_runner.execute_model(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> Any:
        return self.model_runner.sample_tokens(grammar_output)
