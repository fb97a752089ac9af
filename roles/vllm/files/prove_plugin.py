# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that vLLM serves on Neuron through its plugin, as far as this host can show it.

Its only argument is JSON: versions ({distribution: version}), plugin (the distribution), entry_point (its name),
modules (list of those to import) and platform (class that vLLM should choose). Prints a line `PROOF: ...` for each
thing that was seen, and one for what could not be seen; ends with a message where something is wrong.

In one process, because it takes most of its time to import torch.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from importlib import metadata
from pathlib import Path

GROUP = "vllm.platform_plugins"
DEVICES = "/dev", "neuron[0-9]*"


def say(sentence: str) -> None:
    print(f"PROOF: {sentence}", flush=True)


def distribution_of(name: str) -> list[str]:
    """Return the distributions that have an entry point of that name in vLLM's group, each once."""
    return sorted({found.dist.name for found in metadata.entry_points(group=GROUP, name=name) if found.dist})


def main(wanted: dict) -> None:
    for name, version in wanted["versions"].items():
        if metadata.version(name) != version:
            sys.exit(f"{name} is {metadata.version(name)}, and should be {version}.")
        say(f"{name} is {version}")
    owners = distribution_of(wanted["entry_point"])
    if owners != [wanted["plugin"]]:
        sys.exit(
            f"The entry point {wanted['entry_point']} of {GROUP}, by which vLLM finds its platform, is of "
            f"{', '.join(owners) or 'no distribution'}, and should be of {wanted['plugin']}."
        )
    say(f"{wanted['plugin']} has the entry point {wanted['entry_point']} of {GROUP}")
    for name in wanted["modules"]:
        importlib.import_module(name)
        say(f"{name} was imported")
    if not list(Path(DEVICES[0]).glob(DEVICES[1])):
        unseen = f"that vLLM chooses {wanted['platform']}, and the API server's help"
        say(f"not proven, as this host has no {'/'.join(DEVICES)}: {unseen}")
        return
    platform = type(importlib.import_module("vllm.platforms").current_platform)
    chosen = f"{platform.__module__}.{platform.__qualname__}"
    if chosen != wanted["platform"]:
        sys.exit(f"vLLM chooses the platform {chosen}, and should choose {wanted['platform']}.")
    say(f"vLLM chooses {chosen}")
    sys.argv[1:] = ["--help"]
    status = None
    try:
        runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    if status not in (None, 0):
        sys.exit(f"The API server's help ended with status {status}.")
    say("the API server said its help")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
