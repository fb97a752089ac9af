# SPDX-License-Identifier: GPL-3.0-or-later
"""Which release a host is to have, and where it is made."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.neuronops.vllm.plugins.filter.release_plan import release_plan
from ansible_collections.neuronops.vllm.plugins.plugin_utils import stacks
from ansible_collections.neuronops.vllm.plugins.plugin_utils.release_plan import PlanError, layers_of, plan, release_id

STACK = stacks.resolve("vllm-0.9.2")
PLUGIN = stacks.resolve("vllm-0.13.0")
LAYERS = layers_of(STACK)
MADE_OF = [{"name": name, "inputs": digit * 64, "lock_sha256": digit * 64} for name, digit in zip(LAYERS, "123")]
LINK, DIRECTORY = "/opt/aws_neuron_venv_pytorch", "/opt/neuronops/releases"
NAME = release_id(STACK, MADE_OF)
FIRST = f"{DIRECTORY}/{NAME}"
WANTED = {"stack": STACK, "id": NAME, "directory": DIRECTORY, "link": LINK, "exact": False}
OFF: dict[str, Any] = {"name": "vllm.service", "executable_real_path": None}


def environment(path: str = FIRST, **changes: Any) -> dict[str, Any]:
    """A whole release, or one that differs."""
    packages = {"torch": "2.5.1", "vllm": "0.9.2+neuron218"}
    whole = {
        "path": path,
        "real_path": path,
        "exists": True,
        "python": {"executable": "/usr/bin/python3.10", "version": "3.10.12", "works": True, "problem": None},
        "packages": packages,
        "damaged": {},
        "manifests": {name: {"role": name, "packages": packages, "files": {}} for name in LAYERS},
        "changed_files": [],
        "ignored": [],
        "release": {"schema": 1, "id": NAME, "stack": "vllm-0.9.2", "completed_at": "", "layers": list(LAYERS)},
    }
    return {**copy.deepcopy(whole), **changes}


def link_to(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "path": LINK}


def test_the_name_is_another_when_anything_in_the_release_is() -> None:
    names = {NAME}
    for number in range(len(LAYERS)):
        for key in ("inputs", "lock_sha256"):
            other = copy.deepcopy(MADE_OF)
            other[number][key] = "4" * 64
            names.add(release_id(STACK, other))
    names.add(release_id({**STACK, "sdk": "2.99.0"}, MADE_OF))
    names.add(release_id({**STACK, "server": {**STACK["server"], "arguments": ["--x"]}}, MADE_OF))
    assert len(names) == 9
    assert release_id(STACK, list(reversed(MADE_OF))) == NAME


def test_a_release_whose_locks_are_not_known_has_no_name() -> None:
    with pytest.raises(PlanError, match="layers vllm are made of"):
        release_id(STACK, MADE_OF[:2])
    with pytest.raises(PlanError, match="transformers_neuronx"):
        release_id(STACK, [MADE_OF[0], {**MADE_OF[1], "inputs": ""}, MADE_OF[2]])


def test_the_layer_of_the_neuron_packages_is_the_one_of_the_stack() -> None:
    assert LAYERS == ("neuron_venv", "transformers_neuronx", "vllm")
    assert layers_of(PLUGIN) == ("neuron_venv", "nxd_inference", "vllm")
    with pytest.raises(PlanError, match="layers nxd_inference are made of"):
        release_id(PLUGIN, MADE_OF)
    made_of = [{**layer, "name": name} for layer, name in zip(MADE_OF, layers_of(PLUGIN))]
    assert release_id(PLUGIN, made_of).startswith("vllm-0.13.0-")
    wanted = {**WANTED, "stack": PLUGIN}
    assert "it has no record of nxd_inference" in plan([environment()], [OFF], wanted)["reasons"][0]
    whole = environment()
    whole["manifests"]["nxd_inference"] = whole["manifests"].pop("transformers_neuronx")
    assert plan([whole], [OFF], wanted)["whole"]
    assert "it has no record of transformers_neuronx" in plan([whole], [OFF], WANTED)["reasons"][0]


def test_a_bare_host_gets_the_release_under_its_own_name() -> None:
    found = plan([{**environment(LINK), "exists": False}], [OFF], WANTED)
    assert (found["path"], found["whole"], found["started"]) == (FIRST, False, False)
    assert found["reasons"] == [f"there is no {FIRST} yet"]


def test_a_whole_release_is_left_alone() -> None:
    entry = environment()
    found = plan([link_to(entry), entry], [OFF], WANTED)
    assert found == {
        "path": FIRST, "whole": True, "beside": [], "reasons": [], "started": False, "refusals": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"release": None}, "it was never completed"),
        ({"damaged": {"torch": "libtorch.so is missing"}}, "torch is damaged: libtorch.so is missing"),
        ({"packages": {"torch": "2.5.1"}}, "vllm is missing"),
        ({"packages": {"torch": "2.6.0", "vllm": "0.9.2+neuron218"}}, "torch is 2.6.0 in place of 2.5.1"),
        ({"changed_files": [f"{FIRST}/pip.conf"]}, f"{FIRST}/pip.conf differs"),
        ({"manifests": {}}, "it has no record of neuron_venv"),
        ({"python": {"works": False, "problem": "bin/python does not run: gone"}}, "bin/python does not run"),
    ],
)
def test_what_serves_is_never_repaired_in_place(changes: dict[str, Any], says: str) -> None:
    entry = environment(**changes)
    found = plan([link_to(entry), entry], [OFF], WANTED)
    assert (found["path"], found["whole"], found["started"]) == (f"{FIRST}.2", False, False)
    assert f"{FIRST} is in use, and" in found["reasons"][0] and says in found["reasons"][0]
    # What nothing serves from is.
    spare = plan([{**environment("/x/other"), "path": LINK}, entry], [OFF], WANTED)
    assert (spare["path"], spare["whole"]) == (FIRST, False)
    assert f"{FIRST} is not whole" in spare["reasons"][0] and says in spare["reasons"][0]


def test_a_release_that_a_server_still_runs_from_is_in_use_whatever_the_link_says() -> None:
    entry = environment(damaged={"torch": "gone"})
    runs = {**OFF, "executable_real_path": f"{FIRST}/bin/python"}
    assert plan([{**environment("/x/other"), "path": LINK}, entry], [runs], WANTED)["path"] == f"{FIRST}.2"


def test_the_copy_that_was_made_for_a_damaged_one_is_taken_up_again() -> None:
    damaged = environment(damaged={"torch": "gone"})
    half, whole = environment(f"{FIRST}.2", release=None), environment(f"{FIRST}.2")
    assert plan([link_to(damaged), damaged, half], [OFF], WANTED)["path"] == f"{FIRST}.2"
    done = plan([link_to(whole), damaged, whole], [OFF], WANTED)
    assert (done["path"], done["whole"], done["reasons"]) == (f"{FIRST}.2", True, [])


def test_packages_of_others_count_where_the_environment_is_to_be_exact() -> None:
    entry = environment(packages={"torch": "2.5.1", "vllm": "0.9.2+neuron218", "mine": "1"})
    assert plan([link_to(entry), entry], [OFF], WANTED)["whole"]
    strict = plan([link_to(entry), entry], [OFF], {**WANTED, "exact": True})
    assert strict["path"] == f"{FIRST}.2" and "no role asked for mine" in strict["reasons"][0]


def test_a_file_outside_of_the_release_is_mended_without_another_release() -> None:
    kernel = "/usr/local/share/jupyter/kernels/neuron/kernel.json"
    entry = environment(changed_files=[kernel])
    found = plan([link_to(entry), entry], [OFF], WANTED)
    assert (found["path"], found["whole"]) == (FIRST, True)
    assert found["beside"] == found["reasons"] == [f"{kernel} differs from what was recorded"]


def test_folders_of_other_names_are_no_copies() -> None:
    for name in (f"{FIRST}x", f"{FIRST}.1", f"{FIRST}.02", f"{FIRST}.2.3"):
        entry = environment(name)
        assert not plan([link_to(entry), entry], [OFF], WANTED)["whole"], name


@pytest.mark.parametrize(
    ("more", "free", "says"),
    [
        ({}, 10, None),
        ({}, 9, "host1 has 9.0 GiB free for /opt/neuronops/releases, and a release needs 10 (neuron_release_space"),
        ({}, None, None),
        ({"there": 6 << 30}, 4, None),
        ({"there": 3 << 30}, 6, "needs 10, of which 3.0 are there"),
        ({"releases": 2}, 19, "the environment that vLLM is built in need 20"),
        ({"space": 0}, 0, None),
    ],
)
def test_the_room_that_is_needed_is_told(more: dict[str, Any], free: int | None, says: str | None) -> None:
    found = {"environments": [], "services": [], "free_bytes": {DIRECTORY: None if free is None else free << 30}}
    refusals = release_plan(found, {**WANTED, "host": "host1", "space": 10, **more})["refusals"]
    assert refusals == [] if says is None else says in refusals[0]
    whole = {**found, "environments": [environment()]}
    assert release_plan(whole, {**WANTED, "host": "host1", "space": 10, **more})["refusals"] == []


def test_what_was_begun_is_gone_on_with() -> None:
    assert plan([environment(release=None)], [OFF], WANTED)["started"]


def test_the_filter_names_and_plans_at_once() -> None:
    wanted = {"stack": STACK, "layers": MADE_OF, "directory": DIRECTORY, "link": LINK}
    found = release_plan({"environments": [], "services": []}, wanted)
    assert (found["id"], found["path"]) == (NAME, FIRST)
