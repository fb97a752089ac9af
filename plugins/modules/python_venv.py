#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: python_venv
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Have a Python virtual environment that works
description:
  - Makes a virtual environment. One whose interpreter is gone, does not run or is of another version is removed and
    made anew, because the packages in it cannot work any more.
  - An environment that works is left alone, whatever is installed in it; its folders are opened to other users, who
    start the interpreter. Where its interpreter gives no answer that is understood, the module fails and nothing is
    removed.
options:
  path:
    description:
      - Folder of the environment. Where it is a link, the folder it leads to.
      - A folder that has something in it and is no virtual environment is never touched.
    type: path
    required: true
  python:
    description: Path of the interpreter on the host to make it with. Required when O(state=present).
    type: path
  pip:
    description: Whether a new environment gets the pip that comes with the interpreter.
    type: bool
    default: true
  state:
    description: >-
      Whether the environment is there. V(absent) removes it with everything in it, and a link that led to it.
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
requirements:
  - On the host the standard module C(venv), with O(pip=true) also C(ensurepip); Debian and Ubuntu package them as
    C(python3-venv).
"""

EXAMPLES = r"""
- name: Have an environment with Python 3.10
  neuronops.vllm.python_venv:
    path: /opt/aws_neuron_venv_pytorch
    python: /usr/bin/python3.10
"""

RETURN = r"""
reason:
  description: Why the environment was made or rebuilt; empty when nothing changed.
  type: str
  returned: success
"""

import glob
import os
import shutil
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import process
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import (
    MANIFESTS,
    observe_python,
    site_packages,
    version_and_prefix,
)
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import make_folders


def minor(version):
    return ".".join(version.split(".")[:2])


def python_version(python):
    """Return the version of an interpreter; raises OSError where it does not run."""
    try:
        return version_and_prefix(python)[0]
    except process.NoAnswerError as error:
        raise process.NoAnswerError("What %s says is not understood: %s" % (python, error)) from error
    except OSError as error:
        raise OSError("%s does not run: %s" % (python, error)) from error


def reason_to_build(path, python):
    """Say why the environment must be made, or nothing; raises process.NoAnswerError where that cannot be known."""
    if not os.path.isdir(path) or not os.listdir(path):
        return "there is none"
    own = os.path.join(path, "bin", "python")
    # Before anything of the environment is removed, the interpreter to make it anew with must run.
    wanted = python_version(python)
    try:
        version_and_prefix(own)
    except process.NoAnswerError as error:
        raise process.NoAnswerError(
            "%s may work, and what it says is not understood: %s. Nothing was removed; remove the environment "
            "yourself if it is of no use" % (own, error)
        ) from error
    except OSError:
        pass  # observe_python says it
    found = observe_python(path)
    if not found["works"]:
        return found["problem"]
    if minor(found["version"]) != minor(wanted):
        return "it has Python %s in place of %s" % (found["version"], wanted)
    return ""


def closed_folders(path):
    """Return the folders of an environment, and it itself, that other users cannot enter."""
    folders = [path] + [os.path.join(path, name) for name in ("bin", "lib", MANIFESTS)]
    for packages in site_packages(path):
        folders += [os.path.dirname(packages), packages]
    return [folder for folder in folders if os.path.isdir(folder) and os.stat(folder).st_mode & 0o055 != 0o055]


def open_folders(folders):
    for folder in folders:
        os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | 0o755)


def remove(path):
    """Remove an environment. Killed half way, what is left is still known as one, and as one that is not finished."""
    if not os.path.isdir(path):
        return
    last = "pyvenv.cfg"
    for name in sorted(set(os.listdir(path)) - {last}, key=lambda name: name != "neuronops"):
        child = os.path.join(path, name)
        if os.path.isdir(child) and not os.path.islink(child):
            shutil.rmtree(child)
        else:
            os.unlink(child)
    shutil.rmtree(path)


def build(module, path):
    """Make the environment."""
    options = [] if module.params["pip"] else ["--without-pip"]
    make_folders(path)
    os.chmod(path, 0o755)
    # The mark of an environment comes first, so that one left by a kill is not taken for somebody's files.
    open(os.path.join(path, "pyvenv.cfg"), "a").close()
    command = [module.params["python"], "-I", "-m", "venv"] + options + [path]
    status, out, err = process.run(command, cwd=process.FOLDER, env=process.environment())
    if status != 0:
        module.fail_json(
            msg="No environment could be made in %s; Debian and Ubuntu need that interpreter's package python3-venv. %s"
            % (path, (out + err).decode(errors="replace").strip()[-1000:])
        )
    # What older releases of Debian and Ubuntu make of a part of setuptools; no index has it, and `pip freeze` names it.
    records = os.path.join(glob.escape(path), "lib", "python3.*", "site-packages", "pkg_resources-0.0.0.*")
    for record in glob.glob(records):
        shutil.rmtree(record)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            python=dict(type="path"),
            pip=dict(type="bool", default=True),
            state=dict(type="str", choices=["present", "absent"], default="present"),
        ),
        required_if=[("state", "present", ["python"])],
        supports_check_mode=True,
    )
    # Other users start the interpreter.
    os.umask(0o022)
    link, present = module.params["path"], module.params["state"] == "present"
    path = os.path.realpath(link)
    if os.path.isdir(path) and os.listdir(path) and not os.path.lexists(os.path.join(path, "pyvenv.cfg")):
        module.fail_json(
            msg="%s has files in it and is no Python environment. Name another folder, or empty it." % path
        )
    try:
        if present:
            reason = reason_to_build(path, module.params["python"])
        else:
            reason = "it is to be absent" if os.path.lexists(link) else ""
        if reason and not module.check_mode:
            remove(path)
            if present:
                build(module, path)
            elif os.path.islink(link):
                os.unlink(link)
        closed = closed_folders(path) if present and not reason else []
        if closed:
            reason = "other users cannot enter %s" % ", ".join(closed)
            if not module.check_mode:
                open_folders(closed)
    except OSError as error:
        module.fail_json(msg="The environment %s cannot be changed: %s" % (path, error))
    module.exit_json(
        changed=bool(reason),
        reason=reason,
        diff=dict(before=reason + "\n" if reason else "", after=""),
    )


if __name__ == "__main__":
    main()
