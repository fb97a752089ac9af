# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles left on a hardened host is for others too, whatever the umask it was made under."""

import json

import pytest

VENV = "/opt/aws_neuron_venv_pytorch"
KERNEL = "/usr/local/share/jupyter/kernels/aws_neuron_venv_pytorch"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/apt/keyrings/aws-neuron.gpg",
        "/etc/apt/sources.list.d/aws-neuron.sources",
        "/etc/default/aws-neuron",
        f"{KERNEL}/kernel.json",
        f"{VENV}/pip.conf",
        f"{VENV}/neuronops/neuron_venv.json",
    ],
)
def test_others_may_read_it(host, path):
    assert host.file(path).mode == 0o644
    with host.sudo("ubuntu"):
        assert host.run(f"cat {path}").rc == 0


def test_login_shells_of_others_find_the_tools(host):
    (file,) = host.check_output("grep -l /opt/aws/neuron/bin /etc/profile.d/*").splitlines()
    assert host.file(file).mode == 0o644
    with host.sudo("ubuntu"):
        assert host.check_output("bash -lc 'command -v neuron-ls'") == "/opt/aws/neuron/bin/neuron-ls"


@pytest.mark.parametrize("folder", [VENV, KERNEL])
def test_nothing_in_the_folder_is_closed_to_others(host, folder):
    closed = f"find {folder} ! -type l ( ! -perm -o=r -o -type d ! -perm -o=x -o -perm -u=x ! -perm -o=x )"
    assert host.check_output(closed.replace("(", r"\(").replace(")", r"\)")) == ""


def test_nothing_in_the_folder_is_open_for_others_to_write(host):
    assert host.check_output(f"find {VENV} ! -type l -perm /go=w") == ""


def test_others_can_use_the_environment(host):
    with host.sudo("ubuntu"):
        assert host.check_output(f"cd / && {VENV}/bin/python -m pip check") == "No broken requirements found."
        assert host.check_output(f"cd / && {VENV}/bin/python -c 'import ipykernel; print(ipykernel.__name__)'")
    assert json.loads(host.file(f"{KERNEL}/kernel.json").content_string)["argv"][0] == f"{VENV}/bin/python"


def test_apt_reads_its_key_as_its_own_user(host):
    assert host.check_output("sudo -u _apt head -c1 /etc/apt/keyrings/aws-neuron.gpg | wc -c") == "1"
    assert host.run("apt-get update --error-on=any").rc == 0


def test_the_hosts_own_settings_are_untouched(host):
    assert "user = true" in host.file("/etc/pip.conf").content_string
    assert host.file("/etc/apt/preferences.d/company").exists
    found = host.run("find /root/.local/lib /home/ubuntu/.local/lib -name '*.dist-info'").stdout
    assert found == ""
