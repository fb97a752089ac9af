# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run uv and pip: where packages come from, what a lock says, and how uv reaches a host."""

from __future__ import annotations

import os
import re
import shutil
import tempfile

from ansible_collections.neuronops.vllm.plugins.module_utils import forms, pip_settings, process
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import normalised

# Where a host's trusted certificates are: Debian and Ubuntu, then Red Hat and Amazon Linux.
SYSTEM_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

# The arguments of every module that downloads packages.
ARGUMENTS = dict(
    sources=dict(
        type="dict",
        default={},
        options=dict(
            index_url=dict(type="str"),
            neuron_index_url=dict(type="str"),
            torch_index_url=dict(type="str"),
            wheelhouse=dict(type="str"),
            ca_file=dict(type="path"),
        ),
    ),
    uv_requirement=dict(type="str"),
    tools_path=dict(type="path", default="/opt/neuronops/tools"),
)

# The packages that AWS publishes on its own index; public indexes have stubs under some of these names, or nothing that
# would keep somebody from publishing one. Names are normalised.
# Source: https://pip.repos.neuron.amazonaws.com/ and the release notes of the Neuron SDK, 2.9 to 2.26.
NEURON_PACKAGES = (
    "aws-neuronx-runtime-discovery",
    "libneuronxla",
    "libtorch-neuronx-lite",
    "mxnet-neuron",
    "mx-neuron",
    "neuron-cc",
    "neuronperf",
    "neuronx-cc",
    "neuronx-cc-stubs",
    "neuronx-distributed",
    "neuronx-distributed-inference",
    "neuronx-distributed-training",
    "neuronx-hwm",
    "nki",
    "tensorboard-plugin-neuron",
    "tensorboard-plugin-neuronx",
    "tensorflow-model-server-neuron",
    "tensorflow-model-server-neuronx",
    "tensorflow-neuron",
    "tensorflow-neuronx",
    "torch-neuron",
    "torch-neuronx",
    "transformers-neuronx",
    "vllm-neuron",
)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class PackagesError(Exception):
    """A program that failed; the message says which, and what it said."""


def is_neuron(name, more=()):
    """Say whether a package is one that only AWS may provide; a requirement counts by the name that it begins with.

    more: further names, which the user gives.
    """
    found = NAME.match(name.strip())
    return bool(found) and normalised(found.group(0).rstrip("._-")) in set(NEURON_PACKAGES).union(map(normalised, more))


def parse_lock(text):
    """Return {name: version} of a lock; raises forms.FormError where a line of it is not understood."""
    return {name: version for name, (version, _hashes) in forms.lock(text).items()}


def same_version(one, other):
    """Compare two versions as PEP 440 does as far as folders and locks differ: 2024.01.02 is 2024.1.2, 1_2 is 1-2."""

    def parts(version):
        # Letters count here, unlike in versions.numbers: 1.0rc1 and 1.0.1 are two versions.
        pieces = [piece for piece in re.split(r"[._+-]", version.lower()) if piece]
        return [str(int(piece)) if piece.isdigit() else piece for piece in pieces]

    return parts(one) == parts(other)


def satisfies(version, pinned):
    """Say whether a version is the pinned one: 1.0.0 is 1.0, and 2.5.1+cpu is a build of 2.5.1."""

    def parts(text):
        public, _plus, local = text.lower().lstrip("v").partition("+")
        public = re.sub(r"-([0-9]+)\Z", r".post\1", public)
        found = re.match(r"(?:([0-9]+)!)?([0-9.]*[0-9])(.*)\Z", public)
        if not found:
            return text
        numbers = [int(number) for number in found.group(2).split(".") if number]
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers.pop()
        names = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc", "rev": "post", "r": "post"}
        rest = [
            str(int(piece)) if piece.isdigit() else names.get(piece, piece)
            for piece in re.findall(r"[a-z]+|[0-9]+", found.group(3))
        ]
        return int(found.group(1) or 0), numbers, rest, re.split(r"[._-]", local)

    one, other = parts(version), parts(pinned)
    return one == other or ("+" not in pinned and one[:3] == other[:3])


