#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: jupyter_kernel
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Offer a Python environment as a kernel in Jupyter
description:
  - Writes the kernel specification with which Jupyter starts the interpreter of an environment, as C(ipykernel install)
    does, for all users of a host or for some.
  - The environment's C(bin) comes first on the kernel's E(PATH), because neuronx-cc is looked for there.
  - C(ipykernel) must be installed in the environment; the module itself needs nothing of Jupyter.
options:
  name:
    description: Name of the kernel, that is of its folder. Letters, digits, C(-), C(_) and C(.).
    type: str
    required: true
  display_name:
    description: What Jupyter calls it; the value of O(name) by default.
    type: str
  environment:
    description: Folder of the environment, or a link that leads to the one in use. Required when O(state=present).
    type: path
  users:
    description:
      - The users that get the kernel, in C(~/.local/share/jupyter). Files there are written with the rights of the
        user.
      - When empty all users get it, in C(/usr/local/share/jupyter).
    type: list
    elements: str
    default: []
  state:
    description: Whether the kernel is there. With V(absent) its folder is removed for the same users.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment: neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Offer the environment to everybody on the host
  neuronops.vllm.jupyter_kernel:
    name: aws_neuron_venv_pytorch
    display_name: Python (torch-neuronx)
    environment: /opt/aws_neuron_venv_pytorch

- name: Take it away from one user again
  neuronops.vllm.jupyter_kernel:
    name: aws_neuron_venv_pytorch
    users: [ubuntu]
    state: absent
"""

RETURN = r"""
files:
  description: The SHA-256 of each kernel specification as it is, or would be in check mode.
  type: dict
  returned: success
  sample:
    /usr/local/share/jupyter/kernels/aws_neuron_venv_pytorch/kernel.json: 0f343b0931126a20f133d67c2b018a3b
"""

import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import forms
from ansible_collections.neuronops.vllm.plugins.module_utils.files import write_at_once
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import make_folders

SYSTEM = "/usr/local/share/jupyter/kernels"


def specification(name, display_name, environment):
    """Return the content of kernel.json."""
    kernel = {
        "argv": [os.path.join(environment, "bin", "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": display_name or name,
        "env": {"PATH": os.path.join(environment, "bin") + ":${PATH}", "VIRTUAL_ENV": environment},
        "interrupt_mode": "signal",
        "language": "python",
        "metadata": {"debugger": True},
    }
    return json.dumps(kernel, indent=1, sort_keys=True) + "\n"


def folders(name, users):
    """Return [(folder of the kernel, owner or None)]."""
    if not users:
        return [(os.path.join(SYSTEM, name), None)]
    found = []
    for user in users:
        account = pwd.getpwnam(user)
        found.append((os.path.join(account.pw_dir, ".local", "share", "jupyter", "kernels", name), account))
    return found


@contextlib.contextmanager
def acting_as(account):
    """Write with the rights of a user: in a home folder, root would follow links to anywhere."""
    if account is None or os.geteuid() == account.pw_uid:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups(os.getgrouplist(account.pw_name, account.pw_gid))
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def closed(file, folder):
    """Say whether other users cannot read a kernel that is there."""
    return os.stat(file).st_mode & 0o044 != 0o044 or os.stat(folder).st_mode & 0o055 != 0o055


def put(folder, text):
    """Write kernel.json at once, readable by whoever may read the folder."""
    make_folders(folder)
    os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | 0o755)
    write_at_once(os.path.join(folder, "kernel.json"), text)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            display_name=dict(type="str"),
            environment=dict(type="path"),
            users=dict(type="list", elements="str", default=[]),
            state=dict(type="str", choices=["present", "absent"], default="present"),
        ),
        required_if=[("state", "present", ["environment"])],
        supports_check_mode=True,
    )
    # Other users start the kernel.
    os.umask(0o022)
    name, present = module.params["name"], module.params["state"] == "present"
    if not re.match(r"[A-Za-z0-9._-]{1,200}\Z", name) or name in (".", ".."):
        module.fail_json(msg="%r cannot be the name of a kernel: use letters, digits, '-', '_' and '.'." % name)
    try:
        for option in ("display_name", "environment"):
            forms.form("line of text", module.params[option] or "", option)
    except forms.FormError as error:
        module.fail_json(msg="The kernel %s cannot be offered: %s." % (name, error))
    try:
        places = folders(name, module.params["users"])
    except (KeyError, ValueError) as error:
        module.fail_json(
            msg="The user who is to have the kernel does not exist: %s. Make the user first." % error.args[0]
        )
    wanted = specification(name, module.params["display_name"], module.params["environment"]) if present else ""

    result = dict(changed=False, diff=[], files={})
    for folder, account in places:
        file = os.path.join(folder, "kernel.json")
        try:
            with acting_as(account):
                before = read(file)
                changes = before != wanted or closed(file, folder) if present else os.path.lexists(folder)
                if changes and not module.check_mode:
                    if present:
                        put(folder, wanted)
                    elif os.path.islink(folder):
                        os.unlink(folder)
                    else:
                        shutil.rmtree(folder)
        except OSError as error:
            module.fail_json(msg="The kernel %s cannot be changed: %s" % (file, error))
        if changes:
            result["changed"] = True
            result["diff"].append(dict(before=before, after=wanted, before_header=file, after_header=file))
        if present:
            result["files"][file] = hashlib.sha256(wanted.encode()).hexdigest()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
