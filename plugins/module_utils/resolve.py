# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolve requirements to a lock with uv, on the host that they are for or on the controller for all such hosts."""

from __future__ import annotations

import json
import os
import re
import tempfile

from ansible_collections.neuronops.vllm.plugins.module_utils import addresses, forms
from ansible_collections.neuronops.vllm.plugins.module_utils.environment import normalised
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import (
    PackagesError,
    check_lock,
    is_neuron,
    run,
)

# The packages of PyTorch's own indexes that a build for the CPU replaces.
TORCH = ("torch", "torchvision", "torchaudio")
# The oldest C library of the hosts, that of Ubuntu 20.04 and Debian 11.
GLIBC = "2_31"
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# Packages that are published as sources only, and what they require. Nothing of them is run to learn that.
SOURCES_ONLY = {"wget": []}


def checked(params):
    """Return the arguments of python_lock that decide on a lock, each of its form; raises forms.FormError."""
    return dict(
        params,
        name=forms.form("file name", params["name"], "name"),
        requirements=[forms.requirement(line, "a requirement") for line in params["requirements"]],
        constraints=[forms.requirement(line, "a constraint") for line in params.get("constraints") or []],
        excluded=[forms.form("package name", name, "an excluded package") for name in params.get("excluded") or []],
        neuron_packages=[
            forms.form("package name", name, "one of neuron_packages") for name in params.get("neuron_packages") or []
        ],
        python_version=forms.form("Python version", params["python_version"], "python_version"),
        architecture=forms.form("architecture", params["architecture"], "architecture"),
    )


def project(params, requirements=None):
    """Return the pyproject.toml that ties names to indexes; uv has no other way to do that."""
    sources = params["sources"]
    requirements = params["requirements"] if requirements is None else requirements
    lines = ["[project]", 'name = "environment"', 'version = "0"']
    lines.append('requires-python = "==%s.*"' % params["python_version"])
    lines.append("dependencies = %s" % json.dumps(requirements))
    if sources.get("wheelhouse"):
        return "\n".join(lines) + "\n"
    indexes = [("neuron", sources.get("neuron_index_url"), False), ("torch", sources.get("torch_index_url"), True)]
    indexes = [index for index in indexes if index[1]]
    tied = []
    for name in sorted({forms.requirement_name(requirement) for requirement in requirements}):
        for index in (index for index, _url, _explicit in indexes):
            if (index == "neuron" and is_neuron(name, params.get("neuron_packages") or ())) or (
                index == "torch" and name in TORCH
            ):
                tied.append("%s = {index = %s}" % (json.dumps(name), json.dumps(index)))
    if tied:
        lines += ["[tool.uv.sources]"] + tied
    for index, url, explicit in indexes:
        lines += ["[[tool.uv.index]]", "name = %s" % json.dumps(index), "url = %s" % json.dumps(url)]
        if explicit:
            lines.append("explicit = true")
    return "\n".join(lines) + "\n"


def static_metadata():
    """Return the uv.toml that says what packages without wheels require."""
    return "".join(
        "[[dependency-metadata]]\nname = %s\nrequires-dist = %s\n" % (json.dumps(name), json.dumps(requires))
        for name, requires in sorted(SOURCES_ONLY.items())
    )


def compile_requirements(params, uv, python, elsewhere=False):
    """Return uv's answer: a requirements file with hashes and, behind each package, the index it comes from.

    python: the interpreter that uv starts. elsewhere: it is not the one that the packages are for; then nothing of a
    package is run, so that an index cannot decide what this machine executes.
    """
    requirements = list(params["requirements"])
    if not elsewhere:
        return uv_compile(params, uv, python, requirements, params["excluded"], [])
    machine = MACHINES[params["architecture"]]
    there = ["--python-version", params["python_version"], "--python-platform"]
    there.append("%s-manylinux_%s" % (machine, GLIBC))
    apart = [line for line in requirements if forms.requirement_name(line) in SOURCES_ONLY]
    others = [line for line in requirements if line not in apart]
    excluded = list(params["excluded"]) + sorted({forms.requirement_name(line) for line in apart})
    answer = uv_compile(params, uv, python, others, excluded, there + ["--no-build"]) if others else ""
    if apart:
        answer += "\n" + uv_compile(params, uv, python, apart, params["excluded"], there, static_metadata())
    return answer


