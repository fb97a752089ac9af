# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written into units and environment files is read back the same by a reader of systemd's documented syntax."""

from __future__ import annotations

import re
from collections.abc import Callable

from ansible_collections.neuronops.vllm.plugins.plugin_utils import systemd
from hypothesis import given
from hypothesis import strategies as st

TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                "%",
                "%h",
                "%%",
                "$",
                "$$",
                "${HOME}",
                "\\",
                '"',
                "'",
                "`",
                " ",
                ";",
                "#",
                "=",
                "\n",
                "\t",
                "ä",
                "\\n",
                "\\x41",
                "-",
                "@",
            ]
        ),
        max_size=12,
    ).map("".join),
)
ESCAPES = {
    "\\": "\\",
    '"': '"',
    "'": "'",
    "n": "\n",
    "t": "\t",
    "s": " ",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}


def words(line: str) -> list[str]:
    """Return the words of a setting: quotes, and C's escapes within and outside of them (systemd.syntax, QUOTING)."""
    found, position = [], 0
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        word, quote = "", ""
        while position < len(line) and (quote or not line[position].isspace()):
            character = line[position]
            if character == "\\":
                position += 1
                word += ESCAPES[line[position]]
            elif quote and character == quote:
                quote = ""
            elif not quote and character in "\"'":
                quote = character
            else:
                word += character
            position += 1
        assert not quote, "a quote is open at the end"
        found.append(word)
    return found


def unspecified(text: str) -> str:
    """Return a text with its specifiers expanded, of which %% is the only one that may stand there."""
    assert not re.search(r"(?:^|[^%])(?:%%)*%(?:[^%]|\Z)", text), "a specifier"
    return text.replace("%%", "%")


def expanded(text: str) -> str:
    """Return an argument with its variables expanded, of which $$ is the only one that may stand there."""
    assert not re.search(r"(?:^|[^$])(?:\$\$)*\$(?:[^$]|\Z)", text), "a variable"
    return text.replace("$$", "$")


def environment(lines: str) -> dict[str, str]:
    """Return what EnvironmentFile= reads (systemd.exec)."""
    found = {}
    for line in lines.splitlines():
        name, _equal, rest = line.partition("=")
        assert rest[:1] == rest[-1:] == '"' and len(rest) > 1
        value, position, inner = "", 0, rest[1:-1]
        while position < len(inner):
            assert inner[position] != '"', "a quote ends early"
            if inner[position] == "\\":
                position += 1
                assert position < len(inner), "the last quote is escaped"
                value += "" if inner[position] in '"\\`$' else "\\"
            value += inner[position]
            position += 1
        found[name] = value
    return found


def written(place: str, value: str) -> str | None:
    """Return what is written, or None where the value is refused, which an ordinary line of text never is."""
    try:
        line: str = systemd.escaped(value, place, "vllm_server_x")
    except systemd.SystemdError as error:
        assert "vllm_server_x" in str(error)
        return None
    assert line.isprintable() or not re.search(r"[\x00-\x1f\x7f]", line)
    assert "\n" not in line
    return line


@given(value=TEXT)
def test_an_argument_arrives_as_it_was_given(value: str, tried: Callable[[str], None]) -> None:
    tried("systemd argument")
    line = written("argument", value)
    if line is None:
        assert not value.isascii() or not value.isprintable()
        return
    assert [expanded(unspecified(word)) for word in words(f"{line} {line}")] == [value, value]


@given(value=TEXT)
def test_an_assignment_arrives_as_it_was_given(value: str, tried: Callable[[str], None]) -> None:
    tried("systemd assignment")
    line = written("assignment", f"PATH={value}")
    if line is not None:
        assert [unspecified(word) for word in words(line)] == [f"PATH={value}"]


@given(value=TEXT)
def test_a_path_and_a_program_arrive_as_they_were_given(value: str, tried: Callable[[str], None]) -> None:
    tried("systemd path")
    line = written("path", value)
    if line is not None:
        assert [unspecified(word) for word in words(line)] == ["-" + value] and value.startswith("/")
    line = written("program", value)
    if line is not None:
        assert [unspecified(word) for word in words(line)] == [value]
        assert value.startswith("/") and "$" not in value


@given(value=TEXT)
def test_plain_text_arrives_as_it_was_given(value: str, tried: Callable[[str], None]) -> None:
    tried("systemd text")
    line = written("text", value)
    if line is not None:
        assert unspecified(line.strip()) == value and not line.endswith("\\")


@given(value=TEXT, name=st.one_of(st.text(max_size=8), st.just("HF_HOME")))
def test_a_variable_arrives_as_it_was_given(value: str, name: str, tried: Callable[[str], None]) -> None:
    tried("systemd variable")
    try:
        lines = systemd.environment_lines({"FIRST": "1", name: value, "LAST": value}, "vllm_server_environment")
    except systemd.SystemdError as error:
        assert "vllm_server_environment" in str(error)
        return
    assert environment("\n".join(lines)) == {"FIRST": "1", name: value, "LAST": value}
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)


@given(
    lines=st.lists(st.one_of(TEXT, st.sampled_from(["Traceback (most recent call last):", "ERROR x", "ValueError: y"])))
)
def test_words_of_a_server_are_shown_without_control_characters(lines: list[str], tried: Callable[[str], None]) -> None:
    tried("lines of a log")
    shown = systemd.first_error(lines)
    assert len(shown) <= systemd.LAST
    assert bool(shown) == bool(lines)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", "".join(shown))
