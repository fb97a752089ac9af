# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to do for a layer of an environment, and why: each difference has its sentence."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.neuronops.vllm.plugins.filter.environment_beside import environment_beside
from ansible_collections.neuronops.vllm.plugins.filter.environment_plan import environment_plan

INPUTS, OTHER = "a" * 64, "b" * 64
VENV = "/opt/aws_neuron_venv_pytorch"
WANTED = {"layer": "neuron_venv", "inputs": INPUTS, "exact": False}
RECORD = {
    "role": "neuron_venv",
    "inputs": INPUTS,
    "packages": {"numpy": "1.26.4", "torch": "2.5.1"},
    "files": {f"{VENV}/pip.conf": OTHER},
}


def found(**changed: Any) -> dict[str, Any]:
    """Return an environment that is as the role left it, except for some of its parts."""
    whole = {
        "path": VENV,
        "exists": True,
        "python": {"executable": "/usr/bin/python3.10", "version": "3.10.12", "works": True, "problem": None},
        "packages": {"numpy": "1.26.4", "torch": "2.5.1"},
        "damaged": {},
        "manifests": {"neuron_venv": RECORD},
        "changed_files": [],
    }
    return copy.deepcopy({**whole, **changed})


def reasons(wanted: dict[str, Any] | None = None, **changed: Any) -> list[str]:
    plan = environment_plan(found(**changed), {**WANTED, **(wanted or {})})
    assert plan["done"] == (not plan["reasons"])
    listed: list[str] = plan["reasons"]
    return listed


def test_nothing_is_to_be_done_where_all_is_as_it_was_left() -> None:
    assert environment_plan(found(), WANTED) == {"done": True, "reasons": [], "foreign": []}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exists": False}, f"there is no environment in {VENV}"),
        (
            {"python": {"works": False, "version": None, "problem": "bin/python does not start"}},
            "its Python does not run: bin/python does not start",
        ),
        ({"packages": {"numpy": "1.26.4", "torch": "2.5.0"}}, "torch is 2.5.0 in place of 2.5.1"),
        ({"damaged": {"torch": "a.py is missing"}}, "torch is damaged: a.py is missing"),
        ({"packages": {"torch": "2.5.1"}}, "numpy is missing"),
        ({"changed_files": [f"{VENV}/pip.conf"]}, f"the file {VENV}/pip.conf differs from what was recorded"),
        ({"manifests": {}}, "no record says that neuron_venv is complete"),
        (
            {"manifests": {"neuron_venv": {**RECORD, "inputs": OTHER}}},
            "it was made from other inputs (a lock, an index address or an option changed)",
        ),
        (
            # As versions before this one wrote it.
            {"manifests": {"neuron_venv": {"role": "neuron_venv", "packages": {"torch": "2.5.1"}}}},
            "it was made from other inputs (a lock, an index address or an option changed)",
        ),
    ],
)
def test_each_difference_is_said_in_a_sentence(changed: dict[str, Any], reason: str) -> None:
    assert reasons(**changed) == [reason]


def test_all_differences_are_said() -> None:
    assert reasons(
        packages={"torch": "2.5.0"},
        python={"works": False, "version": None, "problem": None},
        changed_files=[f"{VENV}/pip.conf"],
    ) == [
        "its Python does not run: it says no reason",
        "numpy is missing",
        "torch is 2.5.0 in place of 2.5.1",
        f"the file {VENV}/pip.conf differs from what was recorded",
    ]


def test_inputs_that_are_not_known_are_a_reason_of_their_own() -> None:
    old = {"neuron_venv": {"role": "neuron_venv", "inputs": ""}}
    assert reasons({"inputs": ""}, manifests=old) == ["what it is to be made from has to be resolved or built first"]


def test_the_damage_of_what_another_layer_has_is_not_this_ones_affair() -> None:
    other = {"role": "vllm", "packages": {"vllm": "0.9.2"}, "files": {"/a.whl": OTHER}}
    assert (
        reasons(
            manifests={"neuron_venv": RECORD, "vllm": other},
            packages={"numpy": "1.26.4", "torch": "2.5.1", "pip": "24.0"},
            damaged={"vllm": "a.py is missing"},
            changed_files=["/a.whl"],
        )
        == []
    )