def uv_compile(params, uv, python, requirements, excluded, arguments, configuration=None):
    """Run `uv pip compile` in a folder of its own and return what it wrote."""
    sources = params["sources"]
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "pyproject.toml": project(params, requirements),
            "constraints.txt": "\n".join(params["constraints"]) + "\n",
            "excluded.txt": "\n".join(excluded) + "\n",
        }
        command = [uv, "pip", "compile", "pyproject.toml", "--python", python] + arguments
        if configuration is not None:
            files["static.toml"] = configuration
            # It is read in place of all others, and not only when uv.toml is looked for.
            command += ["--config-file", "static.toml"]
        for name, text in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
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
        if sources.get("wheelhouse"):
            command += ["--no-index", "--find-links", sources["wheelhouse"]]
        else:
            command += ["--index-strategy", "unsafe-first-match"]
        # The index of torch is for torch alone, which the project says.
        run(command, dict(sources, torch_index_url=None), cwd=folder)
        with open(os.path.join(folder, "lock.txt"), encoding="utf-8") as file:
            return file.read()


def without_indexes(answer):
    """Split uv's answer into the lock itself and {name: URL of the index it comes from}."""
    lines, origins, name = [], {}, None
    for line in answer.split("\n"):
        found = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==", line)
        if found:
            name = normalised(found.group(1))
        if line.strip().startswith("# from "):
            origins[name] = line.strip()[len("# from ") :]
        else:
            lines.append(line)
    # uv ends the last hash before the comment with no continuation, so that nothing else needs to change.
    return "\n".join(lines), origins


def foreign_neuron_packages(packages, origins, neuron_index_url, more=()):
    """Return those of Neuron's packages that do not come from Neuron's index."""
    wanted = neuron_index_url or ""
    return sorted(
        name
        for name in packages
        if is_neuron(name, more) and not (wanted and addresses.same(origins.get(name, ""), wanted))
    )


def advice(error, requirements):
    """Return the message of a failed resolution with what helps where only sources are published."""
    text = str(error)
    if "no usable wheels" not in text and "building from source is disabled" not in text:
        return text
    names = sorted(set(re.findall(r"of ([A-Za-z0-9._-]+) have no usable wheels", text)))
    names = names or sorted(set(re.findall(r"required for `([A-Za-z0-9._-]+)`", text)))
    return (
        "%s published as sources only, and nothing of a package is run on the controller. Set "
        "neuron_venv_lock_resolver (transformers_neuronx_lock_resolver, nxd_inference_lock_resolver, "
        "vllm_lock_resolver) to the name of a host, which then resolves for all, or leave the package out. %s"
        % (", ".join(names) + " is" if names else "A package is", text)
    )


def resolve(params, uv, python, elsewhere=False):
    """Return the text of a lock for checked arguments; raises PackagesError with what is wrong."""
    sources = params["sources"]
    try:
        answer = compile_requirements(params, uv, python, elsewhere)
        lock, origins = without_indexes(answer)
        packages = forms.lock(lock, "uv's answer")
    except (PackagesError, OSError, forms.FormError) as error:
        raise PackagesError(
            "The packages for %s could not be resolved, and nothing was installed. %s"
            % (params["name"], advice(error, params["requirements"]))
        ) from error
    refused = sorted(set(packages) & {normalised(name) for name in params["excluded"]})
    if refused:
        raise PackagesError(
            "The packages for %s include %s, which must never be installed." % (params["name"], refused)
        )
    try:
        check_lock(packages, params["requirements"], params["constraints"], params["excluded"])
    except PackagesError as error:
        raise PackagesError("The lock for %s is not what was asked for: %s." % (params["name"], error)) from error
    if not sources.get("wheelhouse"):
        foreign = foreign_neuron_packages(
            packages, origins, sources.get("neuron_index_url"), params.get("neuron_packages") or ()
        )
        if foreign:
            raise PackagesError(
                "%s would come from an index that is not Neuron's (%s): its packages of these "
                "names are stubs or worse. Nothing was installed. Name Neuron's index with sources.neuron_index_url."
                % (", ".join(foreign), sources.get("neuron_index_url"))
            )
    return forms.lock_text(packages)
