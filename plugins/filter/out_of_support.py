# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that says whether AWS still supports what a stack is made of."""

from __future__ import annotations

DOCUMENTATION = r"""
name: out_of_support
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Whether AWS still supports what a stack is made of
description:
  - Compares the field C(supported) of a stack, which AWS's announcements are the source of, with the controller's date.
options:
  _input:
    description: A stack, as the lookup P(neuronops.vllm.stack#lookup) returns it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say that the stack is out of support
  ansible.builtin.debug:
    msg: "{{ lookup('neuronops.vllm.stack') | neuronops.vllm.out_of_support }}"
"""

RETURN = r"""
_value:
  description: >-
    A sentence that says since when it is out of support, by which source, and which stack is not; empty where AWS
    supports it.
  type: str
"""

import datetime
from collections.abc import Callable
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils import stacks


def out_of_support(stack: dict[str, Any]) -> str:
    return stacks.out_of_support(stack, datetime.datetime.now(datetime.timezone.utc).date()) or ""


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"out_of_support": out_of_support}
