# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that vLLM loads for Mistral models."""

from transformers_neuronx.sampling import ModelForSampling


class MistralForSampling(ModelForSampling):
    architecture = "MistralForCausalLM"