def check_lock(packages, requirements, constraints=(), excluded=()):
    """Fail unless a lock, as forms.lock reads it, has what was asked for and nothing that was excluded."""
    refused = sorted(set(packages) & {normalised(name) for name in excluded})
    if refused:
        raise PackagesError("it has %s, which must never be installed" % ", ".join(refused))
    for line in requirements:
        name = forms.requirement_name(line)
        # A marker may say that the package is for another platform.
        if name not in packages and ";" not in line:
            raise PackagesError("it lacks %s, which is asked for" % name)
    for line in list(requirements) + list(constraints):
        pinned = forms.pin(line)
        if pinned and pinned[0] in packages and not satisfies(packages[pinned[0]][0], pinned[1]):
            raise PackagesError("it has %s %s, and %s is asked for" % (pinned[0], packages[pinned[0]][0], line))


def program_environment(sources, variables=None):
    """Return the environment variables for uv and pip: no questions, no progress bars, the right certificates.

    What the host's pip is configured with on where packages come from is handed to both; neither reads configuration
    by itself, which could say something else about where and how to install, or come from a stranger's folder.
    variables: those of the caller; the process's own by default.
    """
    variables = os.environ if variables is None else variables
    environment = process.environment(variables)
    try:
        settings = pip_settings.for_programs(pip_settings.settings(variables))
        settings.update(pip_settings.uv_settings(variables))
    except pip_settings.SettingsError as error:
        raise PackagesError(str(error)) from error
    # What is set for uv itself is more exact than what is set for pip.
    own = {name: value for name, value in environment.items() if name.startswith("UV_") and value}
    environment.update(settings)
    environment.update(own)
    environment.update(
        LC_ALL="C.UTF-8",
        NO_COLOR="1",
        PIP_CONFIG_FILE=os.devnull,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INPUT="1",
        PIP_PROGRESS_BAR="off",
        PIP_ROOT_USER_ACTION="ignore",
        UV_NO_CONFIG="1",
        UV_NO_PROGRESS="1",
        UV_PYTHON_DOWNLOADS="never",
    )
    public = sources.get("index_url")
    if public:
        # Through the environment, not the command line: where it comes from there, it may hold a password.
        environment.update(UV_DEFAULT_INDEX=public, PIP_INDEX_URL=public)
        environment.pop("UV_NO_INDEX", None)
        environment.pop("PIP_NO_INDEX", None)
    elif environment.get("UV_DEFAULT_INDEX"):
        environment["PIP_INDEX_URL"] = environment["UV_DEFAULT_INDEX"]
    if sources.get("wheelhouse"):
        for name in ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
            environment.pop(name, None)
        environment.pop("PIP_FIND_LINKS", None)
    else:
        # On the command line they would replace the indexes of the host.
        indexes = [sources.get("neuron_index_url"), sources.get("torch_index_url")]
        for name in ("UV_INDEX", "PIP_EXTRA_INDEX_URL"):
            urls = [url for url in indexes if url] + environment.get(name, "").split()
            if urls:
                environment[name] = " ".join(urls)
    candidates = (
        sources.get("ca_file"),
        settings.get("PIP_CERT"),
        environment.get("SSL_CERT_FILE"),
        environment.get("PIP_CERT"),
    ) + SYSTEM_CERTIFICATES
    for bundle in candidates:
        # Each program has certificates of its own, and would not know the ones that the host's administrator added.
        if bundle and os.path.isfile(bundle):
            environment.update(SSL_CERT_FILE=bundle, PIP_CERT=bundle, REQUESTS_CA_BUNDLE=bundle)
            break
    return environment


