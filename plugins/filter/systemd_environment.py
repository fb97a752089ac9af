# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that writes the lines of an environment file of systemd."""

from __future__ import annotations

DOCUMENTATION = r"""
name: systemd_environment
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: The lines of an environment file of systemd
positional: what
description:
  - Writes variables so that C(EnvironmentFile) of systemd reads back their values, and refuses what cannot be written.
options:
  _input:
    description: The variables.
    type: dict
    required: true
  what:
    description: The name of the option, for messages.
    type: str
    default: the environment
"""

EXAMPLES = r"""
- name: Show an environment file
  ansible.builtin.debug:
    msg: "{{ {'HF_HOME': '/srv/my models'} | neuronops.vllm.systemd_environment('vllm_server_environment') }}"
"""

RETURN = r"""
_value:
  description: One line for each variable, in their order.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.systemd import SystemdError, environment_lines


def systemd_environment(variables: dict[str, Any], what: str = "the environment") -> list[str]:
    try:
        return environment_lines(variables, what)
    except SystemdError as error:
        raise AnsibleFilterError(f"systemd_environment: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"systemd_environment": systemd_environment}
