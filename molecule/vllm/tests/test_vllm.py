# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role leaves: a vLLM built for Neuron, the same on both hosts, beside packages that nothing touched."""

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

VENV = "/opt/aws_neuron_venv_pytorch"
STORE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory" / ".neuronops" / "wheels"
EXPECTED = "0.9.2+neuron218"


def manifest_of(host, role):
    return json.loads(host.file(f"{VENV}/neuronops/{role}.json").content_string)


@pytest.fixture(scope="module")
def manifest(host):
    return manifest_of(host, "vllm")


# In one process: the import of torch takes most of the time.
ASKED = """
import importlib, importlib.metadata, json, sys
import vllm
from vllm.platforms import current_platform
imported = [importlib.import_module(name).__name__ for name in sys.argv[1:]]
installed = importlib.metadata.version("vllm")
print(json.dumps([installed, vllm.__version__, current_platform.device_type, imported]))
"""


@pytest.fixture(scope="module")
def answered(host, manifest):
    names = " ".join(manifest["imported"])
    return json.loads(host.check_output(f"{VENV}/bin/python -I -c '{ASKED}' {names} 2>/dev/null").splitlines()[-1])


def test_vllm_is_the_version_built_beside_the_compiler(answered, manifest):
    assert answered[:2] == [EXPECTED, EXPECTED.partition("+")[0]]
    assert manifest["version"] == EXPECTED


def test_it_takes_neuron_for_its_device(answered):
    assert answered[2] == "neuron"


def test_the_backends_modules_can_be_imported(answered, manifest):
    assert answered[3] == manifest["imported"] != []


def test_what_the_roles_before_installed_is_untouched(host):
    listed = host.pip.get_packages(f"{VENV}/bin/pip").items()
    installed = {re.sub("[-_.]+", "-", name).lower(): facts["version"] for name, facts in listed}
    for role in ("neuron_venv", "transformers_neuronx"):
        for name, version in manifest_of(host, role)["packages"].items():
            assert installed[name] == version, f"{name} is not what {role} installed"


def test_no_requirement_is_broken(host):
    assert host.check_output(f"{VENV}/bin/pip check") == "No broken requirements found."


def test_the_wheel_on_the_host_is_the_one_on_the_controller(host, manifest):
    kept = list(STORE.glob("vllm-*/*.whl"))
    assert len(kept) == 1, "one platform, one wheel"
    digest = hashlib.sha256(kept[0].read_bytes()).hexdigest()
    assert digest == manifest["wheel_sha256"]
    assert host.file(f"{VENV}/neuronops/wheels/{kept[0].name}").sha256sum == digest
    stored = json.loads((kept[0].parent / "manifest.json").read_text())
    assert (stored["sha256"], stored["version"], stored["commit"]) == (digest, EXPECTED, manifest["commit"])


def test_nothing_is_left_of_the_build(host):
    build = host.file("/opt/neuronops/build")
    assert not build.exists or build.listdir() == []


def test_the_commit_is_recorded(manifest):
    assert len(manifest["commit"]) == 40
    assert manifest["source"] == "https://github.com/vllm-project/vllm.git"
