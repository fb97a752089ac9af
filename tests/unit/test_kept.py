# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found once and not again: in a task by the lookups, in a run by Ansible's main process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils.kept import Kept

CHECKOUT = Path(__file__).resolve().parents[2]
# What a worker finds done that is forked after an action of the collection was loaded.
LOADED = """
import sys
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader(sys.argv[1:])
from ansible_collections.neuronops.vllm.plugins.action import options
from ansible_collections.neuronops.vllm.plugins.plugin_utils import stacks
print(stacks.load.cache_info().currsize, *sorted(name for name in sys.modules if ".vllm.plugins." in name))
"""


def test_an_answer_is_kept_while_the_variables_are_the_same() -> None:
    found: list[int] = []

    def find() -> list[Any]:
        found.append(len(found))
        return found[-1:]

    kept, value = Kept(), ["text"]
    assert kept.answer(("a",), {"x": value}, find) == [0]
    assert kept.answer(("a",), {"x": value}, find) == [0]
    assert kept.answer(("b",), {"x": value}, find) == [1]
    assert kept.answer(("a",), {"x": list(value)}, find) == [2], "another object may be changed behind our back"
    assert kept.answer(("a",), {"y": value}, find) == [3]
    assert kept.answer(("a",), {"y": value, "x": value}, find) == [4]


def test_what_every_worker_needs_is_there_before_they_are_forked() -> None:
    command = [sys.executable, "-c", LOADED, str(CHECKOUT / ".build" / "collections")]
    entries, *modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert entries == "1"
    plugins = "ansible_collections.neuronops.vllm.plugins"
    for kind in ("filter", "lookup"):
        ours = [path.stem for path in (CHECKOUT / "plugins" / kind).glob("[a-z]*.py")]
        assert ours
        assert {f"{plugins}.{kind}.{name}" for name in ours} <= set(modules)
