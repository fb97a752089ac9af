# SPDX-License-Identifier: GPL-3.0-or-later
"""Role neuron_driver on a real kernel: it builds the module, loads it, takes it through a new driver and a new kernel.

The tests are the chapters of one story and run in their order. Needs the sandbox: `make test-vm` starts it.
`make test` leaves out the newer kernel, which takes a third of the time.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.plugin_utils import stacks
from sandbox.engine import docker
from sandbox.image import BUNDLE
from sandbox.settings import Settings
from tests.unit.role_variables import read, value
from tests.vm import image
from tests.vm.machine import Machine

CHECKOUT = Path(__file__).resolve().parents[2]
LOGS = CHECKOUT / ".build" / "logs"
DRIVER = stacks.resolve()["host_packages"]["aws-neuronx-dkms"]
# Neuron SDK 2.28.1: as far as AWS says, for the same kernels.
NEWER = {
    "aws-neuronx-dkms": "2.26.10.0",
    "aws-neuronx-collectives": "2.30.59.0",
    "aws-neuronx-runtime-lib": "2.30.51.0",
    "aws-neuronx-tools": "2.28.23.0",
}
STOOD_IN_FOR = ("apt.repos.neuron.amazonaws.com", "pip.repos.neuron.amazonaws.com", "github.com")


class Host:
    """The machine as Ansible sees it."""

    def __init__(self, machine: Machine, disk: image.Disk, settings: Settings) -> None:
        self.machine, self.disk = machine, disk
        # The kernel here is Debian's own, so that the stack's real bounds hold and not the sandbox's wider ones.
        given = yaml.safe_load(settings.variables_file.read_text())
        name = "neuron_driver_repository_key_fingerprint"
        self.variables: dict[str, Any] = {name: given[name]}
        self.inventory = machine.folder / "inventory.yml"
        self.inventory.write_text(
            yaml.safe_dump(
                {
                    "all": {
                        "hosts": {
                            "machine": {
                                "ansible_host": "127.0.0.1",
                                "ansible_port": machine.port,
                                "ansible_user": "ubuntu",
                                "ansible_ssh_private_key_file": str(machine.ssh_key),
                                "ansible_ssh_common_args": " ".join(machine.ssh_options),
                                "ansible_python_interpreter": "/usr/bin/python3",
                            }
                        }
                    }
                }
            )
        )

    def role(self, **variables: Any) -> str:
        """Run the role, which must succeed, and return what it said."""
        command = ["ansible-playbook", "-i", str(self.inventory), "tests/vm/role.yml"]
        done = subprocess.run(
            [*command, "-e", json.dumps({**self.variables, **variables})],
            capture_output=True, text=True, cwd=CHECKOUT, check=False,
        )  # fmt: skip
        with (LOGS / "vm-role.log").open("a") as log:
            log.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        return done.stdout

    def info(self, become: bool = True) -> dict[str, Any]:
        """Return what neuron_info says."""
        answers = self.machine.folder / "answers"
        command = ["ansible", "machine", "-i", str(self.inventory), "-m", "neuronops.vllm.neuron_info"]
        done = subprocess.run(
            [*command, "--tree", str(answers), *(["--become"] if become else [])],
            capture_output=True, text=True, cwd=CHECKOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads((answers / "machine").read_text())
        return found

    def boot_id(self) -> str:
        return self.machine.run("cat /proc/sys/kernel/random/boot_id").stdout


def changed(output: str) -> int:
    recap = re.search(r"^machine\s.*changed=(\d+)", output, re.MULTILINE)
    assert recap, output
    return int(recap[1])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    settings = Settings.from_environment()
    if not settings.variables_file.exists():
        pytest.fail("The sandbox does not run. Use `make test-vm`, or start it: python -m sandbox up --no-ec2")
    disk = image.ensure(settings.cache)
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / "vm-role.log").write_bytes(b"")
    machine = Machine(disk, tmp_path_factory.mktemp("machine"), LOGS / "vm-console.log")
    try:
        machine.start()
        bundle = docker("run", "--rm", "--network", "none", f"{settings.image}:{image.SYSTEM}", "cat", BUNDLE)
        names = f"{settings.repositories_address} {' '.join(STOOD_IN_FOR)}"
        machine.run(f"cat > {BUNDLE}", stdin=bundle)
        machine.run(f"echo '{names}' >> /etc/hosts; echo 'SSL_CERT_FILE={BUNDLE}' >> /etc/environment")
        yield Host(machine, disk, settings)
    finally:
        machine.stop()
        (machine.folder / "disk.img").unlink()


def test_the_hardware_is_recognised_with_no_driver(host: Host) -> None:
    found = host.info()
    assert found["hardware"] == {
        "present": True,
        "devices": [{"address": "1d0f:00:00.0", "family": "inf2", "device_id": "7264"}],
    }
    assert found["kernel"] == {
        "release": host.disk.kernel,
        "headers": False,
        "newest": host.disk.kernel,
        "newest_headers": False,
        "next_unknown": None,
        "compiler": None,
    }
    assert found["driver"]["loaded"] is None


def test_the_role_builds_the_module_and_loads_it(host: Host) -> None:
    host.role()
    found = host.info()
    assert found["driver"] == {
        "installed": DRIVER,
        "built_for_kernel": True,
        "built_for_newest": True,
        "loaded": DRIVER,
        "references": 0,
        "in_use_by": [],
        "not_at_boot": [],
    }
    assert found["neuron_ls"]["cores"] == 2
    assert host.machine.run("stat --format %F:%a /dev/neuron0").stdout == "character special file:666\n"
    assert f"Neuron Driver Started with Version:{DRIVER}-" in host.machine.run("dmesg").stdout


def test_the_servers_unit_reaches_the_devices_and_no_others(host: Host) -> None:
    """With what the unit of role vllm_server sets; its files and its user are the scenario's."""
    known = {**read("vllm_server", "defaults"), **read("vllm_server", "vars"), "vllm_server_model": "m"}
    unit = value("_vllm_server_unit", {**known, "__vllm_server_host": {"neuron_ls": {"cores": 2}}})
    settings = re.findall(
        r"^(?:Device|Protect|Private|Restrict|System|Lock|Keyring|NoNew|Capability|Ambient|UMask)\S+=.*$",
        unit,
        re.MULTILINE,
    )
    assert "DeviceAllow=char-neuron rw" in settings
    host.machine.run("mknod -m 666 /srv/log c 1 11")  # the kernel's own
    service = "systemd-run --quiet --wait --pipe --property=User=nobody " + " ".join(
        f"--property={shlex.quote(setting)}" for setting in settings
    )
    opened = "python3 -c 'import os; os.open(\"{}\", os.O_RDWR)'"
    host.machine.run(f"{service} {opened.format('/dev/neuron0')}")
    assert "PermissionError" in host.machine.run(f"{service} {opened.format('/srv/log')}", check=False).stderr
    service = service.replace(shlex.quote("DeviceAllow=char-neuron rw"), "UMask=0077")
    assert "PermissionError" in host.machine.run(f"{service} {opened.format('/dev/neuron0')}", check=False).stderr


