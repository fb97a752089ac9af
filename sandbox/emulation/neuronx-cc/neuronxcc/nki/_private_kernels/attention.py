# SPDX-License-Identifier: GPL-3.0-or-later
"""Attention to what came before, for long prompts."""

from typing import Any


def attention_isa_kernel(query: Any, key: Any, value: Any, scale: float, output: Any, kernel_name: str) -> None:
    """Query and key are [heads, features, tokens], the value [heads, tokens, features], the output as the query."""
    if kernel_name != "CausalAttentionMMSoftmaxMMWithoutSwap":
        raise NotImplementedError(f"the sandbox's stand-in of neuronx-cc has no kernel {kernel_name}")
    scores = (query.transpose(1, 2) @ key).float() * scale
    before = scores.new_ones(scores.shape[-2:]).tril().bool()
    odds = scores.masked_fill(~before, float("-inf")).softmax(-1).to(value.dtype)
    output.copy_((odds @ value).transpose(1, 2))
