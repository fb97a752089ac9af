# SPDX-License-Identifier: GPL-3.0-or-later
"""NeuronCores as the runtime hands them out: a process needs devices, and a core belongs to one process at a time."""

import fcntl
import os
from pathlib import Path
from typing import List

_PCI_DEVICES = Path("/sys/bus/pci/devices")
_TRAINIUM2 = "0x7364"
_LOCKS = Path("/dev/shm")  # noqa: S108 - the locks must be the same ones for every user
# The sandbox's own switch for machines that have no device: how many cores to pretend there are.
_PRETEND = "NEURONOPS_EMULATED_CORES"
_held = []  # open files: the locks last as long as the process


def _cores_per_device() -> int:
    """2; of the 8 cores of a Trainium2 each two are one logical core, as its runtime has it by default."""
    return 4 if any(path.read_text().strip() == _TRAINIUM2 for path in _PCI_DEVICES.glob("*/device")) else 2


def _available() -> List[int]:
    pretended = os.environ.get(_PRETEND)
    count = int(pretended) if pretended else _cores_per_device() * len(list(Path("/dev").glob("neuron[0-9]*")))
    if not count:
        raise RuntimeError(
            "The PyTorch Neuron Runtime could not be initialized. Neuron Driver issues are logged to your system logs. "
            "See the Neuron Runtime's troubleshooting guide (no neuron device found)"
        )
    return list(range(count))


def _wanted(count: int, available: List[int]) -> List[int]:
    """The cores to try, in order: NEURON_RT_VISIBLE_CORES ("0-1,3") goes before NEURON_RT_NUM_CORES ("2")."""
    visible = os.environ.get("NEURON_RT_VISIBLE_CORES")
    if visible:
        cores: List[int] = []
        for part in visible.split(","):
            first, _, last = part.partition("-")
            cores.extend(range(int(first), int(last or first) + 1))
        return [core for core in cores if core in available]
    limit = int(os.environ.get("NEURON_RT_NUM_CORES") or len(available))
    if limit < count:
        raise RuntimeError(f"NeuronCore(s) not available - Requested:{count} Available:{limit}")
    return available


def take(count: int) -> List[int]:
    """Take `count` cores for this process, or say how many there are, as the runtime does."""
    if _held:
        return []
    taken: List[int] = []
    pretended = bool(os.environ.get(_PRETEND))
    for core in _wanted(count, _available()):
        if len(taken) == count:
            break
        if pretended:
            taken.append(core)
            continue
        lock = os.open(_LOCKS / f"neuroncore{core}", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        _held.append(lock)
        taken.append(core)
    if len(taken) < count:
        while _held:
            os.close(_held.pop())
        raise RuntimeError(f"NeuronCore(s) not available - Requested:{count} Available:{len(taken)}")
    if not pretended:
        for device in sorted({core // _cores_per_device() for core in taken}):
            _open_device(f"/dev/neuron{device}")
    return taken


def _open_device(path: str) -> None:
    """Keep the device open, so that whoever asks which process uses it finds this one."""
    try:
        _held.append(os.open(path, os.O_RDWR))
    except OSError:
        # A device node that no driver stands behind cannot be opened; the lock above is what counts.
        return
