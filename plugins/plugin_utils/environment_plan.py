# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what there is to do for one layer of a Python environment: compare it as wanted with what was observed.

A layer is what one role puts into an environment, and its record is what the role wrote there as its last act.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

LAYERS = ("neuron_venv", "transformers_neuronx", "nxd_inference", "vllm")
# How many sentences about packages are given: where all of them are gone, nobody reads each name.
MOST_SENTENCES = 10


class PlanError(ValueError):
    """The observation or what is wanted cannot be understood."""


def plan(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to do for a layer of an environment; raises PlanError.

    found: an entry of `environments` as neuron_info returns it.
    wanted: layer, one of LAYERS; inputs, the hash of all that decides on it; exact, whether others must not be there.

    done      whether there is nothing to do
    reasons   why there is something to do, in sentences; empty when it is done
    foreign   packages that no role asked for, where the layer has been completed before
    """
    layer, inputs, exact = _understood(wanted)
    record = found["manifests"].get(layer)
    foreign = _foreign(found) if record is not None else []
    reasons = _reasons(found, layer, inputs, record)
    if exact and foreign:
        reasons.append(f"these packages no role asked for: {', '.join(foreign)}")
    return {"done": not reasons, "reasons": reasons, "foreign": foreign}


def _understood(wanted: Mapping[str, Any]) -> tuple[str, str, bool]:
    unknown = sorted(set(wanted) ^ {"layer", "inputs", "exact"})
    if unknown:
        raise PlanError(f"what is wanted has layer, inputs and exact; {', '.join(unknown)} is missing or unknown")
    if wanted["layer"] not in LAYERS:
        raise PlanError(f"layer is {wanted['layer']!r}, and should be one of {', '.join(LAYERS)}")
    if not isinstance(wanted["inputs"], str):
        raise PlanError(f"inputs is {wanted['inputs']!r}, and should be a text")
    if not isinstance(wanted["exact"], bool):
        raise PlanError(f"exact is {wanted['exact']!r}, and should be true or false")
    return str(wanted["layer"]), str(wanted["inputs"]), bool(wanted["exact"])


def _foreign(found: Mapping[str, Any]) -> list[str]:
    known = {name for manifest in found["manifests"].values() for name in manifest.get("packages") or {}}
    return sorted(set(found["packages"]) - known)


def _reasons(found: Mapping[str, Any], layer: str, inputs: str, record: Mapping[str, Any] | None) -> list[str]:
    if not found["exists"]:
        return [f"there is no environment in {found['path']}"]
    reasons = []
    if not found["python"]["works"]:
        reasons.append(f"its Python does not run: {found['python']['problem'] or 'it says no reason'}")
    if record is None:
        return [*reasons, f"no record says that {layer} is complete"]
    if not inputs:
        # In check mode, without a lock or a wheel.
        reasons.append("what it is to be made from has to be resolved or built first")
    elif record.get("inputs") != inputs:
        reasons.append("it was made from other inputs (a lock, an index address or an option changed)")
    reasons += _shortened(_wrong_packages(found, record.get("packages") or {}))
    changed = set(found["changed_files"])
    reasons += [
        f"the file {file} differs from what was recorded"
        for file in sorted(record.get("files") or {})
        if file in changed
    ]
    return reasons


def _wrong_packages(found: Mapping[str, Any], recorded: Mapping[str, str]) -> Iterable[str]:
    for name, version in sorted(recorded.items()):
        there = found["packages"].get(name)
        if there is None:
            yield f"{name} is missing"
        elif there != version:
            yield f"{name} is {there} in place of {version}"
        elif name in found["damaged"]:
            yield f"{name} is damaged: {found['damaged'][name]}"


def _shortened(sentences: Iterable[str]) -> list[str]:
    every = list(sentences)
    if len(every) <= MOST_SENTENCES:
        return every
    return [*every[:MOST_SENTENCES], f"{len(every) - MOST_SENTENCES} more packages are missing, damaged or others"]


def beside(found: Mapping[str, Any], locked: Iterable[Mapping[str, Any]], pythons: Iterable[str]) -> dict[str, Any]:
    """Return what stands in an environment for the layers that come on top of it, whether it has been made or not.

    found: an entry of `environments` as neuron_info returns it.
    locked: the layers that were locked in this run, each with name, path, python_version and packages; an empty one is
    left out. One of the same path is what the environment has or will have; of other layers the records count.
    pythons: versions of Python to take where neither says one, best first; empty texts are left out.

    packages        {layer: {name: version}}, the versions in their canonical spelling
    python_version  for example 3.10
    """
    here = [layer for layer in locked if layer.get("path") and _same_path(layer["path"], found["path"])]
    packages = {layer: manifest.get("packages") or {} for layer, manifest in found["manifests"].items()}
    # A lock that is not there yet, as in check mode, says nothing.
    packages.update({str(layer["name"]): layer["packages"] for layer in here if layer["packages"]})
    versions = [layer.get("python_version") for layer in here]
    if found["python"]["works"]:
        versions.append(".".join(str(found["python"]["version"]).split(".")[:2]))
    return {
        "packages": {
            layer: {str(name): _canonical(version) for name, version in sorted(entries.items())}
            for layer, entries in sorted(packages.items())
        },
        "python_version": str(next((version for version in [*versions, *pythons] if version), "")),
    }


def _same_path(one: str, other: str) -> bool:
    return posixpath.normpath(one) == posixpath.normpath(other)


def _canonical(version: str) -> str:
    """Return a version as PEP 440 writes it: a lock may spell it differently than the folder of what was installed."""
    # ansible-core brings it, and Ansible's tests import this file where it is not.
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(version))
    except InvalidVersion:
        return str(version)
