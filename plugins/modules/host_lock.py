#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_lock
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: Let one run of Ansible at a time change what a host serves
description:
  - Writes into C(/var/lib/neuronops/run.json) which run is at work on the host, and fails with the name of the other
    where one is.
  - A run that has ended on the same controller, killed or not, holds nothing any more. One of another controller cannot
    be seen from here, and holds the host until it lets go, O(take_over) is true, or it has not been heard of for four
    hours.
options:
  state:
    description: >-
      With V(taken) the host is held by this run, with V(released) by no run if it was held by this one.
    type: str
    choices: [taken, released]
    default: taken
  take_over:
    description: Whether to take the host from another run that may still be at work.
    type: bool
    default: false
  run:
    description: >-
      The run, with C(who), user and controller, C(controller), a hash of it, C(pid) of the main process and C(began),
      when that began. The collection's action plugin fills it in.
    type: dict
  ended:
    description: A run that has ended, of the form of O(run). The collection's action plugin fills it in.
    type: dict
extends_documentation_fragment: neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is held, and who holds the host is told.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Ensure that no other run works on the host
  neuronops.vllm.host_lock:

- name: Ensure that others may
  neuronops.vllm.host_lock:
    state: released
"""

RETURN = r"""
held_by:
  description: >-
    The other run that holds the host, of the form of O(run) with C(seconds) since it was heard of; null for none.
  returned: success
  type: dict
"""

import fcntl
import json
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import files, forms

FILE = "/var/lib/neuronops/run.json"
LAPSES = 4 * 3600  # seconds; as long as an installation may take
LARGEST = 1 << 16  # bytes


def run_of(value, what="the run"):
    """Return what is known of a run, of its form; raises forms.FormError."""
    found = forms.fields(value, ("who", "controller", "pid", "began"), what)
    return {
        "who": forms.form("line of text", found["who"], "who"),
        "controller": forms.form("SHA-256", found["controller"], "controller"),
        "pid": forms.number(found["pid"], "pid", 1, 2**31),
        "began": forms.form("line of text", found["began"], "began"),
    }


def holder(path):
    """Return (run, when it was heard of) of the run that holds the host; (None, 0) where none does."""
    try:
        with open(path, "rb") as file:
            found = forms.fields(json.loads(file.read(LARGEST).decode("utf-8")), ("run", "seen"), "the lock")
        return run_of(found["run"]), forms.number(found["seen"], "seen")
    except (OSError, ValueError, RecursionError):
        return None, 0


def change(options, path, check_mode=False, now=None):
    """Take or release the host; return the other run that holds it, with the seconds since it was heard of, or None."""
    now = int(time.time() if now is None else now)
    if check_mode:
        return _other(holder(path), options, now)
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path + ".busy", "w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        if options["state"] == "released":
            if holder(path)[0] == options["run"]:
                os.unlink(path)
            return None
        other = _other(holder(path), options, now)
        if other is None:
            files.write_at_once(path, json.dumps({"run": options["run"], "seen": now}))
        return other


def _other(found, options, now):
    run, seen = found
    if run is None or options["take_over"] or run in (options["run"], options["ended"]):
        return None
    # A clock that was set back must not hold the host for ever.
    seconds = abs(now - seen)
    return None if seconds > LAPSES else dict(run, seconds=seconds)


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "released"], "default": "taken"},
            "take_over": {"type": "bool", "default": False},
            "run": {"type": "dict"},
            "ended": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    try:
        module.params["run"] = run_of(module.params["run"])
        module.params["ended"] = module.params["ended"] and run_of(module.params["ended"])
    except forms.FormError as error:
        module.fail_json(msg="run and ended are filled in by the action of the same name: %s" % error)
    try:
        other = change(module.params, FILE, module.check_mode)
    except OSError as error:
        module.fail_json(msg="It cannot be written who is at work on the host: %s" % error)
    module.exit_json(changed=False, held_by=other)


if __name__ == "__main__":
    main()
