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
  - The first host of a platform (Python version and architecture) resolves, with uv; the lock is kept in a folder on
    the controller, and every other host and every later run uses it while what went into it is the same. Commit the
    folder to have the same packages for ever.
  - Packages with C(neuron) in their name are taken from O(sources.neuron_index_url) and from nowhere else, because
    the public index has stubs under these names. Everything else comes from there when it has a version that fits,
    and from the public index otherwise.
options:
  name:
    description: What the lock is for; the first part of its file's name.
    type: str
    required: true
  path:
    description: Folder on the controller that locks are kept in; it is made when missing.
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
    details: A lock that is there is returned; without one nothing is resolved and RV(lock) is empty.
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
  description: Whether this host resolved the lock in this run.
  type: bool
  returned: always
"""

import json
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import normalised
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import (
    ARGUMENTS,
    REQUIREMENT,
    PackagesError,
    have_uv,
    is_neuron,
    parse_lock,
    run,
)

# The packages of PyTorch's own indexes that a build for the CPU replaces.
TORCH = ("torch", "torchvision", "torchaudio")


def project(module):
    """Return the pyproject.toml that ties names to indexes; uv has no other way to do that."""
    sources = module.params["sources"]
    lines = ["[project]", 'name = "environment"', 'version = "0"']
    lines.append('requires-python = "==%s.*"' % module.params["python_version"])
    lines.append("dependencies = %s" % json.dumps(module.params["requirements"]))
    if sources["wheelhouse"]:
        return "\n".join(lines)
    indexes = [("neuron", sources["neuron_index_url"], False), ("torch", sources["torch_index_url"], True)]
    indexes = [index for index in indexes if index[1]]
    tied = []
    for requirement in module.params["requirements"]:
        name = normalised(requirement_name(requirement))
        for index in (index for index, _url, _explicit in indexes):
            if (index == "neuron" and is_neuron(name)) or (index == "torch" and name in TORCH):
                tied.append("%s = {index = %s}" % (name, json.dumps(index)))
    if tied:
        lines += ["[tool.uv.sources]"] + tied
    for index, url, explicit in indexes:
        lines += ["[[tool.uv.index]]", "name = %s" % json.dumps(index), "url = %s" % json.dumps(url)]
        if explicit:
            lines.append("explicit = true")
    return "\n".join(lines) + "\n"


def requirement_name(requirement):
    """Return the name that a requirement starts with."""
    end = 0
    while end < len(requirement) and (requirement[end].isalnum() or requirement[end] in "-_."):
        end += 1
    return requirement[:end]


def compile_requirements(module, uv):
    """Return uv's answer: a requirements file with hashes and, behind each package, the index it comes from."""
    sources = module.params["sources"]
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "pyproject.toml": project(module),
            "constraints.txt": "\n".join(module.params["constraints"]),
            "excluded.txt": "\n".join(module.params["excluded"]),
        }
        for name, text in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text + "\n")
        command = [uv, "pip", "compile", "pyproject.toml", "--python", module.params["python"]]
        command += [
            "--constraints",
            "constraints.txt",
            "--excludes",
            "excluded.txt",
            "--output-file",
            "lock.txt",
            "--quiet",
        ]
        command += ["--generate-hashes", "--emit-index-annotation", "--no-annotate", "--no-header"]
        if sources["wheelhouse"]:
            command += ["--no-index", "--find-links", sources["wheelhouse"]]
        else:
            command += ["--index-strategy", "unsafe-first-match"]
        run(command, sources, cwd=folder)
        with open(os.path.join(folder, "lock.txt"), encoding="utf-8") as file:
            return file.read()


def without_indexes(answer):
    """Split uv's answer into the lock itself and {name: URL of the index it comes from}."""
    lines, origins, name = [], {}, None
    for line in answer.split("\n"):
        match = REQUIREMENT.match(line)
        if match:
            name = normalised(match.group(1))
        if line.strip().startswith("# from "):
            origins[name] = line.strip()[len("# from ") :]
        else:
            lines.append(line)
    # uv ends the last hash before the comment with no continuation, so that nothing else needs to change.
    return "\n".join(lines), origins


def foreign_neuron_packages(packages, origins, neuron_index_url):
    """Return those of Neuron's packages that do not come from Neuron's index."""
    wanted = (neuron_index_url or "").rstrip("/")
    return sorted(name for name in packages if is_neuron(name) and origins.get(name, "").rstrip("/") != wanted)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            name=dict(type="str", required=True),
            path=dict(type="path", required=True),
            requirements=dict(type="list", elements="str", required=True),
            constraints=dict(type="list", elements="str", default=[]),
            excluded=dict(type="list", elements="str", default=[]),
            python=dict(type="path", required=True),
            python_version=dict(type="str", required=True),
            architecture=dict(type="str", required=True),
            refresh=dict(type="bool", default=False),
            **ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, lock="", packages={})
    sources = module.params["sources"]
    try:
        uv = have_uv(module.params["uv_requirement"], module.params["tools_path"], module.params["python"], sources)
        lock, origins = without_indexes(compile_requirements(module, uv))
    except (PackagesError, OSError) as error:
        module.fail_json(
            msg="The packages for %s could not be resolved, and nothing was installed. %s"
            % (module.params["name"], error)
        )
    packages = parse_lock(lock)
    refused = sorted(set(packages) & {normalised(name) for name in module.params["excluded"]})
    if refused:
        module.fail_json(
            msg="The packages for %s include %s, which must never be installed." % (module.params["name"], refused)
        )
    if not sources["wheelhouse"]:
        foreign = foreign_neuron_packages(packages, origins, sources["neuron_index_url"])
        if foreign:
            module.fail_json(
                msg="%s would come from an index that is not Neuron's (%s): its packages of these "
                "names are stubs or worse. "
                "Nothing was installed." % (", ".join(foreign), sources["neuron_index_url"])
            )
    module.exit_json(changed=True, lock=lock, packages=packages)


if __name__ == "__main__":
    main()
