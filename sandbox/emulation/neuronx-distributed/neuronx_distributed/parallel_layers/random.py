# SPDX-License-Identifier: GPL-3.0-or-later
"""The seed of the devices, which draw random numbers with a generator that torch does not seed."""


def model_parallel_xla_manual_seed(seed: int) -> None:
    """Nothing: what a device draws here comes from torch's generator, seeded beside this."""
