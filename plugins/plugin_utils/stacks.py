# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read data/stacks.yml: the tested combinations of Neuron SDK, Python packages and vLLM.

It needs nothing of Ansible, so that the sandbox, the documentation and the tests read the same data in the same way.
"""

from __future__ import annotations

import copy
import datetime
import difflib
import functools
import hashlib
import json
from pathlib import Path
from typing import Any, Collection, Mapping

from ansible.module_utils.common.yaml import yaml_load

from ..module_utils.versions import numbers

DATA_FILE = Path(__file__).resolve().parents[2] / "data" / "stacks.yml"

# What an entry of a user's own need not say; each of the data file does.
UNSAID = {
    "backend": "in_tree",
    "supported": {"until_sdk": None, "until": None, "source": "", "families": {}},
    "ubuntu": "22.04",
}
# The fields that every entry has, with the type of each.
FIELDS: dict[str, Any] = {
    "backend": str,
    "sdk": str,
    "supported": {"until_sdk": (str, type(None)), "until": (str, type(None)), "source": str, "families": dict},
    "evidence": str,
    "host_packages": dict,
    "kernel": {"minimum": (str, type(None)), "below": (str, type(None))},
    "instance_families": list,
    "pythons": list,
    "ubuntu": str,
    "python_packages": dict,
    "constraints": list,
    "excluded_packages": dict,
    "vllm": {
        "version": str,
        "suffix": str,
        "ref": str,
        "commit": (str, type(None)),
        "requirements_file": str,
        "unlisted_requirements": list,
        "build_requirements": list,
        "build_environment": dict,
    },
    "server": {"max_model_len": (int, type(None)), "arguments": list, "environment": dict},
}
PLUGIN = {"name": str, "version": str, "entry_point": str, "platform": str, "modules": list}
# What an entry of each backend has besides.
BACKENDS: dict[str, dict[str, Any]] = {
    "in_tree": {
        "vllm": {"packages_without_init": list, "backend_modules": list, "needs_neuron_ls": bool},
        "server": {"block_size_is_context": bool},
    },
    "nxd_inference": {
        "plugin": {**PLUGIN, "source": str, "ref": str, "commit": (str, type(None)), "build_requirements": list},
        "server": {"additional_config": dict},
    },
    "optimum_neuron": {"plugin": PLUGIN},
}
# The role that installs the Neuron packages of an entry.
PACKAGES_ROLES = {
    "in_tree": "transformers_neuronx",
    "nxd_inference": "nxd_inference",
    "optimum_neuron": "nxd_inference",
}
# What launch.yml finds the image of an Ubuntu release by; Canonical is its owner.
UBUNTU_IMAGES = {
    "22.04": "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-*",
    "24.04": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*",
}
# What resolve() adds to an entry.
ADDED = ("name", "id", "packages_role", "ubuntu_image")


class StackError(ValueError):
    """A stack that does not exist or is not complete; the message says what to do."""


@functools.lru_cache(maxsize=None)
def load(path: Path = DATA_FILE) -> Mapping[str, Any]:
    """Return the whole data file, with every entry complete: what an entry takes from its base is in it."""
    data: dict[str, Any] = yaml_load(path.read_text(encoding="utf-8"))
    data["stacks"] = {name: _with_base(entry, data["stacks"]) for name, entry in data["stacks"].items()}
    return data


def _with_base(entry: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with what it takes from its base; raises StackError when there is no such base."""
    base, own = entry.get("base"), {name: value for name, value in entry.items() if name != "base"}
    if base is None:
        return own
    if base not in entries or "base" in entries[base]:
        raise StackError(f"A stack is based on {base!r}, which is no entry, or is based on another itself.")
    return merged(entries[base], own)


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version of vLLM, of which 0.4.0.post1 comes after 0.4.0 and 0.10 after 0.9."""
    return numbers(version)


def refusal(version: str) -> str | None:
    """Say why a version of vLLM cannot serve on the Neuron path, and which ones near it can; None when it can."""
    wanted = release(version)
    for entry in load()["refused"]:
        if release(entry["from"]) <= wanted and (entry["to"] is None or wanted <= release(entry["to"])):
            break
    else:
        return None
    proved = (known["vllm"]["version"] for known in load()["stacks"].values() if known["evidence"] == "served")
    works = sorted(proved, key=release)
    before = [other for other in works if release(other) < wanted][-1:]
    after = [other for other in works if release(other) > wanted][:1]
    nearest = " and ".join(before + after)
    return f"vLLM {version} cannot serve on AWS Neuron: {entry['reason']}. The nearest that works: {nearest}."


def problems(entry: Mapping[str, Any], fields: Mapping[str, Any] | None = None, where: str = "") -> list[str]:
    """Say what keeps an entry from being complete: missing fields, unknown fields, wrong types."""
    if fields is None:
        fields = merged(FIELDS, BACKENDS.get(str(entry.get("backend")), {}))
    found = [f"{where}{name} is missing" for name in fields if name not in entry]
    for name, value in entry.items():
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            found.append(f"{where}{name} is not a field of a stack" + (f" (did you mean {near[0]}?)" if near else ""))
        elif isinstance(fields[name], dict):
            if isinstance(value, Mapping):
                found += problems(value, fields[name], f"{where}{name}.")
            else:
                found.append(f"{where}{name} is not a dictionary")
        elif not isinstance(value, fields[name]):
            found.append(f"{where}{name} has the wrong type: {value!r}")
    return found


def _wrong_backend(entry: Mapping[str, Any]) -> list[str]:
    """Say that a backend is none; which fields an entry has depends on it."""
    if entry["backend"] in BACKENDS:
        return []
    return [f"backend is {entry['backend']!r}, and should be one of {', '.join(BACKENDS)}"]


def _wrong_words(entry: Mapping[str, Any]) -> list[str]:
    """Say which texts of a complete entry are none that it can have."""
    found = []
    until = entry["supported"]["until"]
    try:
        datetime.date.fromisoformat(until or "2025-01-01")
    except ValueError:
        found.append(f"supported.until is {until!r}, and should be a date such as 2025-09-16")
    if entry["ubuntu"] not in UBUNTU_IMAGES:
        found.append(f"ubuntu is {entry['ubuntu']!r}, and should be one of {', '.join(UBUNTU_IMAGES)}")
    return found


def content(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an entry decides on what is installed: not what is only said about it, or only launched by."""
    return {name: value for name, value in entry.items() if name not in (*ADDED, "evidence", "supported", "ubuntu")}