def index_arguments(sources, installer):
    """Return the arguments that tell uv or pip where to look for packages of which the hashes are known.

    The indexes themselves are in the environment of the program.
    """
    if sources.get("wheelhouse"):
        return ["--no-index", "--find-links", sources["wheelhouse"]]
    # Any index may provide a file, because only one with a known hash is accepted.
    return ["--index-strategy", "unsafe-best-match"] if installer == "uv" else []


def link_arguments(sources, installer, folder):
    """Return the arguments that have uv or pip look into a folder too, besides wherever it looks for packages."""
    # uv takes what its command says in the place of its variable, and pip both.
    known = program_environment(sources).get("UV_FIND_LINKS", "") if installer == "uv" else ""
    return [word for place in [folder] + known.split(",") if place for word in ("--find-links", place)]


def run(command, sources, log=None, cwd=None, path=None, more=None):
    """Run a program and return what it printed, which goes to the file `log` too; raises PackagesError.

    more: further variables of its environment.
    """
    environment = program_environment(sources)
    environment.update(more or {})
    if environment.pop("UV_NO_INDEX", None) and command[1:3] in (["pip", "install"], ["pip", "compile"]):
        # uv has no variable for it.
        command = command + ([] if "--no-index" in command else ["--no-index"])
    if path:
        environment["PATH"] = path + os.pathsep + environment.get("PATH", os.defpath)
    with tempfile.TemporaryFile() if log is None else open(log, "ab+") as output:
        start = output.seek(0, os.SEEK_END)
        try:
            status = process.run(command, output=output, together=True, env=environment, cwd=cwd or process.FOLDER)[0]
        except OSError as error:
            raise PackagesError("%s cannot be started: %s" % (command[0], error)) from error
        output.seek(start)
        said = output.read().decode(errors="replace").strip()
    if status != 0:
        raise PackagesError(
            "`%s` ended with status %d: %s" % (" ".join(command[:4]), status, "\n".join(said.split("\n")[-30:]))
        )
    return said


def uv_version(requirement):
    """Return the version of the uv that a requirement with hashes names."""
    try:
        packages = forms.lock(requirement, "uv_requirement")
    except forms.FormError as error:
        raise PackagesError(str(error)) from error
    if list(packages) != ["uv"]:
        raise PackagesError("uv_requirement names %s, and should name uv alone" % (", ".join(packages) or "nothing"))
    # It becomes a part of a path.
    return forms.form("file name", packages["uv"][0])


def make_folders(path, mode=0o755):
    """Make a folder and those above it that are missing, all with this mode, whatever the umask is."""
    path, missing = os.path.abspath(path), []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise
            continue  # another one made it at the same time
        os.chmod(folder, mode)


def have_uv(requirement, tools_path, python, sources, log=None):
    """Return the path of the uv that `requirement` names with its hashes, installed in a folder of its own if missing.

    python: the interpreter that makes the folder's environment; it needs the standard module ensurepip.
    """
    version = uv_version(requirement)
    folder = os.path.join(tools_path, "uv-" + version)
    program = os.path.join(folder, "bin", "uv")
    if os.access(program, os.X_OK):
        return program
    make_folders(tools_path)
    partial = tempfile.mkdtemp(prefix=".uv-", dir=tools_path)
    try:
        run([python, "-I", "-m", "venv", partial], sources, log)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(requirement)
            file.flush()
            pip = [
                os.path.join(partial, "bin", "python"),
                "-I",
                "-m",
                "pip",
                "install",
                "--require-hashes",
                "--no-deps",
            ]
            where = {key: value for key, value in sources.items() if key not in ("neuron_index_url", "torch_index_url")}
            run(pip + ["--only-binary", ":all:"] + index_arguments(where, "pip") + ["-r", file.name], sources, log)
        if not os.access(os.path.join(partial, "bin", "uv"), os.X_OK):
            raise PackagesError("pip installed uv %s, and left no program bin/uv" % version)
        os.chmod(partial, 0o755)
        if os.path.lexists(folder):
            # Without a program in it: left by somebody who removed it, or by a full disk.
            shutil.rmtree(folder)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return program
