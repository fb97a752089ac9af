# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that vLLM loads for Llama models."""

from transformers_neuronx.sampling import ModelForSampling


class LlamaForSampling(ModelForSampling):
    architecture = "LlamaForCausalLM"
