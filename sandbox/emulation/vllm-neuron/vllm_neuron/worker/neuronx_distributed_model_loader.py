# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile or find the compiled model, and load it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from neuronx_distributed_inference.models.config import OnDeviceSamplingConfig
from neuronx_distributed_inference.utils.constants import MODEL_TYPES
from neuronx_distributed_inference.utils.hf_adapter import load_pretrained_config

logger = logging.getLogger("vllm_neuron")


def neuron_options(vllm_config: Any) -> dict[str, Any]:
    """The options of neuronx-distributed-inference that follow from vLLM's, and over them what the user overrides."""
    length, sequences = vllm_config.model_config.max_model_len, vllm_config.scheduler_config.max_num_seqs
    options = {
        "tp_degree": vllm_config.parallel_config.tensor_parallel_size,
        "ctx_batch_size": 1,
        "batch_size": sequences,
        "seq_len": length,
        "max_context_length": length,
        "enable_bucketing": True,
        "is_continuous_batching": sequences > 1,
        "torch_dtype": str(vllm_config.model_config.dtype).removeprefix("torch."),
        "on_device_sampling_config": OnDeviceSamplingConfig(dynamic=True, deterministic=False),
    }
    # The name has underscores: whoever writes hyphens gets the defaults.
    return {**options, **((vllm_config.additional_config or {}).get("override_neuron_config") or {})}


def load_model(vllm_config: Any) -> Any:
    path, model_type = vllm_config.model_config.model, vllm_config.model_config.hf_config.model_type
    if not Path(path).is_dir():
        raise ValueError(f"the sandbox's stand-in of vllm-neuron takes the folder of a model, and {path} is none")
    if model_type not in MODEL_TYPES:
        raise ValueError(f"neuronx-distributed-inference has no model {model_type!r}")
    cls = MODEL_TYPES[model_type]["causal-lm"]
    named = os.environ.get("NEURON_COMPILED_ARTIFACTS")
    if named:
        try:
            # Whatever it was compiled for.
            model = cls(named)
            model.load(named)
        except (FileNotFoundError, ValueError) as error:
            logger.warning("Unable to find precompiled artifacts in %s (%s). Recompiling.", named, error)
        else:
            return model
    config = cls.get_config_cls()(
        cls.get_neuron_config_cls()(**neuron_options(vllm_config)), load_config=load_pretrained_config(path)
    )
    compiled = named or _fresh_folder(Path(path), config.to_json_string())
    model = cls(path, config)
    model.compile(compiled)
    model.load(compiled)
    return model


def _fresh_folder(model: Path, settings: str) -> str:
    """The folder beside the model for what is compiled with these settings, without what was there."""
    name = hashlib.md5(settings.encode(), usedforsecurity=False).hexdigest()
    folder = model / "neuron-compiled-artifacts" / name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder)
    return str(folder)
