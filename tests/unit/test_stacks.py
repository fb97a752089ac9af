# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack data is complete and consistent, and its reader refuses what it cannot serve."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs import versions
from plugins.plugin_utils import driver, stacks

ENTRIES = stacks.load()["stacks"]
RELEASES = json.loads((Path(__file__).resolve().parents[2] / "sandbox/repositories/releases.json").read_text())


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_is_complete(name: str) -> None:
    assert stacks.problems(ENTRIES[name]) == []


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_agrees_with_itself(name: str) -> None:
    entry = ENTRIES[name]
    vllm, packages = entry["vllm"], entry["python_packages"]
    named = entry["plugin"]["version"] if name.startswith("optimum-") else vllm["version"]
    assert name in (f"vllm-{named}", f"optimum-{named}")
    assert vllm["ref"] == f"v{vllm['version']}"
    if entry["backend"] == "in_tree":
        # vLLM takes the suffix from the first two numbers of the compiler it is built beside.
        assert vllm["suffix"] == "neuron" + "".join(packages["neuronx-cc"].split(".")[:2])
    else:
        assert (vllm["suffix"], vllm["build_environment"]) == ("empty", {"VLLM_TARGET_DEVICE": "empty"})
    # A later patch of torch may stand beside a torch-neuronx.
    assert packages["torch-neuronx"].split(".")[:2] == packages["torch"].split(".")[:2]
    assert entry["evidence"] in {"served", "built", "read"}
    assert all(re.fullmatch(r"3\.\d+", python) for python in entry["pythons"])
    assert set(entry["supported"]["families"]) <= set(entry["instance_families"])


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry["backend"] == "nxd_inference"])
def test_a_plugin_that_mixes_up_sampling_parameters_samples_on_the_host(name: str) -> None:
    server = ENTRIES[name]["server"]
    assert server["additional_config"]["override_neuron_config"]["on_device_sampling_config"] is None
    assert "--no-enable-prefix-caching" in server["arguments"]


def test_an_entry_has_what_its_backend_needs_and_no_more() -> None:
    in_tree, plugin = stacks.resolve("vllm-0.9.2"), stacks.resolve("vllm-0.13.0")
    assert "plugin" not in in_tree and "backend_modules" not in plugin["vllm"]
    assert (in_tree["packages_role"], plugin["packages_role"]) == ("transformers_neuronx", "nxd_inference")
    for name, overrides, message in (
        ("vllm-0.9.2", {"plugin": {"name": "mine"}}, "plugin is not a field of a stack"),
        ("vllm-0.9.2", {"backend": "nxd_inference"}, "plugin is missing"),
        ("vllm-0.13.0", {"vllm": {"needs_neuron_ls": True}}, "vllm.needs_neuron_ls is not a field of a stack"),
        ("vllm-0.13.0", {"server": {"additional_config": []}}, "server.additional_config has the wrong type"),
        ("optimum-0.4.5", {"plugin": {"commit": None}}, "plugin.commit is not a field of a stack"),
    ):
        with pytest.raises(stacks.StackError, match=re.escape(message)):
            stacks.resolve(name, overrides=overrides)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_release_that_mixes_up_sampling_parameters_samples_on_the_host(name: str) -> None:
    mixes_up = (0, 6, 3) <= stacks.release(ENTRIES[name]["vllm"]["version"]) < (0, 9)
    assert (ENTRIES[name]["server"]["environment"].get("NEURON_ON_DEVICE_SAMPLING_DISABLED") == "1") == mixes_up


def test_the_default_is_an_entry() -> None:
    assert stacks.load()["default"] in ENTRIES


def test_resolve_takes_the_default_without_a_name() -> None:
    entry = stacks.resolve()
    assert entry["name"] == stacks.load()["default"]
    assert entry["id"].startswith(entry["name"] + "-")


def test_an_override_changes_one_field_and_the_id() -> None:
    plain = stacks.resolve()
    changed = stacks.resolve(overrides={"python_packages": {"transformers-neuronx": "0.13.1315"}})
    assert changed["python_packages"] == {**plain["python_packages"], "transformers-neuronx": "0.13.1315"}
    assert changed["id"] != plain["id"]
    assert stacks.resolve() == plain, "the override must not stay in the data"


def test_what_is_only_said_about_a_stack_changes_no_id() -> None:
    said = {"evidence": "read", "supported": {"until": None, "until_sdk": None, "source": "https://aws.example/"}}
    assert stacks.resolve(overrides=said)["id"] == stacks.resolve()["id"]


