# SPDX-License-Identifier: GPL-3.0-or-later
"""Which class runs a model, by its type; transformers knows each of them, so it is always the same one."""

from neuronx_distributed_inference.models.model_base import NeuronBaseForCausalLM

MODEL_TYPES = {name: {"causal-lm": NeuronBaseForCausalLM} for name in ("llama", "mistral", "qwen2", "qwen3")}
