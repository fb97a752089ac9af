# SPDX-License-Identifier: GPL-3.0-or-later
"""Arithmetic of sizes."""

from neuronx_distributed.importable import refused

EmbeddingUtility = refused("EmbeddingUtility")
get_local_world_size = refused("get_local_world_size")
move_model_to_device = refused("move_model_to_device")


def divide(numerator: int, denominator: int) -> int:
    if numerator % denominator:
        raise AssertionError(f"{numerator} is not divisible by {denominator}")
    return numerator // denominator


def get_padding_length(numerator: int, denominator: int) -> int:
    """What has to be added to the first number so that the second divides it."""
    return -numerator % denominator
