# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run uv and pip: where packages come from, what a lock says, and how uv reaches a host."""

from __future__ import annotations

import os
import re
import shutil
import tempfile

from ansible_collections.neuronops.vllm.plugins.module_utils import process
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

REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


class PackagesError(Exception):
    """A program that failed; the message says which, and what it said."""


def is_neuron(name):
    """Say whether a package is one that only AWS may provide: public indexes have stubs under these names."""
    return "neuron" in normalised(name)


def parse_lock(text):
    """Return {name: version} of a requirements file in which every line is an exact version."""
    packages = {}
    for line in text.split("\n"):
        match = REQUIREMENT.match(line)
        if match:
            packages[normalised(match.group(1))] = match.group(2)
    return packages


def same_version(one, other):
    """Compare two versions as PEP 440 does as far as folders and locks differ: 2024.01.02 is 2024.1.2, 1_2 is 1-2."""

    def parts(version):
        pieces = [piece for piece in re.split(r"[._+-]", version.lower()) if piece]
        return [str(int(piece)) if piece.isdigit() else piece for piece in pieces]

    return parts(one) == parts(other)


def program_environment(sources):
    """Return the environment variables for uv and pip: no questions, no progress bars, the right certificates."""
    environment = dict(os.environ)
    environment.update(
        LC_ALL="C.UTF-8",
        NO_COLOR="1",
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        PIP_NO_INPUT="1",
        PIP_PROGRESS_BAR="off",
        PIP_ROOT_USER_ACTION="ignore",
        UV_NO_PROGRESS="1",
        UV_PYTHON_DOWNLOADS="never",
    )
    public = sources.get("index_url") or environment.get("UV_DEFAULT_INDEX") or environment.get("PIP_INDEX_URL")
    if public:
        # Through the environment, not the command line: where it comes from there, it may hold a password.
        environment.update(UV_DEFAULT_INDEX=public, PIP_INDEX_URL=public)
    candidates = (
        sources.get("ca_file"),
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
    """Return the arguments that tell uv or pip where to look for packages of which the hashes are known."""
    if sources.get("wheelhouse"):
        return ["--no-index", "--find-links", sources["wheelhouse"]]
    uv = installer == "uv"
    arguments = []
    for url in (sources.get("neuron_index_url"), sources.get("torch_index_url")):
        if url:
            arguments += ["--index" if uv else "--extra-index-url", url]
    if uv:
        # Any index may provide a file, because only one with a known hash is accepted.
        arguments += ["--index-strategy", "unsafe-best-match"]
    return arguments


def run(command, sources, log=None, cwd=None, path=None):
    """Run a program and return what it printed, which goes to the file `log` too; raises PackagesError."""
    environment = program_environment(sources)
    if path:
        environment["PATH"] = path + os.pathsep + environment.get("PATH", os.defpath)
    with tempfile.TemporaryFile() if log is None else open(log, "ab+") as output:
        start = output.seek(0, os.SEEK_END)
        try:
            status = process.run(command, output=output, together=True, env=environment, cwd=cwd)[0]
        except OSError as error:
            raise PackagesError("%s cannot be started: %s" % (command[0], error)) from error
        output.seek(start)
        said = output.read().decode(errors="replace").strip()
    if status != 0:
        raise PackagesError(
            "`%s` ended with status %d: %s" % (" ".join(command[:4]), status, "\n".join(said.split("\n")[-30:]))
        )
    return said


def have_uv(requirement, tools_path, python, sources, log=None):
    """Return the path of the uv that `requirement` names with its hashes, installed in a folder of its own if missing.

    python: the interpreter that makes the folder's environment; it needs the standard module ensurepip.
    """
    version = parse_lock(requirement)["uv"]
    folder = os.path.join(tools_path, "uv-" + version)
    program = os.path.join(folder, "bin", "uv")
    if os.access(program, os.X_OK):
        return program
    os.makedirs(tools_path, mode=0o755, exist_ok=True)
    partial = tempfile.mkdtemp(prefix=".uv-", dir=tools_path)
    try:
        run([python, "-m", "venv", partial], sources, log)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(requirement)
            file.flush()
            pip = [os.path.join(partial, "bin", "python"), "-m", "pip", "install", "--require-hashes", "--no-deps"]
            where = {key: value for key, value in sources.items() if key not in ("neuron_index_url", "torch_index_url")}
            run(pip + ["--only-binary", ":all:"] + index_arguments(where, "pip") + ["-r", file.name], sources, log)
        os.chmod(partial, 0o755)
        if os.path.lexists(folder):
            # Without a program in it: left by somebody who removed it, or by a full disk.
            shutil.rmtree(folder)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return program
