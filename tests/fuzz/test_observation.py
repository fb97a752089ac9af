# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of hosts: what is returned has its form and does nothing to a terminal, and all else is one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils import forms
from ansible_collections.neuronops.vllm.plugins.plugin_utils import observation
from hypothesis import given
from hypothesis import strategies as st

from tests.answers import ARGUMENTS, GOOD

TEXTS = st.one_of(
    st.sampled_from(
        [
            "{{ lookup('pipe', 'id') }}",
            "{% for x in y %}",
            "/opt/../etc/shadow",
            "../../x",
            "/a\n!id",
            "-o=x",
            "--index-url http://x",
            "x @ http://x",
            "\x1b[2J\x07",
            "\u202e\u2028\ud800\0",
            "x" * 5000,
            "",
            "installed",
            "1.0",
            "0" * 64,
        ]
    ),
    st.text(max_size=20),
)
KEYS = st.one_of(
    st.sampled_from(["add_host", "ansible_facts", "_ansible_no_log", "invocation", "warnings", "diff", "failed", "rc"]),
    TEXTS,
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any) -> Iterator[Any]:
    """Yield every dictionary and list in a value."""
    if isinstance(value, (dict, list)):
        yield value
        for entry in value.values() if isinstance(value, dict) else value:
            yield from places(entry)


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a module's name and a good answer of it in which some values were replaced, added or taken out."""
    module = draw(st.sampled_from(sorted(GOOD)))
    answer = copy.deepcopy(GOOD[module])
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places(answer))))
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        how = draw(st.sampled_from(["replace", "add", "remove", "text"]))
        if how == "add" or not keys:
            if isinstance(place, dict):
                place[draw(KEYS)] = draw(VALUES)
            else:
                place.append(draw(VALUES))
        elif how == "text":
            # What keeps its type: most of the texts that may say anything are met in this way alone.
            texts_there = [key for key in keys if isinstance(place[key], str)]
            for key in texts_there:
                place[key] = draw(TEXTS)
        elif how == "replace":
            place[draw(st.sampled_from(keys))] = draw(VALUES)
        else:
            del place[draw(st.sampled_from(keys))]
    return module, answer


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from texts(entry)


def check_lines(text: str) -> None:
    """Differences and messages of modules have lines; nothing else in a text is more than a character."""
    for line in text.split("\n"):
        for start in range(0, len(line), 4096):
            forms.form("line of text", line[start : start + 4096])


@given(drawn=answers())
def test_an_answer_is_of_its_form_or_one_sentence(
    drawn: tuple[str, dict[str, Any]], tried: Callable[[str], None]
) -> None:
    tried("answer of a host")
    module, answer = drawn
    before = copy.deepcopy(answer)
    arguments = ARGUMENTS.get(module, {})
    found = observation.result(module, answer, "host1", arguments)
    assert repr(answer) == repr(before), "what was received is not changed"
    assert set(found) <= {*observation.ANSWERS[module], "changed", "diff", "warnings", "failed", "unreachable", "msg"}
    for text in texts(found):
        check_lines(text)
        assert len(text) <= observation.LONGEST_TEXT + len("...")
    if "failed" in found:
        assert found["failed"] is True and set(found) <= {"failed", "changed", "msg", "warnings"}
    elif "unreachable" not in found:
        again = {name: value for name, value in found.items() if name != "warnings"}
        assert observation.result(module, again, "host1", arguments) == again, "what passes is what is understood"
        assert json.loads(json.dumps(again)) == again
        assert all(type(text) is str for text in texts(again))


@given(answer=st.dictionaries(KEYS, VALUES, max_size=5))
def test_no_answer_at_all_is_one_sentence_too(answer: dict[str, Any], tried: Callable[[str], None]) -> None:
    tried("answer of a host")
    found = observation.result("neuron_info", answer, "host1", {})
    assert found.get("failed") is True or found.get("unreachable") is True
    check_lines(found["msg"])
