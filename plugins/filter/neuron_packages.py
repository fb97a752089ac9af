# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that tells the packages that only AWS may provide from all others."""

from __future__ import annotations

DOCUMENTATION = r"""
name: neuron_packages
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Those of some packages that only AWS may provide
description:
  - Returns the names of packages of which the public index has stubs, or nothing, under the same name.
options:
  _input:
    description: Names of Python packages.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what has to come from AWS
  ansible.builtin.debug:
    msg: "{{ ['torch', 'torch-neuronx', 'optimum-neuron'] | neuronops.vllm.neuron_packages }}"
"""

RETURN = r"""
_value:
  description: The names, in their order.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable

from ansible_collections.neuronops.vllm.plugins.module_utils.packages import is_neuron


def neuron_packages(names: Iterable[str]) -> list[str]:
    return [name for name in names if is_neuron(name)]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"neuron_packages": neuron_packages}
