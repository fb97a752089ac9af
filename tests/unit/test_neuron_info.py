# SPDX-License-Identifier: GPL-3.0-or-later
"""neuron_info, on hosts laid out in a folder and on recorded outputs (fixtures/neuron_ls says which are real)."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.neuronops.vllm.plugins.module_utils import host, neuron_ls
from ansible_collections.neuronops.vllm.plugins.modules import neuron_info

RECORDED = Path(__file__).with_name("fixtures") / "neuron_ls"
RUNNING = "6.8.0-1021-aws"
NEWER = "6.8.0-1024-aws"
OPTIONS: dict[str, Any] = {"environments": [], "services": [], "files": [], "links": [], "repository": None}


def write(root: Path, path: str, content: str = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


class Commands:
    """Stands in for running programs: answers what it was told, and 127 for any other program."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers = {name.replace("_", "-"): answer for name, answer in answers.items()}
        self.ran: list[str] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        # neuron-ls runs under `timeout 60`.
        name = Path(command[2] if command[0] == "timeout" else command[0]).name
        self.ran.append(name)
        return self.answers.get(name, (127, "", "not found"))


def add_device(root: Path, address: str, device: str, vendor: str = "0x1d0f") -> None:
    write(root, f"sys/bus/pci/devices/{address}/vendor", f"{vendor}\n")
    write(root, f"sys/bus/pci/devices/{address}/device", f"{device}\n")


def add_kernel(root: Path, release: str, headers: bool = True) -> None:
    write(root, f"boot/vmlinuz-{release}")
    write(root, f"lib/modules/{release}/modules.dep")
    if headers:
        write(root, f"lib/modules/{release}/build/Makefile")


def load_module(root: Path, version: str | None, references: int = 0) -> None:
    write(root, "sys/module/neuron/refcnt", f"{references}\n")
    if version:
        write(root, "sys/module/neuron/version", f"{version}\n")


DPKG = "aws-neuronx-dkms\t2.21.37.0\thold ok installed\naws-neuronx-tools\t2.23.9.0\tinstall ok half-configured\n"


class TestHardware:
    @pytest.mark.parametrize(
        ("device", "family"), [("0x7064", "inf1"), ("0x7164", "trn1"), ("0x7264", "inf2"), ("0x7364", "trn2")]
    )
    def test_families_are_known_by_their_pci_ids(self, tmp_path: Path, device: str, family: str) -> None:
        add_device(tmp_path, "0000:00:1f.0", device)
        assert host.hardware(str(tmp_path)) == {
            "present": True,
            "devices": [{"address": "0000:00:1f.0", "family": family, "device_id": device[2:]}],
        }

    def test_other_devices_are_not_neuron(self, tmp_path: Path) -> None:
        add_device(tmp_path, "0000:00:05.0", "0xec20")  # Amazon's network adapter
        add_device(tmp_path, "0000:00:06.0", "0x7264", vendor="0x8086")
        assert host.hardware(str(tmp_path)) == {"present": False, "devices": []}


