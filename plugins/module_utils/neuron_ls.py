# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what `neuron-ls -j` prints, in each of the three generations of its format."""

from __future__ import annotations

import json


def parse(output):
    """Return the devices of `neuron-ls -j`, the same for every generation of the tool.

    The oldest one (to SDK 2.24) gives short PCI addresses and no core ids; those are counted up here. What a generation
    does not say at all is None. Raises ValueError for anything but a JSON list of devices.
    """
    listed = json.loads(output)
    if not isinstance(listed, list) or not all(
        isinstance(entry, dict) and "neuron_device" in entry for entry in listed
    ):
        raise ValueError("neuron-ls did not print a list of devices")
    devices, next_core = [], 0
    for entry in listed:
        cores = int(entry.get("nc_count") or 0)
        core_ids = entry.get("neuroncore_ids")
        if core_ids is None:
            core_ids = list(range(next_core, next_core + cores))
        next_core += cores
        devices.append(
            {
                "index": entry["neuron_device"],
                "address": _full_address(entry.get("bdf")),
                "cores": cores,
                "core_ids": core_ids,
                "memory_bytes": entry.get("memory_size"),
                "connected_to": entry.get("connected_to") or [],
                "instance_type": entry.get("instance_type"),
                "instance_id": entry.get("instance_id"),
                "processes": [
                    {
                        "pid": process.get("pid"),
                        "command": process.get("command"),
                        "runtime_version": process.get("neuron_runtime_version"),
                    }
                    for process in entry.get("neuron_processes") or []
                ],
            }
        )
    return devices


def _full_address(address):
    """Return a PCI address with its domain, which older tools leave out."""
    return "0000:" + address if address and address.count(":") == 1 else address
