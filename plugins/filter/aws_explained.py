# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that says what an error of AWS means."""

from __future__ import annotations

DOCUMENTATION = r"""
name: aws_explained
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: What an error of AWS means
description:
  - Returns the message of a task of the collection amazon.aws that failed, with what to try, such as the action that a
    policy lacks.
options:
  _input:
    description: The result of the task; of a loop, that of the items that failed counts.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Terminate the instances, with what AWS means where it refuses
  block:
    - name: Terminate the instances
      amazon.aws.ec2_instance:
        instance_ids: [i-0123456789abcdef0]
        state: terminated
  rescue:
    - name: Report why not
      ansible.builtin.fail:
        msg: "{{ ansible_failed_result | neuronops.vllm.aws_explained }}"
"""

RETURN = r"""
_value:
  description: The message, in one paragraph.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils import aws


def aws_explained(result: Mapping[str, Any]) -> str:
    failed = [item for item in result.get("results", []) if item.get("failed")] or [result]
    return " ".join(aws.explained(str(item.get("msg", ""))) for item in failed)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"aws_explained": aws_explained}
