# SPDX-License-Identifier: GPL-3.0-or-later
"""A git remote with the real sources of the plugin vllm-neuron, out of a clone that the user names.

No package index has them, so NEURONOPS_PLUGIN_REPOSITORY names the folder of a clone. Served are the commits
that data/stacks.yml pins, each under its tag. Without that variable there is no such remote.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from plugins.plugin_utils import stacks
from sandbox.repositories.git_remote import bare, git
from sandbox.settings import SandboxError

VARIABLE = "NEURONOPS_PLUGIN_REPOSITORY"
REPOSITORY = "vllm-project/vllm-neuron"


def pins() -> dict[str, str]:
    """The commit of each tag that a stack builds the plugin from."""
    plugins = [entry["plugin"] for entry in stacks.load()["stacks"].values() if "plugin" in entry]
    found = [plugin for plugin in plugins if plugin.get("source", "").endswith(f"/{REPOSITORY}.git")]
    return {plugin["ref"]: plugin["commit"] for plugin in found if plugin["commit"]}


def clone() -> str:
    """The clone that the user names; empty where there is none."""
    return os.environ.get(VARIABLE, "")


def write(repository: Path, source: str) -> dict[str, str]:
    """Make the bare repository with what the clone has of the pins; return the commit of each tag."""
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
