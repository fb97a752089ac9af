# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read data/stacks.yml: the tested combinations of Neuron SDK, Python packages and vLLM.

It needs nothing of Ansible, so that the sandbox, the documentation and the tests read the same data in the same way.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Mapping

import yaml

DATA_FILE = Path(__file__).resolve().parents[2] / "data" / "stacks.yml"

# The fields that every entry has, with the type of each.
FIELDS: dict[str, Any] = {
    "sdk": str,
    "evidence": str,
    "host_packages": dict,
    "kernel": {"minimum": (str, type(None)), "below": (str, type(None))},
    "instance_families": list,
    "pythons": list,
    "python_packages": dict,
    "constraints": list,
    "excluded_packages": dict,
    "vllm": {
        "version": str,
        "suffix": str,
        "ref": str,
        "commit": (str, type(None)),
        "requirements_file": str,
        "build_requirements": list,
        "packages_without_init": list,
        "backend_modules": list,
        "build_environment": dict,
        "needs_neuron_ls": bool,
    },
    "server": {"max_model_len": (int, type(None)), "block_size_is_context": bool, "arguments": list},
}


class StackError(ValueError):
    """A stack that does not exist or is not complete; the message says what to do."""


@functools.lru_cache(maxsize=None)
def load(path: Path = DATA_FILE) -> Mapping[str, Any]:
    """Return the whole data file."""
    data: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


def problems(entry: Mapping[str, Any], fields: Mapping[str, Any] = FIELDS, where: str = "") -> list[str]:
    """Say what keeps an entry from being complete: missing fields, unknown fields, wrong types."""
    found = [f"{where}{name} is missing" for name in fields if name not in entry]
    for name, value in entry.items():
        if name not in fields:
            found.append(f"{where}{name} is not a field of a stack")
        elif isinstance(fields[name], dict):
            if isinstance(value, Mapping):
                found += problems(value, fields[name], f"{where}{name}.")
            else:
                found.append(f"{where}{name} is not a dictionary")
        elif not isinstance(value, fields[name]):
            found.append(f"{where}{name} has the wrong type: {value!r}")
    return found


def merged(entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry with the overrides laid over it, dictionaries key by key and all else replaced."""
    result = copy.deepcopy(dict(entry))
    for name, value in overrides.items():
        both_are_dictionaries = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if both_are_dictionaries else copy.deepcopy(value)
    return result


def resolve(
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    entries: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return one complete entry, with its `name` and an `id` that changes when anything in it does.

    name: the entry; the default entry of the data file when None.
    overrides: fields laid over the entry.
    entries: entries of the user's own, which come before those of the data file.
    Raises StackError when there is no such entry or the result is not complete.
    """
    known = {**load()["stacks"], **(entries or {})}
    name = name or load()["default"]
    if name not in known:
        raise StackError(f"There is no stack {name!r}. Set neuron_stack to one of: {', '.join(sorted(known))}.")
    entry = merged(known[name], overrides or {})
    incomplete = problems(entry)
    if incomplete:
        raise StackError(
            f"The stack {name!r} cannot be used: {'; '.join(incomplete)}. "
            "Correct it in neuron_stack_overrides or neuron_stack_entries."
        )
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    return {**entry, "name": name, "id": f"{name}-{digest[:8]}"}
