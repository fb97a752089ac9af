# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in hardware: for each instance type, the folder that is mounted over a host's /sys/bus/pci/devices.

Device ids are those of the Neuron SDK's driver; chips per type as in AWS's table of instance types. The addresses are
made up, except trn1.2xlarge's, which is from a real `neuron-ls`.
"""

from __future__ import annotations

from pathlib import Path

AMAZON = "0x1d0f"
# type -> (PCI device id of the chip, number of chips)
INSTANCE_TYPES = {
    "inf2.xlarge": ("0x7264", 1),
    "inf2.8xlarge": ("0x7264", 1),
    "inf2.24xlarge": ("0x7264", 6),
    "inf2.48xlarge": ("0x7264", 12),
    "trn1.2xlarge": ("0x7164", 1),
    "trn1.32xlarge": ("0x7164", 16),
    "trn1n.32xlarge": ("0x7164", 16),
    "trn2.3xlarge": ("0x7364", 1),
    "trn2.48xlarge": ("0x7364", 16),
}
# Every instance has a network card and a disk; some, on the type `none`, have nothing else.
_ALWAYS = {"0000:00:04.0": ("0x8061", "0x010802"), "0000:00:05.0": ("0xec20", "0x020000")}
_NEURON_CLASS = "0x088000"


def devices(instance_type: str) -> dict[str, tuple[str, str]]:
    """PCI address -> (device id, class) of an instance type; a type without Neuron hardware has only the usual ones."""
    found = dict(_ALWAYS)
    if instance_type in INSTANCE_TYPES:
        device, count = INSTANCE_TYPES[instance_type]
        for number in range(count):
            address = "0000:00:1e.0" if count == 1 else f"0000:{0x10 + number:02x}:1c.0"
            found[address] = (device, _NEURON_CLASS)
    return found


def write(folder: Path, instance_type: str) -> Path:
    """Make the folder of an instance type below `folder` and return it."""
    target = folder / instance_type
    for address, (device, pci_class) in devices(instance_type).items():
        entry = target / address
        entry.mkdir(parents=True, exist_ok=True)
        for name, value in {"vendor": AMAZON, "device": device, "class": pci_class, "numa_node": "-1"}.items():
            (entry / name).write_text(f"{value}\n")
    return target