class TestKernel:
    def test_headers_are_those_of_the_running_kernel(self, tmp_path: Path) -> None:
        add_kernel(tmp_path, RUNNING, headers=False)
        write(tmp_path, f"lib/modules/{NEWER}/build/Makefile")  # headers alone are no kernel to boot
        found = host.kernel(RUNNING, str(tmp_path))
        assert (found["release"], found["headers"], found["newest"], found["newest_headers"]) == (
            RUNNING,
            False,
            RUNNING,
            False,
        )

    def test_the_newest_is_by_number_not_by_letter(self, tmp_path: Path) -> None:
        add_kernel(tmp_path, "6.8.0-999-aws")
        add_kernel(tmp_path, NEWER)
        assert host.kernel("6.8.0-999-aws", str(tmp_path))["newest"] == NEWER

    def test_a_kernel_of_another_machine_is_not_the_next(self, tmp_path: Path) -> None:
        add_kernel(tmp_path, NEWER)
        assert host.kernel(RUNNING, str(tmp_path))["newest"] == RUNNING

    def test_the_kernels_gcc_is_missed_by_its_name(self, tmp_path: Path) -> None:
        write(tmp_path, "proc/version", "Linux version 6.8.0-1021-aws (x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0) 12.3.0)")
        assert host.kernel(RUNNING, str(tmp_path))["compiler"] == "gcc-12"
        write(tmp_path, "usr/bin/gcc-12")
        assert host.kernel(RUNNING, str(tmp_path))["compiler"] is None

    @pytest.mark.parametrize(
        ("path", "content"),
        [
            ("etc/modprobe.d/company.conf", "# no drivers\nblacklist neuron\n"),
            ("etc/modprobe.d/company.conf", "install neuron /bin/false\n"),
        ],
    )
    def test_what_keeps_the_driver_from_the_boot_is_found(self, tmp_path: Path, path: str, content: str) -> None:
        write(tmp_path, "etc/modprobe.d/other.conf", "blacklist neuron_other\n#blacklist neuron\ninstall x /bin/true\n")

        def asked() -> list[str]:
            found: list[str] = host.driver(Commands(), {}, RUNNING, RUNNING, str(tmp_path))["not_at_boot"]
            return found

        assert asked() == []
        write(tmp_path, path, content)
        assert asked() == [f"/{path} keeps the module neuron away"]


class TestNeuronLs:
    def test_real_capture(self) -> None:
        (device,) = neuron_ls.parse((RECORDED / "generation2_trn1.2xlarge.json").read_text())
        assert device == {
            "index": 0,
            "address": "0000:00:1e.0",
            "cores": 2,
            "core_ids": [0, 1],
            "memory_bytes": 34359738368,
            "connected_to": [],
            "instance_type": None,
            "instance_id": None,
            "processes": [],
        }

    def test_first_generation_gets_full_addresses_and_core_numbers(self) -> None:
        devices = neuron_ls.parse((RECORDED / "generation1_inf2.24xlarge.json").read_text())
        assert devices[1]["address"] == "0000:20:1e.0"
        assert [core for device in devices for core in device["core_ids"]] == list(range(12))
        assert devices[0]["connected_to"] == [1, 5]

    def test_third_generation_names_the_instance(self) -> None:
        devices = neuron_ls.parse((RECORDED / "generation3_trn1.32xlarge.json").read_text())
        assert {device["instance_type"] for device in devices} == {"trn1.32xlarge"}
        assert devices[0]["connected_to"] == [12, 3, 4, 1]
        assert devices[2]["core_ids"] == [30, 31]

    def test_every_generation_returns_the_same_fields(self) -> None:
        fields = {frozenset(device) for file in RECORDED.glob("*.json") for device in neuron_ls.parse(file.read_text())}
        assert len(fields) == 1

    def test_processes_are_named(self) -> None:
        (device,) = neuron_ls.parse((RECORDED / "generation2_in_use.json").read_text())
        assert device["processes"][0]["pid"] == 4242
        assert device["processes"][0]["runtime_version"] == "2.25.57"

    def test_no_device_is_an_error_with_its_message_and_no_devices(self, tmp_path: Path) -> None:
        write(tmp_path, "opt/aws/neuron/bin/neuron-ls").chmod(0o755)
        run = Commands(neuron_ls=(1, "", (RECORDED / "no_device.stderr").read_text()))
        found = host.devices(run, expected=False, root=str(tmp_path))
        assert (found["rc"], found["devices"], found["cores"]) == (1, [], 0)
        assert "failed to discover Neuron devices" in found["error"]
        assert run.ran == ["neuron-ls"]

    def test_a_failure_is_tried_again_where_there_is_hardware(self, tmp_path: Path) -> None:
        write(tmp_path, "opt/aws/neuron/bin/neuron-ls").chmod(0o755)
        run = Commands(neuron_ls=(1, "", "busy"))
        host.devices(run, expected=True, root=str(tmp_path))
        assert run.ran == ["neuron-ls", "neuron-ls"]

    @pytest.mark.parametrize("output", ["", "{}", "[1]", "not json"])
    def test_an_answer_that_is_none_is_an_error(self, tmp_path: Path, output: str) -> None:
        write(tmp_path, "opt/aws/neuron/bin/neuron-ls").chmod(0o755)
        found = host.devices(Commands(neuron_ls=(0, output, "")), expected=False, root=str(tmp_path))
        assert found["error"]
        assert found["devices"] == []

    def test_cores_are_counted(self, tmp_path: Path) -> None:
        write(tmp_path, "opt/aws/neuron/bin/neuron-ls").chmod(0o755)
        run = Commands(neuron_ls=(0, (RECORDED / "generation1_inf2.24xlarge.json").read_text(), ""))
        assert host.devices(run, expected=True, root=str(tmp_path))["cores"] == 12

    def test_tools_that_are_not_installed(self, tmp_path: Path) -> None:
        found = host.devices(Commands(), expected=True, root=str(tmp_path))
        assert (found["path"], found["rc"], found["error"]) == (None, None, None)


