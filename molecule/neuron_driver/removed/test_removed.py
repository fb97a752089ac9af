# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that role neuron_driver has been taken off again."""

import pytest


def test_the_packages_are_gone(host):
    assert host.run("dpkg-query -W -f '${Status}\n' 'aws-neuronx-*' | grep --quiet ' installed$'").rc != 0


def test_the_module_is_gone(host):
    assert not host.file("/sys/module/neuron").exists
    assert host.run("modinfo neuron").rc != 0


@pytest.mark.parametrize(
    "path",
    [
        "/dev/neuron0",
        "/etc/apt/keyrings/aws-neuron.gpg",
        "/etc/apt/sources.list.d/aws-neuron.sources",
        "/etc/default/aws-neuron",
        "/etc/modules-load.d/aws-neuron.conf",
        "/etc/profile.d/aws-neuron.sh",
        "/var/lib/neuronops/neuron_driver.json",
    ],
)
def test_the_files_are_gone(host, path):
    assert not host.file(path).exists


def test_what_others_may_use_stays(host):
    assert host.run("dpkg-query -W -f '${Status}' gcc").stdout == "install ok installed"
    assert host.run("apt-get update --error-on=any").rc == 0
