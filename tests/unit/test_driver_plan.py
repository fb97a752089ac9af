# SPDX-License-Identifier: GPL-3.0-or-later
"""What role neuron_driver decides to do, for hosts of every kind that it can meet."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.plugin_utils import driver, stacks

from tests.unit.role_variables import CHECKOUT, read, value

STACK = stacks.resolve("vllm-0.9.2")
WANTED: dict[str, str] = STACK["host_packages"]
DRIVER = WANTED["aws-neuronx-dkms"]
RUNNING, NEWER = "6.8.0-1021-aws", "6.8.0-1024-aws"
JAMMY = {
    "distribution": "Ubuntu",
    "distribution_version": "22.04",
    "distribution_major_version": "22",
    "architecture": "x86_64",
}
AMAZON = {
    "distribution": "Amazon",
    "distribution_version": "2023",
    "distribution_major_version": "2023",
    "architecture": "x86_64",
}
FILES = {"/etc/profile.d/aws-neuron.sh": "a1"}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = stacks.merged(base, changes)
    return result


def bare(**changes: Any) -> dict[str, Any]:
    """What neuron_info returns for an inf2.xlarge with nothing of Neuron on it."""
    host = {
        "root": True,
        "kernel": {
            "release": RUNNING,
            "headers": False,
            "newest": RUNNING,
            "newest_headers": False,
            "next_unknown": None,
            "compiler": None,
        },
        "hardware": {"present": True, "devices": [{"address": "0000:00:1f.0", "family": "inf2", "device_id": "7264"}]},
        "driver": {
            "installed": None,
            "built_for_kernel": False,
            "built_for_newest": False,
            "loaded": None,
            "references": 0,
            "in_use_by": [],
            "not_at_boot": [],
        },
        "neuron_ls": {"path": None, "rc": None, "devices": [], "cores": 0, "error": None},
        "packages": {},
        "dpkg_interrupted": False,
        "files": {"/etc/profile.d/aws-neuron.sh": None},
        "repository": {"current": False, "reasons": ["there is no key"], "key": None},
    }
    return merged(host, changes)


def done(**changes: Any) -> dict[str, Any]:
    """The same host when the role has done its work. Collectives and runtime carry a hash in their versions."""
    packages = {
        name: {
            "version": version if name.endswith(("dkms", "tools")) else f"{version}-1a2b3c4d5",
            "held": True,
            "state": "installed",
        }
        for name, version in WANTED.items()
    }
    host = bare(
        kernel={"headers": True, "newest_headers": True},
        driver={"installed": DRIVER, "built_for_kernel": True, "built_for_newest": True, "loaded": DRIVER},
        neuron_ls={"path": "/opt/aws/neuron/bin/neuron-ls", "rc": 0, "devices": [{}], "cores": 2},
        packages=packages,
        files=FILES,
        repository={"current": True, "reasons": []},
    )
    return merged(host, changes)


def other_versions(**versions: str) -> dict[str, Any]:
    return {f"aws-neuronx-{name.replace('_', '-')}": {"version": version} for name, version in versions.items()}


def plan(host: dict[str, Any], facts: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    stack = options.pop("stack", STACK)
    defaults = {"stack": stack, "state": "exact", "allow_downgrade": False, "hold": True, "files": FILES}
    result: dict[str, Any] = driver.plan(host, facts or JAMMY, {**defaults, **options})
    return result


def test_a_host_with_devices_that_the_stack_does_not_drive_is_refused_whatever_it_has() -> None:
    devices = {"devices": [{"address": "0000:00:1f.0", "family": "trn2", "device_id": "7364"}]}
    for host in (bare(hardware=devices), done(hardware=devices)):
        (refusal,) = plan(host)["refusals"]
        assert refusal.startswith(f"its devices are those of trn2, and the stack {STACK['name']} is for inf2")


def test_a_bare_host_gets_everything_in_one_transaction() -> None:
    found = plan(bare())
    assert found["work"]
    assert found["change"]
    assert found["refusals"] == []
    assert found["packages"] == [
        f"linux-headers-{RUNNING}",
        *(f"{name}={version}*" for name, version in WANTED.items()),
    ]
    assert found["brings"] == [f"linux-headers-{RUNNING}", *WANTED]
    assert found["hold"] == list(WANTED)
    assert found["files"] == list(FILES)
    # The transaction builds the module.
    assert found["build"] == []


def test_a_finished_host_is_left_alone() -> None:
    assert plan(done()) == {
        "refusals": [],
        "reasons": [],
        "work": False,
        "repository": False,
        "change": False,
        "packages": [],
        "brings": [],
        "outdated": [],
        "hold": [],
        "build": [],
        "files": [],
        "load": False,
        "reboot": [],
        "problems": [],
        "notes": [],
    }


def test_each_thing_to_do_is_said_in_a_sentence() -> None:
    found = plan(bare())["reasons"]
    assert found[0] == "there is no key"
    assert f"aws-neuronx-dkms is not installed, and {DRIVER} is wanted" in found
    assert found[-1] == "/etc/profile.d/aws-neuron.sh differs from what the role writes"
    loose = done(packages={"aws-neuronx-tools": {"held": False}}, driver={"built_for_kernel": False})
    assert plan(loose)["reasons"] == [f"the driver is not built for kernel {RUNNING}", "aws-neuronx-tools is not held"]
    old = done(packages={"aws-neuron-dkms": {"version": "1.0", "held": False, "state": "installed"}})
    assert plan(old)["reasons"] == ["aws-neuron-dkms, a package of the first generation, is installed"]


def test_one_package_that_differs_changes_all_in_one_transaction() -> None:
    found = plan(done(packages=other_versions(runtime_lib="2.24.53.0-abc")))
    assert found["packages"] == [f"{name}={version}*" for name, version in WANTED.items()]


def test_only_what_was_not_there_is_remembered_as_brought() -> None:
    host = done(packages=other_versions(dkms="2.9.0.0"))
    del host["packages"]["aws-neuronx-tools"]
    assert plan(host)["brings"] == ["aws-neuronx-tools"]


def test_a_package_that_is_half_installed_is_not_installed() -> None:
    assert plan(done(packages={"aws-neuronx-dkms": {"state": "half-configured"}}))["change"]


def test_packages_of_others_that_are_half_done_are_no_work_of_ours() -> None:
    assert not plan(done(dpkg_interrupted=True))["work"]
    half = done(dpkg_interrupted=True)
    half["packages"]["aws-neuronx-tools"] = {**half["packages"]["aws-neuronx-tools"], "state": "half-configured"}
    assert plan(half)["work"]


@pytest.mark.parametrize("value", [False, "false", "no", "0"])
def test_a_downgrade_is_refused_also_where_false_is_text(value: object) -> None:
    newer = done()
    newer["packages"]["aws-neuronx-tools"] = {**newer["packages"]["aws-neuronx-tools"], "version": "99.0"}
    assert plan(newer, allow_downgrade=value)["refusals"] and not plan(newer, allow_downgrade="yes")["refusals"]
    with pytest.raises(driver.PlanError, match="allow_downgrade is 'maybe'"):
        plan(newer, allow_downgrade="maybe")


def test_versions_of_rpm_carry_a_hash_that_does_not_count() -> None:
    host = done()
    for found in host["packages"].values():
        found["version"] = found["version"].partition("-")[0] + "_1a2b3c4d5"
    wanted = {"stack": STACK, "state": "exact", "allow_downgrade": False, "hold": True, "files": FILES}
    result = driver.plan(host, AMAZON, wanted)
    assert not result["change"] and not result["refusals"] and not result["problems"]


def test_packages_of_the_first_generation_go() -> None:
    old = {"aws-neuron-dkms": {"version": "2.3.0", "held": False, "state": "installed"}}
    assert plan(done(packages=old))["outdated"] == ["aws-neuron-dkms"]


class TestState:
    NEWER = done(packages=other_versions(dkms="2.24.7.0", tools="2.26.14.0"), driver={"installed": "2.24.7.0"})

    def test_exact_does_not_downgrade_unasked(self) -> None:
        (refusal,) = plan(self.NEWER)["refusals"]
        assert f"aws-neuronx-dkms 2.24.7.0 (wanted {DRIVER})" in refusal
        assert "neuron_driver_state" in refusal
        assert "neuron_driver_allow_downgrade" in refusal

    def test_exact_downgrades_when_asked(self) -> None:
        found = plan(self.NEWER, allow_downgrade=True)
        assert found["refusals"] == []
        assert f"aws-neuronx-dkms={DRIVER}*" in found["packages"]

    def test_present_accepts_what_is_there_and_touches_nothing(self) -> None:
        host = merged(
            self.NEWER, {"repository": {"current": False}, "packages": {name: {"held": False} for name in WANTED}}
        )
        host["driver"]["loaded"] = "2.24.7.0"
        found = plan(host, state="present")
        assert (found["refusals"], found["work"], found["repository"], found["hold"]) == ([], False, False, [])

    def test_present_completes_what_is_not_complete(self) -> None:
        host = done()
        del host["packages"]["aws-neuronx-tools"]
        assert plan(host, state="present")["change"]

    def test_an_older_one_is_upgraded(self) -> None:
        found = plan(done(packages=other_versions(dkms="2.9.0.0")))
        assert (found["refusals"], found["change"]) == ([], True)


class TestSystems:
    @pytest.mark.parametrize(
        ("distribution", "version"),
        [
            *(("Ubuntu", version) for version in ("20.04", "22.04", "24.04")),
            *(("Debian", version) for version in ("11", "12", "13")),
        ],
    )
    def test_supported(self, distribution: str, version: str) -> None:
        facts = {
            "distribution": distribution,
            "distribution_version": "12.11" if version == "12" else version,
            "distribution_major_version": version.split(".")[0],
            "architecture": "x86_64",
        }
        found = plan(bare(), facts)
        assert found["refusals"] == []
        assert found["packages"][0] == f"linux-headers-{RUNNING}"

    def test_amazon_linux_asks_dnf(self) -> None:
        found = plan(
            bare(kernel={"release": "6.1.141-155.222.amzn2023.x86_64", "newest": "6.1.141-155.222.amzn2023.x86_64"}),
            AMAZON,
        )
        assert found["refusals"] == []
        assert found["packages"] == [
            "kernel-devel-uname-r = 6.1.141-155.222.amzn2023.x86_64",
            "libxcrypt-compat",
            "gcc-c++",
            *(f"{name}-{version}*" for name, version in WANTED.items()),
        ]
        assert found["brings"] == list(WANTED)
        assert found["hold"] == []

    @pytest.mark.parametrize(
        "facts",
        [
            {**JAMMY, "distribution_version": "18.04"},
            {**JAMMY, "distribution_version": "25.10"},
            {**AMAZON, "distribution_major_version": "2"},
            {**JAMMY, "distribution": "Rocky", "distribution_version": "9.5"},
        ],
    )
    def test_anything_else_is_refused_with_what_is_supported(self, facts: dict[str, Any]) -> None:
        (refusal,) = plan(bare(), facts)["refusals"]
        assert facts["distribution"] in refusal
        assert "Ubuntu 20.04, 22.04, 24.04" in refusal
        assert "Amazon Linux 2023" in refusal

    def test_another_architecture_is_refused(self) -> None:
        (refusal,) = plan(bare(), {**JAMMY, "architecture": "aarch64"})["refusals"]
        assert "aarch64" in refusal


NOBLE = {**JAMMY, "distribution_version": "24.04", "distribution_major_version": "24"}
RELEASES = {
    item["sdk"]: {name: versions[0] for name, versions in item["host"].items()}
    for item in json.loads((CHECKOUT / "sandbox/repositories/releases.json").read_text())
}


def image(sdk: str, kernel: str, family: str = "trn2", **changes: Any) -> dict[str, Any]:
    """What neuron_info returns on a Deep Learning AMI of an SDK release: all is held, the driver is loaded."""
    packages = {
        name: {
            "version": version if name.endswith("dkms") else f"{version}-1a2b3c4d5",
            "held": True,
            "state": "installed",
        }
        for name, version in RELEASES[sdk].items()
    }
    version = RELEASES[sdk]["aws-neuronx-dkms"]
    host = done(
        kernel={"release": kernel, "newest": kernel},
        driver={"installed": version, "loaded": version},
        packages=packages,
        files={"/etc/profile.d/aws-neuron.sh": None},
        repository={"current": False, "reasons": ["there is no key"]},
        hardware={"devices": [{"address": "0000:00:1f.0", "family": family, "device_id": "7364"}]},
    )
    return merged(host, changes)


class TestDeepLearningImage:
    """Nothing of an image that has a driver is changed where that is what the user says."""

    @pytest.mark.parametrize("sdk", ["2.27.1", "2.28.1", "2.29.1", "2.30.0", "2.31.1", "2.32.0"])
    @pytest.mark.parametrize("stack", ["vllm-0.16.0", "vllm-0.13.0", "vllm-0.11.0"])
    def test_no_package_and_no_repository_of_the_image_is_touched(self, stack: str, sdk: str) -> None:
        found = plan(image(sdk, "6.17.0-1007-aws"), NOBLE, stack=stacks.resolve(stack), state="present")
        assert found["refusals"] == found["problems"] == []
        untouched = ("packages", "brings", "outdated", "hold", "build", "reboot")
        assert {name: found[name] for name in untouched} == {name: [] for name in untouched}
        assert not found["change"] and not found["repository"] and not found["load"]
        # The path to the tools is the role's own.
        assert found["files"] == list(FILES)

    def test_what_stays_in_another_version_is_said(self) -> None:
        stack = stacks.resolve("vllm-0.13.0")
        (note,) = plan(image("2.31.1", "6.17.0-1007-aws"), NOBLE, stack=stack, state="present")["notes"]
        assert "aws-neuronx-dkms 2.29.0.0 (the stack's 2.26.10.0)" in note and "neuron_driver_state is present" in note
        assert plan(image("2.28.1", "6.17.0-1007-aws"), NOBLE, stack=stack, state="present")["notes"] == []

    def test_the_versions_of_the_stack_are_brought_only_where_that_is_allowed(self) -> None:
        stack, host = stacks.resolve("vllm-0.13.0"), image("2.31.1", "6.17.0-1007-aws")
        (refusal,) = plan(host, NOBLE, stack=stack)["refusals"]
        assert "aws-neuronx-dkms 2.29.0.0 (wanted 2.26.10.0)" in refusal and "neuron_driver_state to present" in refusal
        found = plan(host, NOBLE, stack=stack, allow_downgrade=True)
        # In one transaction, as they depend on each other, and held again.
        assert [spec.partition("=")[0] for spec in found["packages"]] == list(stack["host_packages"]) == found["hold"]

    def test_a_driver_and_a_runtime_that_do_not_go_together_are_refused(self) -> None:
        runtime = {"aws-neuronx-runtime-lib": {"version": "2.33.10.0-1a2b3c4d5"}}
        host = image("2.28.1", "6.17.0-1007-aws", packages=runtime)
        (refusal,) = plan(host, NOBLE, stack=stacks.resolve("vllm-0.13.0"), state="present")["refusals"]
        assert "driver 2.26.10.0 beside runtime 2.33.10.0" in refusal and "neuron_driver_state to exact" in refusal
        mixed = stacks.resolve("vllm-0.13.0", overrides={"host_packages": {"aws-neuronx-dkms": "2.29.0.0"}})
        (refusal,) = plan(bare(), NOBLE, stack=mixed)["refusals"]
        assert refusal.startswith("the stack has driver 2.29.0.0 beside runtime 2.30.51.0")


@pytest.mark.parametrize("sdk", RELEASES)
def test_driver_and_runtime_of_a_release_go_together(sdk: str) -> None:
    assert driver.mismatch(RELEASES[sdk]["aws-neuronx-dkms"], RELEASES[sdk]["aws-neuronx-runtime-lib"]) is None


@pytest.mark.parametrize("name", stacks.load()["stacks"])
def test_the_kernels_of_a_stack_are_those_of_its_driver(name: str) -> None:
    stack = stacks.resolve(name)
    version = driver.version_key(stack["host_packages"]["aws-neuronx-dkms"])
    # What its driver's changes say they are for.
    below = next(
        (
            kernel
            for fixed, kernel in (((2, 16, 7), "6.3"), ((2, 24, 7), "6.13"), ((2, 26, 10), "6.18"))
            if version < fixed
        ),
        None,
    )
    assert stack["kernel"] == {"minimum": "5.10" if version >= (2, 18) else None, "below": below}


class TestToday:
    """The stacks that AWS supports, on the kernels of Ubuntu 22.04 and 24.04."""

    @pytest.mark.parametrize("kernel", ["6.8.0-1021-aws", "6.14.0-1018-aws", "6.17.0-1007-aws"])
    @pytest.mark.parametrize("name", ["vllm-0.16.0", "vllm-0.13.0", "vllm-0.11.0"])
    def test_every_kernel_of_ubuntu_24_04_gets_the_driver(self, name: str, kernel: str) -> None:
        stack = stacks.resolve(name)
        found = plan(bare(kernel={"release": kernel, "newest": kernel}), NOBLE, stack=stack)
        assert found["refusals"] == []
        pins = [f"{package}={version}*" for package, version in stack["host_packages"].items()]
        assert found["packages"] == [f"linux-headers-{kernel}", *pins]

    @pytest.mark.parametrize(
        ("name", "kernel", "words"),
        [
            ("vllm-0.11.0", "6.18.2-aws", "driver 2.25.4.0 builds on 5.10 and later and kernels before 6.18"),
            ("vllm-0.13.0", "5.4.0-1128-aws", "driver 2.26.10.0 builds on 5.10 and later. Boot"),
            ("vllm-0.16.0", "5.4.0-1128-aws", "driver 2.27.4.0 builds on 5.10 and later. Boot"),
        ],
    )
    def test_another_is_refused_with_the_image_that_has_one(self, name: str, kernel: str, words: str) -> None:
        host = bare(kernel={"release": kernel, "newest": kernel})
        (refusal,) = plan(host, NOBLE, stack=stacks.resolve(name))["refusals"]
        assert words in refusal and "the image Ubuntu 24.04 (kernel 6.17, package linux-aws)" in refusal

    def test_an_older_stack_on_ubuntu_24_04_is_refused_with_both_ways_out(self) -> None:
        (refusal,) = plan(bare(kernel={"release": "6.17.0-1007-aws", "newest": "6.17.0-1007-aws"}), NOBLE)["refusals"]
        assert f"driver {DRIVER} builds on 5.10 and later and kernels before 6.13" in refusal
        assert "the image Ubuntu 22.04 (kernel 6.8, package linux-aws; on Ubuntu 24.04 package" in refusal

    def test_no_stack_is_named_that_does_not_drive_the_devices(self) -> None:
        trn2 = {"devices": [{"address": "0000:00:1f.0", "family": "trn2", "device_id": "7364"}]}
        host = bare(kernel={"release": "5.4.0-1128-aws", "newest": "5.4.0-1128-aws"}, hardware=trn2)
        (refusal,) = plan(host, NOBLE, stack=stacks.resolve("vllm-0.13.0"))["refusals"]
        # vllm-0.3.3 builds on that kernel, and knows no trn2.
        assert "vllm-0.3.3" not in refusal
        assert "no stack that this collection installs has a driver that builds on it" in refusal

    def test_the_repository_is_asked_for_the_code_name_of_ubuntu_24_04(self) -> None:
        known = {
            **read("neuron_driver", "vars"),
            "ansible_facts": {"distribution": "Ubuntu", "distribution_release": "noble"},
            "_neuron_driver": {
                "repository_url": "",
                "repository_suite": "",
                "repository_key": "",
                "repository_components": ["main"],
                "repository_key_fingerprint": "",
                "repository_key_renew_days": 30,
            },
        }
        found = value("_neuron_driver_repository", known)
        assert (found["url"], found["suite"]) == ("https://apt.repos.neuron.amazonaws.com", "noble")


class TestKernel:
    STACK = merged(STACK, {"kernel": {"minimum": "5.10", "below": "6.13"}})

    @pytest.mark.parametrize("release", ["5.10.0-30-cloud-amd64", "6.8.0-1021-aws", "6.12.99", "6.12.99-x"])
    def test_within_the_bounds(self, release: str) -> None:
        assert plan(bare(kernel={"release": release, "newest": release}), stack=self.STACK)["refusals"] == []

    @pytest.mark.parametrize(
        ("release", "way_out"),
        [
            ("5.4.0-1128-aws", "one whose driver builds on it: vllm-0.4.2, vllm-0.3.3"),
            ("6.13.0-1-aws", "one whose driver builds on it: vllm-0.16.0, vllm-0.13.0, vllm-0.11.0"),
            ("6.18.44-fc", "one whose driver builds on it: vllm-0.16.0, vllm-0.13.0"),
        ],
    )
    def test_outside_it_is_refused_with_the_kernel_and_the_way_out(self, release: str, way_out: str) -> None:
        (refusal,) = plan(bare(kernel={"release": release, "newest": release}), stack=self.STACK)["refusals"]
        assert release in refusal
        assert f"driver {DRIVER} builds on 5.10 and later and kernels before 6.13" in refusal
        assert way_out in refusal
        assert "for example that of the image Ubuntu 22.04 (kernel 6.8, package linux-aws;" in refusal

    def test_a_stack_without_bounds_takes_any(self) -> None:
        stack = merged(STACK, {"kernel": {"minimum": None, "below": None}})
        assert plan(bare(kernel={"release": "9.9", "newest": "9.9"}), stack=stack)["refusals"] == []

    def test_a_driver_that_is_there_needs_no_building(self) -> None:
        host = done(kernel={"release": "6.18.44", "newest": "6.18.44"})
        assert plan(host, stack=self.STACK)["refusals"] == []

    def test_the_kernel_of_the_next_boot_counts_too(self) -> None:
        (refusal,) = plan(bare(kernel={"newest": "6.14.0-1001-aws"}), stack=self.STACK)["refusals"]
        assert "6.14.0-1001-aws" in refusal

    def test_a_kernel_that_is_not_known_is_said_and_nothing_is_claimed_of_it(self) -> None:
        found = plan(bare(kernel={"next_unknown": "GRUB_DEFAULT is '1>2', which names none"}), stack=self.STACK)
        assert (found["refusals"], found["reboot"]) == ([], [])
        assert "which kernel the next boot brings up is not known: GRUB_DEFAULT is '1>2'" in found["notes"][0]

    def test_a_driver_that_the_boot_will_not_load_is_said(self) -> None:
        found = plan(done(driver={"not_at_boot": ["/etc/modprobe.d/company.conf keeps the module neuron away"]}))
        assert (found["work"], found["problems"]) == (False, [])
        assert "will not be loaded at the next boot, for /etc/modprobe.d/company.conf keeps" in found["notes"][0]

    @pytest.mark.parametrize(("system", "wanted"), [("Ubuntu", True), ("Debian", False)])
    def test_the_kernels_gcc_comes_with_the_driver_where_the_headers_do_not_bring_it(
        self, system: str, wanted: bool
    ) -> None:
        facts = {"Ubuntu": {"distribution_version": "22.04"}, "Debian": {"distribution_major_version": "12"}}[system]
        host = bare(kernel={"compiler": "gcc-12"})
        assert ("gcc-12" in plan(host, {"distribution": system, **facts})["packages"]) == wanted
        assert "gcc-12" not in plan(done(kernel={"compiler": "gcc-12"}), {"distribution": system, **facts})["packages"]

    def test_both_kernels_get_headers(self) -> None:
        found = plan(bare(kernel={"newest": NEWER}))
        assert found["packages"][:2] == [f"linux-headers-{RUNNING}", f"linux-headers-{NEWER}"]

    def test_a_new_kernel_gets_headers_and_the_installed_driver(self) -> None:
        host = done(kernel={"newest": NEWER, "newest_headers": False}, driver={"built_for_newest": False})
        found = plan(host)
        assert (found["change"], found["work"]) == (False, True)
        assert found["packages"] == [f"linux-headers-{NEWER}"]
        assert found["build"] == [NEWER]
        assert found["reboot"] == [f"kernel {NEWER} is installed while {RUNNING} is running"]

    def test_a_module_that_was_never_built_for_the_running_kernel_is_built(self) -> None:
        host = done(driver={"built_for_kernel": False, "built_for_newest": False, "loaded": None})
        assert plan(host)["build"] == [RUNNING]
        assert plan(host)["problems"]


class TestLoading:
    OLD = done(driver={"loaded": "2.20.28.0"})

    def test_an_old_module_that_nothing_uses_is_replaced(self) -> None:
        found = plan(self.OLD)
        assert (found["load"], found["reboot"]) == (True, [])
        assert found["problems"] == [f"driver 2.20.28.0 is loaded while {DRIVER} is installed"]

    def test_an_old_module_in_use_needs_a_reboot_and_names_who_uses_it(self) -> None:
        host = merged(self.OLD, {"driver": {"references": 1, "in_use_by": [{"pid": 321, "command": "python3"}]}})
        found = plan(host)
        assert (found["load"], found["problems"]) == (False, [])
        (reason,) = found["reboot"]
        assert "python3 (process 321)" in reason
        assert "2.20.28.0" in reason

    def test_a_user_that_cannot_be_seen_keeps_it_as_well(self) -> None:
        found = plan(merged(self.OLD, {"driver": {"references": 2}}))
        assert not found["load"]
        assert "2 references" in found["reboot"][0]

    def test_no_module_is_loaded_yet(self) -> None:
        assert plan(done(driver={"loaded": None}))["load"]

    def test_without_hardware_nothing_is_loaded_and_nothing_is_missing(self) -> None:
        host = done(driver={"loaded": None}, neuron_ls={"rc": 1, "devices": [], "error": "no devices"})
        host["hardware"] = {"present": False, "devices": []}
        found = plan(host)
        assert (found["load"], found["problems"]) == (False, [])

    def test_neuron_ls_must_find_what_the_bus_has(self) -> None:
        host = done()
        host["hardware"]["devices"] *= 6
        assert plan(host)["problems"] == ["neuron-ls finds 1 of the 6 devices on the PCI bus"]
        assert "neuron-ls fails: no driver" in plan(done(neuron_ls={"rc": 1, "error": "no driver"}))["problems"][0]


class TestHold:
    def test_holds_can_be_left_to_others(self) -> None:
        host = done(packages={name: {"held": False} for name in WANTED})
        assert plan(host)["hold"] == list(WANTED)
        assert plan(host, hold=False)["hold"] == []

    def test_packages_that_were_held_are_held_again_after_a_change(self) -> None:
        host = done(packages=other_versions(dkms="2.9.0.0"))
        assert plan(host)["hold"] == list(WANTED)
        host["packages"]["aws-neuronx-tools"]["held"] = False
        assert plan(host, hold=False)["hold"] == [name for name in WANTED if name != "aws-neuronx-tools"]


def test_without_root_nothing_is_tried() -> None:
    assert plan(bare(root=False))["refusals"] == ["the role does not run as root; set become to true"]


def test_a_kernel_without_a_number_is_an_error() -> None:
    with pytest.raises(driver.PlanError, match="does not start with a number"):
        plan(bare(kernel={"release": "custom", "newest": "custom"}))


def test_the_observation_is_not_changed() -> None:
    host = bare()
    before = copy.deepcopy(host)
    plan(host)
    assert host == before
