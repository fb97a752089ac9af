# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that finds arguments of vLLM's API server that are options of role vllm_server."""

from __future__ import annotations

DOCUMENTATION = r"""
name: server_arguments
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Arguments of vLLM's API server that are options of role vllm_server
positional: block_size_is_context, backend
description:
  - Names each argument that an option of role C(vllm_server) says, also in a shortened form such as C(--por=1), and
    what to do instead.
options:
  _input:
    description: The arguments.
    type: list
    elements: str
    required: true
  block_size_is_context:
    description: Whether this vLLM must be given the whole context as its block size.
    type: bool
    default: false
  backend:
    description: The backend of the stack, on which it depends what else the role sets itself.
    type: str
    default: in_tree
"""

EXAMPLES = r"""
- name: Refuse arguments that are options
  ansible.builtin.assert:
    that: vllm_server_arguments | neuronops.vllm.server_arguments | length == 0
"""

RETURN = r"""
_value:
  description: A text for each argument that is to be refused.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils.server import refusals


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"server_arguments": refusals}
