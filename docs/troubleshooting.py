# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/troubleshooting.md: every message of the collection by topic, with what troubleshooting.yml says of it.

Run as `make docs`.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from docs.messages import Message, collected, words  # noqa: E402 - after the path to it

TARGET = CHECKOUT / "docs" / "troubleshooting.md"
ADVICE = CHECKOUT / "docs" / "troubleshooting.yml"
# Signs that Markdown would read as its own; an underscore only at the end of a word.
MARKS = re.compile(r"[\\*<>\[\]|]|(?<![^\W_])_|_(?![^\W_])")
HEAD = """<!-- Written by `make docs` from the sources and docs/troubleshooting.yml; change these. -->
# Troubleshooting, by message

Search this page for a few words of the message. `…` stands for what is put in: names of hosts, paths, versions. A short
sentence may stand within a longer message, behind a colon or between semicolons. A task that fails ends with a message
of this page, or with one of Ansible or of another program, which it quotes.

Most messages say themselves whether anything was changed, and what to type next. Above a failure, `-v` shows more of
what a module answered. [What happens when something fails in the middle](faults.md) is a page of its own.

## The most frequent

"""


class UnclearError(ValueError):
    """The advice does not fit what the sources say; the message says where."""


def advice() -> dict[str, Any]:
    """Return what is written by hand."""
    found: dict[str, Any] = yaml.safe_load(ADVICE.read_text(encoding="utf-8"))
    return found


def anchors(messages: Sequence[Message]) -> dict[str, str]:
    """Return {text: anchor}: the first words of a message, as many as tell it from the others."""
    found: dict[str, str] = {}
    for length in (8, 14, 22, 1000):
        wanted: dict[str, list[str]] = defaultdict(list)
        for message in messages:
            if message.text not in found:
                wanted["-".join(words(message.text)[:length]).lower()].append(message.text)
        for anchor, texts in wanted.items():
            if len(texts) == 1 and anchor not in found.values():
                found[texts[0]] = anchor
    left = sorted({message.text for message in messages} - set(found))
    for number, text in enumerate(left, start=2):
        found[text] = f"{'-'.join(words(text)).lower()}-{number}"
    return found


def escaped(text: str) -> str:
    """Return a message as Markdown that shows it as it is, with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text.replace("`", "'")]
    for place in range(0, len(parts), 2):
        parts[place] = MARKS.sub(lambda match: "\\" + match[0], parts[place])
    return "`".join(parts)


def named(says: str, messages: Sequence[Message]) -> list[Message]:
    """Return the messages that begin with these words, or raise UnclearError where none does."""
    found = [message for message in messages if message.text.startswith(says)]
    if not found:
        raise UnclearError(f"{ADVICE.name}: no message begins with {says!r}")
    return found


def topic_of(source: str, topics: Sequence[Mapping[str, Any]]) -> str:
    """Return the title of the topic that a file belongs to, or raise UnclearError."""
    for topic in topics:
        if any(fnmatch(source, pattern) for pattern in topic["sources"]):
            return str(topic["title"])
    raise UnclearError(f"{source} belongs to no topic of {ADVICE.name}: add it to one")


def text(messages: Sequence[Message] | None = None) -> str:
    """Return the whole page."""
    messages = collected() if messages is None else messages
    given, anchor = advice(), anchors(messages)
    page, explained = [HEAD], set()
    for entry in given["frequent"]:
        for message in named(entry["says"], messages):
            explained.add(message.text)
            page.append(f'<a id="{anchor[message.text]}"></a>**{escaped(message.text)}**\n\n')
        page.append(f"- Cause: {entry['cause']}\n- What to do: {entry['do']}\n\n")
    entries: dict[str, list[str]] = defaultdict(list)
    for message in messages:
        line = f'- <a id="{anchor[message.text]}"></a>{escaped(message.text.strip())}\n'
        if message.text not in explained:
            entries[topic_of(message.sources[0], given["topics"])].append(line)
    for topic in given["topics"]:
        page.append(f"## {topic['title']}\n\nCause: {topic['cause']}\n\nWhat to do: {topic['do']}\n\n")
        page.append("".join(entries[topic["title"]]) + "\n")
    return "".join(page).rstrip("\n") + "\n"


def main() -> None:
    """Renew the file."""
    TARGET.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
