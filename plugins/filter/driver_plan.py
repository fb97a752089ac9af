# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that decides what role neuron_driver has to do."""

from __future__ import annotations

DOCUMENTATION = r"""
name: driver_plan
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: What has to be done for the Neuron driver on a host
positional: facts, options
description:
  - Compares what M(neuronops.vllm.neuron_info) observed with the options of role C(neuron_driver).
  - Changes nothing and asks nothing of the host, so that the same decision is made in check mode.
options:
  _input:
    description: What M(neuronops.vllm.neuron_info) returned, asked with its options C(repository) and C(files).
    type: dict
    required: true
  facts:
    description: The facts C(distribution), C(distribution_version), C(distribution_major_version) and C(architecture).
    type: dict
    required: true
  options:
    description: >-
      The options C(stack), C(state), C(allow_downgrade) and C(hold) of the role, and C(files), the SHA-256 of each file
      that it writes.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say why a host cannot have the driver
  ansible.builtin.debug:
    msg: "{{ (observed | neuronops.vllm.driver_plan(ansible_facts, options)).refusals }}"
"""

RETURN = r"""
_value:
  description: >-
    C(refusals), C(reasons), C(reboot), C(problems) and C(notes) are lists of sentences; C(packages), C(brings),
    C(outdated), C(hold),
    C(build) and C(files) list what to install, what of it is new, and what to take off, hold, build for and write;
    C(work), C(repository), C(change) and C(load) say whether there is anything to do.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.driver import PlanError, plan


def driver_plan(host: dict[str, Any], facts: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    try:
        result: dict[str, Any] = plan(host, facts, options)
    except (PlanError, KeyError) as error:
        raise AnsibleFilterError(f"driver_plan: {error}") from error
    return result


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"driver_plan": driver_plan}
