#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: python_lock
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Resolve Python requirements once for all hosts of a platform
description:
  - Returns a lock, which names every package that the requirements lead to with its exact version and the hashes of
    its files, for P(neuronops.vllm.python_packages#module) to install.
  - Resolved is once for a platform (Python version and architecture), with uv; the lock is kept in a folder on the
    controller, and every host and every later run uses it while what went into it is the same. Commit the folder to
    have the same packages for ever.
  - A lock has C(name==version) with SHA-256 hashes and comments. Anything else in it refuses it, also in one that was
    edited, and so does a package that was pinned in the requirements and has another version.
  - Its first line is the SHA-256 of the others, and is compared. In a folder it may be missing, as in a lock that was
    edited; in a bucket it may not.
  - The packages that AWS publishes are taken from O(sources.neuron_index_url) and from nowhere else, because the public
    index has stubs under some of these names. Everything else comes from there when it has a version that fits, and
    from the public index otherwise.
  - Where packages come from is what the pip of the machine that resolves is configured with, where O(sources) says
    nothing else.
options:
  name:
    description: What the lock is for; the first part of its file's name.
    type: str
    required: true
  path:
    description:
      - Folder on the controller that locks are kept in, which is made when missing, or C(s3://BUCKET/PREFIX).
      - For S3, C(boto3) must be installed on the controller, and credentials come from where boto3 looks for them. The
        bucket is asked once in a run. Of two controllers that resolve the same at a time both use the lock that was
        there first.
    type: path
    required: true
  requirements:
    description: Requirements as PEP 508 writes them.
    type: list
    elements: str
    required: true
  constraints:
    description: Requirements that limit versions without asking for a package.
    type: list
    elements: str
    default: []
  excluded:
    description: Packages that must not be in the lock, though a requirement asks for them.
    type: list
    elements: str
    default: []
  neuron_packages:
    description: Further packages that only O(sources.neuron_index_url) may provide.
    type: list
    elements: str
    default: []
  resolver:
    description:
      - Who resolves. V(controller) is the machine that runs Ansible, on which nothing of a package is run; a package
        that is published as sources only is refused there.
      - V(host) is the host that the task runs on, with its own interpreter. Every other host installs what it
        answers, so it is a host to be trusted; C(delegate_to) makes one resolve for all.
    type: str
    choices: [controller, host]
    default: controller
  python:
    description: Path of the interpreter on the host that the packages are for.
    type: path
    required: true
  python_version:
    description: Version of that interpreter, for example V(3.11).
    type: str
    required: true
  architecture:
    description: Architecture of the host, for example V(x86_64).
    type: str
    required: true
  refresh:
    description: Resolve again once in this run, though there is a lock.
    type: bool
    default: false
extends_documentation_fragment:
  - neuronops.vllm.packages
  - neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: partial
    details: >-
      A lock that is there is returned; without one nothing is resolved and RV(lock) is empty, and a O(path) that
      cannot be written to is refused.
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Resolve what the notebook server needs, once for all hosts with this Python
  neuronops.vllm.python_lock:
    name: notebook
    path: "{{ inventory_dir }}/.neuronops/locks"
    requirements: [notebook]
    python: /usr/bin/python3.11
    python_version: "3.11"
    architecture: x86_64
  register: notebook
"""

RETURN = r"""
lock:
  description: The lock, a requirements file with hashes.
  type: str
  returned: always
path:
  description: File on the controller that the lock is kept in.
  type: str
  returned: always
packages:
  description: The version of each package in the lock.
  type: dict
  returned: always
resolved:
  description: Whether the lock was resolved in this run, for this host or by it.
  type: bool
  returned: always
"""

import os
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import forms
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import (
    ARGUMENTS,
    PackagesError,
    have_uv,
)
from ansible_collections.neuronops.vllm.plugins.module_utils.resolve import checked, foreign_neuron_packages, resolve

# The last one for who has imported it from here since 0.1.
__all__ = ["checked", "foreign_neuron_packages", "main", "resolve"]


def main():
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            path=dict(type="path", required=True),
            requirements=dict(type="list", elements="str", required=True),
            constraints=dict(type="list", elements="str", default=[]),
            excluded=dict(type="list", elements="str", default=[]),
            neuron_packages=dict(type="list", elements="str", default=[]),
            python=dict(type="path", required=True),
            python_version=dict(type="str", required=True),
            architecture=dict(type="str", required=True),
            resolver=dict(type="str", choices=["controller", "host"], default="controller"),
            refresh=dict(type="bool", default=False),
            **ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, lock="", packages={})
    os.umask(0o022)
    try:
        params = checked(module.params)
        # The host that resolves for all may lack the interpreter that others have.
        elsewhere = not os.access(params["python"], os.X_OK)
        python = sys.executable if elsewhere else params["python"]
        uv = have_uv(params["uv_requirement"], params["tools_path"], python, params["sources"])
        lock = resolve(params, uv, python, elsewhere)
    except (PackagesError, forms.FormError, OSError) as error:
        module.fail_json(msg=str(error))
    packages = {name: version for name, (version, _hashes) in forms.lock(lock).items()}
    module.exit_json(changed=True, lock=lock, packages=packages)


if __name__ == "__main__":
    main()
