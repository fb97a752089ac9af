#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a release and its configuration in place, and remember how to go back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_activation
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: Activate a release of vLLM with its configuration, prove it, or take it back
description:
  - An activation is a unit, an environment file and a release that serve together.
    C(/var/lib/neuronops/activations.json) lists them, and C(/var/lib/neuronops/activations/NUMBER) keeps copies of
    their files for root alone.
  - It is recorded as pending before anything is changed, and as proven when the server has answered. What was cut off
    at any place is pending, and the same call goes on with it.
  - When an activation is proven, the copies of older ones lose the values of E(VLLM_API_KEY) and of all variables whose
    names have TOKEN, KEY, SECRET, PASSWORD or CREDENTIAL in them. Going back later takes them from the present file.
  - At most 50 activations are kept, among them always the last proven ones of the last two releases.
options:
  state:
    description:
      - V(begun) writes the files, swaps the link, and starts the service; it does not wait for the server.
      - V(proven) records that the server of a pending activation has answered.
      - V(adopted) records what serves and was never recorded, where its files are those that it was started with.
      - V(taken_back) records that a pending activation failed, and starts the newest one that was proven, as a pending
        one. Without any the service is stopped and disabled, and the link is as it was.
      - V(previous) starts the newest activation that was proven with another release than the active one, without any
        download.
      - V(stopped) stops and disables the service.
      - V(absent) removes the service, its files and its activations. Releases, models, caches and state stay.
    type: str
    choices: [begun, proven, adopted, taken_back, previous, stopped, absent]
    required: true
  service:
    description: Name of the systemd service, without C(.service).
    type: str
    required: true
  unit:
    description: Text of the unit. Required when O(state=begun).
    type: str
  environment:
    description:
      - Text of the environment file, which has C(NEURONOPS_CONFIGURATION) with the value of O(configuration). Required
        when O(state=begun).
    type: str
  needrestart:
    description: Text of the file that keeps needrestart from the service; no such file is written when not set.
    type: str
  link:
    description: Path that becomes a symbolic link to O(release). Empty where the service uses O(release) itself.
    type: path
  release:
    description:
      - Path of the Python environment. Required when O(state=begun) or O(state=adopted).
      - When O(state=previous), the name of its folder, or nothing for the newest other one.
    type: str
  again:
    description: Whether O(state=previous) starts the service again where that release is active already.
    type: bool
    default: false
  configuration:
    description:
      - Hash of everything that makes the server what it is. Required when O(state=begun), O(state=proven) or
        O(state=adopted).
    type: str
  stack:
    description: The id of the stack, for the record.
    type: str
  number:
    description: The activation that is meant. Required when O(state=proven) or O(state=taken_back).
    type: int
  reason:
    description: Why it failed, as a sentence. Required when O(state=taken_back).
    type: str
  proof:
    description: What M(neuronops.vllm.vllm_answer) found. Required when O(state=proven) or O(state=adopted).
    type: dict
    suboptions:
      pid:
        description: The main process that answered.
        type: int
        required: true
      seconds:
        description: How old that process was.
        type: int
        required: true
      tokens:
        description: How many tokens it answered.
        type: int
        required: true
extends_documentation_fragment: neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    description: Shows the unit as it is, and of the environment file the names alone.
    support: full
  idempotent:
    description: All but V(begun), V(previous) and V(taken_back), which start the service whenever they are called.
    support: partial
seealso:
  - module: neuronops.vllm.vllm_answer
"""

EXAMPLES = r"""
- name: Activate a release
  neuronops.vllm.vllm_activation:
    state: begun
    service: vllm
    link: /opt/aws_neuron_venv_pytorch
    release: /opt/neuronops/releases/vllm-0.9.2-0a1b2c3d
    configuration: "{{ unit | hash('sha256') }}"
    unit: "{{ unit }}"
    environment: "NEURONOPS_CONFIGURATION={{ unit | hash('sha256') }}\n"
  register: activation

- name: Wait for its server
  neuronops.vllm.vllm_answer:
    service: vllm
    wait: 1800
  register: answer

- name: Record that it answered
  neuronops.vllm.vllm_activation:
    state: proven
    service: vllm
    number: "{{ activation.number }}"
    configuration: "{{ answer.configuration }}"
    proof: {pid: "{{ answer.pid }}", seconds: "{{ answer.seconds }}", tokens: "{{ answer.tokens }}"}

- name: Go back to the release before
  neuronops.vllm.vllm_activation:
    state: previous
    service: vllm
