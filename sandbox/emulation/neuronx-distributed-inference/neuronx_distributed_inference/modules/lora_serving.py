# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA adapters, which the stand-in refuses; the plugin imports the names whether it uses them or not."""

from typing import Any


class LoraServingConfig:
    def __init__(self, **options: Any) -> None:
        self.__dict__.update(options)


class LoraModelManager:
    def __init__(self, config: LoraServingConfig) -> None:
        raise NotImplementedError("the sandbox's stand-in of neuronx-distributed-inference serves no LoRA adapters")
