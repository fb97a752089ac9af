# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that writes a value for its place in a systemd unit or environment file."""

from __future__ import annotations

DOCUMENTATION = r"""
name: systemd_escape
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: A value as it is written in a systemd unit or environment file
positional: place, what
description:
  - Escapes and quotes a value so that systemd reads back what was meant, and refuses what cannot be written.
options:
  _input:
    description: A single line of text, or a whole number.
    type: raw
    required: true
  place:
    description:
      - C(argument) is an argument of C(ExecStart), and C(program) the program there.
      - C(assignment) is C(NAME=value) for C(Environment), and C(variable) a value in an environment file.
      - C(path) is an entry of a list of paths, and C(text) what is read to the end of the line, as C(Description) is.
    type: str
    choices: [argument, assignment, path, program, text, variable]
    required: true
  what:
    description: The name of the option, for messages.
    type: str
    default: the value
"""

EXAMPLES = r"""
- name: Show an argument of ExecStart
  ansible.builtin.debug:
    msg: "{{ '/srv/my model 100%' | neuronops.vllm.systemd_escape('argument', 'vllm_server_model') }}"
"""

RETURN = r"""
_value:
  description: The text to write.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.systemd import SystemdError, escaped


def systemd_escape(value: Any, place: str, what: str = "the value") -> str:
    try:
        return escaped(value, place, what)
    except SystemdError as error:
        raise AnsibleFilterError(f"systemd_escape: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"systemd_escape": systemd_escape}
