# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/versions.md from data/stacks.yml: which vLLM runs with which SDK, Python and system, and how we know.

Run as `make docs`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from plugins.module_utils.versions import numbers  # noqa: E402 - after the path to it
from plugins.plugin_utils import stacks  # noqa: E402 - after the path to it

TARGET = CHECKOUT / "docs" / "versions.md"

# The Python of a system's own packages, and the kernel that its images of today boot.
SYSTEMS = {
    "Ubuntu 20.04": ("3.8", "5.15"),
    "Ubuntu 22.04": ("3.10", "6.8"),
    "Ubuntu 24.04": ("3.12", "6.17"),
    "Debian 11": ("3.9", "5.10"),
    "Debian 12": ("3.11", "6.1"),
    "Debian 13": ("3.13", "6.12"),
}
EVIDENCE = {
    "served": "its real API server answered on the CPU emulation, with the text of plain greedy decoding",
    "built": "it was built and imported",
    "read": "from its sources and release notes only",
}
HEAD = """<!-- Written by `make docs` from data/stacks.yml; change that file. -->
# Which vLLM runs where

`neuron_stack` names one of these. Nothing here ran on Neuron hardware: *served* means on the
[CPU emulation](../sandbox/emulation/README.md) of the Neuron packages, with the real vLLM and plugin, torch and
transformers.

"""

# What an entry is built on, the first that it has.
CARRIERS = ("neuronx-distributed-inference", "transformers-neuronx", "neuronx-distributed")

ARCHIVES = """The sources that were served are those of vLLM's release archives. That of 0.3.3 lacks
`requirements-neuron.txt` and `models/neuron/llama.py`, for which the sandbox has files of its own: so the test shows
that everything around them works, and says nothing about these two. 0.3.3 also resolves a public name when it starts,
and does not start without DNS.
"""

ON_THE_HOST = "NEURON_ON_DEVICE_SAMPLING_DISABLED"
SAMPLING = f"""With `{ON_THE_HOST}=1` these sample on the host, as on the device they mix up the
sampling parameters of requests that are served together: {{0}}.
"""


def context(entry: dict[str, Any]) -> str:
    limit = entry["server"]["max_model_len"]
    return f"{limit} tokens" if limit else "the model's"


def systems(entry: dict[str, Any]) -> str:
    """Return the systems whose own Python the entry runs with, and what their kernel is in the way of."""
    below = entry["kernel"]["below"]
    found = []
    for name, (python, kernel) in SYSTEMS.items():
        if python in entry["pythons"]:
            too_new = below and numbers(kernel) >= numbers(below)
            found.append(f"{name} (with a kernel older than {below})" if too_new else name)
    return ", ".join(found)


def support(entry: dict[str, Any]) -> str:
    """Return until when AWS supports what an entry is made of."""
    supported = entry["supported"]
    words = "no end named" if supported["until"] is None else f"until {supported['until']}"
    words += f" with SDK {supported['until_sdk']}" if supported["until_sdk"] else ""
    return f"[{words}]({supported['source']})" if supported["source"] else words


def backend(entry: dict[str, Any]) -> str:
    """Return what carries vLLM on Neuron."""
    packages, plugin = entry["python_packages"], entry.get("plugin")
    name = next(name for name in CARRIERS if name in packages)
    return (f"{plugin['name']} {plugin['version']} on " if plugin else "") + f"{name} {packages[name]}"


def to_take(entries: list[dict[str, Any]]) -> str:
    """Return the table of what to take on each kind of instance: what AWS supports today, the best known first."""
    rows = [["instances", "stack", "evidence", "AWS supports it", "besides"]]
    families = sorted({family for entry in entries for family in entry["instance_families"]})
    for family in families:
        fits = [entry for entry in entries if family in entry["instance_families"] and not entry["supported"]["until"]]
        # What AWS contradicts itself about comes last, and what another than AWS carries before it.
        notes = {entry["name"]: entry["supported"]["families"].get(family, "") for entry in fits}
        for entry in sorted(
            fits, key=lambda entry: ("contradicted" in notes[entry["name"]], entry["backend"] == "optimum_neuron")
        ):
            rows.append(
                [
                    family,
                    f"`{entry['name']}`",
                    entry["evidence"],
                    support(entry),
                    notes[entry["name"]] or backend(entry),
                ]
            )
    return table(rows)


