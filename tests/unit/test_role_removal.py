# SPDX-License-Identifier: GPL-3.0-or-later
"""The way off: each role takes what it put into an environment, once, and nothing else.

The roles run through ansible-playbook on this machine, in an environment of this test's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.role_variables import CHECKOUT
from tests.unit.tiny_wheel import make_wheel

# What each role put there; they share idna, as roles share what several of them need.
LAYERS = {
    "neuron_venv": {"demo": "1.0", "idna": "3.10"},
    "transformers_neuronx": {"torch-neuronx": "2.5", "numpy": "1.26.4"},
    "vllm": {"vllm": "0.9.2+neuron218", "fastapi": "0.115.0", "idna": "3.10"},
}
# The roles for the Neuron packages, of which an environment has the layer of one.
PACKAGES_ROLES = ["transformers_neuronx", "nxd_inference"]
OPTIONS = {
    "ansible_python_interpreter": sys.executable,
    "neuron_venv_environment": {"PIP_CACHE_DIR": "/nonexistent"},
    "neuron_venv_kernel_name": "no-such-kernel",
    "vllm_installer": "pip",
    "transformers_neuronx_installer": "pip",
    "nxd_inference_installer": "pip",
}
PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: "neuronops.vllm.{{ role }}"
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An environment with all layers, and what says that they are complete."""
    path = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", path], check=True)
    wheels = sorted(
        {make_wheel(tmp_path / "files", *package) for layer in LAYERS.values() for package in layer.items()}
    )
    command: list[str | Path] = [
        path / "bin" / "pip",
        "--isolated",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-index",
    ]
    subprocess.run([*command, "--no-deps", *wheels], check=True)
    own = path / "neuronops"
    (own / "wheels").mkdir(parents=True)
    (own / "wheels" / "vllm.whl").touch()
    for layer, packages in LAYERS.items():
        (own / f"{layer}.json").write_text(json.dumps({"role": layer, "packages": packages}))
        lines = [f"{name}=={version} --hash=sha256:{'0' * 64}\n" for name, version in packages.items()]
        (own / f"{layer}.lock").write_text("".join(lines))
    (own / "release.json").write_text("{}")
    return path


@pytest.fixture
def remove(tmp_path: Path) -> Callable[..., bool]:
    """Run a role with the state `absent`, and return whether it changed anything."""

    def run(role: str, path: Path, *more: str) -> bool:
        options = {
            **OPTIONS,
            "role": role,
            f"{role}_state": "absent",
            f"{'neuron_venv_path' if role == 'neuron_venv' else role + '_venv'}": str(path),
        }
        (tmp_path / "options.json").write_text(json.dumps(options))
        (tmp_path / "play.yml").write_text(PLAY)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PIP_", "UV_"))
        }
        environment.update(
            ANSIBLE_CONFIG=str(CHECKOUT / "ansible.cfg"),
            ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / ".build" / "collections"),
            ANSIBLE_LOCALHOST_WARNING="false",
            ANSIBLE_ASYNC_DIR=str(tmp_path / "async"),
        )
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local"]
        command += ["-e", f"@{tmp_path}/options.json", *more, str(tmp_path / "play.yml")]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return "changed=0" not in done.stdout

    return run


def installed(path: Path) -> set[str]:
    names = {info.name.split("-")[0].replace("_", "-") for info in path.glob("lib/python3*/site-packages/*.dist-info")}
    return names - {"pip", "setuptools"}


def left(path: Path) -> set[str]:
    return {file.name for file in (path / "neuronops").iterdir() if file.suffix in (".json", ".lock") or file.is_dir()}


@pytest.mark.thorough
def test_vllm_is_removed_once_with_what_nothing_else_put_there(
    made: Path, remove: Callable[..., bool], tmp_path: Path
) -> None:
    before = left(made)
    assert remove("vllm", made, "--check")
    assert (left(made), len(installed(made))) == (before, 6)
    assert remove("vllm", made)
    assert installed(made) == {"demo", "idna", "torch-neuronx", "numpy"}
    assert left(made) == before - {"vllm.json", "vllm.lock", "release.json", "wheels"}
    assert not remove("vllm", made)
    assert not remove("vllm", tmp_path / "none")


@pytest.mark.thorough
@pytest.mark.parametrize("role", PACKAGES_ROLES)
def test_the_neuron_packages_are_removed_once(role: str, made: Path, remove: Callable[..., bool]) -> None:
    for file in (made / "neuronops").glob("transformers_neuronx.*"):
        file.rename(file.with_name(role + file.suffix))
    before = left(made)
    assert remove(role, made)
    assert installed(made) == {"demo", "idna", "vllm", "fastapi"}
    assert left(made) == before - {f"{role}.json", f"{role}.lock", "release.json"}
    assert not remove(role, made)


@pytest.mark.thorough
def test_the_environment_is_removed_once(made: Path, remove: Callable[..., bool]) -> None:
    assert remove("neuron_venv", made, "--check")
    assert made.exists()
    assert remove("neuron_venv", made)
    assert not made.exists()
    assert not remove("neuron_venv", made)


@pytest.mark.parametrize("role", ["neuron_driver", "neuron_venv", *PACKAGES_ROLES, "vllm"])
def test_every_role_has_the_same_way_off(role: str) -> None:
    folder = CHECKOUT / "roles" / role
    main = (CHECKOUT / "roles" / ("neuron_packages" if role in PACKAGES_ROLES else role) / "tasks/main.yml").read_text()
    assert "include_tasks: remove.yml" in main
    assert f"{role}_state: absent" in (folder / "tasks" / "remove.yml").read_text()
    assert "absent]" in (folder / "meta" / "argument_specs.yml").read_text()
