# SPDX-License-Identifier: GPL-3.0-or-later
"""A git remote with the plugin vllm-neuron: the real one out of a clone that the user names, or the sandbox's stand-in.

No package index has the real sources, so NEURONOPS_PLUGIN_REPOSITORY names the folder of a clone. Of it the commits
that data/stacks.yml pins are served, each under its tag. Without that variable the tags of the releases that it stands
in for lead to emulation/vllm-neuron, whose commits are the sandbox's own, as those of vLLM are.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from plugins.plugin_utils import stacks
from sandbox.repositories.git_remote import bare, filled, git, write_trees
from sandbox.settings import SandboxError

VARIABLE = "NEURONOPS_PLUGIN_REPOSITORY"
REPOSITORY = "vllm-project/vllm-neuron"
# The releases of which the stand-in was seen to serve with their vLLM.
STOOD_IN_FOR = ("0.2.2+lts", "0.4.1", "0.5.0")
STAND_IN = Path(__file__).parents[1] / "emulation" / "vllm-neuron"


def entries() -> dict[str, dict[str, Any]]:
    """The stacks of data/stacks.yml that build the plugin from this repository, by name."""
    return {
        name: entry
        for name, entry in stacks.load()["stacks"].items()
        if entry.get("plugin", {}).get("source", "").endswith(f"/{REPOSITORY}.git")
    }


def pins() -> dict[str, str]:
    """The commit of each tag that a stack builds the plugin from."""
    plugins = [entry["plugin"] for entry in entries().values()]
    return {plugin["ref"]: plugin["commit"] for plugin in plugins if plugin["commit"]}


def clone() -> str:
    """The clone that the user names; empty where there is none."""
    return os.environ.get(VARIABLE, "")


def has(version: str) -> bool:
    """Whether that release of the plugin can be served: a clone is there, or the stand-in stands in for it."""
    return bool(clone()) or version in STOOD_IN_FOR


def trees() -> dict[str, tuple[str, dict[str, bytes]]]:
    """Tag -> (the same, the files of the stand-in under it), as git_remote.write_trees() takes them."""
    found = {}
    for entry in entries().values():
        plugin = entry["plugin"]
        if plugin["version"] in STOOD_IN_FOR:
            values = {b"@VERSION@": plugin["version"], b"@VLLM@": entry["vllm"]["version"]}
            found[plugin["ref"]] = plugin["ref"], filled(STAND_IN, (".md", ".py"), values)
    return found


def write(repository: Path, source: str) -> dict[str, str]:
    """Make the bare repository, of the clone or, where none is named, the stand-in; return the commit of each tag."""
    return _write_real(repository, source) if source else write_trees(repository, trees())


def _write_real(repository: Path, source: str) -> dict[str, str]:
    bare(repository)
    try:
        git(repository, "fetch", "--quiet", "--no-tags", source, "+refs/*:refs/clone/*")
    except subprocess.CalledProcessError as error:
        raise SandboxError(f"{VARIABLE} is {source}, and git cannot read it: {error.stderr.strip()}") from None
    known = set(git(repository, "rev-list", "--all").split())
    tags = {tag: commit for tag, commit in pins().items() if commit in known}
    if not tags:
        raise SandboxError(f"{VARIABLE} is {source}, which has none of the commits of data/stacks.yml: {pins()}.")
    for tag, commit in tags.items():
        git(repository, "update-ref", f"refs/tags/{tag}", commit)
    for line in git(repository, "for-each-ref", "--format=%(refname)", "refs/clone").splitlines():
        git(repository, "update-ref", "-d", line)
    git(repository, "update-ref", "refs/heads/main", next(iter(tags.values())))
    return tags
