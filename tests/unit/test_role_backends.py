# SPDX-License-Identifier: GPL-3.0-or-later
"""A stack is taken by the roles of its backend, and refused by another from the options alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.plugin_utils import options, stacks

SERVED = [name for name, entry in stacks.load()["stacks"].items() if entry["backend"] != "in_tree"]
UNREACHABLE = {
    "vllm_server_model": "/srv/models/llama",
    "vllm_server_max_model_len": 2048,
    "ansible_host": "unreachable.invalid",
}


def preflight(folder: Path, role: str, stack: str, **more: Any) -> str:
    """Run a role's checks of its options on a host that cannot be reached, and return what is said."""
    tasks = [{"ansible.builtin.import_role": {"name": f"neuronops.vllm.{role}", "tasks_from": "preflight"}}]
    content = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
    (folder / "play.yml").write_text(json.dumps(content), encoding="utf-8")
    return play(folder, "play.yml", {"neuron_stack": stack, **UNREACHABLE, **more})


def play(folder: Path, playbook: str, given: dict[str, Any]) -> str:
    """Run a playbook with variables, and return what is said where it fails."""
    (folder / "hosts.ini").write_text("[neuron]\nhost1\n", encoding="utf-8")
    program = str(Path(sys.executable).parent / "ansible-playbook")
    command = [program, playbook, "-i", "hosts.ini", "-e", json.dumps(given)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(options.COLLECTION / "ansible.cfg")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return " ".join(done.stdout.replace("\\n", " ").split()) if done.returncode else ""


@pytest.mark.parametrize(
    ("role", "stack", "other"),
    [
        ("transformers_neuronx", "vllm-0.13.0", "nxd_inference"),
        ("transformers_neuronx", "optimum-0.4.5", "nxd_inference"),
        ("nxd_inference", "vllm-0.9.2", "transformers_neuronx"),
    ],
)
def test_a_role_for_neurons_packages_names_the_other_for_a_stack_that_is_not_its_own(
    role: str, stack: str, other: str, tmp_path: Path
) -> None:
    said = preflight(tmp_path, role, stack)
    assert f"The stack {stack} for host1 is of the backend" in said
    assert (
        f"installed by the role neuronops.vllm.{other}, not by neuronops.vllm.{role}. Run that role in its place"
        in said
    )
    assert "Nothing was changed." in said and "unreachable=0" in said
    assert preflight(tmp_path, other, stack) == ""
    # What is to be removed is there whatever the stack is.
    assert preflight(tmp_path, role, stack, **{f"{role}_state": "absent"}) == ""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"neuron_stack": "vllm-0.13.0", "nxd_inference_exact": "perhaps"}, "nxd_inference_exact is"),
        ({"neuron_stack": "vllm-0.9.2", "transformers_neuronx_exact": "perhaps"}, "transformers_neuronx_exact is"),
        ({"neuron_stack": "optimum-0.4.5", "nxd_inference_exact": "perhaps"}, "nxd_inference_exact is"),
        ({"neuron_stack": "vllm-0.13.0", "nxd_inference_venv": "/srv/venv"}, "nxd_inference_venv is given with -e"),
        ({"neuron_stack": "vllm-0.13.0", "nxd_inference_state": "absent"}, "nxd_inference_state is absent for host1"),
    ],
    ids=str,
)
def test_site_takes_the_role_that_the_stack_names(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    said = play(tmp_path, str(options.COLLECTION / "playbooks" / "site.yml"), {**given, **UNREACHABLE})
    assert says in said and "othing was changed" in said and "unreachable=0" in said


@pytest.mark.parametrize(
    ("role", "there", "refused"),
    [
        ("nxd_inference", ["neuron_venv", "transformers_neuronx", "vllm"], True),
        ("transformers_neuronx", ["nxd_inference"], True),
        ("nxd_inference", ["neuron_venv", "nxd_inference", "vllm"], False),
        ("transformers_neuronx", [], False),
    ],
)
def test_an_environment_with_the_packages_of_another_backend_is_refused(
    role: str, there: list[str], refused: bool, tmp_path: Path
) -> None:
    found = {"python": {"works": True, "problem": None}, "manifests": {layer: {} for layer in there}}
    tasks = [{"ansible.builtin.import_role": {"name": "neuronops.vllm.neuron_packages", "tasks_from": "check_host"}}]
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    given = {
        "__neuron_packages_role": role,
        "_neuron_packages": {"venv": "/srv/venv", "stack": stacks.resolve(SERVED[0])},
        "_neuron_packages_found": found,
        "_neuron_packages_python_version": "3.11",
    }
    said = play(tmp_path, "play.yml", given)
    other = {"nxd_inference": "transformers_neuronx"}.get(role, "nxd_inference")
    assert (f"/srv/venv on host1 has what the role neuronops.vllm.{other} installed" in said) == refused
    assert (f"{other}_state: absent. Nothing was changed" in said) == refused == bool(said)


@pytest.mark.parametrize("stack", [stacks.load()["default"], *SERVED])
@pytest.mark.parametrize("role", ["vllm", "vllm_server"])
def test_a_stack_that_the_roles_install_is_taken(role: str, stack: str, tmp_path: Path) -> None:
    assert preflight(tmp_path, role, stack) == ""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"vllm_source": "https://a.example/x.tar.gz"}, "set vllm_source_checksum to its SHA-256"),
        ({"vllm_plugin_source": "https://a.example/x.bundle"}, "set vllm_plugin_source_checksum to its SHA-256"),
        ({"neuron_stack_overrides": {"plugin": {"commit": "abc"}}}, "A commit of the stack is abc; a commit has 40"),
        ({"neuron_stack": "vllm-0.9.2", "vllm_plugin_source": "/srv/x"}, "vllm-0.9.2 has no plugin that is built from"),
        ({"neuron_stack": "optimum-0.4.5", "vllm_plugin_source_key": "x"}, "vllm_plugin_source_key is set for host1"),
    ],
    ids=str,
)
def test_sources_that_cannot_be_meant_are_refused_in_words_that_a_rescue_gets(
    given: dict[str, Any], says: str, tmp_path: Path
) -> None:
    said = preflight(tmp_path, "vllm", given.get("neuron_stack", SERVED[0]), **given)
    assert says in said and "One or more items failed" not in said and "unreachable=0" in said
