# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python the role neuron_venv takes on each system, on facts: Ubuntu itself does not run in the tests."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from plugins.plugin_utils import stacks
from tests.unit.role_variables import CHECKOUT, TRUSTED, read, value


def variables(
    distribution: str, version: str, stack: str = "vllm-0.9.2", python: str = "", download: bool = False
) -> dict[str, Any]:
    """Return what the role knows on a system."""
    return {
        **read("neuron_venv", "vars"),
        "ansible_facts": {
            "distribution": distribution,
            "distribution_version": version,
            "distribution_major_version": version.partition(".")[0],
        },
        "_neuron_venv": {
            "stack": stacks.resolve(stack),
            "python": python,
            "python_download": download,
            "manage_system_packages": True,
        },
    }


@pytest.mark.parametrize(
    ("distribution", "version", "python", "path"),
    [
        ("Debian", "11.11", "3.9", "/usr/bin/python3.9"),
        ("Debian", "12.8", "3.11", "/usr/bin/python3.11"),
        ("Ubuntu", "20.04", "3.8", "/usr/bin/python3.8"),
        ("Ubuntu", "22.04", "3.10", "/usr/bin/python3.10"),
        ("Ubuntu", "24.04", "3.12", "/usr/bin/python3.12"),
    ],
)
def test_the_systems_python_is_taken(distribution: str, version: str, python: str, path: str) -> None:
    known = variables(distribution, version)
    assert value("_neuron_venv_python_version", known) == python
    assert value("_neuron_venv_python", known) == path
    assert value("_neuron_venv_system_packages", known) == [f"python{python}", f"python{python}-venv", "g++"]


def test_a_version_is_installed_and_a_path_is_not() -> None:
    version = variables("Ubuntu", "22.04", python="3.11")
    assert value("_neuron_venv_python", version) == "/usr/bin/python3.11"
    assert "python3.11-venv" in value("_neuron_venv_system_packages", version)
    path = variables("Ubuntu", "24.04", python="/opt/python/bin/python3.11")
    assert value("_neuron_venv_python", path) == "/opt/python/bin/python3.11"
    assert value("_neuron_venv_python_version", path) == "3.11"
    assert value("_neuron_venv_system_packages", path) == ["g++"]


@pytest.mark.parametrize(
    ("stack", "systems"),
    [
        ("vllm-0.9.2", ["Debian 11", "Debian 12", "Ubuntu 22.04"]),
        ("vllm-0.3.3", ["Debian 11", "Ubuntu 20.04", "Ubuntu 22.04"]),
    ],
)
def test_a_refusal_names_the_systems_that_work(stack: str, systems: list[str]) -> None:
    known = variables("Ubuntu", "24.04", stack)
    assert value("_neuron_venv_python_version", known) not in known["_neuron_venv"]["stack"]["pythons"]
    assert value("_neuron_venv_systems_that_work", known) == systems


def test_an_unknown_system_has_no_python_of_its_own() -> None:
    assert value("_neuron_venv_python_version", variables("Fedora", "43")) == ""


