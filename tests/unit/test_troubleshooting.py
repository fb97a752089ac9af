# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/troubleshooting.md has an entry for everything that the collection says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import messages, troubleshooting

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = troubleshooting.TARGET.read_text(encoding="utf-8")


def plain(text: str) -> str:
    """Return a text as words and single spaces, so that neither markup nor line ends matter."""
    return " ".join(re.findall(r"[A-Za-z0-9]+", text))


def test_the_page_is_up_to_date() -> None:
    assert troubleshooting.text() == PAGE, "run `make docs`"


def test_every_message_has_an_anchor_of_its_own() -> None:
    anchors = re.findall(r'<a id="([a-z0-9-]+)"></a>', PAGE)
    assert len(set(anchors)) == len(anchors) == len(messages.collected()) > 500


def fixed(text: str) -> list[str]:
    """Return the parts of a message that are the same each time, where they are long enough to be found by."""
    text, before = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|%[sdr]", "{}", text, flags=re.DOTALL), ""
    while text != before:  # what is put in may hold braces itself
        before, text = text, re.sub(r"\{[^{}]*\}", "\0", text)
    parts = text.split("\0")
    return [plain(part) for part in parts if len(plain(part).split()) >= 4]


# Found in another way than docs/messages.py finds them, so that what it misses shows.
def test_every_refusal_of_a_task_is_on_the_page() -> None:
    wanted: list[tuple[str, str]] = []
    for path in [*CHECKOUT.glob("roles/*/tasks/**/*.yml"), *CHECKOUT.glob("playbooks/**/*.yml")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            start = re.match(r"( *)(?:- )?(?:fail_msg|otherwise):(?: >-?| \|-?)?(.*)$", line)
            if not start:
                continue
            block = [start[2]]
            for following in lines[number + 1 :]:
                if following.strip() and len(following) - len(following.lstrip()) <= len(start[1]):
                    break
                block.append(following)
            wanted += [(str(path.relative_to(CHECKOUT)), part) for part in fixed("\n".join(block))]
    assert len(wanted) > 100
    page = plain(PAGE)
    assert [part for part in wanted if part[1] not in page] == []


def test_every_refusal_of_a_plugin_is_on_the_page() -> None:
    wanted: list[tuple[str, str]] = []
    for path in CHECKOUT.glob("plugins/**/*.py"):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"(?:raise \w+\(|fail_json\(\s*msg=|\"msg\": )\s*f?((?:\"[^\"\n]*\"\s*f?)+)", text):
            whole = "".join(re.findall(r"\"([^\"\n]*)\"", match[1]))
            wanted += [(str(path.relative_to(CHECKOUT)), part) for part in fixed(whole.replace("\\n", " "))]
    assert len(wanted) > 100
    page = plain(PAGE)
    assert [part for part in wanted if part[1] not in page] == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('raise WrongError(f"the {color} box is too small")', "the … box is too small"),
        ('raise WrongError("the %s box is %d cm" % (color, size))', "the … box is … cm"),
        ('module.fail_json(msg="the {0} box is gone".format(color))', "the … box is gone"),
        ('answer = {"failed": True, "msg": "no box here"}', "no box here"),
        ('found = ["the box has no lid at all"]', "the box has no lid at all"),
        ('ADVICE = {"--box": "open the box before that"}', "open the box before that"),
        ('found.append(f"it {state}" + " and the box is closed")', "it … and the box is closed"),
        ('found.append("the box" if small else "the box is far too large")', "the box is far too large"),
    ],
)
def test_what_a_plugin_says_is_found(source: str, said: str) -> None:
    assert list(messages.of_python(source)) == [said]


@pytest.mark.parametrize(
    "source",
    [
        '"""The box is described in this sentence."""',
        'DOCUMENTATION = "the box is an option of the module"',
        'PATTERN = re.compile("one or two or three")',
        'forms.form("name of a small box", value)',
        'raise WrongError(f"{path}: {error}")',
    ],
)
def test_what_nobody_says_is_not_on_the_page(source: str) -> None:
    assert list(messages.of_python(source)) == []


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"ansible.builtin.assert": {"fail_msg": "{{ host }} has no box"}}, ["{{ host }} has no box"]),
        ({"block": [{"ansible.builtin.fail": {"msg": "there is no box"}}]}, ["there is no box"]),
        ({"loop": [{"holds": "x", "otherwise": "there is no lid"}]}, ["there is no lid"]),
        ({"vars": {"__x": "{{ 'the box is closed' if a else 'the box is open by now' }}"}}, ["the box is open by now"]),
        ({"name": "Check that there is a box here", "when": "the box is there now"}, []),
    ],
)
def test_what_a_task_says_is_found(task: dict[str, object], said: list[str]) -> None:
    found = list(messages.of_tasks([task]))
    assert [text for text in map(messages.tidy, found)][-1:] == [text.replace("{{ host }}", "…") for text in said][-1:]


def test_a_file_without_a_topic_is_named() -> None:
    with pytest.raises(troubleshooting.UnclearError, match=r"plugins/new/thing\.py belongs to no topic"):
        troubleshooting.topic_of("plugins/new/thing.py", troubleshooting.advice()["topics"])


def test_advice_on_a_message_that_is_gone_is_named() -> None:
    with pytest.raises(troubleshooting.UnclearError, match="no message begins with 'The moon'"):
        troubleshooting.named("The moon", messages.collected())


def test_the_most_frequent_have_a_cause_and_a_remedy_each() -> None:
    entries = troubleshooting.advice()["frequent"]
    assert len(entries) >= 20
    assert all(set(entry) == {"says", "cause", "do"} and all(entry.values()) for entry in entries)
