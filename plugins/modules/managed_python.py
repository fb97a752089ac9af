#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_python
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: Have a Python that the system has no packages for
description:
  - Brings an interpreter of python-build-standalone into a folder of its own, with C(uv python install). uv takes a
    file only with the checksum that it has in itself for it, wherever the file comes from.
  - Which release of a version that is follows from the pinned uv, so that all hosts get the same.
  - An interpreter that is there and runs is left alone, also where a newer uv knows of a newer release; environments
    are made with it. Nothing is done to the system's own Python.
options:
  version:
    description: Version of Python, for example V(3.12).
    type: str
    required: true
  path:
    description: Folder that the interpreters are kept in; that of Python 3.12 is C(3.12/bin/python3.12) below it.
    type: path
    default: /opt/neuronops/python
  mirror:
    description:
      - Address in place of C(https://github.com/astral-sh/python-build-standalone/releases/download), C(file:///) for a
        folder on the host. The files lie below it as they do there.
    type: str
extends_documentation_fragment:
  - neuronops.vllm.packages
  - neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Have a Python 3.12 on Ubuntu 22.04
  neuronops.vllm.managed_python:
    version: "3.12"
"""

RETURN = r"""
release:
  description: The release that is there then; none in check mode where it is not.
  type: str
  returned: success
  sample: 3.12.16
reason:
  description: Why it was brought; empty when nothing changed.
  type: str
  returned: success
"""

import glob
import os
import sys
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import forms, process, versions
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import version_and_prefix
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import (
    ARGUMENTS,
    PackagesError,
    have_uv,
    make_folders,
    run,
)


def program(folder, version):
    """Return the path of the interpreter in the folder of an installation."""
    return os.path.join(folder, "bin", "python" + version)


def observe(folder, version):
    """Return (release, "") of an interpreter that runs and is of the version, or (None, why there is none)."""
    if not os.path.lexists(folder):
        return None, "there is no Python %s" % version
    try:
        release = version_and_prefix(program(folder, version))[0]
    except process.NoAnswerError:
        raise
    except OSError as error:
        return None, "%s does not run: %s" % (program(folder, version), error)
    if release.rpartition(".")[0] != version:
        return None, "%s is Python %s" % (program(folder, version), release)
    return release, ""


def installations(path, version):
    """Return the folders that uv has installed a version in, the newest release last."""
    found = glob.glob(os.path.join(glob.escape(path), "cpython-%s.*" % version))
    return sorted(found, key=lambda folder: versions.numbers(os.path.basename(folder).split("-")[1]))


def lead_to(link, folder):
    """Have a link that leads to a folder beside it, at no moment to nothing."""
    with tempfile.TemporaryDirectory(prefix=".link-", dir=os.path.dirname(link)) as place:
        made = os.path.join(place, "link")
        os.symlink(os.path.basename(folder), made)
        os.replace(made, link)


def install(params):
    """Bring the interpreter, and return its release; raises PackagesError."""
    path, version = params["path"], params["version"]
    make_folders(path)
    uv = have_uv(params["uv_requirement"], params["tools_path"], sys.executable, params["sources"])
    variables = {"UV_PYTHON_DOWNLOADS": "manual", "UV_PYTHON_INSTALL_DIR": path}
    if params["mirror"]:
        variables["UV_PYTHON_INSTALL_MIRROR"] = params["mirror"]
    there = installations(path, version)
    again = ["--reinstall"] if there and observe(there[-1], version)[0] is None else []
    command = [uv, "python", "install", "--managed-python", "--no-bin"] + again + [version]
    run(command, params["sources"], more=variables)
    there = installations(path, version)
    if not there:
        raise PackagesError("uv installed Python %s, and left nothing in %s" % (version, path))
    lead_to(os.path.join(path, version), there[-1])
    release, problem = observe(os.path.join(path, version), version)
    if release is None:
        raise PackagesError("it was installed, and %s" % problem)
    return release


def main():
    module = AnsibleModule(
        argument_spec=dict(
            version=dict(type="str", required=True),
            path=dict(type="path", default="/opt/neuronops/python"),
            mirror=dict(type="str"),
            **ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    # Other users start what environments are made with.
    os.umask(0o022)
    try:
        version = forms.form("Python version", module.params["version"], "version")
        folder = os.path.join(module.params["path"], version)
        if os.path.lexists(folder) and not os.path.islink(folder):
            module.fail_json(msg="%s is no link of this module's. Name another path, or move it away." % folder)
        release, reason = observe(folder, version)
        if reason and not module.check_mode:
            release = install(module.params)
    except forms.FormError as error:
        module.fail_json(msg=str(error))
    except (PackagesError, OSError) as error:
        module.fail_json(
            msg="Python %s could not be brought into %s, and no environment was changed: %s\nuv downloads it from "
            "github.com. Where that cannot be reached, set neuron_venv_python_mirror to a mirror of "
            "python-build-standalone's releases, or a proxy in neuron_venv_environment."
            % (module.params["version"], module.params["path"], error)
        )
    module.exit_json(
        changed=bool(reason),
        release=release,
        reason=reason,
        diff=dict(before=reason + "\n" if reason else "", after=""),
    )


if __name__ == "__main__":
    main()
