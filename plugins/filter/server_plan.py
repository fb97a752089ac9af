# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that decides what role vllm_server has to do."""

from __future__ import annotations

DOCUMENTATION = r"""
name: server_plan
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: What has to be done for the server on a host
positional: wanted
description:
  - Compares what M(neuronops.vllm.neuron_info) and M(neuronops.vllm.vllm_answer) found with what role C(vllm_server)
    wants.
  - Changes nothing and asks nothing of the host, so that the same decision is made in check mode.
options:
  _input:
    description: >-
      C(service), one entry of C(services) of M(neuronops.vllm.neuron_info); its C(activations), C(files) and C(links);
      and C(answer), what M(neuronops.vllm.vllm_answer) returned.
    type: dict
    required: true
  wanted:
    description: >-
      C(host), the name for messages; C(service), C(state), C(configuration), C(release), C(link) or an empty text,
      C(address), C(port); C(files), the SHA-256 of the unit and the environment file; C(other_files), of files that
      need no restart; and C(restart_unhealthy).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say why a server has to be started
  ansible.builtin.debug:
    msg: "{{ (observed | neuronops.vllm.server_plan(wanted)).reasons }}"
"""

RETURN = r"""
_value:
  description: >-
    C(differs) says what is not as wanted, in sentences; C(start) says whether to begin an activation, for C(reasons);
    C(refusals) why nothing may be changed; C(failures) what is wrong and is left as it is; C(prove) is the number of
    a pending activation that only has to be recorded as proven, or null; C(adopt) says whether what serves has to be
    recorded; C(write) lists files to write without a restart; C(notes) is what else there is to know.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.server_plan import plan


def server_plan(observed: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        result: dict[str, Any] = plan(observed, wanted)
    except (KeyError, TypeError, AttributeError) as error:
        raise AnsibleFilterError(f"server_plan: {type(error).__name__}: {error}") from error
    return result


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"server_plan": server_plan}
