#!/usr/bin/python
# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_prune
author: neuronops.vllm contributors (@neuronops)
version_added: 0.2.0
short_description: Remove releases that a host needs no more
description:
  - Keeps the newest releases of a folder and removes the others, and what an interrupted run left of one.
  - Never removes the active release, the one that was active and proven before it, or one that a process runs from.
  - Only folders that a role of this collection made are looked at, known by their folder C(neuronops).
  - Removes compiled models of those compilers, too, that no release has which is left.
options:
  directory:
    description: The folder that holds the releases.
    type: path
    required: true
  link:
    description: The link to the active release.
    type: path
    required: true
  keep:
    description: How many releases to keep, with the active one and the one before it.
    type: int
    default: 2
  caches:
    description:
      - Folders of compiled models, as C(NEURON_COMPILE_CACHE_URL) names them, and no links to such. The compiler has a
        folder in them for each of its versions, C(neuronxcc-VERSION).
      - Nothing is removed from them while it is not known of each release which compiler it has.
    type: list
    elements: path
    default: []
extends_documentation_fragment: neuronops.vllm.packages.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Remove all releases but the active one and the one before it
  neuronops.vllm.release_prune:
    directory: /opt/neuronops/releases
    link: /opt/aws_neuron_venv_pytorch
    caches:
      - /var/cache/vllm/neuron-compile-cache
"""

RETURN = r"""
removed:
  description: The releases and folders of compiled models that were removed, or would be in check mode.
  returned: success
  type: list
  elements: str
kept:
  description: The releases that are left, the newest first.
  returned: success
  type: list
  elements: str
"""

import glob
import json
import os
import re
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.neuronops.vllm.plugins.module_utils import activations, forms

# Before the name of a release on its way out: a removal that was killed leaves none that looks whole.
LEAVING = ".removed-"
LARGEST = 16 << 20  # bytes


def _json(path):
    """Return what a file of JSON holds, or None where it is not to be understood."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(LARGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def needed(history):
    """Return the releases that some service of the host may be brought back to, and those that it serves from."""
    found = set()
    for service in {entry["service"] for entry in history}:
        newest_first = [entry for entry in reversed(history) if entry["service"] == service]
        found.add(os.path.realpath(newest_first[0]["release"]))
        proven = []
        for entry in newest_first:
            release = os.path.realpath(entry["release"])
            if activations.is_proven(entry) and release not in proven:
                proven.append(release)
        found.update(proven[:2])
    return found | {os.path.realpath(entry["link"]) for entry in history if entry["link"]}


def running(directory, processes="/proc"):
    """Return the releases of the folder that a process of the host has files of open or mapped."""
    found = set()
    pattern = re.compile(r"(?:^| )(%s/[^/\n]+)/" % re.escape(directory), re.MULTILINE)
    for maps in glob.glob(os.path.join(processes, "[0-9]*", "maps")):
        try:
            with open(maps, encoding="utf-8", errors="replace") as file:
                found.update(pattern.findall(file.read()))
        except OSError:  # it has ended
            continue
    return found


def completed(release):
    """Return when a release was completed, as text that sorts; empty where it never was."""
    record = _json(os.path.join(release, "neuronops", "release.json"))
    time = record.get("completed_at") if isinstance(record, dict) else None
    return time if isinstance(time, str) else ""


def compilers(releases):
    """Return the versions of the compiler that releases have, or None where that of one is not known."""
    found = set()
    for release in releases:
        pattern = os.path.join(glob.escape(release), "lib", "python3*", "site-packages", "neuronx_cc-*.dist-info")
        versions = [os.path.basename(path)[len("neuronx_cc-") : -len(".dist-info")] for path in glob.glob(pattern)]
        if not versions:
            return None
        found.update(versions)
    return found


def outdated(caches, left):
    """Return the folders of compiled models, of compilers that none of the releases has that are left."""
    there = [
        path
        for cache in caches
        for path in sorted(glob.glob(os.path.join(glob.escape(cache), "neuronxcc-*")))
        if os.path.isdir(path) and not os.path.islink(path)
    ]
    known = compilers(left) if there and left else None
    if not known:
        return []
    # The index and the folder may write the build behind the plus sign or leave it out.
    known = {version.partition("+")[0] for version in known}
    return [path for path in there if os.path.basename(path)[len("neuronxcc-") :].partition("+")[0] not in known]


def plan(options, history, processes="/proc"):
    """Return (what to remove, what to keep), paths.

    history: the activations of the host, oldest first.
    """
    directory = os.path.realpath(options["directory"])
    active = os.path.realpath(options["link"])
    ours = [
        path
        for path in glob.glob(os.path.join(glob.escape(directory), "*"))
        if os.path.isdir(os.path.join(path, "neuronops")) and not os.path.islink(path)
    ]
    protected = {active} | needed(history) | running(directory, processes)
    # The service may write beside them, and must not lead a removal to another place.
    caches = [path for path in options["caches"] if not os.path.islink(path)]
    # Those that were never completed come last, whatever their age.
    newest = sorted(ours, key=lambda path: (path in protected, completed(path), os.path.basename(path)), reverse=True)
    kept = []
    for path in newest:
        if path in protected or (len(kept) < options["keep"] and completed(path)):
            kept.append(path)
    leaving = [
        path
        for folder in [directory] + caches
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), LEAVING + "*")))
    ]
    left = {path for path in protected if os.path.isdir(path)}.union(kept)
    return [path for path in newest if path not in kept] + leaving + outdated(caches, left), kept


def remove(path):
    """Remove a release, or what was compiled, so that it is whole or gone for everybody else."""
    directory, name = os.path.split(path)
    if not name.startswith(LEAVING):
        leaving = os.path.join(directory, LEAVING + name)
        if os.path.lexists(leaving):
            shutil.rmtree(leaving)
        os.rename(path, leaving)
        path = leaving
    shutil.rmtree(path)


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "link": {"type": "path", "required": True},
            "keep": {"type": "int", "default": 2},
            "caches": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    if module.params["keep"] < 1:
        module.fail_json(
            msg="keep is %d, and at least the active release is kept: set it to 1 or more." % module.params["keep"]
        )
    for name, path in [(name, module.params[name]) for name in ("directory", "link")] + [
        ("caches", path) for path in module.params["caches"]
    ]:
        try:
            forms.form("absolute path", path, name)
        except forms.FormError as error:
            module.fail_json(msg="%s. Nothing was removed." % error)
    history, problem = activations.understood()
    if problem:
        module.fail_json(msg="It is not known what this host may go back to, and nothing was removed: %s." % problem)
    gone, kept = plan(module.params, history)
    removed = []
    for path in gone:
        try:
            if not module.check_mode:
                remove(path)
        except OSError as error:
            module.fail_json(
                msg="%s could not be removed: %s. Removed before it: %s."
                % (path, error, ", ".join(removed) or "nothing")
            )
        removed.append(os.path.basename(path))
    module.exit_json(changed=bool(removed), removed=removed, kept=[os.path.basename(path) for path in kept])


if __name__ == "__main__":
    main()
