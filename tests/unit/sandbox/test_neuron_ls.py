# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for neuron-ls, on made-up hosts."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest

from sandbox import hardware
from sandbox.repositories import host_packages, releases

# One tools version of each generation of the JSON.
FIRST, SECOND, THIRD = "2.23.9.0", "2.28.23.0", "2.32.28.0"


def tool(version: str) -> Any:
    package = next(
        package
        for package in releases.host_packages()
        if (package.name, package.version) == ("aws-neuronx-tools", version)
    )
    content, _ = host_packages._tools(package).files["/opt/aws/neuron/bin/neuron-ls"]
    module = types.ModuleType("neuron_ls")
    exec(compile(content, "neuron-ls", "exec"), module.__dict__)  # noqa: S102 - it is the program under test
    return module


def host(root: Path, instance_type: str, loaded: bool = True) -> Path:
    devices = hardware.write(root / "types", instance_type)
    (root / "sys/bus/pci").mkdir(parents=True)
    (root / "sys/bus/pci/devices").symlink_to(devices)
    (root / "dev").mkdir()
    if loaded:
        (root / "sys/module/neuron").mkdir(parents=True)
    # Without the driver these are leftovers, which must count for nothing.
    for number in range(hardware.INSTANCE_TYPES.get(instance_type, ("", 0))[1]):
        (root / f"dev/neuron{number}").touch()
    return root


def answer(capsys: pytest.CaptureFixture[str], version: str, root: Path) -> list[dict[str, Any]]:
    assert tool(version).main(["-j"], root) == 0
    text = capsys.readouterr().out
    assert not text.endswith("\n")
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_the_first_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, FIRST, host(tmp_path, "inf2.xlarge")) == [
        {
            "neuron_device": 0,
            "bdf": "00:1e.0",
            "connected_to": None,
            "nc_count": 2,
            "memory_size": 34359738368,
            "neuron_processes": [],
        }
    ]


def test_the_second_generation_has_the_fields_of_the_real_capture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (device,) = answer(capsys, SECOND, host(tmp_path, "trn1.2xlarge"))
    assert list(device) == [
        "neuron_device",
        "bdf",
        "cpu_affinity",
        "numa_node",
        "connected_to",
        "nc_count",
        "memory_size",
        "neuroncore_ids",
        "neuron_processes",
    ]
    assert (device["bdf"], device["numa_node"], device["neuroncore_ids"]) == ("0000:00:1e.0", "-1", [0, 1])


def test_the_third_generation_names_the_instance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = host(tmp_path, "inf2.xlarge")
    assert answer(capsys, THIRD, root)[0]["instance_type"] == "inf2.xlarge"
    (root / "etc/neuronops-sandbox").mkdir(parents=True)
    (root / "etc/neuronops-sandbox/instance_type").write_text("inf2.8xlarge\n")
    (root / "etc/neuronops-sandbox/instance_id").write_text("i-0123\n")
    (device,) = answer(capsys, THIRD, root)
    assert (device["instance_type"], device["instance_id"]) == ("inf2.8xlarge", "i-0123")


def test_sixteen_devices_form_the_known_torus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices = answer(capsys, SECOND, host(tmp_path, "trn1.32xlarge"))
    assert [device["neuron_device"] for device in devices] == list(range(16))
    assert devices[0]["connected_to"] == [12, 3, 4, 1]
    assert devices[15]["neuroncore_ids"] == [30, 31]


def test_who_holds_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = host(tmp_path, "inf2.xlarge")
    for pid, target in (("70", "/dev/neuron0"), ("71", "/dev/null")):
        (root / "proc" / pid / "fd").mkdir(parents=True)
        (root / "proc" / pid / "fd" / "3").symlink_to(target)
        (root / "proc" / pid / "cmdline").write_bytes(b"python\0-m\0vllm\0")
    (process,) = answer(capsys, FIRST, root)[0]["neuron_processes"]
    assert process == {"pid": 70, "command": "python -m vllm", "neuron_runtime_version": "2.25.57.0"}


@pytest.mark.parametrize(("instance_type", "loaded"), [("inf2.xlarge", False), ("m5.large", True)])
def test_no_driver_or_no_device_fails_as_the_real_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], instance_type: str, loaded: bool
) -> None:
    assert tool(FIRST).main(["-j"], host(tmp_path, instance_type, loaded)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        'level=fatal msg="Failed to load MLA system information" error="failed to discover Neuron devices"' in said.err
    )


def test_a_virtual_machine_with_the_module_and_no_hardware(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sys/module/neuron").mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/neuron0").touch()
    architecture = tmp_path / "sys/devices/virtual/neuron_device/neuron0/info/architecture"
    architecture.mkdir(parents=True)
    (architecture / "device_name").write_text("Trainium1\n")
    (architecture / "instance_type").write_text("trn1.2xlarge\n")
    (device,) = answer(capsys, THIRD, tmp_path)
    assert (device["instance_type"], device["nc_count"]) == ("trn1.2xlarge", 2)


def test_the_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool(FIRST).main([], host(tmp_path, "trn1.2xlarge")) == 0
    text = capsys.readouterr().out
    assert text.startswith("instance-type: trn1.2xlarge\n")
    assert "| 0      | 2      | 32 GB" in text


@pytest.mark.parametrize(("instance_type", "chips"), [("trn2.3xlarge", 1), ("trn2.48xlarge", 16)])
def test_the_second_trainium(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], instance_type: str, chips: int
) -> None:
    devices = answer(capsys, THIRD, host(tmp_path, instance_type))
    assert [device["instance_type"] for device in devices] == [instance_type] * chips
    assert {device["nc_count"] for device in devices} == {4}
