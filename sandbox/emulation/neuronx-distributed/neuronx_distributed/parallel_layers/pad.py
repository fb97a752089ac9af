# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads that are added so that each rank has as many."""

from neuronx_distributed.parallel_layers.utils import get_padding_length


def get_number_of_extra_heads(n_head: int, tp_degree: int) -> int:
    return get_padding_length(n_head, tp_degree)
