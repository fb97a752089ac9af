# SPDX-License-Identifier: GPL-3.0-or-later
"""The model's own configuration for the stand-in."""

from typing import Callable

from transformers import AutoConfig

from neuronx_distributed_inference.models.config import InferenceConfig


def load_pretrained_config(model_path_or_name: str) -> Callable[[InferenceConfig], None]:
    """A function that sets all of the model's configuration on an InferenceConfig."""

    def load_config(config: InferenceConfig) -> None:
        config.__dict__.update(AutoConfig.from_pretrained(model_path_or_name).to_dict())
        # A compiled model is loaded without naming the model, and has its weights there.
        config.__dict__["_name_or_path"] = str(model_path_or_name)

    return load_config