def test_a_foreign_package_is_named_and_is_work_where_it_must_not_be_there() -> None:
    there = {"packages": {"numpy": "1.26.4", "torch": "2.5.1", "toolz": "1", "black": "2", "vllm": "0.9.2"}}
    records = {"manifests": {"neuron_venv": RECORD, "vllm": {"role": "vllm", "packages": {"vllm": "0.9.2"}}}}
    plan = environment_plan(found(**there, **records), WANTED)
    assert plan == {"done": True, "reasons": [], "foreign": ["black", "toolz"]}
    assert reasons({"exact": True}, **there, **records) == ["these packages no role asked for: black, toolz"]


def test_nothing_is_foreign_to_a_layer_that_was_never_complete() -> None:
    plan = environment_plan(found(manifests={}), {**WANTED, "exact": True})
    assert plan["foreign"] == []
    assert plan["reasons"] == ["no record says that neuron_venv is complete"]


def test_where_all_is_gone_not_every_package_is_named() -> None:
    packages = {f"p{number:02}": "1" for number in range(30)}
    record = {**RECORD, "packages": packages}
    said = reasons(manifests={"neuron_venv": record}, packages={})
    assert len(said) == 11
    assert (said[0], said[-1]) == ("p00 is missing", "20 more packages are missing, damaged or others")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"layer": "vllm_server"}, "should be one of neuron_venv, transformers_neuronx, nxd_inference, vllm"),
        ({"inputs": None}, "inputs is None"),
        ({"exact": "false"}, "exact is 'false', and should be true or false"),
        ({"exakt": True}, "exakt is missing or unknown"),
    ],
)
def test_what_is_not_understood_is_an_error(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        environment_plan(found(), {**WANTED, **wanted})


LOCKED = {"name": "neuron_venv", "path": VENV, "python_version": "3.11", "packages": {"numpy": "2.0"}}
NONE = {"exists": False, "python": {"works": False, "version": None, "problem": None}, "manifests": {}, "packages": {}}


def test_what_was_locked_for_a_path_stands_there_before_and_after_it_is_made() -> None:
    beside = environment_beside(found(**NONE), [LOCKED, {}], ["", "3.9"])
    assert beside == {"packages": {"neuron_venv": {"numpy": "2.0"}}, "python_version": "3.11"}
    assert environment_beside(found(), [LOCKED, {}], ["", "3.9"]) == beside
    assert environment_beside(found(), [{**LOCKED, "path": f"{VENV}/"}], []) == beside


def test_without_a_lock_of_that_path_the_environment_says_what_stands() -> None:
    recorded = {"neuron_venv": {"numpy": "1.26.4", "torch": "2.5.1"}}
    nowhere: list[list[dict[str, Any]]] = [[], [{}], [{**LOCKED, "path": "/elsewhere"}]]
    for locked in nowhere:
        beside = environment_beside(found(), locked, ["3.9"])
        assert beside == {"packages": recorded, "python_version": "3.10"}
    # In check mode there may be no lock to read.
    assert environment_beside(found(), [{**LOCKED, "packages": {}}], [])["packages"] == recorded


def test_where_nothing_says_the_python_it_is_the_first_that_was_named() -> None:
    assert environment_beside(found(**NONE), [{}], ["", "3.9", "3.8"]) == {"packages": {}, "python_version": "3.9"}
    broken = {"works": False, "version": "3.10.12", "problem": "the packages are installed for another"}
    assert environment_beside(found(python=broken), [], ["3.9"])["python_version"] == "3.9"


def test_versions_are_compared_as_they_are_meant() -> None:
    spelled = {"a": "2024.07.04", "b": "1.0.Post1", "c": "1.0+CPU", "d": "what-no-one-means"}
    records = {"neuron_venv": {"packages": spelled}}
    expected = {"a": "2024.7.4", "b": "1.0.post1", "c": "1.0+cpu", "d": "what-no-one-means"}
    assert environment_beside(found(manifests=records), [])["packages"]["neuron_venv"] == expected
    assert environment_beside(found(), [{**LOCKED, "packages": spelled}])["packages"]["neuron_venv"] == expected
