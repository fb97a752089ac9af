# SPDX-License-Identifier: GPL-3.0-or-later
"""Role neuron_venv where the stack has no packages for the system's own Python: on this machine, in check mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.role_variables import CHECKOUT

# No system has it, and nobody has brought it.
NONE = "3.99"
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: neuronops.vllm.neuron_venv
"""


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the role in check mode with some options."""
    options = {
        "ansible_python_interpreter": sys.executable,
        "neuron_stack": "vllm-0.9.2",
        "neuron_stack_overrides": {"pythons": [NONE]},
        "neuron_venv_path": str(tmp_path / "venv"),
        "neuron_venv_lock_path": str(tmp_path / "locks"),
        "neuron_venv_manage_system_packages": False,
    }
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PIP_", "UV_"))
    }
    environment.update(
        ANSIBLE_CONFIG=str(CHECKOUT / "ansible.cfg"),
        ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / ".build" / "collections"),
        ANSIBLE_LOCALHOST_WARNING="false",
    )

    def run(**more: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "options.json").write_text(json.dumps({**options, **more}))
        (tmp_path / "play.yml").write_text(PLAY)
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local"]
        command += ["--check", "--diff", "-e", f"@{tmp_path}/options.json", str(tmp_path / "play.yml")]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_it_is_refused_with_the_option_that_brings_one(check: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = check()
    said = " ".join(done.stdout.split())
    assert done.returncode != 0 and "changed=0" in done.stdout
    assert f"Set neuron_venv_python_download to true, and uv brings Python {NONE}" in said


def test_a_check_run_says_that_one_would_be_brought(
    check: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = check(neuron_venv_python_download=True)
    assert done.returncode == 0, done.stdout + done.stderr
    brought = done.stdout.partition("Ensure a Python of uv's, verified by its checksum]")[2].partition("TASK [")[0]
    assert f"there is no Python {NONE}" in brought and "changed: [localhost]" in brought
    assert not (tmp_path / "venv").exists() and not Path("/opt/neuronops/python", NONE).exists()


@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        (
            "/srv/mirror",
            "should be an address that begins with https://, http:// or, for a folder on the host, file:///",
        ),
        ("https://me:secret@mirror.example.com/", "neuron_venv_python_mirror"),
    ],
)
def test_a_mirror_that_is_none_is_refused(
    check: Callable[..., subprocess.CompletedProcess[str]], mirror: str, words: str
) -> None:
    done = check(neuron_venv_python_download=True, neuron_venv_python_mirror=mirror)
    assert done.returncode != 0 and words in " ".join(done.stdout.split()) and "secret" not in done.stdout
    assert "changed=0" in done.stdout
