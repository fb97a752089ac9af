# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that finds the first error in the lines of a service's log."""

from __future__ import annotations

DOCUMENTATION = r"""
name: systemd_first_error
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: The first error in the lines of a service's log
description:
  - What ends a server stands at the first error; the last lines of its log are often those of what was ended with it.
options:
  _input:
    description: The lines of the log.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show the first error
  ansible.builtin.debug:
    msg: "{{ ['INFO start', 'ERROR no memory', 'INFO end'] | neuronops.vllm.systemd_first_error }}"
"""

RETURN = r"""
_value:
  description: The lines of the first error, without control characters; the last lines where none is an error.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils.systemd import first_error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"systemd_first_error": first_error}
