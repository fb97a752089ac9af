# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests of wheels: what passes is five fields in their forms, and the file lies in its folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from ansible_collections.neuronops.vllm.plugins.action.vllm_wheel import check_wheel, told
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError, requirement
from ansible_collections.neuronops.vllm.plugins.plugin_utils import stacks, wheel_store
from hypothesis import given
from hypothesis import strategies as st

STACK = stacks.resolve("vllm-0.9.2")
ARGUMENTS = {"stack": STACK, "python_version": "3.11", "architecture": "x86_64"}
GOOD: dict[str, Any] = {
    "wheel": "vllm-0.9.2+neuron218-py3-none-any.whl",
    "sha256": "0123456789abcdef" * 4,
    "version": "0.9.2+neuron218",
    "commit": STACK["vllm"]["commit"],
    "requirements": ["fastapi>=0.1", "numpy<2; python_version >= '3.8'"],
}
KEYS = st.one_of(
    st.sampled_from(
        [*GOOD, "source", "ref", "add_host", "ansible_facts", "failed", "changed", "msg", "path", "_ansible"]
    ),
    st.text(max_size=10),
)
PIECES = st.sampled_from(
    [
        "../",
        "/",
        "\n",
        "\r",
        "\x1b[2J",
        "\u2028",
        "'",
        '"',
        "\\",
        "!id",
        " @ http://x/y",
        "-i x",
        "\0",
        "+",
        "-",
        "{{ x }}",
    ]
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=20), PIECES, st.sampled_from(list(GOOD.values()))
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def manifests(draw: st.DrawFn) -> Any:
    """Return a manifest with some fields changed, taken out or added."""
    found = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        key = draw(KEYS)
        what = draw(st.sampled_from(["remove", "value", "piece"]))
        if what == "remove":
            found.pop(key, None)
        elif what == "piece" and isinstance(found.get(key), str):
            place = draw(st.integers(0, len(found[key])))
            found[key] = found[key][:place] + draw(PIECES) + found[key][place:]
        else:
            found[key] = draw(VALUES)
    return found


def looked_at(facts: dict[str, Any]) -> None:
    """Compare what passed with what is promised of it."""
    assert set(wheel_store.FIELDS) <= set(facts) <= {*wheel_store.FIELDS, *wheel_store.NOTES}
    assert (
        "/" not in facts["wheel"] and "\n" not in facts["wheel"] and facts["wheel"].startswith("vllm-0.9.2+neuron218-")
    )
    assert (facts["version"], facts["commit"]) == (GOOD["version"], GOOD["commit"])
    assert len(facts["sha256"]) == 64 and int(facts["sha256"], 16) >= 0
    assert facts["requirements"] == [requirement(line) for line in facts["requirements"]]


@given(found=st.one_of(manifests(), VALUES))
def test_a_manifest_that_passes_is_the_wheel_of_the_stack(found: Any, tried: Callable[[str], None]) -> None:
    tried("manifest of a wheel")
    try:
        facts = wheel_store.parsed(json.dumps(found).encode(), lambda manifest: check_wheel(manifest, ARGUMENTS))
    except FormError:
        return
    looked_at(facts)


@given(answer=manifests())
def test_a_hosts_answer_that_passes_is_the_wheel_of_the_stack(
    answer: dict[str, Any], tried: Callable[[str], None]
) -> None:
    tried("answer of a build")
    try:
        facts = told(answer, ARGUMENTS)
    except FormError:
        return
    assert set(facts) == set(wheel_store.FIELDS)
    looked_at(facts)


@given(text=st.one_of(st.binary(max_size=200), st.integers(0, 400).map(lambda end: json.dumps(GOOD).encode()[:end])))
def test_a_file_that_is_no_manifest_is_refused(text: bytes, tried: Callable[[str], None]) -> None:
    tried("file of a manifest")
    try:
        assert wheel_store.parsed(text) == GOOD
    except FormError:
        return