class TestPackages:
    def test_versions_holds_and_states(self) -> None:
        assert host.packages(Commands(dpkg_query=(1, DPKG, "no packages found"))) == {
            "aws-neuronx-dkms": {"version": "2.21.37.0", "held": True, "state": "installed"},
            "aws-neuronx-tools": {"version": "2.23.9.0", "held": False, "state": "half-configured"},
        }

    def test_what_left_only_its_configuration_is_not_there(self) -> None:
        output = "aws-neuronx-dkms\t2.21.37.0\tdeinstall ok config-files\naws-neuron-dkms\t\tunknown ok not-installed\n"
        assert host.packages(Commands(dpkg_query=(0, output, ""))) == {}

    def test_the_system_decides_which_one_is_asked(self, tmp_path: Path) -> None:
        write(tmp_path, "etc/os-release", 'NAME="Amazon Linux"\nID="amzn"\nID_LIKE="fedora"\n')
        recorded = "aws-neuronx-dkms\t2.21.37.0\naws-neuronx-runtime-lib\t2.25.65.0_1a2b3c4d5\n"
        asked = Commands(dpkg_query=(1, "", "no packages found"), rpm=(0, recorded, ""))
        assert set(host.packages(asked, str(tmp_path))) == {"aws-neuronx-dkms", "aws-neuronx-runtime-lib"}

    def test_lines_that_are_none_are_left_out(self) -> None:
        odd = "nonsense\na\tb\n\t\t\naws-neuronx-x\t1\tinstall ok\n" + DPKG
        assert host.packages(Commands(dpkg_query=(0, odd, ""))) == host.packages(Commands(dpkg_query=(0, DPKG, "")))

    def test_rpm_answers_where_dpkg_is_not(self) -> None:
        run = Commands(rpm=(0, "aws-neuronx-dkms\t2.21.37.0\n", ""))
        assert host.packages(run)["aws-neuronx-dkms"]["version"] == "2.21.37.0"

    @pytest.mark.parametrize(
        ("journal", "states", "interrupted"),
        [
            ([], "installed\n", False),
            (["0001"], "installed\n", True),
            ([], "installed\nhalf-configured\n", True),
            (
                [],
                "The following packages are missing the md5sums control file in the\ndatabase:\n corp-monitor\n",
                False,
            ),
        ],
    )
    def test_an_interrupted_dpkg(self, tmp_path: Path, journal: list[str], states: str, interrupted: bool) -> None:
        for name in journal:
            write(tmp_path, f"var/lib/dpkg/updates/{name}")
        assert host.dpkg_interrupted(Commands(dpkg_query=(0, states, "")), str(tmp_path)) is interrupted


PACKAGES: dict[str, Any] = {"aws-neuronx-dkms": {"version": "2.21.37.0", "held": False, "state": "installed"}}


