# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup of one tested combination of Neuron SDK, Python packages and vLLM."""

from __future__ import annotations

DOCUMENTATION = r"""
name: stack
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: One tested combination of Neuron SDK, Python packages and vLLM
description:
  - Returns an entry of the collection's data file C(data/stacks.yml), which says all about versions that the roles
    of the collection need to know.
  - Fails with the list of entries when there is none of that name, and with the list of fields when an entry of the
    user's own, or one changed by overrides, is not complete.
options:
  _terms:
    description:
      - The name of one entry.
      - Without it the variable C(neuron_stack) decides, and without that the default of the data file.
    type: list
    elements: str
    required: false
notes:
  - The variable C(neuron_stack_overrides) (a dictionary) is laid over the entry, and C(neuron_stack_entries) (a
    dictionary of entries by name) adds entries of the user's own.
seealso:
  - name: The entries
    description: Which vLLM runs with which SDK, Python and system, and how we know.
    link: https://github.com/neuronops/ansible-vllm/blob/main/docs/versions.md
"""

EXAMPLES = r"""
- name: Show what the fleet is to have
  ansible.builtin.debug:
    msg: "{{ lookup('neuronops.vllm.stack') }}"

- name: Show the driver that goes with an older vLLM
  ansible.builtin.debug:
    msg: "{{ lookup('neuronops.vllm.stack', 'vllm-0.3.3').host_packages['aws-neuronx-dkms'] }}"

# In group_vars, to change one field of the entry:
# neuron_stack: vllm-0.9.2
# neuron_stack_overrides:
#   python_packages:
#     transformers-neuronx: 0.13.1315
"""

RETURN = r"""
_list:
  description: The entry, with its C(name) and an C(id) that changes with any field that decides on what is installed.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.neuronops.vllm.plugins.plugin_utils.kept import Kept
from ansible_collections.neuronops.vllm.plugins.plugin_utils.stacks import StackError, resolve

KEPT = Kept()


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        given = variables or {}
        return KEPT.answer(tuple(terms), given, lambda: [self._find(given, *terms)])

    def _find(self, given: dict[str, Any], *terms: str) -> dict[str, Any]:
        name = terms[0] if terms else self._variable(given, "neuron_stack")
        try:
            return resolve(
                name,
                overrides=self._variable(given, "neuron_stack_overrides"),
                entries=self._variable(given, "neuron_stack_entries"),
            )
        except StackError as error:
            raise AnsibleLookupError(str(error)) from error

    def _variable(self, given: dict[str, Any], name: str) -> Any:
        """Return the value of a variable, itself templated, or None where it is not set."""
        value = given.get(name)
        return None if value is None else self._templar.template(value)
