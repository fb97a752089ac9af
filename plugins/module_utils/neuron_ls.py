# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what `neuron-ls -j` prints, in each of the three generations of its format."""

from __future__ import annotations

import json

from ansible_collections.neuronops.vllm.plugins.module_utils import forms

MOST = 100000  # of anything that is counted


def parse(output):
    """Return the devices of `neuron-ls -j`, the same for every generation of the tool.

    The oldest one (to SDK 2.24) gives short PCI addresses and no core ids; those are counted up here. What a generation
    does not say at all is None. Raises ValueError for anything but a JSON list of devices with numbers where they are
    due; descriptions that are not understood are None.
    """
    try:
        listed = json.loads(output)
    except RecursionError as error:
        raise ValueError("neuron-ls did not print a list of devices") from error
    if not isinstance(listed, list) or not all(
        isinstance(entry, dict) and "neuron_device" in entry for entry in listed
    ):
        raise ValueError("neuron-ls did not print a list of devices")
    devices, next_core = [], 0
    for entry in listed:
        cores = _number(entry.get("nc_count") or 0, "nc_count")
        core_ids = entry.get("neuroncore_ids")
        if core_ids is None:
            core_ids = list(range(next_core, next_core + cores))
        next_core += cores
        memory = entry.get("memory_size")
        devices.append(
            {
                "index": _number(entry["neuron_device"], "neuron_device"),
                "address": forms.known("PCI address", _full_address(entry.get("bdf"))),
                "cores": cores,
                "core_ids": _numbers(core_ids, "neuroncore_ids"),
                "memory_bytes": None if memory is None else forms.number(memory, "memory_size"),
                "connected_to": _numbers(entry.get("connected_to") or [], "connected_to"),
                "instance_type": forms.known("instance type", entry.get("instance_type")),
                "instance_id": forms.known("instance id", entry.get("instance_id")),
                "processes": [
                    {
                        "pid": _number(process.get("pid") or 0, "pid", 2**31) or None,
                        "command": forms.known("line of text", process.get("command")),
                        "runtime_version": forms.known("package version", process.get("neuron_runtime_version")),
                    }
                    for process in forms.sequence(entry.get("neuron_processes") or [], "neuron_processes")
                    if isinstance(process, dict)
                ],
            }
        )
    return devices


def _number(value, what, most=MOST):
    return forms.number(value, what, 0, most)


def _numbers(values, what):
    return [_number(value, what) for value in forms.sequence(values, what, MOST)]


def _full_address(address):
    """Return a PCI address with its domain, which older tools leave out."""
    if isinstance(address, str) and address.count(":") == 1:
        return "0000:" + address
    return address
