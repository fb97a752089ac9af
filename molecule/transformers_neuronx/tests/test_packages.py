# SPDX-License-Identifier: GPL-3.0-or-later
"""Exactly the stack's versions of Neuron's packages, that work, and nothing that must not be there."""

import json
import re

import pytest

VENV = "/opt/aws_neuron_venv_pytorch"
VERSIONS = {
    "vllm-0.9.2": {
        "neuronx-cc": "2.18.121.0",
        "libneuronxla": "2.2.3493.0",
        "torch": "2.5.1",
        "torchvision": "0.20.1",
        "torch-neuronx": "2.5.1.2.7.5413",
        "transformers-neuronx": "0.13.798",
    },
    "vllm-0.3.3": {
        "neuronx-cc": "2.12.68.0",
        "libneuronxla": "2.0.755",
        "torch": "2.1.1",
        "torchvision": "0.16.1",
        "torch-neuronx": "2.1.1.2.0.1b0",
        "transformers-neuronx": "0.9.474",
    },
}


@pytest.fixture(scope="module")
def manifest(host):
    return json.loads(host.file(f"{VENV}/neuronops/transformers_neuronx.json").content_string)


@pytest.fixture(scope="module")
def installed(host):
    packages = host.pip.get_packages(f"{VENV}/bin/pip")
    return {re.sub("[-_.]+", "-", name).lower(): facts["version"] for name, facts in packages.items()}


def test_the_versions_are_the_stacks(host, manifest, installed):
    older = host.system_info.release.startswith("11")
    assert manifest["stack"] == ("vllm-0.3.3" if older else "vllm-0.9.2")
    for name, version in VERSIONS[manifest["stack"]].items():
        assert installed[name].partition("+")[0] == version
        assert manifest["packages"][name] == installed[name]


# In one process: the import of torch takes most of the time.
def test_each_package_can_be_imported(host):
    names = ["neuronxcc", "torch_neuronx", "torchvision", "transformers_neuronx", "libneuronxla"]
    host.check_output(f"{VENV}/bin/python -c 'import {', '.join(names)}'")


def test_neuronx_cc_says_its_version_where_vllm_reads_it(host, manifest):
    printed = host.check_output(f"{VENV}/bin/python -c 'from neuronxcc.version import __version__; print(__version__)'")
    assert manifest["packages"]["neuronx-cc"].startswith(printed.partition("+")[0])


def test_nothing_is_missing(host):
    assert host.check_output(f"{VENV}/bin/pip check") == "No broken requirements found."


def test_jupyter_kept_its_versions(host, installed):
    before = json.loads(host.file(f"{VENV}/neuronops/neuron_venv.json").content_string)["packages"]
    assert {name: installed[name] for name in before} == before


def test_every_file_that_was_installed_had_to_have_a_known_hash(host, manifest):
    lock = host.file(f"{VENV}/neuronops/transformers_neuronx.lock").content_string
    lines = [line for line in lock.splitlines() if line and not line.startswith("#")]
    pinned = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    assert len(pinned) == len(manifest["packages"])
    assert all(lines[number + 1].strip().startswith("--hash=sha256:") for number in pinned)


def test_others_find_the_versions_to_keep(host, installed):
    constraints = host.file(f"{VENV}/neuronops/constraints.txt").content_string.splitlines()
    assert {line.partition("==")[0] for line in constraints} == set(installed)


def test_the_squatted_package_is_not_there(installed):
    assert "pyairports" not in installed
