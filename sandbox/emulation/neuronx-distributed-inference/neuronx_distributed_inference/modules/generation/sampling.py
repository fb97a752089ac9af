# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's sampling on the device."""

from typing import Any, List, Sequence

import torch


def prepare_sampling_params(
    batch_size: int, top_k: Sequence[int] = (1,), top_p: Sequence[float] = (1.0,), temperature: Sequence[float] = (1.0,)
) -> Any:
    """A tensor [batch_size, 3] of top_k, top_p and temperature; one value stands for all rows."""
    columns: List[Any] = []
    for values in (top_k, top_p, temperature):
        if len(values) not in (1, batch_size):
            raise ValueError(f"{len(values)} values are not for a batch of {batch_size}")
        columns.append(torch.tensor(list(values), dtype=torch.float32).expand(batch_size))
    return torch.stack(columns, dim=1)


def sample(logits: Any, params: Any, global_topk: int) -> Any:
    """One token by the [top_k, top_p, temperature] of its row; top_k 1 is how the plugin asks for the best one."""
    top_k, top_p, temperature = (float(value) for value in params)
    if top_k == 1:
        return logits.argmax()
    count = int(top_k) if top_k > 0 else global_topk
    values, tokens = torch.topk(logits, min(count, global_topk, logits.numel()))
    odds = torch.softmax(values / temperature, dim=-1)
    # A token stays when the ones before it do not reach top_p yet; the first always stays.
    odds = torch.where(odds.cumsum(-1) - odds < top_p, odds, torch.zeros_like(odds))
    return tokens[torch.multinomial(odds, 1)[0]]
