# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last answers of a lookup. A task asks dozens of times, and to template all variables each time took a third of a
run."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any


class Kept:
    """The last answer to each question, with the variables that it was made from.

    While the variables are the very same objects, as they are within a task, the answer is the same.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], tuple[list[str], list[Any], list[Any]]] = {}

    def answer(
        self, question: tuple[str, ...], variables: Mapping[str, Any], find: Callable[[], list[Any]]
    ) -> list[Any]:
        """Return what was found for the same question and variables, else what is found now."""
        names, values = list(variables), list(variables.values())
        kept_names, kept_values, answer = self._kept.get(question, ([], [], []))
        if not answer or names != kept_names or not all(map(operator.is_, values, kept_values)):
            answer = find()
            self._kept[question] = names, values, answer
        return answer
