#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a vLLM server for an answer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_answer
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: Ask the vLLM server of a service for one token
description:
  - Asks the own process of a systemd service for its health and for one token, and says what it answered. It changes
    nothing.
  - Address, port, name of the model and key are those of the running process, from its command line and its
    environment. The key is sent to that process alone, over no proxy, and is never an argument or a part of the result.
  - Before anything is sent the kernel is asked whose the connection is. A stranger on the port, whether instead of the
    server or beside it, gives no proof.
  - Needs root, to see which process listens and what the server was started with.
options:
  service:
    description: Name of the systemd service, without C(.service).
    type: str
    required: true
  timeout:
    description: Seconds within which the server must answer both requests.
    type: int
    default: 30
  address:
    description: Address at which a server is to listen, for RV(listener).
    type: str
  port:
    description: Port at which a server is to listen, for RV(listener).
    type: int
  wait:
    description:
      - While the main process is younger than that many seconds and does not answer, the controller looks again every
        few seconds, and shows what the server is busy with. It ends at once when the process has ended.
      - When the process is older, a server that hangs or answers errors is looked at twice.
    type: int
    default: 0
  restarts:
    description:
      - How often systemd had started the server again before; when it did so once more, the process counts as ended.
      - As many times as at the first look when not set.
    type: int
  configuration:
    description: Wait for a process with this configuration alone.
    type: str
attributes:
  async:
    description: Its answer is checked on the controller, past which C(async) would take it.
    support: none
  check_mode:
    description: Runs in check mode, and returns the same.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
seealso:
  - module: neuronops.vllm.vllm_activation
"""

EXAMPLES = r"""
- name: Ask the server
  neuronops.vllm.vllm_answer:
    service: vllm
  register: answer

- name: Verify that it answers
  ansible.builtin.assert:
    that: answer.state == 'answers'
    fail_msg: "{{ answer.problem }}"

- name: Wait until a server that was started just now answers
  neuronops.vllm.vllm_answer:
    service: vllm
    wait: 1800
    restarts: 0
"""

RETURN = r"""
state:
  description:
    - V(answers) when the service's own process gave a token. V(starting) when it does not listen yet. V(hung) when it
      is stopped or did not answer in time. V(errors) when it answered something else, or a stranger listens there too.
      V(ended) when it ended by itself. V(stopped) when it does not run. V(absent) when there is no such service.
  returned: always
  type: str
  sample: answers
problem:
  description: What is wrong, as a sentence; null when it answers.
  returned: always
  type: str
pid:
  description: The main process, or null.
  returned: always
  type: int
configuration:
  description: The hash of the configuration that the main process was started with, or null.
  returned: always
  type: str
seconds:
  description: For how many seconds the main process has been there, or null.
  returned: always
  type: int
status:
  description: Status of its last answer, or null.
  returned: always
  type: int
tokens:
  description: How many tokens it answered, or null.
  returned: always
  type: int
address:
  description: Address that the main process was told to listen on, or null.
  returned: always
  type: str
  sample: 127.0.0.1
port:
  description: Port that the main process was told to listen on, or null.
  returned: always
  type: int
  sample: 8000
listener:
  description:
    - Who listens at O(address) and O(port), or else at those of the process, a stranger first; null for nobody.
  returned: always
  type: dict
  contains:
    pid:
      description: The process, or null where it cannot be seen.
      type: int
    command:
      description: Its name.
      type: str
    ours:
      description: Whether it is a process of the service.
      type: bool
busy:
  description: The last line that a server which does not answer has written, without secrets; null where there is none.
  returned: always
  type: str
restarts:
  description: How often systemd has started the server again by itself.
  returned: always
  type: int
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import activations, process, served

COMMAND_SECONDS = 20


def run(command):
    """Run systemctl or journalctl, which must not hold up a look for ever."""
    try:
        status, output, errors = process.run(command, timeout=COMMAND_SECONDS, env=process.environment(LC_ALL="C"))
    except OSError as error:
        return 127, "", str(error)
    return status, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


def main():
    module = AnsibleModule(
        argument_spec=dict(
            service=dict(type="str", required=True),
            timeout=dict(type="int", default=30),
            address=dict(type="str"),
            port=dict(type="int"),
            wait=dict(type="int", default=0),
            restarts=dict(type="int"),
            configuration=dict(type="str"),
        ),
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(
            msg="vllm_answer must be root to see who listens and what the server was started with: set become."
        )
    try:
        service = activations.service_name(module.params["service"])
        found = served.look(
            run, service, max(1, module.params["timeout"]), module.params["address"], module.params["port"]
        )
    except ValueError as error:
        module.fail_json(msg="%s." % error)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
