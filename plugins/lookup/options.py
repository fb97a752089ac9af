# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup of the options of a role of this collection, each in its type."""

from __future__ import annotations

DOCUMENTATION = r"""
name: options
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: The options of a role of this collection, each in its type
description:
  - Returns the options of a role as they are set for the host, converted to the types that the role's argument
    specification names, so that C(-e vllm_server_port=9000) is the number that a YAML value is.
  - Fails with the name and the value of an option that cannot be converted.
options:
  _terms:
    description: The name of the role, without that of the collection, and if wanted of one option without its prefix.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the port that the server listens on
  ansible.builtin.debug:
    msg: "{{ lookup('neuronops.vllm.options', 'vllm_server', 'port') }}"
"""

RETURN = r"""
_list:
  description: A dictionary of all options, without the role's prefix, or the value of the one that was named.
  type: list
  elements: raw
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.neuronops.vllm.plugins.plugin_utils.kept import Kept
from ansible_collections.neuronops.vllm.plugins.plugin_utils.options import OptionError, converted

KEPT = Kept()


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        given = variables or {}
        return KEPT.answer(tuple(terms), given, lambda: self._find(given, *terms))

    def _find(self, given: dict[str, Any], role: str, *option: str) -> list[Any]:
        only = option[0] if option else None
        try:
            options, wrong = converted(role, given, lambda name: self._templar.template(given[name]), only)
        except OptionError as error:
            raise AnsibleLookupError(str(error)) from error
        if wrong:
            raise AnsibleLookupError("; ".join(wrong))
        return [options[only]] if only else [options]