def commit(entry: dict[str, Any]) -> str:
    pinned = entry["vllm"]["commit"]
    return f"`{pinned[:9]}`" if pinned else "not pinned"


def table(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def span(first: str, last: str | None) -> str:
    """Return what a refusal is about, in words."""
    if last is None:
        return f"{first} and later"
    if first == "0":
        return f"up to {last}"
    return first if first == last else f"{first} to {last}"


def text() -> str:
    """Return the whole document."""
    data = stacks.load()
    entries = {name: stacks.resolve(name) for name in data["stacks"]}
    newest_first = sorted(entries.values(), key=lambda entry: stacks.release(entry["vllm"]["version"]), reverse=True)
    combinations = [
        [
            "stack",
            "Neuron SDK",
            "Python",
            "systems by their own Python",
            "kernel",
            "context",
            "evidence",
            "AWS supports it",
            "launched on",
        ]
    ]
    packages = [["stack", "commit", "torch", "torch-neuronx", "backend", "neuronx-cc", "driver", "under"]]
    for entry in newest_first:
        name = f"`{entry['name']}`" + (" (default)" if entry["name"] == data["default"] else "")
        kernel = " ".join(
            part
            for part in (
                f"from {entry['kernel']['minimum']}" if entry["kernel"]["minimum"] else "",
                f"before {entry['kernel']['below']}" if entry["kernel"]["below"] else "",
            )
            if part
        )
        versions = entry["python_packages"]
        combinations.append(
            [
                name,
                entry["sdk"],
                ", ".join(entry["pythons"]),
                systems(entry),
                kernel,
                context(entry),
                entry["evidence"],
                support(entry),
                f"Ubuntu {entry['ubuntu']}",
            ]
        )
        packages.append(
            [
                name,
                commit(entry),
                versions["torch"],
                versions["torch-neuronx"],
                backend(entry),
                versions["neuronx-cc"],
                entry["host_packages"]["aws-neuronx-dkms"],
                ", ".join(f"`{line}`" for line in entry["constraints"]),
            ]
        )
    refused = [["vLLM", "why it cannot serve on Neuron"]]
    refused += [[span(entry["from"], entry["to"]), entry["reason"]] for entry in data["refused"]]
    excluded = [["stack", "package", "why it is never installed"]]
    for entry in newest_first:
        excluded += [[f"`{entry['name']}`", f"`{name}`", why] for name, why in entry["excluded_packages"].items()]
    meanings = "".join(f"- *{name}*: {meaning}.\n" for name, meaning in EVIDENCE.items())
    on_the_host = ", ".join(
        f"`{entry['name']}`" for entry in newest_first if ON_THE_HOST in entry["server"]["environment"]
    )
    return (
        f"{HEAD}## What to take today\n\n{to_take(newest_first)}\n"
        f"## All of them\n\n{table(combinations)}\nHow we know:\n\n{meanings}\n"
        f"{ARCHIVES}\n{SAMPLING.format(on_the_host)}\n"
        f"## What is installed\n\n{table(packages)}\n"
        f"## What is left out\n\n{table(excluded)}\n"
        "## What is refused\n\n"
        "A stack that names one of these fails before any host is touched, and says which release near it works.\n\n"
        f"{table(refused)}\n"
        "## Another release\n\n"
        "An entry of your own takes from its `base` what it does not name:\n\n"
        "```yaml\n"
        "neuron_stack: vllm-0.9.0\n"
        "neuron_stack_entries:\n"
        "  vllm-0.9.0:\n"
        "    base: vllm-0.9.2\n"
        "    evidence: read\n"
        "    vllm: {version: 0.9.0, ref: v0.9.0, commit: null}\n"
        "```\n\n"
        "A branch or commit of vLLM is the same, with `ref` set to it; the wheel's version then names the commit.\n"
        "One field of an entry is changed by `neuron_stack_overrides`:\n\n"
        "```yaml\n"
        "neuron_stack_overrides:\n"
        "  python_packages:\n"
        "    transformers-neuronx: 0.13.1315\n"
        "```\n"
    )


def main() -> None:
    """Renew the file."""
    TARGET.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
