# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup that fails where anything is as it should not be."""

from __future__ import annotations

DOCUMENTATION = r"""
name: verdict
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: Fail where hosts differ from what is wanted
description:
  - Returns an empty list when it is given none, and fails with the names that it is given otherwise.
  - In C(vars_files) of a play it ends C(ansible-playbook) with status 1, which no task that fails does. That is how
    C(playbooks/verify.yml) tells a difference from a host that could not be asked.
options:
  _terms:
    description: The names of the hosts that differ.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Verify that no host differs
  hosts: localhost
  gather_facts: false
  vars_files: ["{{ lookup('neuronops.vllm.verdict', *names) or 'vars/none.yml' }}"]
  tasks: []
"""

RETURN = r"""
_list:
  description: Nothing.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        if terms:
            raise AnsibleLookupError(
                f"Not as wanted, as said above: {', '.join(map(str, terms))}. Nothing was changed."
            )
        return []