@pytest.mark.parametrize(
    ("distribution", "version", "stack", "python", "path"),
    [
        # The system's own comes first where it fits, also where another is allowed.
        ("Ubuntu", "22.04", "vllm-0.9.2", "", "/usr/bin/python3.10"),
        ("Ubuntu", "22.04", "vllm-0.13.0", "", "/usr/bin/python3.10"),
        ("Ubuntu", "24.04", "vllm-0.13.0", "", "/usr/bin/python3.12"),
        ("Ubuntu", "24.04", "vllm-0.13.0", "3.12", "/usr/bin/python3.12"),
        # Where it does not, the last that the stack names is brought.
        ("Ubuntu", "24.04", "vllm-0.9.2", "", "/opt/neuronops/python/3.11/bin/python3.11"),
        ("Debian", "13.1", "vllm-0.13.0", "", "/opt/neuronops/python/3.12/bin/python3.12"),
        ("Fedora", "43", "vllm-0.13.0", "", "/opt/neuronops/python/3.12/bin/python3.12"),
        # What is asked for by its version is brought, and a path is a path.
        ("Ubuntu", "24.04", "vllm-0.13.0", "3.11", "/opt/neuronops/python/3.11/bin/python3.11"),
        ("Ubuntu", "24.04", "vllm-0.9.2", "/opt/py/bin/python3.10", "/opt/py/bin/python3.10"),
    ],
)
def test_a_python_is_brought_only_where_the_systems_own_does_not_fit_or_it_is_asked_for(
    distribution: str, version: str, stack: str, python: str, path: str
) -> None:
    known = variables(distribution, version, stack, python, download=True)
    brought = path.startswith("/opt/neuronops")
    assert value("_neuron_venv_python", known) == path
    assert value("_neuron_venv_python_version", known) == path.rpartition("python")[2]
    assert bool(value("_neuron_venv_python_is_managed", known)) == brought
    packages = value("_neuron_venv_system_packages", known)
    # uv is made with the system's Python, whatever it brings.
    assert packages == ["python3-venv", "g++"] if brought else "python3-venv" not in packages


def test_a_stack_of_sdk_2_30_needs_another_python_on_ubuntu_22_04() -> None:
    known = variables("Ubuntu", "22.04", "vllm-0.13.0")
    known["_neuron_venv"]["stack"] = {**stacks.resolve("vllm-0.13.0"), "pythons": ["3.11", "3.12", "3.13"]}
    assert value("_neuron_venv_python_version", known) not in known["_neuron_venv"]["stack"]["pythons"]
    known["_neuron_venv"]["python_download"] = True
    assert value("_neuron_venv_python", known) == "/opt/neuronops/python/3.13/bin/python3.13"


@pytest.mark.parametrize(
    ("version", "works", "needed"), [("3.11.9", True, False), ("3.12.3", True, True), (None, False, True)]
)
def test_it_is_brought_when_the_environment_does_not_run_with_it_yet(
    version: str | None, works: bool, needed: bool
) -> None:
    known = variables("Ubuntu", "24.04", download=True)
    known["__neuron_venv_host"] = {"environments": [{"python": {"works": works, "version": version}}]}
    assert bool(value("_neuron_venv_needs_download", known)) == needed
    # Where system packages are left to the image, it is brought all the same.
    known["_neuron_venv"]["manage_system_packages"] = False
    assert bool(value("_neuron_venv_needs_download", known)) == needed
    assert not value("_neuron_venv_needs_python", known)
    known["_neuron_venv"]["python_download"] = False
    assert not value("_neuron_venv_needs_download", known)


def refusal(known: dict[str, Any]) -> str:
    """Return what the role says on a host whose Python the stack has no packages for."""
    (task,) = DataLoader().load_from_file(str(CHECKOUT / "roles/neuron_venv/tasks/check_host.yml"), **TRUSTED)
    said = task["ansible.builtin.assert"]["fail_msg"]
    return str(value("said", {**known, "said": said, "inventory_hostname": "trn-7"}))


def test_the_refusal_names_the_option_that_brings_one() -> None:
    said = refusal(variables("Ubuntu", "24.04"))
    assert "trn-7 (Ubuntu 24.04) would use Python 3.12" in said
    assert "Set neuron_venv_python_download to true, and uv brings Python 3.11 into /opt/neuronops/python." in said
    asked = refusal(variables("Ubuntu", "22.04", python="3.13"))
    assert "Set neuron_venv_python_download to true, leave neuron_venv_python empty, and uv brings Python 3.11" in asked
    # It was set, and a version that the stack has no packages for was asked for.
    assert "neuron_venv_python_download" not in refusal(variables("Ubuntu", "24.04", python="3.13", download=True))
