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


@pytest.mark.parametrize(
    ("role", "stack"),
    [("transformers_neuronx", OTHERS[0]), ("vllm", OTHERS[0]), *(("vllm_server", stack) for stack in NOT_SERVED)],
)
def test_a_stack_of_another_backend_is_refused_before_the_host_is_touched(
    role: str, stack: str, tmp_path: Path
) -> None:
    said = preflight(tmp_path, role, stack)
    backend = stacks.resolve(stack)["backend"]
    assert f"The stack {stack} for host1 is of the backend {backend}, which this version of the collection" in said
    assert "docs/versions.md lists them. Nothing was changed." in said and "unreachable=0" in said
    assert preflight(tmp_path, role, stacks.load()["default"]) == ""


@pytest.mark.parametrize("stack", SERVED)
def test_the_server_of_a_stack_of_nxd_inference_is_taken(stack: str, tmp_path: Path) -> None:
    assert preflight(tmp_path, "vllm_server", stack) == ""
