# SPDX-License-Identifier: GPL-3.0-or-later
"""A stack whose backend a role does not install is refused from the options alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.neuronops.vllm.plugins.plugin_utils import options, stacks

OTHERS = [name for name, entry in stacks.load()["stacks"].items() if entry["backend"] not in stacks.INSTALLED]
NOT_SERVED = [name for name, entry in stacks.load()["stacks"].items() if entry["backend"] == "optimum_neuron"]
SERVED = [name for name, entry in stacks.load()["stacks"].items() if entry["backend"] == "nxd_inference"]


UNREACHABLE = {"vllm_server_model": "/srv/models/llama", "ansible_host": "unreachable.invalid"}


def preflight(folder: Path, role: str, stack: str, **more: str) -> str:
    """Run a role's checks of its options on a host that cannot be reached, and return what is said."""
    tasks = [{"ansible.builtin.import_role": {"name": f"neuronops.vllm.{role}", "tasks_from": "preflight"}}]
    play = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    (folder / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    given = {
        "neuron_stack": stack,
        "vllm_server_model": "/srv/models/llama",
        "vllm_server_max_model_len": 2048,
        "ansible_host": "unreachable.invalid",
    }
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "play.yml",
        "-i",
        "host1,",
        "-e",
        json.dumps(given),
    ]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(options.COLLECTION / "ansible.cfg")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return " ".join(done.stdout.replace("\\n", " ").split()) if done.returncode else ""


@pytest.mark.parametrize("role", ["transformers_neuronx", "vllm_server"])
def test_a_stack_of_another_backend_is_refused_before_the_host_is_touched(role: str, tmp_path: Path) -> None:
    said = preflight(tmp_path, role, OTHERS[0])
    backend = stacks.resolve(OTHERS[0])["backend"]
    assert f"The stack {OTHERS[0]} for host1 is of the backend {backend}, which this version of the collection" in said
    assert "docs/versions.md lists them. Nothing was changed." in said and "unreachable=0" in said
    assert preflight(tmp_path, role, stacks.load()["default"]) == ""


def test_vllm_with_a_plugin_from_source_is_taken_and_with_another_refused(tmp_path: Path) -> None:
    entries = stacks.load()["stacks"]
    plugged = next(name for name, entry in entries.items() if entry["backend"] == "nxd_inference")
    assert preflight(tmp_path, "vllm", plugged) == ""
    other = next(name for name, entry in entries.items() if entry["backend"] == "optimum_neuron")
    said = preflight(tmp_path, "vllm", other)
    assert f"The stack {other} for host1 is of the backend optimum_neuron, which this version" in said
    assert "Nothing was changed." in said and "unreachable=0" in said
