#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: options
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Check the options of a role or playbook of this collection
description:
  - Converts each option to the type that its specification names, and fails with one message that names every option
    that cannot be converted, is missing or misspelt, with the nearest name.
  - A variable that begins with the prefix of a role or playbook and is no option of it counts as misspelt.
  - Of a role that keeps locks or wheels, also checks that they can be written where they would go (C(neuron_state)),
    and warns where they would not last.
  - Runs on the controller, and touches no host.
options:
  of:
    description: Name of the role, without that of the collection, or of the playbook.
    type: str
    required: true
attributes:
  check_mode:
    description: Runs in check mode, and returns the same.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Check the options of the server, before a host is touched
  neuronops.vllm.options:
    of: vllm_server
"""

RETURN = r"""
options:
  description:
    - The options of a playbook, converted, without its prefix. Those that are not set and have no default are left out.
    - Those of roles are returned by P(neuronops.vllm.options#lookup), as they may hold keys.
  returned: for a playbook
  type: dict
"""
