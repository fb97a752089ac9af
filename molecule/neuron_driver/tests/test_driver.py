# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that role neuron_driver has brought to the stack's driver."""

import json
import re
from pathlib import Path

import pytest
import yaml

STACKS = yaml.safe_load((Path(__file__).resolve().parents[3] / "data" / "stacks.yml").read_text())
WANTED = STACKS["stacks"][STACKS["default"]]["host_packages"]
DRIVER = WANTED["aws-neuronx-dkms"]


@pytest.fixture
def hardware(host):
    if "0x1d0f" not in host.run("cat /sys/bus/pci/devices/*/vendor").stdout:
        pytest.skip("this host has no Neuron hardware")


@pytest.mark.parametrize("name", WANTED)
def test_the_packages_are_the_stacks_and_held(host, name):
    status, version = host.check_output(f"dpkg-query -W -f '${{Status}}/${{Version}}' {name}").split("/")
    assert status == "hold ok installed"
    assert version.split("-")[0] == WANTED[name]


def test_the_module_is_built_for_the_running_kernel(host):
    kernel = host.check_output("uname -r")
    assert host.check_output(f"modinfo -k {kernel} -F version neuron") == DRIVER
    # Older and newer DKMS separate name and version differently.
    assert re.search(rf"aws-neuronx(/|, ){DRIVER}, {re.escape(kernel)}", host.check_output("dkms status"))


def test_the_module_is_loaded_and_its_devices_are_there(host, hardware):
    assert host.file("/sys/module/neuron/version").content_string.strip() == DRIVER
    assert host.file("/dev/neuron0").mode & 0o666 == 0o666


def test_the_tools_answer(host, hardware):
    (device,) = json.loads(host.check_output("/opt/aws/neuron/bin/neuron-ls -j"))
    assert device["nc_count"] == 2


def test_the_source_names_its_key_and_no_other_place_trusts_it(host):
    source = host.file("/etc/apt/sources.list.d/aws-neuron.sources")
    assert source.mode == 0o644
    assert "Signed-By: /etc/apt/keyrings/aws-neuron.gpg\n" in source.content_string
    assert host.file("/etc/apt/keyrings/aws-neuron.gpg").mode == 0o644
    assert not host.file("/etc/apt/trusted.gpg").exists
    assert host.check_output("grep -rl repos.neuron.amazonaws.com /etc/apt/sources.list.d | sort").splitlines() == [
        "/etc/apt/sources.list.d/aws-neuron.sources",
        "/etc/apt/sources.list.d/neuronops-sandbox.list",
    ]


def test_apt_accepts_the_repository(host):
    assert host.run("apt-get update --error-on=any").rc == 0


def test_login_shells_and_units_find_the_tools(host):
    assert host.check_output("bash -lc 'command -v neuron-ls'") == "/opt/aws/neuron/bin/neuron-ls"
    unit = "systemd-run --pipe --quiet --wait --property=EnvironmentFile=/etc/default/aws-neuron /bin/sh -c"
    assert host.check_output(f"{unit} 'command -v neuron-ls'") == "/opt/aws/neuron/bin/neuron-ls"


def test_nothing_of_the_transaction_is_left(host):
    assert not host.file("/var/lib/neuronops/quiet").exists
    assert host.check_output("dpkg --audit") == ""


def test_the_role_remembers_what_it_installed(host):
    record = json.loads(host.file("/var/lib/neuronops/neuron_driver.json").content_string)
    assert set(WANTED) <= set(record["packages"])
