# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put versions in order by their numbers, where 0.10 comes after 0.9.

Whether two versions are the same one is another question, which packages.py answers as PEP 440 does: there 1.0 is
1.0.0, and 1.0rc1 is not 1.0.1.
"""

from __future__ import annotations

import re


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers in a version as a tuple, from left to right; everything between them only separates."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", version))
