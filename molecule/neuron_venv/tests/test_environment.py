# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role leaves: an environment of its own, that works in a shell, in pip and in Jupyter."""

import json
import re

import pytest

VENV = "/opt/aws_neuron_venv_pytorch"
KERNEL = "aws_neuron_venv_pytorch"
PYTHONS = {"11": "3.9", "12": "3.11"}

# Starts the kernel as a notebook does, runs a cell in it, and prints what the cell printed.
RUN_A_CELL = f"""
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="{KERNEL}", startup_timeout=60)
def show(message):
    if message["msg_type"] == "stream":
        print(message["content"]["text"], end="")
cell = "import os, sys; print(sys.executable, os.environ['PATH'].split(':')[0], 6 * 7)"
client.execute_interactive(cell, allow_stdin=False, output_hook=show)
client.stop_channels()
manager.shutdown_kernel()
"""


@pytest.fixture(scope="module")
def manifest(host):
    return json.loads(host.file(f"{VENV}/neuronops/neuron_venv.json").content_string)


def test_it_has_the_python_of_the_system(host):
    wanted = PYTHONS[host.system_info.release.partition(".")[0]]
    assert host.check_output(f"{VENV}/bin/python -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'") == wanted
    assert host.file(f"{VENV}/bin/python").linked_to == f"/usr/bin/python{wanted}"


@pytest.mark.parametrize(
    "package", ["ipykernel", "jupyter", "notebook", "environment-kernels", "wget", "awscli", "pip"]
)
def test_it_has_what_the_documentation_installs(host, package):
    assert package in host.pip.get_packages(pip_path=f"{VENV}/bin/pip")


def test_what_it_has_works(host):
    assert host.check_output(f"{VENV}/bin/aws --version").startswith("aws-cli/")
    assert host.run(f"{VENV}/bin/jupyter kernelspec list").rc == 0
    assert host.check_output(f"{VENV}/bin/python -c 'import wget; print(wget.__version__)'") == "3.2"
    assert host.check_output(f"{VENV}/bin/pip check") == "No broken requirements found."


def test_every_installed_package_is_in_the_lock_and_the_manifest(host, manifest):
    installed = {re.sub("[-_.]+", "-", name).lower() for name in host.pip.get_packages(f"{VENV}/bin/pip")}
    assert installed == set(manifest["packages"])
    lock = host.file(f"{VENV}/neuronops/neuron_venv.lock").content_string
    for name, version in manifest["packages"].items():
        assert f"\n{name}=={version} " in lock
    assert "uv" not in installed


def test_the_stacks_constraints_hold(host, manifest):
    vllm_wants_setuptools_before = {"vllm-0.9.2": 80, "vllm-0.3.3": 70}
    assert int(manifest["packages"]["setuptools"].split(".")[0]) < vllm_wants_setuptools_before[manifest["stack"]]


def test_its_pip_knows_neurons_index(host):
    configured = host.check_output(f"{VENV}/bin/pip config --site get global.extra-index-url")
    assert configured == "https://pip.repos.neuron.amazonaws.com"


def test_the_systems_python_is_untouched(host):
    assert host.check_output("find /usr/local/lib/python3* -name '*.dist-info' -o -name '*.egg-info'") == ""


def test_a_user_can_run_a_cell_in_the_kernel(host):
    with host.sudo("ubuntu"):
        printed = host.check_output(f"cd /tmp && HOME=/home/ubuntu {VENV}/bin/python - <<'PYTHON'\n{RUN_A_CELL}PYTHON")
    assert printed == f"{VENV}/bin/python {VENV}/bin 42"


def test_the_kernel_is_for_the_users_named_or_for_all(host):
    for_all = host.file(f"/usr/local/share/jupyter/kernels/{KERNEL}/kernel.json")
    for_one = host.file(f"/home/ubuntu/.local/share/jupyter/kernels/{KERNEL}/kernel.json")
    named = host.system_info.release.startswith("11")  # the scenario names a user there
    there, not_there = (for_one, for_all) if named else (for_all, for_one)
    assert not not_there.exists
    assert there.user == ("ubuntu" if named else "root")
    assert there.mode == 0o644
    assert json.loads(there.content_string)["display_name"] == "Python (torch-neuronx)"