def out_of_support(entry: Mapping[str, Any], today: datetime.date) -> str | None:
    """Say that AWS does not support what an entry is made of any more, and which entry it does; None when it does."""
    if not _ended(entry, today):
        return None
    supported = entry["supported"]
    until_sdk = f" with SDK {supported['until_sdk']}" if supported["until_sdk"] else ""
    others = [name for name, other in load()["stacks"].items() if not _ended(other, today)]
    none = "No stack that this collection installs is in AWS's support."
    instead = f"AWS supports {', '.join(others)}." if others else none
    return (
        f"What the stack {entry.get('name', '')} is made of is out of AWS's support since {supported['until']}"
        f"{until_sdk} ({supported['source']}). {instead}"
    )


def _ended(entry: Mapping[str, Any], today: datetime.date) -> bool:
    until = entry["supported"]["until"]
    return until is not None and datetime.date.fromisoformat(until) <= today


def other_family(entry: Mapping[str, Any], families: Collection[str]) -> str | None:
    """Say that a host's devices are of a family that an entry does not drive; None when they are not.

    families: those of the devices on the PCI bus, on which a trn1n looks like a trn1.
    """
    driven = {"trn1" if family == "trn1n" else family for family in entry["instance_families"]}
    others = sorted(set(families) - driven)
    if not others:
        return None
    fits = [name for name, other in load()["stacks"].items() if set(others) <= set(other["instance_families"])]
    instead = f"set neuron_stack to {' or '.join(fits)}" if fits else "no stack that this collection installs is for it"
    return (
        f"its devices are those of {' and '.join(others)}, and the stack {entry.get('name', '')} is for "
        f"{', '.join(entry['instance_families'])}; {instead}"
    )