class TestDriver:
    def observe(self, root: Path, run: Commands, packages: dict[str, Any] | None = None) -> dict[str, Any]:
        known = PACKAGES if packages is None else packages
        found: dict[str, Any] = host.driver(run, known, RUNNING, NEWER, str(root))
        return found

    def test_installed_built_and_loaded_are_three_things(self, tmp_path: Path) -> None:
        write(tmp_path, f"lib/modules/{RUNNING}/updates/dkms/neuron.ko.zst")
        load_module(tmp_path, "2.20.28.0")
        found = self.observe(tmp_path, Commands(modinfo=(0, "2.21.37.0\n", "")))
        assert (found["installed"], found["built_for_kernel"], found["loaded"]) == ("2.21.37.0", True, "2.20.28.0")
        assert not found["built_for_newest"]

    def test_of_two_modules_the_one_that_modprobe_takes_counts(self, tmp_path: Path) -> None:
        write(tmp_path, f"lib/modules/{RUNNING}/updates/dkms/neuron.ko")
        write(tmp_path, f"lib/modules/{RUNNING}/neuron.ko")

        def run(command: list[str]) -> tuple[int, str, str]:
            answers = {("-k", RUNNING): "2.21.37.0\n"}
            said = answers.get((command[1], command[2]), "2.15.9.0\n") if command[0] == "modinfo" else ""
            return (0, said, "") if said else (127, "", "")

        known = {"aws-neuronx-dkms": {"version": "2.21.37.0"}}
        assert host.driver(run, known, RUNNING, RUNNING, str(tmp_path))["built_for_kernel"]

    def test_a_module_of_another_version_is_not_the_installed_one(self, tmp_path: Path) -> None:
        write(tmp_path, f"lib/modules/{RUNNING}/updates/dkms/neuron.ko")
        assert not self.observe(tmp_path, Commands(modinfo=(0, "2.20.28.0\n", "")))["built_for_kernel"]

    def test_a_bare_host_has_none(self, tmp_path: Path) -> None:
        assert self.observe(tmp_path, Commands(), {}) == {
            "installed": None,
            "built_for_kernel": False,
            "built_for_newest": False,
            "loaded": None,
            "references": 0,
            "in_use_by": [],
            "not_at_boot": [],
        }

    def test_the_kernel_log_says_what_sysfs_does_not(self, tmp_path: Path) -> None:
        load_module(tmp_path, None)
        log = "Neuron Driver Started with Version:2.9.4.0-8a6fdf29\nNeuron Driver Started with Version:2.20.28.0-b2d3\n"
        assert (
            self.observe(tmp_path, Commands(dmesg=(1, "", "denied"), journalctl=(0, log, "")))["loaded"] == "2.20.28.0"
        )
        assert self.observe(tmp_path, Commands())["loaded"] == "unknown"

    def test_the_log_of_a_module_that_is_gone_counts_for_nothing(self, tmp_path: Path) -> None:
        assert (
            self.observe(tmp_path, Commands(dmesg=(0, "Neuron Driver Started with Version:2.9.4.0-8", "")))["loaded"]
            is None
        )

    def test_who_uses_it(self, tmp_path: Path) -> None:
        load_module(tmp_path, "2.20.28.0", references=1)
        write(tmp_path, "proc/321/comm", "python3\n")
        for descriptor, target in (("0", "/dev/null"), ("5", "/dev/neuron0")):
            link = tmp_path / "proc/321/fd" / descriptor
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(target)
        found = self.observe(tmp_path, Commands())
        assert found["in_use_by"] == [{"pid": 321, "command": "python3"}]
        assert found["references"] == 1


