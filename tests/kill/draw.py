# SPDX-License-Identifier: GPL-3.0-or-later
"""Which boundaries and faults a session tries: a sample that is another each day, all, or those that are named.

NEURONOPS_KILL   how many boundaries, with two faults for three of them; `all`; or places to repeat, such as
                 `upgrade:controller:37,fault:disk-full`. When not set `one`: a boundary, or a fault of one host
NEURONOPS_SEED   chooses the sample; the day when not set
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

SERIES = ("driver", "install", "upgrade", "rollback")
HOW = ("controller", "host")
USUAL = "one"
# Those that need more than one host.
OF_A_FLEET = ("broken-release-in-the-canary",)
# A run of the driver's role compiles a kernel module: the sample leaves it to `all`.
SAMPLED = ("install", "upgrade", "rollback")


@dataclass(frozen=True)
class Draw:
    """Boundaries of a series to cut off at: one, by its number or as a part of all there are, or all of them."""

    series: str
    how: str
    number: int = 0
    part: float = -1.0

    def __str__(self) -> str:
        which = f"{self.number}" if self.number else f"{self.part:.3f}" if self.part >= 0 else "all"
        return f"{self.series}:{self.how}:{which}"

    def among(self, boundaries: Sequence[int]) -> list[int]:
        """The boundaries that are meant, of those that a series has."""
        if self.number:
            return [self.number]
        return [boundaries[int(self.part * len(boundaries))]] if self.part >= 0 else list(boundaries)


def are_named(wanted: str) -> bool:
    """Whether places are named, and neither a number of them nor all."""
    return wanted not in ("all", USUAL) and not wanted.isdigit()


def draws(wanted: str, seed: int, names: Sequence[str]) -> tuple[list[Draw], list[str]]:
    """The boundaries to cut off at, and the faults to try; raises ValueError for what it does not know."""
    if wanted == "all":
        return [Draw(series, how) for series in SERIES for how in HOW], list(names)
    if are_named(wanted):
        return _named(wanted, names)
    chance = random.Random(seed)  # noqa: S311 - nothing is secret here
    if wanted == USUAL:
        boundaries, _ = draws("1", seed, names)
        return (
            (boundaries, [])
            if chance.random() < 0.5
            else ([], [chance.choice([name for name in names if name not in OF_A_FLEET])])
        )
    # Each series before one of them a second time, and then in the other way.
    ways = {series: chance.sample(HOW, len(HOW)) for series in SAMPLED}
    order: list[tuple[str, str]] = []
    while len(order) < int(wanted):
        turn = len(order) // len(SAMPLED) % len(HOW)
        order += [(series, ways[series][turn]) for series in chance.sample(SAMPLED, len(SAMPLED))]
    boundaries = [Draw(series, how, part=round(chance.random(), 3)) for series, how in order[: int(wanted)]]
    return boundaries, sorted(chance.sample(list(names), min(len(names), -(-int(wanted) * 2 // 3))), key=names.index)


def _named(wanted: str, names: Sequence[str]) -> tuple[list[Draw], list[str]]:
    boundaries, faults = [], []
    for place in wanted.split(","):
        name, _, rest = place.strip().partition(":")
        how, _, which = rest.partition(":")
        if name == "fault" and rest in names:
            faults.append(rest)
            continue
        found = re.fullmatch(r"(?P<all>all)|(?P<number>[1-9]\d*)|(?P<part>0\.\d+)", which)
        if name not in SERIES or how not in HOW or not found:
            raise ValueError(
                f"NEURONOPS_KILL has {place!r}. It should be a number, `all`, or places such as upgrade:controller:37 "
                f"({'|'.join(SERIES)}:{'|'.join(HOW)}:NUMBER) and fault:NAME, one of {', '.join(names)}."
            )
        boundaries.append(Draw(name, how, int(found["number"] or 0), float(found["part"] or -1)))
    return boundaries, faults
