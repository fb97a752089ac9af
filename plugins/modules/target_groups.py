#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: target_groups
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Take a host out of target groups of AWS's load balancers, and let it in again
description:
  - With O(state=absent) the load balancers send no more requests to the host, and those that it has are waited for.
  - With O(state=present) it waits until the host is healthy for them.
  - The host is a target by its instance id or its private address, as the group says, at the port of the group.
  - Runs on the controller. The playbooks C(site) and C(rollback) use it around a host's turn, with the groups of
    C(neuron_target_groups).
options:
  target_groups:
    description: ARNs of the target groups. Each is asked in the region that its ARN names.
    type: list
    elements: str
    required: true
  instance:
    description: The host's instance id; for groups whose targets are instances.
    type: str
    default: ""
  address:
    description: The host's private address; for groups whose targets are addresses.
    type: str
    default: ""
  state:
    description: Whether the host gets requests.
    type: str
    choices: [present, absent]
    required: true
  timeout:
    description: Seconds to wait for each group.
    type: int
    default: 600
requirements:
  - boto3 on the controller
attributes:
  check_mode:
    description: Changes nothing and waits for nothing, and fails where a group cannot be used for the host.
    support: full
  diff_mode:
    description: Shows no difference.
    support: none
"""

EXAMPLES = r"""
- name: Take the host out of its target group
  neuronops.vllm.target_groups:
    target_groups: [arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/vllm/0123456789abcdef]
    instance: "{{ ec2_instance_id }}"
    state: absent
  become: false
"""

RETURN = r"""
differs_in:
  description: Names of the groups that the host joined or left.
  type: list
  elements: str
  returned: success
"""