class TestServices:
    SHOW = (
        "Id=vllm.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=77\n"
    )

    def test_the_environment_is_the_one_the_process_started_from(self, tmp_path: Path) -> None:
        write(tmp_path, "proc/77/cmdline", "/opt/aws_neuron_venv_pytorch/bin/python\0-m\0vllm\0--api-key\0secret\0")
        library = "/opt/neuronops/releases/old/lib/python3.10/site-packages/torch/lib/libtorch.so"
        write(tmp_path, "proc/77/environ", "PATH=/bin\0NEURONOPS_CONFIGURATION=0a1b\0KEY=secret\0")
        write(tmp_path, "proc/77/maps", f"7f00-7f01 r-xp 00000000 fe:00 42    {library}\n")
        (service,) = host.services(Commands(systemctl=(0, self.SHOW, "")), ["vllm.service"], str(tmp_path))
        assert service == {
            "name": "vllm.service",
            "load_state": "loaded",
            "active_state": "active",
            "sub_state": "running",
            "enabled": True,
            "main_pid": 77,
            "executable_real_path": "/opt/neuronops/releases/old/bin/python",
            "configuration": "0a1b",
            "needs_reload": False,
            "ours": None,
            "drop_ins": {},
        }
        assert "secret" not in json.dumps(service)

    def test_drop_ins_are_named_with_what_they_take_over(self, tmp_path: Path) -> None:
        folder = "/etc/systemd/system/vllm.service.d"
        write(tmp_path, f"{folder[1:]}/a.conf", "[Service]\nMemoryMax=1G\n#ExecStart=/bin/false\n")
        write(tmp_path, f"{folder[1:]}/b.conf", "[Service]\n ExecStart =\nExecStart=/bin/false\nRestart=no\n")
        shown = f"LoadState=loaded\nDropInPaths={folder}/a.conf {folder}/b.conf\n"
        (service,) = host.services(Commands(systemctl=(0, shown, "")), ["vllm.service"], str(tmp_path))
        assert service["drop_ins"] == {f"{folder}/a.conf": [], f"{folder}/b.conf": ["ExecStart", "Restart"]}

    @pytest.mark.parametrize(
        ("text", "ours"),
        [("# Written by role neuronops.vllm.vllm_server.\n", True), ("[Service]\n", False), (None, None)],
    )
    def test_a_unit_says_whose_it_is(self, tmp_path: Path, text: str | None, ours: bool | None) -> None:
        if text is not None:
            write(tmp_path, "lib/systemd/system/vllm.service", text)
        shown = "LoadState=loaded\nNeedDaemonReload=yes\nFragmentPath=/lib/systemd/system/vllm.service\n"
        (service,) = host.services(Commands(systemctl=(0, shown, "")), ["vllm.service"], str(tmp_path))
        assert service["ours"] is ours and service["needs_reload"] is True

    def test_a_unit_that_does_not_exist_and_a_host_without_systemd(self) -> None:
        output = "Id=x.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\n"
        for run in (Commands(systemctl=(0, output, "")), Commands()):
            (service,) = host.services(run, ["x.service"])
            assert (service["load_state"], service["active_state"], service["main_pid"]) == (
                "not-found",
                "inactive",
                None,
            )
            assert not service["enabled"]


def test_links_are_told_from_folders(tmp_path: Path) -> None:
    (tmp_path / "opt" / "folder").mkdir(parents=True)
    (tmp_path / "opt" / "active").symlink_to("releases/one")
    write(tmp_path, "opt/file")
    asked = ["/opt/folder", "/opt/active", "/opt/file", "/opt/none"]
    assert host.links(asked, str(tmp_path)) == {
        "/opt/folder": {"kind": "folder", "target": None},
        "/opt/active": {"kind": "link", "target": "/opt/releases/one"},
        "/opt/file": {"kind": "file", "target": None},
        "/opt/none": {"kind": "absent", "target": None},
    }


def test_a_bare_host_is_observed_without_an_error(tmp_path: Path) -> None:
    found = neuron_info.observe(Commands(), OPTIONS, RUNNING, str(tmp_path))
    assert found["packages"] == {}
    assert found["record"] is None
    assert found["repository"] is None


