# SPDX-License-Identifier: GPL-3.0-or-later
"""The action groups of meta/runtime.yml are whole, and `module_defaults` reach the modules through them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
GROUPS = yaml.safe_load((CHECKOUT / "meta" / "runtime.yml").read_text(encoding="utf-8"))["action_groups"]


def test_every_module_is_in_the_group_of_all() -> None:
    plugins = {path.stem for folder in ("modules", "action") for path in CHECKOUT.glob(f"plugins/{folder}/*.py")}
    assert len(plugins) > 10 and GROUPS["all"] == sorted(plugins)


def test_every_module_that_downloads_packages_is_in_their_group() -> None:
    documented = [
        path.stem
        for path in sorted(CHECKOUT.glob("plugins/modules/*.py"))
        if "  - neuronops.vllm.packages\n" in path.read_text(encoding="utf-8")
    ]
    assert GROUPS["packages"] == documented and "python_lock" in documented


def test_module_defaults_of_a_group_reach_a_module(tmp_path: Path) -> None:
    tasks = [
        # Without `of` it fails.
        {
            "neuronops.vllm.options": {},
            "module_defaults": {"group/neuronops.vllm.all": {"of": "terminate"}},
            "register": "found",
        },
        {"ansible.builtin.assert": {"that": "found.options.fleet == 'neuron'"}},
        # The message names what came from the group.
        {
            "neuronops.vllm.python_lock": {"name": "x", "path": "x", "requirements": [], "python": "/x"},
            "module_defaults": {
                "group/neuronops.vllm.packages": {"python_version": "from_the_group", "architecture": "x86_64"}
            },
            "register": "refused",
            "failed_when": "'from_the_group' not in refused.msg or refused is not failed",
        },
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "play.yml", "-i", "localhost,"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ok=3" in done.stdout, done.stdout + done.stderr
