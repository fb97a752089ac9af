# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of the stand-in EC2 are hosts: they boot, let their key in, reach the stand-ins, and go when terminated."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import ec2, hosts, lifecycle
from sandbox.engine import docker
from sandbox.settings import Settings

NAME = "neuronops-hosts"


class Fleet:
    def __init__(self, settings: Settings, state: dict[str, Any], key: Path) -> None:
        self.settings, self.state, self.key = settings, state, key
        self.ec2 = ec2.client(state["endpoint"])
        self.ec2.import_key_pair(KeyName="another", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())

    def launch(self, release: str, instance_type: str) -> tuple[str, str]:
        """The id and the address of an instance with a key pair of its own."""
        found = self.ec2.describe_images(Filters=[{"Name": "name", "Values": [f"*{release}*"]}])["Images"]
        instance = self.ec2.run_instances(
            ImageId=found[0]["ImageId"],
            InstanceType=instance_type,
            MinCount=1,
            MaxCount=1,
            KeyName="another",
            SubnetId=self.state["subnet_id"],
        )["Instances"][0]
        return instance["InstanceId"], instance["PrivateIpAddress"]

    def container(self, identity: str) -> dict[str, str] | None:
        entries = hosts.listing(self.settings)
        return next((entry for entry in entries if entry.get("neuronops.instance") == identity), None)

    def ssh(self, address: str, command: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        known = self.settings.state / "known_hosts"
        options = ["-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
        return subprocess.run(
            ["ssh", "-i", str(key or self.key), *options, f"ubuntu@{address}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def said(self, address: str, command: str) -> str:
        done = self.ssh(address, command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not until():
        assert time.monotonic() < deadline, "it did not happen within two minutes"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    key = tmp_path_factory.mktemp("key") / "another"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONOPS_SANDBOX_NAME", NAME)
        patch.setenv("NEURONOPS_SANDBOX_SUBNET", "10.253.0.0/24")
        settings = Settings.from_environment()
        lifecycle.up(settings)
        try:
            yield Fleet(settings, ec2.read(settings) or {}, key)
        finally:
            lifecycle.down(settings)
    assert not settings.state.exists() and ec2.read(settings) is None
    assert hosts.listing(settings) == []
    for kind in ("network", "image"):
        assert docker(kind, "ls", "--quiet", "--filter", f"label=neuronops.sandbox={NAME}") == ""


@pytest.fixture(scope="module")
def host(fleet: Fleet) -> tuple[str, str]:
    identity, address = fleet.launch("jammy-22.04", "trn1.2xlarge")
    wait(lambda: fleet.ssh(address, "systemctl is-system-running --wait").stdout.strip() == "running")
    return identity, address


def test_its_key_pair_lets_in_and_no_other(fleet: Fleet, host: tuple[str, str]) -> None:
    assert fleet.said(host[1], "sudo id -un") == "root"
    refused = fleet.ssh(host[1], "true", fleet.settings.state / "id_ed25519")
    assert refused.returncode == 255 and "Permission denied" in refused.stderr


def test_it_is_what_its_image_and_type_say(fleet: Fleet, host: tuple[str, str]) -> None:
    assert fleet.said(host[1], ". /etc/os-release; echo $ID$VERSION_ID") == "debian12"
    assert fleet.said(host[1], "cat /sys/bus/pci/devices/*/device | grep -c 0x7164") == "1"
    assert fleet.said(host[1], "cat /etc/neuronops-sandbox/instance_id") == host[0]


@pytest.mark.parametrize("name", hosts.STOOD_IN_FOR)
def test_the_stand_ins_answer_under_the_real_names_and_are_trusted(
    fleet: Fleet, host: tuple[str, str], name: str
) -> None:
    address = fleet.said(host[1], f"getent hosts {name} | cut -d' ' -f1")
    assert address == fleet.settings.repositories_address
    assert fleet.ssh(host[1], f"curl --silent --show-error https://{name}/").returncode == 0


def test_kernel_modules_are_refused_as_a_kernel_does(fleet: Fleet, host: tuple[str, str]) -> None:
    missing = fleet.ssh(host[1], "sudo modprobe neuron")
    assert missing.returncode == 1 and "Module neuron not found in directory /lib/modules/" in missing.stderr
    broken = fleet.ssh(host[1], "echo no module > neuron.ko; sudo insmod neuron.ko")
    assert broken.returncode == 1 and "Invalid module format" in broken.stderr
    assert fleet.ssh(host[1], "sudo rmmod neuron").returncode == 1
    assert fleet.ssh(host[1], "sudo modprobe vfat").returncode == 1
    assert fleet.said(host[1], "ls -d /sys/module/* /dev/neuron* 2>/dev/null || true") == ""


def test_it_stops_starts_and_goes_with_its_instance(fleet: Fleet, host: tuple[str, str]) -> None:
    identity, address = fleet.launch("jammy-22.04", "inf2.xlarge")
    wait(lambda: fleet.ssh(address, "true").returncode == 0)
    assert fleet.said(address, "cat /sys/bus/pci/devices/*/device | grep -c 0x7264") == "1"
    assert fleet.said(address, "touch kept; cat /etc/ssh/ssh_host_ed25519_key.pub")
    fleet.ec2.stop_instances(InstanceIds=[identity])
    wait(lambda: (fleet.container(identity) or {}).get("state") == "exited")
    # Its systemd took its own control groups down and not those of the host beside it: a command can be run there.
    assert docker("exec", (fleet.container(host[0]) or {})["name"], "echo", "still there") == "still there"
    fleet.ec2.start_instances(InstanceIds=[identity])
    wait(lambda: fleet.ssh(address, "test -e kept").returncode == 0)
    fleet.ec2.terminate_instances(InstanceIds=[identity])
    wait(lambda: fleet.container(identity) is None)


def test_a_second_up_changes_nothing(fleet: Fleet, host: tuple[str, str]) -> None:
    before = docker("ps", "--quiet", "--no-trunc", "--filter", f"label=neuronops.sandbox={NAME}").split()
    lifecycle.up(fleet.settings)
    assert docker("ps", "--quiet", "--no-trunc", "--filter", f"label=neuronops.sandbox={NAME}").split() == before
    assert (ec2.read(fleet.settings) or {})["pid"] == fleet.state["pid"]
