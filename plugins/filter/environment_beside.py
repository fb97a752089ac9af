# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that says what stands in a Python environment for the layers that come on top."""

from __future__ import annotations

DOCUMENTATION = r"""
name: environment_beside
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: What stands in a Python environment for the layers that come on top of it
positional: locked, pythons
description:
  - Takes the packages of each layer from what was locked in this run for the same path, and else from what
    M(neuronops.vllm.neuron_info) observed, so that the answer is the same before and after the environment is made.
options:
  _input:
    description: An entry of C(environments) as M(neuronops.vllm.neuron_info) returns it.
    type: dict
    required: true
  locked:
    description: >-
      The layers that were locked in this run, each with C(name), C(path), C(packages) and, where it decides on that,
      C(python_version). An empty dictionary is left out.
    type: list
    elements: dict
    required: true
  pythons:
    description: Versions of Python to take where neither of them says one, best first. An empty text is left out.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Report which versions have to stay
  ansible.builtin.debug:
    msg: "{{ (host.environments[0] | neuronops.vllm.environment_beside([], ['3.10'])).packages }}"
"""

RETURN = r"""
_value:
  description: >-
    C(packages), the versions of the packages of each layer in their canonical spelling, and C(python_version).
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.environment_plan import beside


def environment_beside(
    found: dict[str, Any], locked: list[dict[str, Any]], pythons: list[str] | None = None
) -> dict[str, Any]:
    try:
        result: dict[str, Any] = beside(found, locked, pythons or [])
    except KeyError as error:
        raise AnsibleFilterError(f"environment_beside: {error} is missing") from error
    return result


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"environment_beside": environment_beside}
