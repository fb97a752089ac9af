# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python the role neuron_venv takes on each system, on facts: Ubuntu itself does not run in the tests."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.plugin_utils import stacks
from tests.unit.role_variables import read, value


def variables(distribution: str, version: str, stack: str = "vllm-0.9.2", python: str = "") -> dict[str, Any]:
    """Return what the role knows on a system."""
    return {
        **read("neuron_venv", "vars"),
        "ansible_facts": {
            "distribution": distribution,
            "distribution_version": version,
            "distribution_major_version": version.partition(".")[0],
        },
        "_neuron_venv": {"stack": stacks.resolve(stack), "python": python},
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