def test_a_second_run_changes_nothing(host: Host) -> None:
    assert changed(host.role()) == 0


def test_without_root_the_same_is_seen(host: Host) -> None:
    as_root, as_user = host.info(), host.info(become=False)
    for part in ("kernel", "hardware", "driver", "packages"):
        assert as_user[part] == as_root[part], part


def newer_stack() -> dict[str, Any]:
    return stacks.resolve(overrides={"host_packages": NEWER})


def test_an_upgrade_with_the_old_module_in_use_is_reported_not_broken(host: Host) -> None:
    host.machine.run("systemd-run --unit=holder --property=StandardInput=file:/dev/neuron0 sleep infinity")
    said = host.role(neuron_driver_stack=newer_stack())
    assert re.search(r"in\s+use\s+by\s+sleep\s+\(process\s+\d+\)", said), said[-3000:]
    found = host.info()
    assert found["packages"]["aws-neuronx-dkms"]["version"] == NEWER["aws-neuronx-dkms"]
    assert (found["driver"]["installed"], found["driver"]["loaded"]) == (NEWER["aws-neuronx-dkms"], DRIVER)
    # What is on the disk says nothing of what is loaded.
    assert host.machine.run("modinfo -F version neuron").stdout.strip() == NEWER["aws-neuronx-dkms"]
    assert [user["command"] for user in found["driver"]["in_use_by"]] == ["sleep"]
    assert host.machine.run("systemctl is-active holder").stdout == "active\n"


def test_the_new_module_is_loaded_without_a_reboot_when_nothing_uses_the_old(host: Host) -> None:
    boots = host.machine.boots
    host.machine.run("systemctl stop holder")
    host.role(neuron_driver_stack=newer_stack())
    found = host.info()
    assert found["driver"]["loaded"] == NEWER["aws-neuronx-dkms"]
    assert found["neuron_ls"]["cores"] == 2
    assert host.machine.boots == boots


def test_a_newer_kernel_is_prepared_and_the_reboot_reported(host: Host) -> None:
    newer, before = host.disk.newer_kernel, host.boot_id()
    host.machine.run(f"DEBIAN_FRONTEND=noninteractive apt-get -q -y install linux-image-{newer}", seconds=1200)
    said = host.role(neuron_driver_stack=newer_stack())
    reason = rf"reboot of machine is required: kernel\s+{re.escape(newer)}\s+is\s+installed"
    assert re.search(reason, said), said[-3000:]
    found = host.info()
    assert (found["kernel"]["release"], found["kernel"]["newest"]) == (host.disk.kernel, newer)
    assert found["driver"]["built_for_newest"]
    assert host.boot_id() == before


def test_the_reboot_is_made_when_asked_for_and_the_module_is_there_again(host: Host) -> None:
    boots = host.machine.boots
    host.role(neuron_driver_stack=newer_stack(), neuron_driver_reboot="when_needed")
    assert host.machine.boots == boots + 1
    found = host.info()
    assert found["kernel"]["release"] == host.disk.newer_kernel
    assert found["driver"]["loaded"] == NEWER["aws-neuronx-dkms"]
    assert found["neuron_ls"]["rc"] == 0
    assert host.machine.run("test -c /dev/neuron0").returncode == 0
    assert changed(host.role(neuron_driver_stack=newer_stack(), neuron_driver_reboot="when_needed")) == 0
    assert host.machine.boots == boots + 1