def test_the_stacks_that_hosts_have_keep_their_ids() -> None:
    # A release is named after them: with another id every host would be given a new one.
    ids = {
        "vllm-0.9.2": "99a40753",
        "vllm-0.7.3": "c17ad7e5",
        "vllm-0.6.4.post1": "00e34793",
        "vllm-0.4.2": "54c7790a",
        "vllm-0.3.3": "0cdc672c",
    }
    assert {name: stacks.resolve(name)["id"] for name in ids} == {name: f"{name}-{end}" for name, end in ids.items()}


@pytest.mark.parametrize("name", ENTRIES)
def test_the_image_to_launch_has_a_python_and_a_kernel_for_the_stack(name: str) -> None:
    entry = stacks.resolve(name)
    system, (python, kernel) = f"Ubuntu {entry['ubuntu']}", versions.SYSTEMS[f"Ubuntu {entry['ubuntu']}"]
    assert python in entry["pythons"] and f"-{entry['ubuntu']}-amd64" in entry["ubuntu_image"]
    # The driver of 0.3.3 builds on no kernel of an image of today, and the role says which package brings one.
    assert driver.builds_on(kernel, entry["kernel"]) or name == "vllm-0.3.3", f"{system} boots {kernel}"
    # The newest of those that would do.
    assert entry["ubuntu"] == ("24.04" if "3.12" in entry["pythons"] else "22.04")


def test_the_image_decides_on_nothing_that_is_installed() -> None:
    one, other = (stacks.resolve(overrides={"ubuntu": release}) for release in ("22.04", "24.04"))
    assert one["id"] == other["id"] and stacks.content(one) == stacks.content(other)
    assert "jammy-22.04" in one["ubuntu_image"] and "noble-24.04" in other["ubuntu_image"]


def test_a_stack_out_of_support_is_told_with_the_date_the_source_and_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supported = {"until_sdk": "2.30.0", "until": "2030-01-31", "source": "https://aws.example/end"}
    old = stacks.resolve(overrides={"supported": supported})
    assert stacks.out_of_support(old, datetime.date(2030, 1, 30)) is None
    monkeypatch.setattr(stacks, "load", lambda: {"stacks": {"old": old}})
    assert stacks.out_of_support(old, datetime.date(2030, 1, 31)) == (
        f"What the stack {old['name']} is made of is out of AWS's support since 2030-01-31 with SDK 2.30.0 "
        "(https://aws.example/end). No stack that this collection installs is in AWS's support."
    )
    new = stacks.merged(old, {"supported": {"until": None}})
    monkeypatch.setattr(stacks, "load", lambda: {"stacks": {"old": old, "new": new}})
    told = stacks.out_of_support(old, datetime.date(2030, 1, 31))
    assert told is not None and told.endswith("AWS supports new.")
    assert stacks.out_of_support(new, datetime.date(2099, 1, 1)) is None


