# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether locks and wheels can be kept where they would go, and whether they last there; asked before any work."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils.addresses import shown
from ansible_collections.neuronops.vllm.plugins.module_utils.files import write_at_once
from ansible_collections.neuronops.vllm.plugins.plugin_utils import store
from ansible_collections.neuronops.vllm.plugins.plugin_utils.places import Place, StoreError, is_bucket, working_folder

# Of a role's options, without its prefix: what is kept there.
PLACES = {"lock_path": "Locks", "wheel_path": "Wheels"}
PROBE = ".neuronops-writable"
WHAT_TO_DO = (
    "Set neuron_state to a folder on the controller that lasts, to a folder of a checkout that is committed, or to "
    "s3://BUCKET/PREFIX, for example with -e neuron_state=s3://my-bucket/neuronops"
)
# File systems that go with the container, or with the machine's power.
PASSING = {"overlay": "of a container", "aufs": "of a container", "tmpfs": "in memory", "ramfs": "in memory"}
# Variables that AWX gives to each job.
JOBS = ("awx_job_id", "tower_job_id")


def look(
    options: Mapping[str, Any], variables: Mapping[str, Any], prefix: str, check_mode: bool
) -> tuple[list[str], list[str]]:
    """Return (what is wrong, what the user should hear) of the places that a role's options name.

    options: without their prefix, converted; variables: all that are set, of which neuron_state is looked at.
    """
    if variables.get("neuron_state") in ("present", "absent"):
        state = variables["neuron_state"]
        return [
            f"neuron_state is {state}, and it names the place for locks and wheels: a folder or s3://BUCKET/PREFIX; "
            f"what is to be there or not is said for each role, as in vllm_state={state}"
        ], []
    wrong: dict[str, None] = {}
    warnings: dict[str, None] = {}
    for option, what in PLACES.items():
        if option not in options:
            continue
        place = str(options[option])
        try:
            if "://" in place and not is_bucket(place):
                raise StoreError(f"{shown(place)} is neither a folder on the controller nor s3://BUCKET/PREFIX")
            if is_bucket(place):
                kept, problem = _look_at_bucket(Place(place), check_mode)
            else:
                kept, problem = _look_at_folder(working_folder(place))
        except StoreError as error:
            hint = (
                f". `aws s3 ls {place}/` on the controller shows whether its credentials, region and network reach it; "
                "set neuron_state to a bucket that they do reach, with the permissions of docs/state.md"
            )
            named = "neuron_state, " if variables.get("neuron_state") else ""
            wrong[f"{named}{prefix}{option}: {str(error).rstrip('.')}{hint if is_bucket(place) else ''}"] = None
            continue
        if problem and not kept:
            wrong[f"{what} cannot be kept in {place} ({prefix}{option}): {problem}. {WHAT_TO_DO}"] = None
        elif problem:
            warnings[
                f"{what} are read from {place}, where nothing can be added: {problem}. What is missing there makes "
                f"this run fail. {WHAT_TO_DO}."
            ] = None
        elif not variables.get("neuron_state") and not is_bucket(place):
            folder = working_folder(place)
            why = why_it_passes(folder, variables)
            # Of the two that lie beside each other by default, one is enough to hear of.
            if why and folder.parent.name == ".neuronops":
                warnings[
                    f"Locks and wheels are kept in {folder.parent} on the controller, {why}, so the next run may find "
                    f"none, resolve and build anew, and change what the hosts have. {WHAT_TO_DO}."
                ] = None
    return list(wrong), list(warnings)


def _look_at_folder(folder: Path) -> tuple[bool, str]:
    """Return whether something is kept in the folder, and why nothing can be written there, or ''."""
    there, problem = folder, ""
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        # Without a name, so that nothing is to be seen of it.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        problem = f"{there} cannot be written to ({error.strerror or error})"
    try:
        return problem == "" or any(folder.iterdir()), problem
    except OSError:
        return False, problem


def _look_at_bucket(place: Place, check_mode: bool) -> tuple[bool, str]:
    """Return whether something is kept in the bucket, and why nothing can be written there, or ''.

    Raises StoreError where it does not answer or is not there. The first host of a run asks for all; a check run writes
    nothing, and so sees only that.
    """
    noted = working_folder(place.place) / PROBE

    def look() -> tuple[bool, str] | None:
        try:
            kept, problem = json.loads(noted.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return kept, problem

    def ask() -> tuple[bool, str]:
        found = True, ""
        try:
            if check_mode:
                for _block in place.get_file(PROBE, 1, denied_is_missing=True) or ():
                    pass
            elif not place.writable(PROBE):
                found = not place.empty(), "S3 answers AccessDenied to s3:PutObject"
        except StoreError as error:
            raise store.NotMadeError(str(error)) from error
        write_at_once(noted, json.dumps(found))
        return found

    try:
        found, _asked_now = store.once(noted, look, ask)
    except store.NotMadeError as error:
        raise StoreError(str(error)) from error
    return found[0], found[1]


def why_it_passes(folder: Path, variables: Mapping[str, Any]) -> str:
    """Return why a folder may be gone with the end of the run, as the middle of a sentence, or ''."""
    if any(variables.get(name) for name in JOBS):
        return "in the copy of the project that this job of AWX has for itself"
    if os.environ.get("CI", "").lower() == "true":
        return "in the working folder of a CI job"
    kind = PASSING.get(file_system(folder))
    return f"on a file system {kind}" if kind else ""


def file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of the file system that a folder is on or would be on, or '' where that is not known."""
    there = os.path.realpath(folder)
    best, found = -1, ""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Blanks and the like are written as octal numbers.
        point = fields[1].encode().decode("unicode_escape").rstrip("/")
        if (there == point or there.startswith(f"{point}/")) and len(point) >= best:
            best, found = len(point), fields[2]
    return found
