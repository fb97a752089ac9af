# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what `neuron-ls -j` prints, in each of the three generations of its format."""

from __future__ import annotations

import json
import re

from ansible_collections.neuronops.vllm.plugins.module_utils import forms


def parse(output):
    """Return the devices of `neuron-ls -j`, the same for every generation of the tool.

    The oldest one (to SDK 2.24) gives short PCI addresses and no core ids; those are counted up here. What a generation
    does not say at all is None. Raises ValueError for anything but a JSON list of devices.
    """
    try:
        listed = forms.sequence(json.loads(output), "the answer of neuron-ls", most=1000)
    except RecursionError as error:
        raise ValueError("neuron-ls did not print a list of devices") from error
    devices, next_core = [], 0
    for entry in listed:
        if not isinstance(entry, dict) or "neuron_device" not in entry:
            raise ValueError("neuron-ls did not print a list of devices")
        cores = forms.number(entry.get("nc_count") or 0, "nc_count of neuron-ls", most=1000)
        core_ids = entry.get("neuroncore_ids")
        if core_ids is None:
            core_ids = list(range(next_core, next_core + cores))
        next_core += cores
        devices.append(
            {
                "index": forms.number(entry["neuron_device"], "neuron_device of neuron-ls"),
                "address": _full_address(entry.get("bdf")),
                "cores": cores,
                "core_ids": _numbers(core_ids, "neuroncore_ids"),
                "memory_bytes": _number(entry.get("memory_size"), "memory_size"),
                "connected_to": _numbers(entry.get("connected_to") or [], "connected_to"),
                "instance_type": _word(entry.get("instance_type"), "instance_type"),
                "instance_id": _word(entry.get("instance_id"), "instance_id"),
                "processes": [
                    _process(process) for process in _list(entry.get("neuron_processes"), "neuron_processes")
                ],
            }
        )
    return devices


def _list(value, name):
    return forms.sequence(value or [], name + " of neuron-ls")


def _number(value, name):
    return None if value is None else forms.number(value, name + " of neuron-ls")


def _numbers(values, name):
    return [forms.number(value, name + " of neuron-ls") for value in _list(values, name)]


def _word(value, name):
    """Return a short text of letters, digits, dots and dashes, or None."""
    if value is not None and (not isinstance(value, str) or not re.match(r"[A-Za-z0-9._-]{0,60}\Z", value)):
        raise ValueError("{0} of neuron-ls is {1}".format(name, forms.shortened(value)))
    return value


def _process(process):
    found = forms.mapping(process, "a process of neuron-ls")
    command = found.get("command")
    if command is not None and not isinstance(command, str):
        raise ValueError("the command of a process of neuron-ls is {0}".format(forms.shortened(command)))
    version = found.get("neuron_runtime_version")
    return {
        "pid": _number(found.get("pid"), "pid"),
        "command": command,
        "runtime_version": version if version is None else str(version),
    }


def _full_address(address):
    """Return a PCI address with its domain, which older tools leave out."""
    if address is not None and (not isinstance(address, str) or not re.match(r"[0-9A-Fa-f:.]{0,20}\Z", address)):
        raise ValueError("bdf of neuron-ls is {0}".format(forms.shortened(address)))
    return "0000:" + address if address and address.count(":") == 1 else address
