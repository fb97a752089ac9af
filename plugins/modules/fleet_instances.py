#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_instances
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Launch the instances of a fleet that are missing
description:
  - Launches On-Demand instances, Spot instances and those of Capacity Reservations and Capacity Blocks, with EFA
    interfaces where they are asked for, spread over the subnets, in a security group of the fleet's own where none is
    named. What runs is never terminated.
  - Checks subnets, key pair, security groups, image and reservation first, and asks AWS whether it would launch the
    instances with these credentials, which costs nothing.
  - What AWS refuses is told with what to try; what was launched by then is named, and returned.
  - Runs on the controller. The role P(neuronops.vllm.fleet#role) calls it; it is not for use on its own.
options:
  options:
    description: The options of C(launch), as M(neuronops.vllm.options) returns them.
    type: dict
    required: true
  stack:
    description: The stack, as the lookup P(neuronops.vllm.stack#lookup) returns it.
    type: dict
    required: true
  region:
    description: The AWS region.
    type: str
    required: true
requirements:
  - boto3 on the controller
attributes:
  check_mode:
    description: Launches nothing, and fails where AWS would not launch the instances.
    support: full
  diff_mode:
    description: Shows no difference.
    support: none
"""

EXAMPLES = r"""
- name: Check the options of launch
  neuronops.vllm.options:
    of: launch
  register: given

- name: Ensure the instances run
  neuronops.vllm.fleet_instances:
    options: "{{ given.options }}"
    stack: "{{ lookup('neuronops.vllm.stack') }}"
    region: eu-west-1
"""

RETURN = r"""
instances:
  description: All instances of the groups; when the task failed, those that it had launched.
  returned: always
  type: list
  elements: dict
  contains:
    instance_id:
      description: Its id.
      type: str
    instance_type:
      description: Its type.
      type: str
    subnet_id:
      description: Its subnet.
      type: str
    availability_zone:
      description: Its availability zone.
      type: str
    private_ip_address:
      description: Its private IPv4 address, empty in a subnet that has none.
      type: str
    public_ip_address:
      description: Its public IPv4 address, or empty.
      type: str
    ipv6_address:
      description: Its IPv6 address, or empty.
      type: str
    state:
      description: Its state, such as V(running).
      type: str
    reason:
      description: Why it was stopped or terminated, as AWS says.
      type: str
"""
