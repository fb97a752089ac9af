# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that decides what there is to do for one layer of a Python environment."""

from __future__ import annotations

DOCUMENTATION = r"""
name: environment_plan
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: What there is to do for one layer of a Python environment, and why
positional: wanted
description:
  - Compares what M(neuronops.vllm.neuron_info) observed of an environment with what a role wants of its layer.
  - Changes nothing and asks nothing of the host, so that the same decision is made in check mode.
options:
  _input:
    description: An entry of C(environments) as M(neuronops.vllm.neuron_info) returns it.
    type: dict
    required: true
  wanted:
    description: What is wanted.
    type: dict
    required: true
    suboptions:
      layer:
        description: The layer.
        type: str
        choices: [neuron_venv, transformers_neuronx, nxd_inference, vllm]
        required: true
      inputs:
        description: The hash of all that decides on what the layer is; empty where it is not known.
        type: str
        required: true
      exact:
        description: Whether packages that no role asked for must not be there.
        type: bool
        required: true
"""

EXAMPLES = r"""
- name: Report why there is something to do
  ansible.builtin.debug:
    msg: "{{ (host.environments[0] | neuronops.vllm.environment_plan(wanted)).reasons }}"
  vars:
    wanted: {layer: vllm, inputs: "{{ inputs }}", exact: false}
"""

RETURN = r"""
_value:
  description: >-
    C(done) says whether there is nothing to do, C(reasons) has a sentence for everything that is not as wanted, and
    C(foreign) names the packages that no role asked for, where the layer has been completed before.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.environment_plan import PlanError, plan


def environment_plan(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        result: dict[str, Any] = plan(found, wanted)
    except (PlanError, KeyError) as error:
        raise AnsibleFilterError(f"environment_plan: {error}") from error
    return result


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"environment_plan": environment_plan}
