# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of modules for training and mixtures of experts: optimum-neuron imports them whether it uses them or not."""

import sys
import types
from typing import Any, Dict, Tuple

NAMES: Dict[str, Tuple[str, ...]] = {
    "kernels.flash_attn": ("nki_flash_attn_func",),
    "modules.moe.expert_mlps": ("ExpertMLPs",),
    "modules.moe.expert_mlps_v2": ("ExpertMLPsV2",),
    "modules.moe.model": ("MoE",),
    "modules.moe.moe_configs": ("RoutedExpertsMLPOpsConfig",),
    "modules.moe.routing": ("RouterTopK",),
    "modules.moe.shared_experts": ("SharedExperts",),
    "modules.qkv_linear": ("GQAQKVColumnParallelLinear",),
    "pipeline": ("NxDPPModel",),
    "pipeline.partition": ("analyze_shared_weights_across_stages",),
    "pipeline.trace": ("HFTracerWrapper", "NxDTracer", "trace_model"),
}


def refused(name: str) -> Any:
    """A class of that name, or a function as far as callers see, that says what is missing when it is called."""

    def refuse(self: Any, *_: Any, **__: Any) -> None:
        raise NotImplementedError(f"the sandbox's stand-in of neuronx-distributed has no {name}")

    return type(name, (), {"__init__": refuse})


def register() -> None:
    """Make the modules of NAMES, and the packages that they are in."""
    for path, names in NAMES.items():
        parts = path.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join([__package__, *parts[:depth]])
            if name not in sys.modules:
                sys.modules[name] = types.ModuleType(name)
                sys.modules[name].__path__ = []
                setattr(sys.modules[name.rpartition(".")[0]], parts[depth - 1], sys.modules[name])
        for name in names:
            setattr(sys.modules[f"{__package__}.{path}"], name, refused(name))
