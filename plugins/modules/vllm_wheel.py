#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_wheel
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Build vLLM for AWS Neuron from source, once for all hosts of a platform
description:
  - Returns a wheel of vLLM that was built for Neuron, kept on the controller with its hash and a manifest.
  - The first host of a platform (stack, Python version, architecture) builds; all other hosts of the run wait for it,
    and every later run takes the wheel that is there while what went into it is the same.
  - The build changes nothing of the environment whose interpreter it uses. Its tools are installed into the build's own
    folder, which is removed in the end, and made anew when an earlier build was killed.
  - A host without a Neuron device can build every release.
  - A build that came out for another device or another version is a failure.
options:
  path:
    description: Folder on the controller that wheels are kept in; it is made when missing.
    type: path
    required: true
  mirror:
    description:
      - A second place for wheels, asked before anything is built, a folder on the controller, C(https://HOST/PATH) or
        C(s3://BUCKET/PREFIX).
      - Every file is compared with the hash in the manifest that lies beside it.
      - For S3, C(boto3) must be installed on the controller, and credentials come from where boto3 looks for them.
    type: str
    default: ""
  mirror_write:
    description: Put what was built to O(mirror), over HTTP with C(PUT).
    type: bool
    default: false
  stack:
    description: The entry of the stack data, as P(neuronops.vllm.stack#lookup) returns it.
    type: dict
    required: true
  source:
    description:
      - A git repository, or a file with the sources (C(.tar.gz) and the like, C(.zip), C(.bundle)), on the controller
        or at a URL that the host can reach.
    type: str
    default: https://github.com/vllm-project/vllm.git
  source_checksum:
    description: SHA-256 of the file with the sources, in hexadecimal. Required when it comes from a URL.
    type: str
    default: ""
  source_key:
    description: OpenPGP public key, armoured, that must have signed the tag or the commit. Only for git.
    type: str
    default: ""
  locked_commit:
    description:
      - Commit that the tag was the last time, for when the stack has none. By default that of the wheels in O(path).
      - A branch may move.
    type: str
    default: ""
  venv:
    description: Environment on the host with torch and neuronx-cc, which the build needs.
    type: path
    required: true
  python_version:
    description: Version of the environment's interpreter, for example V(3.11).
    type: str
    required: true
  architecture:
    description: Architecture of the host, for example V(x86_64).
    type: str
    required: true
  build_path:
    description: Folder on the host to build in.
    type: path
    default: /opt/neuronops/build
  disk_needed:
    description: Free space in megabytes that O(build_path) must have.
    type: int
    default: 500
extends_documentation_fragment:
  - neuronops.vllm.packages
  - neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: partial
    details: A wheel that is there is returned; without one nothing is built and RV(wheel) is empty.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Build vLLM once for all hosts like this one
  neuronops.vllm.vllm_wheel:
    path: "{{ inventory_dir }}/.neuronops/wheels"
    stack: "{{ lookup('neuronops.vllm.stack') }}"
    venv: /opt/aws_neuron_venv_pytorch
    python_version: "3.10"
    architecture: x86_64
  register: built

- name: Build from a bundle, where there is no network
  neuronops.vllm.vllm_wheel:
    path: "{{ inventory_dir }}/.neuronops/wheels"
    stack: "{{ lookup('neuronops.vllm.stack', 'vllm-0.7.3') }}"
    source: /srv/mirror/vllm.bundle
    venv: /opt/aws_neuron_venv_pytorch
    python_version: "3.10"
    architecture: x86_64
"""

RETURN = r"""
built:
  description: Whether this host built in this run.
  type: bool
  returned: always
directory:
  description: Folder on the controller with the wheel and its manifest.
  type: str
  returned: always
wheel:
  description: Name of the wheel's file; empty in check mode where nothing was built yet.
  type: str
  returned: always
sha256:
  description: SHA-256 of the wheel.
  type: str
  returned: always
version:
  description: Version of the wheel.
  type: str
  returned: always
  sample: 0.9.2+neuron218
commit:
  description: Commit that was built; empty for an archive.
  type: str
  returned: always
requirements:
  description: What the wheel requires, except the Neuron packages, which other roles have installed.
  type: list
  elements: str
  returned: always
"""

import email.parser
import glob
import os
import shutil
import stat
import zipfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_file
from ansible_collections.neuronops.vllm.plugins.module_utils import process
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import observe_packages
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import (
    ARGUMENTS,
    PackagesError,
    have_uv,
    is_neuron,
    program_environment,
    run,
)
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import (
    SourceError,
    checkout,
    is_local,
    kind,
    sha256,
    unpack,
    verify_signature,
)

# The hook of PEP 517 that pip would call, called without pip: no isolation, no download, the environment untouched.
BUILD = """
import os, sys
from setuptools import build_meta
os.makedirs(sys.argv[1])
build_meta.build_wheel(sys.argv[1])
"""
NEURON_LS = """#!/bin/sh
# The release that is built here asks neuron-ls whether to build for Neuron, and that is not a question.
exit 0
"""


class BuildError(Exception):
    """A build that cannot start or came out wrong; the message says why and what to do."""


def wanted_version(stack, ref_is_release, commit):
    """Return (version to give to setuptools-scm, version that the wheel must have).

    A shallow clone of a branch or commit knows no tag, so its version names the commit.
    """
    base, suffix = stack["vllm"]["version"], stack["vllm"]["suffix"]
    if ref_is_release or not commit:
        return base, "%s+%s" % (base, suffix)
    local = "g" + commit[:9]
    return "%s+%s" % (base, local), "%s+%s.%s" % (base, local, suffix)


def check_environment(stack, venv):
    """Fail unless the environment has what vLLM's setup.py looks for."""
    packages, damaged = observe_packages(venv)
    for name in ("neuronx-cc", "torch"):
        wanted = stack["python_packages"][name]
        if packages.get(name, "").partition("+")[0] != wanted or name in damaged:
            raise BuildError(
                "%s has %s %s in place of %s: the build needs it, and the version's suffix comes from neuronx-cc. "
                "Run the role neuronops.vllm.neuron_venv first."
                % (venv, name, damaged.get(name) or packages.get(name, "(missing)"), wanted)
            )


def check_disk(path, needed):
    """Fail unless the file system of `path`, which may not exist yet, has `needed` megabytes."""
    there = path
    while not os.path.exists(there):
        there = os.path.dirname(there)
    free = shutil.disk_usage(there).free // 1000000
    if free < needed:
        raise BuildError(
            "%s has %d MB free, and the build needs %d MB. Nothing was changed. Free some, or set vllm_build_path "
            "to a folder on a larger disk." % (there, free, needed)
        )


def get_source(module, folder):
    """Bring the sources into the folder and return their commit, empty when they come from an archive."""
    source, vllm = module.params["source"], module.params["stack"]["vllm"]
    os.makedirs(folder)
    if kind(source) == "git" or kind(source) == "bundle":
        if kind(source) == "bundle" and not is_local(source):
            source = download(module, source)
        if not shutil.which("git"):
            raise BuildError("git is missing on this host, and the sources cannot be had without it.")
        commit = checkout(source, vllm["ref"], vllm["commit"], folder, module.params["locked_commit"])
        if module.params["source_key"]:
            verify_signature(folder, vllm["ref"], module.params["source_key"])
        return commit
    archive = source if is_local(source) else download(module, source)
    unpack(archive, module.params["source_checksum"], folder)
    return ""


def download(module, url):
    """Bring a file from a URL and return its path."""
    if not module.params["source_checksum"]:
        raise BuildError("vllm_source is a file at a URL: vllm_source_checksum must be its SHA-256.")
    path = fetch_file(module, url, decompress=False, timeout=60)
    if sha256(path) != module.params["source_checksum"].lower():
        raise BuildError("%s is not the file with the SHA-256 in vllm_source_checksum, but %s." % (url, sha256(path)))
    return path


def check_source(stack, folder):
    """Fail when the sources lack what the build reads."""
    vllm = stack["vllm"]
    for name in ["setup.py", vllm["requirements_file"]] + vllm["packages_without_init"]:
        if not os.path.exists(os.path.join(folder, name)):
            raise BuildError(
                "The sources lack %s. Release archives of some versions are incomplete; take them from git." % name
            )


def make_packages(stack, folder):
    """Make packages of the folders that setuptools would leave out of a wheel, as they have no __init__.py."""
    for name in stack["vllm"]["packages_without_init"]:
        open(os.path.join(folder, name, "__init__.py"), "a").close()


def build(module, folder, commit, uv):
    """Build in the folder and return the path of the wheel."""
    vllm = module.params["stack"]["vllm"]
    source, tools, shims = (os.path.join(folder, name) for name in ("source", "tools", "shims"))
    python = os.path.join(module.params["venv"], "bin", "python")
    sources = {name: value for name, value in module.params["sources"].items() if name != "torch_index_url"}
    install = [uv, "pip", "install", "--quiet", "--python", python, "--target", tools]
    run(install + vllm["build_requirements"], dict(sources, neuron_index_url=None))
    scm_version, expected = wanted_version(module.params["stack"], vllm["ref"] == "v" + vllm["version"], commit)
    path = [os.path.join(module.params["venv"], "bin")]
    if vllm["needs_neuron_ls"]:
        os.makedirs(shims)
        with open(os.path.join(shims, "neuron-ls"), "w", encoding="utf-8") as file:
            file.write(NEURON_LS)
        os.chmod(os.path.join(shims, "neuron-ls"), stat.S_IRWXU)
        path.insert(0, shims)
    environment = program_environment(sources)
    environment.update(
        PATH=os.pathsep.join(path + [environment.get("PATH", os.defpath)]),
        PYTHONPATH=tools,
        # Timestamps of files within the wheel: the same sources give the same wheel.
        SOURCE_DATE_EPOCH="1700000000",
        SETUPTOOLS_SCM_PRETEND_VERSION=scm_version,
        **{name: str(value) for name, value in vllm["build_environment"].items()},
    )
    wheels = os.path.join(folder, "wheels")
    status, output, _errors = process.run([python, "-c", BUILD, wheels], together=True, cwd=source, env=environment)
    said = output.decode(errors="replace").strip()
    found = glob.glob(os.path.join(wheels, "*.whl"))
    if status != 0 or len(found) != 1:
        raise BuildError("The build of vLLM %s failed: %s" % (vllm["version"], "\n".join(said.split("\n")[-30:])))
    actual = metadata(found[0])["Version"]
    if actual != expected:
        raise BuildError(
            "The build came out as %s, and not as %s: %s. Nothing was installed."
            % (actual, expected, device(actual, vllm["suffix"]))
        )
    return found[0]


def device(version, suffix):
    """Say what a version's local part means when it is not the wanted one."""
    local = version.partition("+")[2]
    if "neuron" in local:
        return "it is for another neuronx-cc than the stack's, whose suffix is %s" % suffix
    if not local or local.startswith("cu"):
        return "it is for CUDA, as setup.py did not recognise Neuron; see the stack's build_environment"
    return "it is for another device, as setup.py did not recognise Neuron; see build_environment of the stack"


def metadata(wheel):
    """Return the METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(opened.read(name).decode("utf-8"))


def requirements(wheel):
    """Return what a wheel requires always, without the packages that only AWS may provide."""
    needed = [line.strip() for line in metadata(wheel).get_all("Requires-Dist") or []]
    return [line for line in needed if not is_neuron(line) and "extra ==" not in line.replace("extra==", "extra ==")]


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            mirror=dict(type="str", default=""),
            mirror_write=dict(type="bool", default=False),
            stack=dict(type="dict", required=True),
            source=dict(type="str", default="https://github.com/vllm-project/vllm.git"),
            source_checksum=dict(type="str", default=""),
            source_key=dict(type="str", default="", no_log=False),
            locked_commit=dict(type="str", default=""),
            venv=dict(type="path", required=True),
            python_version=dict(type="str", required=True),
            architecture=dict(type="str", required=True),
            build_path=dict(type="path", default="/opt/neuronops/build"),
            disk_needed=dict(type="int", default=500),
            **ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    stack, build_path = module.params["stack"], module.params["build_path"]
    folder = os.path.join(build_path, "vllm")
    result = {}
    try:
        check_environment(stack, module.params["venv"])
        check_disk(build_path, module.params["disk_needed"])
        os.makedirs(build_path, mode=0o755, exist_ok=True)
        # What a killed build left is worth nothing.
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)
        commit = get_source(module, os.path.join(folder, "source"))
        check_source(stack, os.path.join(folder, "source"))
        make_packages(stack, os.path.join(folder, "source"))
        uv = have_uv(
            module.params["uv_requirement"],
            module.params["tools_path"],
            os.path.realpath(os.path.join(module.params["venv"], "bin", "python")),
            module.params["sources"],
        )
        wheel = build(module, folder, commit, uv)
        kept = os.path.join(build_path, os.path.basename(wheel))
        os.replace(wheel, kept)
        os.chmod(kept, 0o644)
        result = dict(
            changed=True,
            commit=commit,
            version=metadata(kept)["Version"],
            requirements=requirements(kept),
            path=kept,
            sha256=sha256(kept),
        )
    except (BuildError, SourceError, PackagesError, OSError) as error:
        module.fail_json(msg=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