"""

RETURN = r"""
number:
  description: The activation that is in place now, or null.
  returned: success
  type: int
  sample: 7
release:
  description: Its Python environment, or null.
  returned: success
  type: str
  sample: /opt/neuronops/releases/vllm-0.9.2-0a1b2c3d
configuration:
  description: The hash of its configuration, or null.
  returned: success
  type: str
begins:
  description: Whether the service was started, or would be in check mode.
  returned: success
  type: bool
did:
  description: What was done, or would be in check mode, in sentences.
  returned: success
  type: list
  elements: str
  sample: [activation 7 is recorded as pending, /opt/aws_neuron_venv_pytorch leads to /opt/neuronops/releases/one]
problem:
  description: Why an activation that is recorded could not be started, as a sentence, or null.
  returned: success
  type: str
since:
  description: When the module began, in seconds since 1970 by the clock of the host, for C(journalctl --since @SINCE).
  returned: success
  type: int
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import activations, forms, process

# Stopping a server takes systemd up to a minute and a half.
COMMAND_SECONDS = 300


def run(command):
    try:
        status, output, errors = process.run(command, timeout=COMMAND_SECONDS, env=process.environment(LC_ALL="C"))
    except OSError as error:
        return 127, "", str(error)
    return status, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


def checked(options):
    """Fail where an option has not its form."""
    for name in ("link",) if options["state"] == "previous" else ("link", "release"):
        if options[name]:
            forms.form("absolute path", options[name], name)
    if options["state"] == "previous" and options["release"]:
        forms.form("file name", options["release"], "release")
    if options["configuration"]:
        forms.form("hash", options["configuration"], "configuration")
    if options["stack"]:
        forms.form("line of text", options["stack"], "stack")


def act(service, options):
    """Do what is asked for, and return the activation that is in place now, or None."""
    state = options["state"]
    place = (options["link"], options["release"], options["configuration"], options["stack"])
    if state == "begun":
        return service.begun(*place, {kind: options[kind] for kind in ("unit", "environment", "needrestart")})
    if state == "adopted":
        return service.adopted(*place, options["proof"])
    if state == "proven":
        return service.proven(options["number"], options["configuration"], options["proof"])
    if state == "taken_back":
        return service.taken_back(options["number"], options["reason"])
    if state == "previous":
        return service.previous(options["release"] or "", options["again"])
    if state == "stopped":
        return service.stopped()
    return service.absent(options["link"])


def main():
    module = AnsibleModule(
        argument_spec=dict(
            state=dict(
                type="str",
                required=True,
                choices=["begun", "proven", "adopted", "taken_back", "previous", "stopped", "absent"],
            ),
            service=dict(type="str", required=True),
            unit=dict(type="str"),
            environment=dict(type="str", no_log=True),
            needrestart=dict(type="str"),
            link=dict(type="path"),
            release=dict(type="str"),
            again=dict(type="bool", default=False),
            configuration=dict(type="str"),
            stack=dict(type="str"),
            number=dict(type="int"),
            reason=dict(type="str"),
            proof=dict(
                type="dict",
                options=dict(
                    pid=dict(type="int", required=True),
                    seconds=dict(type="int", required=True),
                    tokens=dict(type="int", required=True, no_log=False),
                ),
            ),
        ),
        required_if=[
            ("state", "begun", ["unit", "environment", "release", "configuration"]),
            ("state", "adopted", ["release", "configuration", "proof"]),
            ("state", "proven", ["number", "configuration", "proof"]),
            ("state", "taken_back", ["number", "reason"]),
        ],
        supports_check_mode=True,
    )
    options, since = module.params, int(time.time())
    entry, problem = None, None
    try:
        checked(options)
        with activations.Activations(run, options["service"], check=module.check_mode) as service:
            try:
                entry = act(service, options)
            except activations.ApplyError as error:
                entry, problem = service.pending(), str(error)
    except (activations.ActivationError, ValueError) as error:
        module.fail_json(msg="%s.service is left as it is: %s." % (options["service"], error))
    except OSError as error:
        module.fail_json(
            msg="%s.service may be half changed: %s. Run again when that is mended; what was begun goes on."
            % (options["service"], error)
        )
    module.exit_json(
        changed=service.changed,
        number=entry and entry["number"],
        release=entry and entry["release"],
        configuration=entry and entry["configuration"],
        begins=service.begins,
        did=service.did,
        problem=problem,
        since=since,
        diff=service.differences,
    )


if __name__ == "__main__":
    main()
