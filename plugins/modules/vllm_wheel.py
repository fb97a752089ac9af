#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_wheel
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Build vLLM for AWS Neuron, or its plugin, from source, once for all hosts of a platform
description:
  - Returns a wheel of vLLM that was built for Neuron, or of the plugin that teaches it Neuron, kept on the controller
    with its hash and a manifest.
  - The first host of a platform (stack, Python version, architecture) builds; all other hosts of the run wait for it,
    and every later run takes the wheel that is there while what went into it is the same.
  - The build changes nothing of the environment whose interpreter it uses. Its tools are installed, by their hashes,
    into the build's own folder, which is removed in the end, and by the next build when one was killed.
  - Nothing that a host or a mirror says is used before it was compared with the stack; where it says something else,
    nothing is fetched.
  - A host without a Neuron device can build every release.
  - A build that came out for another device or another version is a failure.
options:
  path:
    description:
      - Folder on the controller that wheels are kept in, which is made when missing, or C(s3://BUCKET/PREFIX), to which
        what O(mirror) says of S3 applies too.
      - A bucket is asked once in a run. Of two controllers that build the same at a time both use the wheel that was
        there first.
    type: path
    required: true
  mirror:
    description:
      - A second place for wheels, asked before anything is built, a folder on the controller, C(https://HOST/PATH) or
        C(s3://BUCKET/PREFIX).
      - Every file is compared with the hash in the manifest that lies beside it, and version and commit with those of
        O(stack). Who can write to the mirror decides on what hosts run.
      - For S3, C(boto3) must be installed on the controller, and credentials come from where boto3 looks for them.
    type: str
    default: ""
  mirror_write:
    description:
      - Put what was built to O(mirror), over HTTP with C(PUT); also what was built in an earlier run and is not there.
    type: bool
    default: false
  mirror_insecure:
    description: Take wheels from a O(mirror) at C(http://) too, where everybody between can put in other ones.
    type: bool
    default: false
  build:
    description:
      - Whether to build a wheel that is neither in O(path) nor in O(mirror). With V(false) nothing is ever built; where
        there is no wheel RV(wheel) is empty, and that is no failure.
    type: bool
    default: true
  stack:
    description: The entry of the stack data, as P(neuronops.vllm.stack#lookup) returns it.
    type: dict
    required: true
  of:
    description:
      - What of O(stack) to build, vLLM itself or the plugin that its entry names.
      - The wheel of a plugin must have exactly the version in C(plugin.version), and is built without the Neuron
        packages.
    type: str
    choices: [vllm, plugin]
    default: vllm
    version_added: 0.2.0
  source:
    description:
      - A git repository, or a file with the sources (C(.tar.gz) and the like, C(.zip), C(.bundle)), on the controller
        or at a URL that the host can reach.
      - A git repository may be a folder of the host, of whichever user.
      - git reads what the system's and root's configuration say on proxies and certificates, and no variables but
        C(GIT_SSL_CAINFO).
      - By default C(https://github.com/vllm-project/vllm.git), and with O(of=plugin) C(plugin.source) of O(stack).
    type: str
    default: ""
  source_checksum:
    description: SHA-256 of the file with the sources, in hexadecimal. Required when it comes from a URL.
    type: str
    default: ""
  source_key:
    description:
      - OpenPGP public key, armoured, that must have signed the tag, or the commit where the tag is no annotated one.
        Only for git.
      - The signature of a commit says nothing about the name it was found under; C(vllm.commit) or C(plugin.commit) in
        O(stack) does.
    type: str
    default: ""
  locked_commit:
    description:
      - Commit that the tag was the last time, for when the stack has none. By default that of the wheels in O(path).
      - A branch may move.
    type: str
    default: ""
  venv:
    description:
      - Environment on the host whose interpreter builds.
      - vLLM needs torch in it, and neuronx-cc unless C(vllm.suffix) in O(stack) is V(empty).
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
    description:
      - Folder on the host to build in. Everything happens in C(.neuronops-build) below it, and nothing else in it is
        touched.
    type: path
    default: /opt/neuronops/build
  build_lock:
    description:
      - Lock with hashes of the tools to build with, as P(neuronops.vllm.python_lock#module) returns it. By default that
        of the collection for the build requirements of O(stack).
    type: str
    default: ""
  result_folder:
    description: Name of the folder that the wheel is left in; set by the action on the controller.
    type: str
    default: ""
  started_by:
    description: Who builds, for who waits on the same host; set by the action on the controller.
    type: str
    default: ""
  lock_timeout:
    description:
      - Seconds to wait for another build in O(build_path) to end, which another controller has started. Then the module
        fails with who it is.
    type: int
    default: 3600
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

- name: Build the plugin that vLLM 0.13 needs for Neuron
  neuronops.vllm.vllm_wheel:
    of: plugin
    path: "{{ inventory_dir }}/.neuronops/wheels"
    stack: "{{ lookup('neuronops.vllm.stack', 'vllm-0.13.0') }}"
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
  description: Name of the wheel's file; empty in check mode and with O(build=false) where there is none yet.
  type: str
  returned: always
sha256:
  description: SHA-256 of the wheel.
  type: str
  returned: when there is a wheel
version:
  description: Version of the wheel.
  type: str
  returned: when there is a wheel
  sample: 0.9.2+neuron218
commit:
  description: Commit that was built; empty for an archive.
  type: str
  returned: when there is a wheel
requirements:
  description:
    - What the wheel requires, except the Neuron packages, which other roles have installed.
    - Of a plugin also without vLLM, which has a wheel of its own.
  type: list
  elements: str
  returned: when there is a wheel
"""

import email.parser
import glob
import json
import os
import shutil
import stat
import tempfile
import time
import zipfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_file
from ansible_collections.neuronops.vllm.plugins.module_utils import process, turns
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import observe_packages
from ansible_collections.neuronops.vllm.plugins.module_utils.files import sha256
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import (
    FormError,
    form,
    lock,
    lock_text,
    pin,
    requirement,
    requirement_name,
    wheel_name,
)
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import (
    ARGUMENTS,
    PackagesError,
    have_uv,
    index_arguments,
    is_neuron,
    program_environment,
    run,
    satisfies,
)
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import (
    OPTIONS,
    SourceError,
    check_address,
    check_commit,
    checkout,
    described,
    is_local,
    kind,
    unpack,
    verify_signature,
    wanted_version,
)

# The hook of PEP 517 that pip would call, called without pip: no isolation, no download, the environment untouched.
# The tools come before the environment's own; the folder of the sources is not searched, as pip does not search it.
BUILD = """
import os, sys
tools, wheels = sys.argv[1:]
sys.path.insert(0, tools)
del sys.argv[1:]
from setuptools import build_meta
os.makedirs(wheels)
build_meta.build_wheel(wheels)
"""
NEURON_LS = """#!/bin/sh
# The release that is built here asks neuron-ls whether to build for Neuron, and that is not a question.
exit 0
"""


# What a folder of ours says of itself.
MAKER = "neuronops.vllm.vllm_wheel"


class BuildError(Exception):
    """A build that cannot start or came out wrong; the message says why and what to do."""


def check_environment(stack, wheel, venv):
    """Fail unless the environment has what the wheel's setup.py looks for."""
    if not os.path.exists(os.path.join(venv, "bin", "python")):
        raise BuildError("%s has no interpreter to build with. Run the role neuronops.vllm.neuron_venv first." % venv)
    if not wheel["packages"]:
        return
    packages, damaged = observe_packages(venv)
    suffix = ", and the version's suffix comes from neuronx-cc" if "neuronx-cc" in wheel["packages"] else ""
    for name in wheel["packages"]:
        wanted = stack["python_packages"][name]
        if packages.get(name, "").partition("+")[0] != wanted or name in damaged:
            raise BuildError(
                "%s has %s %s in place of %s: the build needs it%s. Run the role neuronops.vllm.neuron_venv first."
                % (venv, name, damaged.get(name) or packages.get(name, "(missing)"), wanted, suffix)
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


def check_arguments(module, wheel, source):
    """Fail when the arguments alone say that there will be no wheel."""
    of, option = wheel["of"], OPTIONS[wheel["of"]]
    check_address(source, of)
    if wheel["commit"]:
        check_commit(wheel["commit"], "%s.commit of the stack" % of)
    if kind(source) != "archive":
        if not shutil.which("git"):
            raise BuildError("git is missing on this host, and the sources cannot be had without it.")
        if module.params["source_key"] and not shutil.which("gpg"):
            raise BuildError("gpg is missing on this host, and the sources' signature cannot be verified without it.")
    if kind(source) != "git" and not is_local(source) and not module.params["source_checksum"]:
        raise BuildError("%s is a file at a URL: %s_checksum must be its SHA-256." % (option, option))
    if module.params["source_checksum"]:
        form("SHA-256", module.params["source_checksum"].lower(), option + "_checksum")
    if not module.params["build_lock"]:
        raise BuildError(
            "There is no lock for the build requirements %s, and tools without one are not installed. Set build_lock "
            "to what neuronops.vllm.python_lock returns for them." % ", ".join(wheel["build_requirements"])
        )


def make_folder(path):
    """Make a folder and those on the way to it, which others can read whatever this process's umask is."""
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path))
    try:
        os.mkdir(path)
    except FileExistsError:
        # Another build has made it at the same time.
        return
    os.chmod(path, 0o755)


class Workplace:
    """The folder of ours below the build path: one build at a time, and nothing is removed that has not our mark."""

    NAME = ".neuronops-build"
    MARK = ".neuronops-mark"
    # A wheel that no controller has fetched within this many seconds will not be fetched any more.
    OLD = 3600

    def __init__(self, build_path):
        self.path = os.path.join(build_path, self.NAME)

    def __enter__(self):
        make_folder(self.path)
        found = os.lstat(self.path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise BuildError(
                "%s is a link, or others than the user of this build may write to it. Nothing was changed. Remove it, "
                "or set vllm_build_path to another folder." % self.path
            )
        os.chmod(self.path, 0o755)
        return self

    def lock(self, timeout, started_by=""):
        """Wait until no other build has its turn here; say what was waited for, or nothing."""
        path = os.path.join(self.path, "lock")
        try:
            # Only root may open it: who can open a file can also keep it locked.
            self.file, other = turns.take(path, timeout, started_by)
        except turns.BusyError as error:
            raise BuildError(
                "Another build has %s: %s. It was waited for during %d seconds, and nothing was changed. Run again "
                "when it has ended, or set vllm_build_path to another folder." % (self.path, error.holder, timeout)
            ) from error
        return other

    def __exit__(self, *_error):
        if hasattr(self, "file"):
            self.file.close()

    def new(self, name=None):
        """Make a marked folder, of that name or of a random one."""
        if name is None:
            path = tempfile.mkdtemp(prefix="vllm-", dir=self.path)
        else:
            path = os.path.join(self.path, name)
            os.mkdir(path, 0o700)
        with open(os.path.join(path, self.MARK), "w", encoding="utf-8") as file:
            json.dump({"made by": MAKER, "pid": os.getpid(), "started": started(os.getpid())}, file)
        return path

    def clean(self):
        """Remove what killed builds left. Needs the lock."""
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if not self.is_left(path):
                continue
            if not name.startswith("wheel-") or time.time() - os.lstat(path).st_mtime > self.OLD:
                shutil.rmtree(path, ignore_errors=True)

    def is_left(self, path):
        """Say whether a folder has our mark, of a process that is no more."""
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return False
            with open(os.path.join(path, self.MARK), encoding="utf-8") as file:
                mark = json.loads(file.read(1000))
            pid = int(mark["pid"])
            return mark["made by"] == MAKER and started(pid) != mark["started"]
        except (OSError, ValueError, KeyError, TypeError):
            return False


def started(pid):
    """Return when a process was started, in ticks since the host was, or None when there is none: ids come again."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def get_source(module, wheel, source, folder):
    """Bring the sources into the folder and return their commit, empty when they come from an archive."""
    of = wheel["of"]
    os.makedirs(folder)
    if kind(source) == "git" or kind(source) == "bundle":
        if kind(source) == "bundle" and not is_local(source):
            source = download(module, source, of)
        commit = checkout(source, wheel["ref"], wheel["commit"], folder, module.params["locked_commit"], of)
        if module.params["source_key"]:
            verify_signature(folder, wheel["ref"], module.params["source_key"], of)
        return commit
    archive = source if is_local(source) else download(module, source, of)
    unpack(archive, module.params["source_checksum"], folder)
    return ""


def download(module, url, of):
    """Bring a file from a URL and return its path."""
    path = fetch_file(module, url, decompress=False, timeout=60)
    if sha256(path) != module.params["source_checksum"].lower():
        raise BuildError(
            "%s is not the file with the SHA-256 in %s_checksum, but %s." % (url, OPTIONS[of], sha256(path))
        )
    return path


def check_source(wheel, folder):
    """Fail when the sources lack what the build reads."""
    for name in wheel["files"] + wheel["packages_without_init"]:
        if not os.path.exists(os.path.join(folder, name)):
            raise BuildError(
                "The sources lack %s. Release archives of some versions are incomplete; take them from git." % name
            )


def make_packages(wheel, folder):
    """Make packages of the folders that setuptools would leave out of a wheel, as they have no __init__.py."""
    for name in wheel["packages_without_init"]:
        path = os.path.join(folder, name)
        if not (os.path.realpath(path) + os.sep).startswith(os.path.realpath(folder) + os.sep):
            raise BuildError("%s of the sources is a link that leads out of them. Nothing was built." % name)
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(os.path.join(path, "__init__.py"), flags, 0o644))


def build(module, wheel, folder, commit, uv):
    """Build in the folder and return the path of the wheel."""
    source, tools, shims = (os.path.join(folder, name) for name in ("source", "tools", "shims"))
    python = os.path.join(module.params["venv"], "bin", "python")
    sources = {name: value for name, value in module.params["sources"].items() if name != "torch_index_url"}
    locked = os.path.join(folder, "build_tools.txt")
    with open(locked, "w", encoding="utf-8") as file:
        file.write(lock_text(lock(module.params["build_lock"], "the lock of the build tools")))
    where = {name: value for name, value in sources.items() if name != "neuron_index_url"}
    install = [uv, "pip", "install", "--quiet", "--python", python, "--target", tools]
    # A wheel alone: what is built from sources on the way would bring tools that no hash is known of.
    install += ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
    run(install + index_arguments(where, "uv") + ["-r", locked], where)
    scm_version, expected = wanted_version(wheel, commit)
    path = [os.path.join(module.params["venv"], "bin")]
    if wheel["needs_neuron_ls"]:
        os.makedirs(shims)
        with open(os.path.join(shims, "neuron-ls"), "w", encoding="utf-8") as file:
            file.write(NEURON_LS)
        os.chmod(os.path.join(shims, "neuron-ls"), stat.S_IRWXU)
        path.insert(0, shims)
    environment = {name: value for name, value in program_environment(sources).items() if not name.startswith("PYTHON")}
    environment.update(
        PATH=os.pathsep.join(path + [environment.get("PATH", os.defpath)]),
        # For programs that setup.py starts; the build itself is isolated from it.
        PYTHONPATH=tools,
        # Timestamps of files within the wheel: the same sources give the same wheel.
        SOURCE_DATE_EPOCH="1700000000",
        **{name: str(value) for name, value in wheel["build_environment"].items()},
    )
    if scm_version:
        environment["SETUPTOOLS_SCM_PRETEND_VERSION"] = scm_version
    wheels = os.path.join(folder, "wheels")
    command = [python, "-I", "-c", BUILD, tools, wheels]
    status, output, _errors = process.run(command, together=True, cwd=source, env=environment)
    said = output.decode(errors="replace").strip()
    found = glob.glob(os.path.join(wheels, "*.whl"))
    if status != 0 or len(found) != 1:
        end = "\n".join(said.split("\n")[-30:])
        raise BuildError("The build of %s %s failed: %s" % (wheel["title"], wheel["version"], end))
    actual = metadata(found[0])["Version"]
    if actual != expected:
        raise BuildError(
            "The build came out as %s, and not as %s: %s. Nothing was installed."
            % (actual, expected, difference(actual, wheel))
        )
    wheel_name(os.path.basename(found[0]), wheel["name"], expected)
    return found[0]


def difference(version, wheel):
    """Say what it means that a version, or its local part, is not the wanted one."""
    if wheel["of"] == "plugin":
        return "the sources are those of another release; see plugin.version and plugin.ref of the stack"
    local = version.partition("+")[2]
    if wheel["suffix"] == "empty":
        return "it is for a device, and the plugin needs one for none; see build_environment of the stack"
    if "neuron" in local:
        return "it is for another neuronx-cc than the stack's, whose suffix is %s" % wheel["suffix"]
    if not local or local.startswith("cu"):
        return "it is for CUDA, as setup.py did not recognise Neuron; see the stack's build_environment"
    return "it is for another device, as setup.py did not recognise Neuron; see build_environment of the stack"


def metadata(wheel):
    """Return the METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(opened.read(name).decode("utf-8"))


def requirements(path, of):
    """Return what a wheel requires always, without the packages that only AWS may provide and, of a plugin, vLLM.

    vLLM for Neuron is another build than the one that public indexes have under its name.
    """
    needed = [requirement(line.strip()) for line in metadata(path).get_all("Requires-Dist") or []]
    return [
        line
        for line in needed
        if not is_neuron(requirement_name(line))
        and not (of == "plugin" and requirement_name(line) == "vllm")
        and "extra ==" not in line.replace("extra==", "extra ==")
    ]


def check_pin(path, wheel, version):
    """Fail where the wheel of a plugin is for another vLLM than the stack's: it is changed with each release of it."""
    for line in metadata(path).get_all("Requires-Dist") or []:
        pinned = pin(requirement(line.strip()).partition(";")[0].strip())
        if pinned and pinned[0] == "vllm" and not satisfies(version, pinned[1]):
            raise BuildError(
                "%s %s is for vLLM %s alone, and vllm.version of the stack is %s. Take a stack of that vLLM, or "
                "another plugin.ref. Nothing was installed." % (wheel["title"], wheel["version"], pinned[1], version)
            )


def make_wheel(module, wheel, where, workplace, folder, result_folder):
    """Build in the folder, leave the wheel in the other one, and return what the controller wants to know of it.

    wheel: what the stack says of it; where: the place of its sources.
    """
    source = os.path.join(folder, "source")
    commit = get_source(module, wheel, where, source)
    check_source(wheel, source)
    make_packages(wheel, source)
    uv = have_uv(
        module.params["uv_requirement"],
        module.params["tools_path"],
        os.path.realpath(os.path.join(module.params["venv"], "bin", "python")),
        module.params["sources"],
    )
    path = build(module, wheel, folder, commit, uv)
    if wheel["of"] == "plugin":
        check_pin(path, wheel, module.params["stack"]["vllm"]["version"])
    answer = dict(
        wheel=os.path.basename(path),
        commit=commit,
        version=metadata(path)["Version"],
        requirements=requirements(path, wheel["of"]),
        sha256=sha256(path),
    )
    kept = workplace.new(result_folder)
    os.chmod(path, 0o644)
    os.replace(path, os.path.join(kept, answer["wheel"]))
    # The controller fetches it as the user that it logs in as.
    os.chmod(kept, 0o755)
    return answer


def main():
    module = AnsibleModule(
        argument_spec=dict(
            path=dict(type="path", required=True),
            mirror=dict(type="str", default=""),
            mirror_write=dict(type="bool", default=False),
            mirror_insecure=dict(type="bool", default=False),
            build=dict(type="bool", default=True),
            stack=dict(type="dict", required=True),
            of=dict(type="str", choices=["vllm", "plugin"], default="vllm"),
            source=dict(type="str", default=""),
            source_checksum=dict(type="str", default=""),
            source_key=dict(type="str", default="", no_log=False),
            locked_commit=dict(type="str", default=""),
            venv=dict(type="path", required=True),
            python_version=dict(type="str", required=True),
            architecture=dict(type="str", required=True),
            build_path=dict(type="path", default="/opt/neuronops/build"),
            build_lock=dict(type="str", default=""),
            result_folder=dict(type="str", default=""),
            started_by=dict(type="str", default=""),
            lock_timeout=dict(type="int", default=3600),
            disk_needed=dict(type="int", default=500),
            **ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True)
    build_path = module.params["build_path"]
    answer, folder = {}, None
    try:
        result_folder = form("file name", module.params["result_folder"] or "wheel-%d" % os.getpid(), "result_folder")
        wheel = described(module.params["stack"], module.params["of"])
        source = module.params["source"] or wheel["source"]
        check_arguments(module, wheel, source)
        check_environment(module.params["stack"], wheel, module.params["venv"])
        check_disk(build_path, module.params["disk_needed"])
        with Workplace(build_path) as workplace:
            waited = workplace.lock(module.params["lock_timeout"], module.params["started_by"])
            if waited:
                module.warn("Another build in %s was waited for: %s" % (build_path, waited))
            workplace.clean()
            folder = workplace.new()
            try:
                answer = make_wheel(module, wheel, source, workplace, folder, result_folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except (BuildError, SourceError, PackagesError, FormError, OSError, zipfile.BadZipFile) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, **answer)


if __name__ == "__main__":
    main()
