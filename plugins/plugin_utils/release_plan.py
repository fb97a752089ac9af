# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which release a host is to have, and in which folder it is made.

A release is named after everything that went into it. Nothing is changed in place in one that serves: when it is
damaged, another of the same content is made beside it, whose name ends in a number.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import stacks

MOST_COPIES = 99
GIB = 1 << 30


class PlanError(ValueError):
    """What is given cannot be compared; the message says why."""


def layers_of(stack: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the layers of a release of a stack, in the order in which they are installed."""
    return ("neuron_venv", str(stack["packages_role"]), "vllm")


def release_id(stack: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of a release, which is another when anything in it is.

    stack: the resolved entry; layers: of each {name, inputs, lock_sha256}. Raises PlanError where a layer is not known.
    """
    known = {str(layer.get("name")): layer for layer in layers if layer.get("inputs")}
    wanted = layers_of(stack)
    missing = [name for name in wanted if name not in known]
    if missing:
        raise PlanError(f"it is not known what the layers {', '.join(missing)} are made of")
    content = [
        stacks.content(stack),
        [[name, known[name]["inputs"], known[name].get("lock_sha256") or ""] for name in wanted],
    ]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{stack['name']}-{digest[:10]}"


def faults(environment: Mapping[str, Any], layers: Sequence[str], exact: bool = False) -> list[str]:
    """Say what keeps an environment from being a whole release of these layers, as sentences."""
    if not environment["exists"]:
        return ["it is not there"]
    if not environment["python"]["works"]:
        return [str(environment["python"]["problem"])]
    found = []
    if not environment.get("release"):
        found.append("it was never completed")
    packages, manifests = environment["packages"], environment["manifests"]
    for layer in layers:
        if layer not in manifests:
            found.append(f"it has no record of {layer}")
        for name, version in sorted(manifests.get(layer, {}).get("packages", {}).items()):
            if name not in packages:
                found.append(f"{name} is missing")
            elif packages[name] != version:
                found.append(f"{name} is {packages[name]} in place of {version}")
            elif name in environment["damaged"]:
                found.append(f"{name} is damaged: {environment['damaged'][name]}")
    found += [
        f"{path} differs from what was recorded" for path in environment["changed_files"] if _within(path, environment)
    ]
    if exact:
        known = {name for manifest in manifests.values() for name in manifest.get("packages", {})}
        found += [f"no role asked for {name}" for name in sorted(set(packages) - known)]
    return list(dict.fromkeys(found))


def _within(path: str, environment: Mapping[str, Any]) -> bool:
    return path.startswith((f"{environment['path']}/", f"{environment['real_path']}/"))


def beside(environment: Mapping[str, Any]) -> list[str]:
    """Say which files that belong to a release, and lie outside of it, differ: Jupyter's description of the kernel."""
    return [
        f"{path} differs from what was recorded"
        for path in environment["changed_files"]
        if not _within(path, environment)
    ]


def _number(path: str, wanted: str) -> int | None:
    """Return which copy of the wanted release a folder is, 1 for the first; None where it is another."""
    match = re.fullmatch(re.escape(wanted) + r"(?:\.([2-9]|[1-9][0-9]))?", path)
    return None if match is None else int(match[1] or 1)


def plan(
    environments: Sequence[Mapping[str, Any]],
    services: Sequence[Mapping[str, Any]],
    wanted: Mapping[str, Any],
    free: int | None = None,
) -> dict[str, Any]:
    """Return {path, whole, beside, reasons, started, refusals} of the release that a host is to have.

    environments: what neuron_info observed of the link and of every folder that begins as the wanted one does.
    services: what it observed of the server. wanted: {stack, directory, id, link, exact}; where it is to be told if
    there is room, also what room() wants. free: bytes that are free for the directory.
    """
    first = f"{wanted['directory']}/{wanted['id']}"
    # In use is what the link leads to and what a server runs from, whatever the link says by now.
    in_use = {entry["real_path"] for entry in environments if entry["path"] == wanted["link"] and entry["exists"]}
    for service in services:
        executable = service["executable_real_path"]
        if executable:
            in_use.add(executable.rsplit("/bin/", 1)[0])
    copies: dict[int, Mapping[str, Any]] = {}
    for entry in environments:
        number = _number(entry["path"], first)
        if number is not None and entry["exists"]:
            copies[number] = entry
    layers = layers_of(wanted["stack"])
    wrong = {number: faults(copies[number], layers, bool(wanted.get("exact"))) for number in sorted(copies)}
    used = [number for number in wrong if copies[number]["real_path"] in in_use]
    reasons: list[str] = []
    whole = [number for number in wrong if not wrong[number]]
    spare = [number for number in wrong if number not in used]
    if whole:
        number = next((number for number in whole if number in used), whole[0])
    else:
        for name in used:
            reasons.append(f"{copies[name]['path']} is in use, and {_some(wrong[name])}")
        if spare:
            number = spare[0]
            reasons.append(f"{copies[number]['path']} is not whole: {_some(wrong[number])}")
        else:
            number = max(wrong, default=0) + 1
            if number > MOST_COPIES:
                raise PlanError(f"there are {MOST_COPIES} damaged copies of {first}; remove them")
    path = first if number == 1 else f"{first}.{number}"
    if not wrong:
        reasons.append(f"there is no {path} yet")
    # What was begun in this folder is gone on with.
    started = number in wrong and number not in whole
    outside = beside(copies[number]) if number in whole else []
    return {
        "path": path,
        "whole": number in whole,
        "beside": outside,
        "reasons": reasons + outside,
        "started": started,
        "refusals": room(wanted, free) if "space" in wanted and number not in whole else [],
    }


def room(wanted: Mapping[str, Any], free: int | None) -> list[str]:
    """Say that a host has not the room for what is to be made there, as sentences.

    wanted: host, directory; space, the GiB that a release needs; releases, how many are made (1); there, the bytes that
    were made already (0). free: bytes that are free for the directory, None where nobody knows.
    """
    releases, there = int(wanted.get("releases", 1)), int(wanted.get("there", 0))
    needed = releases * int(wanted["space"])
    if free is None or free + there >= needed * GIB:
        return []
    what = "a release and the environment that vLLM is built in need" if releases > 1 else "a release needs"
    more = f", of which {there / GIB:.1f} are there" if there else ""
    return [
        f"{wanted['host']} has {free / GIB:.1f} GiB free for {wanted['directory']}, and {what} {needed}{more} "
        "(neuron_release_space for each; one with PyTorch has 6 to 7): make room, or enlarge the volume"
    ]


def _some(sentences: Sequence[str], most: int = 3) -> str:
    more = len(sentences) - most
    return "; ".join(sentences[:most]) + (f" and {more} more" if more > 0 else "")
