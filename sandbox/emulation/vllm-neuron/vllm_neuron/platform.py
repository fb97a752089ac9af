# SPDX-License-Identifier: GPL-3.0-or-later
"""What vLLM must know of the stand-in's platform before it starts: one process, one sequence to a block, no chunks."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from vllm.platforms.interface import Platform, PlatformEnum

WORKER = "vllm_neuron.worker.neuron_worker.NeuronWorker"


class NeuronPlatform(Platform):
    _enum = PlatformEnum.OOT
    device_name = "neuron"
    # The tensors that vLLM itself makes are on the host.
    device_type = "cpu"
    device_control_env_var = "NEURON_RT_VISIBLE_CORES"

    @property
    def supported_dtypes(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return cls.device_name

    @classmethod
    def import_kernels(cls) -> None:
        """There are none: vLLM is built for no device."""

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        """The runtime chooses the cores."""

    @classmethod
    def pre_register_and_update(cls, parser: Any = None) -> None:
        _take_the_length_that_is_given()

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        model, cache = vllm_config.model_config, vllm_config.cache_config
        if model is None:
            return
        _check_environment()
        for name in ("lora_config", "speculative_config"):
            if getattr(vllm_config, name):
                raise NotImplementedError(f"the sandbox's stand-in of vllm-neuron has no {name}")
        if cache.enable_prefix_caching:
            raise NotImplementedError(
                "the sandbox's stand-in of vllm-neuron has no prefix caching: start with --no-enable-prefix-caching"
            )
        parallel, scheduler = vllm_config.parallel_config, vllm_config.scheduler_config
        if parallel.pipeline_parallel_size > 1 or parallel.data_parallel_size > 1:
            raise NotImplementedError("the sandbox's stand-in of vllm-neuron has tensor parallelism alone")
        parallel.worker_cls = WORKER
        # The model shards itself over the cores.
        parallel.distributed_executor_backend = "uni"
        parallel.world_size = 1
        cache.block_size = model.max_model_len
        # vLLM keeps one block for itself.
        cache.num_gpu_blocks_override = (cache.num_gpu_blocks_override or scheduler.max_num_seqs) + 1
        scheduler.async_scheduling = False
        scheduler.enable_chunked_prefill = False
        scheduler.chunked_prefill_enabled = False  # vLLM 0.11 looks at this one
        scheduler.max_num_batched_tokens = max(scheduler.max_num_batched_tokens, model.max_model_len)


def _take_the_length_that_is_given() -> None:
    """Have vLLM take --max-model-len as it is, unknown to the model or not; without one it refuses to go on."""
    # Not at the top: vllm.config asks for the platform while it is imported.
    from vllm.config import ModelConfig

    @functools.wraps(ModelConfig.get_and_verify_max_len)
    def given(self: Any, max_model_len: int) -> int:
        if max_model_len is None:
            raise ValueError("max_model_len must be a positive integer, got NoneType: None.")
        return max_model_len

    ModelConfig.get_and_verify_max_len = given


def _check_environment() -> None:
    if os.environ.get("NEURON_ON_DEVICE_SAMPLING_DISABLED") == "1":
        raise TypeError("'module' object is not callable")
    cores = os.environ.get("NEURON_RT_VISIBLE_CORES", "")
    separator = "-" if "-" in cores else ","
    for core in cores.split(separator) if cores else []:
        int(core)
