# SPDX-License-Identifier: GPL-3.0-or-later
"""Exactly the stack's versions of NxD Inference and of what is below it, that work, with hashes that were known."""

import json
import re

import pytest

VENV = "/opt/aws_neuron_venv_pytorch"
VERSIONS = {
    "neuronx-cc": "2.23.6484.0",
    "libneuronxla": "2.2.15515.0",
    "nki": "0.2.0",
    "torch": "2.9.0",
    "torchvision": "0.24.0",
    "torch-neuronx": "2.9.0.2.12.22436",
    "neuronx-distributed": "0.17.26814",
    "neuronx-distributed-inference": "0.8.16251",
}


@pytest.fixture(scope="module")
def manifest(host):
    return json.loads(host.file(f"{VENV}/neuronops/nxd_inference.json").content_string)


@pytest.fixture(scope="module")
def installed(host):
    packages = host.pip.get_packages(f"{VENV}/bin/pip")
    return {re.sub("[-_.]+", "-", name).lower(): facts["version"] for name, facts in packages.items()}


def test_the_versions_are_the_stacks(manifest, installed):
    assert (manifest["role"], manifest["stack"]) == ("nxd_inference", "vllm-0.13.0")
    for name, version in VERSIONS.items():
        assert installed[name].partition("+")[0] == version
        assert manifest["packages"][name] == installed[name]


def test_nothing_of_the_other_backend_is_there(host, installed):
    assert "transformers-neuronx" not in installed
    assert not host.file(f"{VENV}/neuronops/transformers_neuronx.json").exists


# In one process: the import of torch takes most of the time.
def test_each_package_can_be_imported(host):
    names = [
        "neuronxcc",
        "nki",
        "torch_neuronx",
        "libneuronxla",
        "neuronx_distributed",
        "neuronx_distributed_inference",
    ]
    host.check_output(f"{VENV}/bin/python -c 'import {', '.join(names)}'")


def test_nothing_is_missing(host):
    assert host.check_output(f"{VENV}/bin/pip check") == "No broken requirements found."


def test_jupyter_kept_its_versions(host, installed):
    before = json.loads(host.file(f"{VENV}/neuronops/neuron_venv.json").content_string)["packages"]
    assert {name: installed[name] for name in before} == before


def test_every_file_that_was_installed_had_to_have_a_known_hash(host, manifest):
    lock = host.file(f"{VENV}/neuronops/nxd_inference.lock").content_string
    lines = [line for line in lock.splitlines() if line and not line.startswith("#")]
    pinned = [number for number, line in enumerate(lines) if not line.startswith(" ")]
    assert len(pinned) == len(manifest["packages"])
    assert all(lines[number + 1].strip().startswith("--hash=sha256:") for number in pinned)
