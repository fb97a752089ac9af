# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write values into unit files and environment files so that systemd reads back what was meant.

The rules are those of systemd.syntax(7), systemd.service(5) and systemd.exec(5). What cannot be written is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from ansible_collections.neuronops.vllm.plugins.module_utils import forms

# What systemd takes for no valid UTF-8: it ignores a whole line with one of them.
_NONCHARACTERS = re.compile("[\ufdd0-\ufdef]|[\ufffe\uffff]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ERROR = re.compile(
    r"(?:Traceback \(most recent call last\)|\b(?:ERROR|CRITICAL|FATAL|Fatal|Error|error:)|\w(?:Error|Exception)\b)"
)
# A line that vLLM itself says to be none; each of its processes writes its name before.
_NO_ERROR = re.compile(r"\s*(?:\([^)]*\)\s*)?(?:DEBUG|INFO|WARNING)\b")
_END_OF_TRACEBACK = re.compile(r"(?:^|[\s\]:.])[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)(?::|\s*\Z)")
LONGEST_ERROR = 60  # lines between the beginning of a traceback and its exception
SHOWN = 12  # lines of an error in a message
LAST = 40  # lines that are shown when no error is among them


class SystemdError(ValueError):
    """A value that cannot stand in its place; the message names the option."""


def checked(value: object, what: str) -> str:
    """Return a value as one line of text that systemd accepts anywhere."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise SystemdError(f"{what} is {type(value).__name__}, and should be a text or a whole number")
    text = str(value)
    try:
        for start in range(0, len(text) or 1, 4096):
            forms.form("line of text", text[start : start + 4096])
    except forms.FormError:
        raise SystemdError(f"{what} must be one line without control characters") from None
    if _NONCHARACTERS.search(text) or any(ord(character) & 0xFFFE == 0xFFFE for character in text):
        raise SystemdError(f"{what} has a character that systemd takes for no valid text")
    return text


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def argument(value: object, what: str) -> str:
    """Return an argument of ExecStart=, after the program."""
    return _quoted(checked(value, what)).replace("$", "$$")


def program(value: object, what: str) -> str:
    """Return the program of ExecStart=. Before it, @ - : + and ! would have a meaning, and in it $ is not expanded."""
    text = checked(value, what)
    if not text.startswith("/") or "$" in text:
        raise SystemdError(f"{what} must be an absolute path without $: {forms.shortened(text)}")
    return _quoted(text)


def assignment(value: object, what: str) -> str:
    """Return an assignment, such as PATH=/usr/bin, for Environment=."""
    text = checked(value, what)
    if not _NAME.match(text.partition("=")[0]) or "=" not in text:
        raise SystemdError(f"{what} must be NAME=value, where a name has letters, digits and _ only")
    return _quoted(text)


def path(value: object, what: str) -> str:
    """Return an entry of a list of paths, such as ReadWritePaths=; one that does not exist is no error."""
    text = checked(value, what)
    if not text.startswith("/"):
        raise SystemdError(f"{what} must be an absolute path: {forms.shortened(text)}")
    return _quoted("-" + text)


def text(value: object, what: str) -> str:
    """Return a value that is read as it stands to the end of the line, such as that of Description=."""
    line = checked(value, what)
    if line != line.strip() or line.endswith("\\"):
        raise SystemdError(f"{what} can neither begin nor end with a space, nor end with a backslash")
    return line.replace("%", "%%")


def variable(value: object, what: str) -> str:
    """Return the value of a variable in an environment file, where neither % nor $ has a meaning to systemd."""
    return '"' + re.sub(r'(["\\`$])', r"\\\1", checked(value, what)) + '"'


PLACES: Mapping[str, Callable[[object, str], str]] = {
    "argument": argument,
    "assignment": assignment,
    "path": path,
    "program": program,
    "text": text,
    "variable": variable,
}


def escaped(value: object, place: str, what: str) -> str:
    """Return a value as it is written in its place; `what` names the option in messages."""
    if place not in PLACES:
        raise SystemdError(f"{place} is no place in a unit; there are {', '.join(sorted(PLACES))}")
    return PLACES[place](value, what)


def environment_lines(variables: Mapping[str, object], what: str) -> list[str]:
    """Return the lines of an environment file, in the order of the variables."""
    lines = []
    for name, value in variables.items():
        if not _NAME.match(name):
            raise SystemdError(f"{what} has the variable {forms.shortened(name)}: letters, digits and _ only")
        lines.append(f"{name}={variable(value, f'{what}.{name}')}")
    return lines


def first_error(lines: Sequence[str]) -> list[str]:
    """Return the first error among the lines of a log with the end of its traceback, or the last lines without one."""
    clean = [re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", line)[:400].rstrip() for line in lines]
    for start, line in enumerate(clean):
        if not _ERROR.search(line) or _NO_ERROR.match(line):
            continue
        end = start + 1
        if "Traceback" in line:
            for number in range(start + 1, min(len(clean), start + LONGEST_ERROR)):
                end = number + 1
                if _END_OF_TRACEBACK.search(clean[number]):
                    break
        found = clean[start:end]
        return found if len(found) <= SHOWN else [*found[:2], "...", *found[3 - SHOWN :]]
    return clean[-LAST:]
