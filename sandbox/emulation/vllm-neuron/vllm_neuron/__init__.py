# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the sandbox for the plugin vllm-neuron; see its README.md."""

from __future__ import annotations

from pathlib import Path

__version__ = "@VERSION@"


def register() -> str | None:
    """What vLLM asks each plugin of a platform: the class, or nothing where there is no such hardware."""
    return "vllm_neuron.platform.NeuronPlatform" if any(Path("/dev").glob("neuron*")) else None
