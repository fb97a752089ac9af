# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack data is complete and consistent, and its reader refuses what it cannot serve."""

from __future__ import annotations

import re
from typing import Any

import pytest

from plugins.plugin_utils import stacks

ENTRIES = stacks.load()["stacks"]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_is_complete(name: str) -> None:
    assert stacks.problems(ENTRIES[name]) == []


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_agrees_with_itself(name: str) -> None:
    entry = ENTRIES[name]
    vllm, packages = entry["vllm"], entry["python_packages"]
    assert name == f"vllm-{vllm['version']}"
    assert vllm["ref"] == f"v{vllm['version']}"
    # vLLM takes the suffix from the first two numbers of the compiler it is built beside.
    assert vllm["suffix"] == "neuron" + "".join(packages["neuronx-cc"].split(".")[:2])
    assert packages["torch-neuronx"].startswith(packages["torch"] + ".")
    assert entry["evidence"] in {"served", "built", "read"}
    assert all(re.fullmatch(r"3\.\d+", python) for python in entry["pythons"])


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


def test_an_entry_of_the_users_own_is_found() -> None:
    mine = {**ENTRIES[stacks.load()["default"]], "sdk": "9.9.9"}
    assert stacks.resolve("mine", entries={"mine": mine})["sdk"] == "9.9.9"


def test_an_unknown_stack_is_refused_with_the_list() -> None:
    with pytest.raises(stacks.StackError, match=r"no stack 'vllm-0\.0\.1'.*vllm-0\.9\.2"):
        stacks.resolve("vllm-0.0.1")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"nonsense": 1}, "nonsense is not a field"),
        ({"vllm": {"needs_neuron_ls": "yes"}}, "vllm.needs_neuron_ls has the wrong type: 'yes'"),
        ({"kernel": None}, "kernel is not a dictionary"),
    ],
)
def test_a_wrong_field_is_refused_by_name(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(stacks.StackError, match=re.escape(message)):
        stacks.resolve(overrides=overrides)


def test_a_missing_field_is_refused_by_name() -> None:
    with pytest.raises(stacks.StackError, match="pythons is missing"):
        stacks.resolve("mine", entries={"mine": {"sdk": "2.23.0"}})
