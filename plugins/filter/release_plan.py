# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that decides which release a host is to have."""

from __future__ import annotations

DOCUMENTATION = r"""
name: release_plan
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Which release a host is to have, and in which folder it is made
positional: wanted
description:
  - Compares what M(neuronops.vllm.neuron_info) observed of a host's releases with the one that is wanted.
  - A release that serves is never changed in place. Where it is damaged, the folder of a copy beside it is named.
options:
  _input:
    description: >-
      What M(neuronops.vllm.neuron_info) returned, asked with its options C(environments) (the link to the active
      release, and the wanted release with C(*) behind), C(services), and C(filesystems) with the directory of releases.
    type: dict
    required: true
  wanted:
    description: >-
      C(stack), the resolved entry, C(layers), a list of dictionaries with C(name), C(inputs) and C(lock_sha256),
      C(directory), where releases are kept, C(link), and C(exact), whether packages that no role asked for count as a
      fault. With C(space), the GiB that a release needs, and C(host), the name for messages, it is told whether there
      is room; C(there) are the bytes of it that were made already, and C(releases) is how many are made.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show in which folder the release is made, and why
  ansible.builtin.debug:
    msg: "{{ observed | neuronops.vllm.release_plan(wanted) }}"
"""

RETURN = r"""
_value:
  description: >-
    C(id), the name of the release, C(path), its folder on this host, C(whole), whether it is there and nothing is
    missing, C(started), whether something of it is there, C(beside), which of its files outside of the folder differ,
    C(reasons), why there is something to do, and C(refusals), why it cannot be made, as sentences.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.release_plan import PlanError, plan, release_id


def release_plan(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    try:
        identity = wanted.get("id") or release_id(wanted["stack"], wanted["layers"])
        free = next(iter((found.get("free_bytes") or {}).values()), None)
        return {"id": identity, **plan(found["environments"], found["services"], {**wanted, "id": identity}, free)}
    except (PlanError, KeyError) as error:
        raise AnsibleFilterError(f"release_plan: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"release_plan": release_plan}