def merged(entry: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry with the overrides laid over it, dictionaries key by key and all else replaced."""
    result = copy.deepcopy(dict(entry))
    for name, value in overrides.items():
        both_are_dictionaries = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if both_are_dictionaries else copy.deepcopy(value)
    return result


def _dictionary(option: str, value: Any) -> Mapping[str, Any]:
    """Return a dictionary that was given as one, or as text in JSON; raises StackError for anything else."""
    found = value
    if isinstance(value, str):
        try:
            found = json.loads(value)
        except ValueError:
            found = value
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise StackError(
            f"{option} is {str(value)[:80]!r} ({type(value).__name__.lstrip('_')}), and should be a dictionary; as "
            'text it is written in JSON, such as {"vllm": {"ref": "v0.9.2"}}. Is a bracket missing?'
        )
    for key, entry in found.items():
        if option == "neuron_stack_entries" and not isinstance(entry, Mapping):
            raise StackError(f"{option}.{key} is {entry!r}, and should be a dictionary with the fields of a stack.")
    return found


def resolve(
    name: str | None = None,
    overrides: Mapping[str, Any] | str | None = None,
    entries: Mapping[str, Mapping[str, Any]] | str | None = None,
) -> dict[str, Any]:
    """Return one complete entry, with its `name`, an `id` that changes when anything that is installed does, the role
    that installs its Neuron packages, `packages_role`, and the name of the image to launch it on, `ubuntu_image`.

    name: the entry; the default entry of the data file when None.
    overrides: fields laid over the entry.
    entries: entries of the user's own, which come before those of the data file.
    Raises StackError when there is no such entry, the result is not complete, or its vLLM is known not to work.
    """
    overrides = _dictionary("neuron_stack_overrides", overrides)
    entries = _dictionary("neuron_stack_entries", entries)
    known = {**load()["stacks"], **entries}
    if name is not None and not isinstance(name, str):
        raise StackError(f"neuron_stack is {name!r}, and should be a text, such as {load()['default']}.")
    name = name or load()["default"]
    if name not in known:
        version = name.partition("vllm-")[2]
        reason = refusal(version) if release(version) else None
        near = difflib.get_close_matches(name if "-" in name else f"vllm-{name}", known, n=1, cutoff=0.75)
        hint = f"{reason} " if reason else f"Did you mean {near[0]}? " if near else ""
        raise StackError(
            f"There is no stack {name!r}. {hint}Set neuron_stack to one of: "
            f"{', '.join(sorted(known, key=lambda known_name: (release(known_name), known_name)))}."
        )
    entry = merged(merged(UNSAID, _with_base(known[name], load()["stacks"])), overrides)
    incomplete = _wrong_backend(entry) or problems(entry) or _wrong_words(entry)
    if incomplete:
        raise StackError(
            f"The stack {name!r} cannot be used: {'; '.join(incomplete)}. "
            "Correct it in neuron_stack_overrides or neuron_stack_entries."
        )
    reason = refusal(entry["vllm"]["version"])
    if reason:
        raise StackError(f"The stack {name!r} is refused. {reason} Nothing was changed.")
    digest = hashlib.sha256(json.dumps(content(entry), sort_keys=True).encode()).hexdigest()
    added = {
        "name": name,
        "id": f"{name}-{digest[:8]}",
        "packages_role": PACKAGES_ROLES[entry["backend"]],
        "ubuntu_image": UBUNTU_IMAGES[entry["ubuntu"]],
    }
    return {**entry, **added}
