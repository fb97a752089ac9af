# SPDX-License-Identifier: GPL-3.0-or-later
"""What the light stack (sandbox/light.yml) is installed from: empty wheels, and a git remote with a tiny vLLM.

Both stand where the other stand-ins do, at AWS's and GitHub's names, so that every fault of those is theirs too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from sandbox.repositories import git_remote
from sandbox.repositories.wheels import Wheel

FILE = Path(__file__).parents[1] / "light.yml"
SOURCES = Path(__file__).parents[1] / "emulation" / "light"
REPOSITORY = "neuronops-sandbox/vllm-light"
# The stack whose server never starts.
BROKEN = "light-broken"
# So much that a transfer can break off in the middle of it.
FILLING = 64 << 10


def stacks() -> dict[str, dict[str, Any]]:
    """The entries of the light stack, by name."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["neuron_stack_entries"]
    return entries


def _filling(name: str, version: str) -> bytes:
    """Bytes that no compression makes small, the same for the same package."""
    blocks = (hashlib.sha256(f"{name} {version} {number}".encode()).digest() for number in range(FILLING // 32))
    return b"".join(blocks)


def _requirements(name: str, packages: dict[str, str]) -> list[str]:
    needs = {
        "torchvision": ["torch"],
        "torch-neuronx": ["torch", "libneuronxla"],
        "transformers-neuronx": ["torch-neuronx"],
    }
    return [f"{other}=={packages[other]}" for other in needs.get(name, [])]


def wheels() -> list[Wheel]:
    """One wheel for each version of each Python package of the light stacks."""
    found = {}
    for entry in stacks().values():
        packages = entry["python_packages"]
        for name, version in packages.items():
            module = {"neuronx-cc": "neuronxcc"}.get(name, name.replace("-", "_"))
            text = f'"""Light stand-in of the neuronops sandbox for {name}."""\n\n__version__ = "{version}"\n'
            found[name, version] = Wheel(
                name,
                version,
                "py3-none-any",
                f"Light stand-in of the neuronops sandbox for {name}; there is nothing in it",
                {f"{module}/__init__.py": text.encode(), f"{module}/filling.bin": _filling(name, version)},
                _requirements(name, packages),
                ">=3.9",
            )
    return list(found.values())


def trees() -> dict[str, tuple[str, dict[str, bytes]]]:
    """Stack -> (the tag of its vLLM, the files of the sources under it)."""
    found = {}
    for name, entry in stacks().items():
        values = {b"@VERSION@": entry["vllm"]["version"], b"@STARTS@": "no" if name == BROKEN else "yes"}
        found[name] = entry["vllm"]["ref"], git_remote.filled(SOURCES, (".py", ".txt"), values)
    return found


def write_git(repository: Path) -> dict[str, str]:
    """Make the bare repository; return the commit of each light stack's vLLM."""
    return git_remote.write_trees(repository, trees())
