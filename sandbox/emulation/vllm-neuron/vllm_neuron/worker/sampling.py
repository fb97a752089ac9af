# SPDX-License-Identifier: GPL-3.0-or-later
"""What vLLM's own sampler must know of the requests of one step, made anew for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from vllm.v1.sample.logits_processor import BatchUpdate, build_logitsprocs
from vllm.v1.sample.metadata import SamplingMetadata

CPU = torch.device("cpu")


class Request(Protocol):
    params: Any
    prompt: list[int]
    output: list[int]


def metadata(vllm_config: Any, requests: Sequence[Request], vocabulary: int) -> SamplingMetadata:
    params = [request.params for request in requests]

    def column(name: str) -> torch.Tensor:
        return torch.tensor([getattr(each, name) for each in params], dtype=torch.float32)

    greedy = [each.temperature < 1e-5 for each in params]
    top_k = [each.top_k if 0 < each.top_k < vocabulary else vocabulary for each in params]
    logprobs = [each.logprobs for each in params if each.logprobs is not None]
    presence, frequency = column("presence_penalty"), column("frequency_penalty")
    repetition = column("repetition_penalty")
    return SamplingMetadata(
        temperature=column("temperature"),
        all_greedy=all(greedy),
        all_random=not any(greedy),
        top_p=column("top_p") if any(each.top_p < 1 for each in params) else None,
        top_k=torch.tensor(top_k, dtype=torch.int32) if any(each < vocabulary for each in top_k) else None,
        # Nobody's seed.
        generators={},
        max_num_logprobs=None if not logprobs else vocabulary if -1 in logprobs else max(logprobs),
        no_penalties=not (presence.any() or frequency.any() or (repetition != 1).any()),
        prompt_token_ids=_prompts(requests, vocabulary),
        frequency_penalties=frequency,
        presence_penalties=presence,
        repetition_penalties=repetition,
        output_token_ids=[request.output for request in requests],
        allowed_token_ids_mask=_forbidden(params, vocabulary),
        bad_words_token_ids={
            row: each.bad_words_token_ids for row, each in enumerate(params) if each.bad_words_token_ids
        },
        logitsprocs=_processors(vllm_config, requests),
    )


def _prompts(requests: Sequence[Request], vocabulary: int) -> torch.Tensor:
    """One row each, filled up with a token that is none."""
    length = max(len(request.prompt) for request in requests)
    return torch.tensor([request.prompt + [vocabulary] * (length - len(request.prompt)) for request in requests])


def _forbidden(params: list[Any], vocabulary: int) -> torch.Tensor | None:
    """True where a token is not among those that a request allows."""
    if not any(each.allowed_token_ids for each in params):
        return None
    mask = torch.zeros(len(params), vocabulary, dtype=torch.bool)
    for row, each in enumerate(params):
        if each.allowed_token_ids:
            mask[row] = True
            mask[row, each.allowed_token_ids] = False
    return mask


def _processors(vllm_config: Any, requests: Sequence[Request]) -> Any:
    found = build_logitsprocs(vllm_config, CPU, is_pin_memory=False, is_pooling_model=False)
    added = [(row, request.params, request.prompt, request.output) for row, request in enumerate(requests)]
    update = BatchUpdate(batch_size=len(requests), removed=[], added=added, moved=[])
    for processor in found.all:
        processor.update_state(update)
    return found


def forbid(logits: torch.Tensor, rows: Sequence[int], bitmask: np.ndarray) -> None:
    """Leave of each row the tokens that its grammar allows next; a bit each, the lowest first."""
    bits = np.unpackbits(np.ascontiguousarray(bitmask).view(np.uint8), axis=1, bitorder="little")
    for row, allowed in zip(rows, bits):
        logits[row].masked_fill_(torch.from_numpy(allowed[: logits.shape[1]] == 0), float("-inf"))