def test_devices_of_another_family_are_refused_with_the_stacks_that_drive_them(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = stacks.resolve(overrides={"instance_families": ["inf2", "trn1n"]})
    for family in ("inf2", "trn1"):  # a trn1n looks like a trn1
        assert stacks.other_family(entry, {family}) is None
    assert stacks.other_family(entry, set()) is None
    monkeypatch.setattr(stacks, "load", lambda: {"stacks": {"old": entry}})
    assert stacks.other_family(entry, {"trn2"}) == (
        f"its devices are those of trn2, and the stack {entry['name']} is for inf2, trn1n; "
        "no stack that this collection installs is for it"
    )
    big = stacks.merged(entry, {"instance_families": ["trn2"]})
    monkeypatch.setattr(stacks, "load", lambda: {"stacks": {"old": entry, "big": big}})
    told = stacks.other_family(entry, {"trn2"})
    assert told is not None and told.endswith("; set neuron_stack to big")


def test_an_entry_of_the_users_own_is_found() -> None:
    mine = {**ENTRIES[stacks.load()["default"]], "sdk": "9.9.9"}
    assert stacks.resolve("mine", entries={"mine": mine})["sdk"] == "9.9.9"


def test_an_entry_of_the_users_own_need_not_say_what_aws_supports() -> None:
    entry = stacks.resolve("vllm-0.9.2")
    whole = {name: value for name, value in entry.items() if name not in (*stacks.ADDED, *stacks.UNSAID)}
    found = stacks.resolve("mine", entries={"mine": whole})
    assert (found["backend"], stacks.out_of_support(found, datetime.date(2099, 1, 1))) == ("in_tree", None)


def test_an_unknown_stack_is_refused_with_the_list() -> None:
    with pytest.raises(stacks.StackError, match=r"no stack 'vllm-0\.0\.1'.*vllm-0\.9\.2"):
        stacks.resolve("vllm-0.0.1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"nonsense": 1}, "nonsense is not a field"),
        ({"vllm": {"needs_neuron_ls": "yes"}}, "vllm.needs_neuron_ls has the wrong type: 'yes'"),
        ({"kernel": None}, "kernel is not a dictionary"),
        ({"backend": "tpu"}, "backend is 'tpu', and should be one of in_tree, nxd_inference, optimum_neuron"),
        ({"ubuntu": "18.04"}, "ubuntu is '18.04', and should be one of 22.04, 24.04"),
        ({"ubuntu": 24.04}, "ubuntu has the wrong type: 24.04"),
        ({"supported": {"until": "soon"}}, "supported.until is 'soon', and should be a date such as 2025-09-16"),
    ],
)
def test_a_wrong_field_is_refused_by_name(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(stacks.StackError, match=re.escape(message)):
        stacks.resolve("vllm-0.9.2", overrides=overrides)


def test_a_missing_field_is_refused_by_name() -> None:
    with pytest.raises(stacks.StackError, match="pythons is missing"):
        stacks.resolve("mine", entries={"mine": {"sdk": "2.23.0"}})


@pytest.mark.parametrize(
    ("version", "nearest"),
    [
        ("0.2.7", "0.3.3"),
        ("0.3.0", "0.3.3"),
        ("0.3.2", "0.3.3"),
        ("0.4.0", "0.3.3 and 0.4.2"),
        ("0.4.0.post1", "0.3.3 and 0.4.2"),
        ("0.5.1", "0.4.2 and 0.6.4.post1"),
        ("0.5.3.post1", "0.4.2 and 0.6.4.post1"),
        ("0.5.5", "0.4.2 and 0.6.4.post1"),
        ("0.6.1.post2", "0.4.2 and 0.6.4.post1"),
        ("0.6.3.post1", "0.4.2 and 0.6.4.post1"),
        ("0.6.5", "0.6.4.post1 and 0.7.3"),
        ("0.10.0", "0.9.2 and 0.11.0"),
        ("0.10.1.1", "0.9.2 and 0.11.0"),
        ("0.10.2", "0.9.2 and 0.11.0"),
        ("0.24.0", "0.16.0"),
    ],
)
def test_a_release_that_cannot_serve_is_refused_with_the_nearest_that_can(version: str, nearest: str) -> None:
    with pytest.raises(stacks.StackError, match=re.escape(f"The nearest that works: {nearest}.")):
        stacks.resolve(overrides={"vllm": {"version": version}})
    with pytest.raises(stacks.StackError, match=re.escape(f"vLLM {version} cannot serve")):
        stacks.resolve(f"vllm-{version}")


@pytest.mark.parametrize("name", ENTRIES)
def test_no_entry_is_refused(name: str) -> None:
    assert stacks.resolve(name)["name"] == name


def test_an_entry_takes_from_its_base_what_it_does_not_name() -> None:
    entry, base = stacks.resolve("vllm-0.8.5"), stacks.resolve("vllm-0.9.2")
    assert entry["host_packages"] == base["host_packages"]
    assert entry["vllm"]["version"] == "0.8.5"
    assert entry["vllm"]["suffix"] == base["vllm"]["suffix"]
    mine = stacks.resolve("mine", entries={"mine": {"base": "vllm-0.9.2", "sdk": "9.9.9"}})
    assert (mine["sdk"], mine["vllm"]) == ("9.9.9", base["vllm"])


def test_a_base_that_is_no_entry_is_refused() -> None:
    with pytest.raises(stacks.StackError, match="based on 'vllm-9'"):
        stacks.resolve("mine", entries={"mine": {"base": "vllm-9"}})


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_is_what_its_sdk_release_has(name: str) -> None:
    entry = ENTRIES[name]
    released = {item["sdk"]: item for item in RELEASES}[entry["sdk"]]
    for package, version in entry["host_packages"].items():
        assert version in released["host"][package]
    for package in set(released["python"]) & set(entry["python_packages"]):
        version = entry["python_packages"][package]
        assert set(entry["pythons"]) <= set(released["python"][package][version])
    torch, torchvision = entry["python_packages"]["torch"], entry["python_packages"]["torchvision"]
    assert (
        torchvision
        == {
            "2.1.1": "0.16.1",
            "2.1.2": "0.16.2",
            "2.5.1": "0.20.1",
            "2.8.0": "0.23.0",
            "2.9.0": "0.24.0",
            "2.9.1": "0.24.1",
        }[torch]
    )