def test_environments_of_a_pattern_are_each_observed(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    options = {**OPTIONS, "environments": [f"{tmp_path}/*", f"{tmp_path}/none"]}
    found = neuron_info.observe(Commands(), options, RUNNING, str(tmp_path))["environments"]
    assert [Path(environment["path"]).name for environment in found] == ["a", "b", "none"]
    assert [environment["exists"] for environment in found] == [True, True, False]


def test_files_are_hashed(tmp_path: Path) -> None:
    write(tmp_path, "etc/profile.d/x.sh", "PATH=x\n")
    options = {**OPTIONS, "files": ["/etc/profile.d/x.sh", "/etc/none"]}
    found = neuron_info.observe(Commands(), options, RUNNING, str(tmp_path))["files"]
    assert found["/etc/none"] is None
    assert found["/etc/profile.d/x.sh"] == hashlib.sha256(b"PATH=x\n").hexdigest()


@pytest.fixture
def info(tmp_path: Path, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the module on a host below a folder, with programs that are in the folder's /bin alone."""
    observe = neuron_info.observe
    monkeypatch.setattr(neuron_info, "observe", lambda *arguments: observe(*arguments, str(tmp_path)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return lambda **arguments: run_module(neuron_info, **arguments)


def test_the_module_runs_the_hosts_programs_in_no_language(info: Any, tmp_path: Path) -> None:
    write(tmp_path, "bin/dpkg-query", '#!/bin/sh\nprintf "aws-neuronx-%s\\t1.0\\tinstall ok installed\\n" "$LC_ALL"\n')
    (tmp_path / "bin" / "dpkg-query").chmod(0o755)
    write(tmp_path, "etc/mine", "x")
    answer = info(files=["/etc/mine"], environments=[str(tmp_path / "none")])
    assert (answer["failed"], answer["changed"]) == (False, False)
    assert answer["packages"] == {"aws-neuronx-C": {"version": "1.0", "held": False, "state": "installed"}}
    assert answer["files"] == {"/etc/mine": hashlib.sha256(b"x").hexdigest()}
    assert answer["environments"][0]["exists"] is False
    assert answer["kernel"]["release"] == platform.release()


def test_a_check_run_sees_the_same(info: Any, tmp_path: Path) -> None:
    add_device(tmp_path, "0000:00:1f.0", "0x7264")
    seen, checked = info(), info(check=True)
    assert checked["hardware"] == seen["hardware"]
    assert checked["hardware"]["present"]


def test_a_host_without_any_of_the_programs_is_no_failure(info: Any) -> None:
    answer = info(services=["vllm.service"])
    assert (answer["failed"], answer["packages"], answer["dpkg_interrupted"]) == (False, {}, False)
    assert answer["services"][0]["load_state"] == "not-found"


@pytest.mark.parametrize(
    ("repository", "says"),
    [
        ({"suite": "jammy", "fingerprint": "7DC7A599"}, "'7DC7A599' is no fingerprint"),
        ({"fingerprint": "0" * 40}, "manager is apt but all of the following are missing: suite"),
    ],
)
def test_a_repository_that_cannot_be_is_refused(info: Any, repository: dict[str, str], says: str) -> None:
    answer = info(repository={"manager": "apt", "url": "https://example.com", **repository})
    assert answer["failed"]
    assert says in answer["msg"]


def test_everything_that_is_returned_is_documented(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:00:1f.0", "0x7264")
    write(tmp_path, "opt/aws/neuron/bin/neuron-ls").chmod(0o755)
    load_module(tmp_path, "2.21.37.0")
    run = Commands(
        neuron_ls=(0, (RECORDED / "generation2_in_use.json").read_text(), ""),
        systemctl=(0, TestServices.SHOW, ""),
        dpkg_query=(0, DPKG, ""),
    )
    repository = {
        "manager": "apt",
        "url": "https://example.com",
        "suite": "jammy",
        "components": ["main"],
        "fingerprint": "0" * 40,
        "renew_days": 30,
    }
    options = {"environments": [str(tmp_path)], "services": ["vllm.service"], "files": ["/x"], "repository": repository}
    options["links"] = ["/opt/active"]
    returned = neuron_info.observe(run, options, RUNNING, str(tmp_path))
    documented = yaml.safe_load(neuron_info.RETURN)
    assert set(returned) == set(documented)
    assert undocumented(returned, documented) == []


def undocumented(returned: dict[str, Any], documented: dict[str, Any], where: str = "") -> list[str]:
    """Name the fields of a value that RETURN describes in parts and yet does not name, and those it names in vain."""
    found = [f"{where}{name}" for name in set(returned) ^ set(documented)]
    for name in set(returned) & set(documented):
        contains, value = documented[name].get("contains"), returned[name]
        for part in value if isinstance(value, list) else [value]:
            if contains and isinstance(part, dict):
                found += undocumented(part, contains, f"{where}{name}.")
    return found
