# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that says what the options of role vllm_server mean for the backend of its stack."""

from __future__ import annotations

DOCUMENTATION = r"""
name: server_settings
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: What the options of role vllm_server mean for the backend of its stack
description:
  - Returns the further arguments that a stack's backend is started with, and what of the options is to be refused.
options:
  _input:
    description:
      - The options of role C(vllm_server) without their prefix, as P(neuronops.vllm.options#lookup) returns them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse what cannot be meant
  ansible.builtin.assert:
    that: (lookup('neuronops.vllm.options', 'vllm_server') | neuronops.vllm.server_settings).refusals == []
"""

RETURN = r"""
_value:
  description:
    - C(refusals), what is to be refused, in sentences; C(cores), the NeuronCores that the server may take, none where
      it may take all; C(arguments), further arguments of the server; C(compiled_from), what decides on what is
      compiled beside the files of the model and the number of NeuronCores; and C(exports), whether the model is
      exported before the server is started.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils.server import settings


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"server_settings": settings}
