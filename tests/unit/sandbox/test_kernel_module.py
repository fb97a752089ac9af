# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in for the kernel's module shows of the devices, in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[3] / "sandbox" / "files" / "kernel-module"
ALONE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
# The container's folders, which are the machine's here, lie in one that the test gives.
PROGRAM = f"""
import importlib.machinery, importlib.util, os, pathlib, re, sys
loader = importlib.machinery.SourceFileLoader("kernel_module", {str(MODULE)!r})
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kernel_module", loader))
loader.exec_module(module)
module.COPIES = pathlib.Path(sys.argv[1], "copies")
module.INSTANCE_TYPE = pathlib.Path(sys.argv[1], "instance_type")
module.cores = lambda address: 4
before = module.MAJORS.read_text(), sorted(os.listdir(module.VIRTUAL))
module.show(["0000:10:1c.0", "0000:11:1c.0"])
character = module.MAJORS.read_text().partition("Block devices:")[0]
assert re.search("^240 neuron$", character, re.MULTILINE), character
assert (module.VIRTUAL / "dmi/id/product_name").read_text() == "trn2.48xlarge\\n"
cores = sorted(str(path.relative_to(module.VIRTUAL)) for path in module.VIRTUAL.glob("neuron_device/*/*"))
assert cores == [f"neuron_device/neuron{{n}}/neuron_core{{core}}" for n in range(2) for core in range(4)], cores
assert (module.VIRTUAL / "net/lo/mtu").read_text(), "what the machine has there is there still"
module.hide()
assert (module.MAJORS.read_text(), sorted(os.listdir(module.VIRTUAL))) == before
assert not module.COPIES.exists()
"""


@pytest.mark.skipif(
    subprocess.run([*ALONE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode != 0,
    reason="this user may mount nothing, not even where nobody else sees it",
)
def test_a_loaded_driver_shows_its_number_cores_and_machine_until_it_is_unloaded(tmp_path: Path) -> None:
    (tmp_path / "instance_type").write_text("trn2.48xlarge\n")
    done = subprocess.run([*ALONE, sys.executable, "-B", "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
