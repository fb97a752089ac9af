# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect what the collection says when it refuses, fails or reports, from its sources.

Of playbooks and roles: each `msg`, `fail_msg` and `otherwise`, and the advice that is a template. Of plugins: whatever
is raised, given to fail_json or returned as `msg`, and each sentence besides, as refusals are lists of sentences that a
function of Python finds. A value that is put in is shown as …
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
GAP = "…"
# An expression of Jinja, in which a quoted text may have brackets.
EXPRESSION = re.compile(r"\{\{((?:'[^']*'|\"[^\"]*\"|[^'\"])*?)\}\}")
PROGRAM = re.compile(r"^#|^\n|\bimport \w+[,;\n]|\(\?[:P=!m]|\\Z|\w\|\w| && ")
KEYS = ("fail_msg", "msg", "otherwise")
VALUES = ("vars", "ansible.builtin.set_fact")
# From so many words on a text is taken for a sentence where nothing says that it is a message.
SENTENCE = 4
# With fewer words a message only passes on what is between them.
OWN = 3
DESCRIPTIONS = ("DOCUMENTATION", "EXAMPLES", "RETURN")
# What is given to these is a pattern, or the name of a form that a value must have.
NOT_SAID = ("re", "forms")
SAID = ("fail_json", "exit_json", "warn", "display", "vvv")


@dataclass(frozen=True)
class Message:
    """Something that is said: the words with gaps, and the files that say it."""

    text: str
    sources: tuple[str, ...]


def searchable(text: str) -> bool:
    """Say whether a message has words of its own, and not only passes on those of another."""
    return len(words(text)) >= OWN or (GAP not in text and " " in text.strip())


def words(text: str) -> list[str]:
    """Return what of a message is always the same."""
    return re.findall(r"[A-Za-z0-9]+", text.replace(GAP, " "))


def tidy(text: str) -> str:
    """Return a message on one line, with one sign for each gap."""
    return re.sub(rf"{GAP}(?:\s*{GAP})+", GAP, " ".join(text.split()))


def sentence(text: str) -> bool:
    """Say whether a text of Python is meant for people: words between spaces, and no program."""
    found = re.findall(r"(?:^|\s)[(`'\"]?[A-Za-z][A-Za-z'-]*(?=[\s,.:;)`'\"?]|$)", text)
    return len(found) >= SENTENCE and not PROGRAM.search(text)


def literal(node: ast.AST) -> str | None:
    """Return the text of an expression with gaps, or None where it is no text that is written there."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        text = literal(node.left)
        return None if text is None else re.sub(r"%(?:\(\w+\))?[-0-9.]*[sdrfx]", GAP, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        texts = literal(node.left), literal(node.right)
        return None if texts == (None, None) else "".join(GAP if text is None else text for text in texts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        text = literal(node.func.value)
        return None if text is None else re.sub(r"\{[^{}]*\}", GAP, text)
    return None


def of_python(source: str) -> Iterator[str]:
    """Return what a plugin says."""
    tree = ast.parse(source)
    skipped = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    yield from _of_node(tree, skipped, False)


def _of_node(node: ast.AST, skipped: set[int], is_message: bool) -> Iterator[str]:
    if id(node) in skipped or (
        isinstance(node, ast.Assign) and any(getattr(target, "id", "") in DESCRIPTIONS for target in node.targets)
    ):
        return
    text = literal(node)
    if text is not None:
        if searchable(text) if is_message else sentence(text):
            yield text
        # What is put into a gap may be words as well.
        for choice in ast.walk(node):
            if isinstance(choice, ast.IfExp):
                yield from (part for part in map(literal, (choice.body, choice.orelse)) if part and sentence(part))
        return
    said, below = False, list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if isinstance(node.func.value, ast.Name) and node.func.value.id in NOT_SAID:
            return
        if node.func.attr in SAID:
            said, below = True, [*node.args, *(word.value for word in node.keywords if word.arg == "msg")]
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        said, below = True, list(node.exc.args)
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values):
            yield from _of_node(value, skipped, isinstance(key, ast.Constant) and key.value == "msg")
        return
    for child in below:
        yield from _of_node(child, skipped, said)


def of_template(text: str) -> Iterator[str]:
    """Return a message of Jinja with gaps, and the sentences that stand within its expressions."""
    yield re.sub(r"\{%.*?%\}", GAP, EXPRESSION.sub(GAP, text), flags=re.DOTALL)
    for expression in EXPRESSION.findall(text):
        for quoted in re.findall(r"'([^']*)'|\"([^\"]*)\"", expression):
            yield from (part for part in quoted if sentence(part))


def of_tasks(tasks: Any, is_value: bool = False) -> Iterator[str]:
    """Return what tasks say, wherever in them it stands; variables may hold sentences that are said elsewhere."""
    if isinstance(tasks, Mapping):
        for key, value in tasks.items():
            if key in KEYS:
                for line in value if isinstance(value, list) else [value]:
                    yield from filter(searchable, of_template(str(line)))
            else:
                yield from of_tasks(value, is_value or str(key) in VALUES)
    elif isinstance(tasks, list):
        for entry in tasks:
            yield from of_tasks(entry, is_value)
    elif is_value and isinstance(tasks, str):
        yield from filter(sentence, of_template(tasks))


def of_advice(template: str) -> Iterator[str]:
    """Return the lines of a template that gives advice."""
    for line in template.splitlines():
        if not line.startswith(("{%", "{#")):
            yield from filter(searchable, of_template(line))


@cache
def collected(checkout: Path = CHECKOUT) -> tuple[Message, ...]:
    """Return everything that the collection says, in the order of the alphabet."""
    found: dict[str, set[str]] = defaultdict(set)

    def add(path: Path, texts: Iterator[str]) -> None:
        for text in texts:
            found[tidy(text)].add(str(path.relative_to(checkout)))

    for path in sorted(checkout.glob("plugins/**/*.py")):
        add(path, of_python(path.read_text(encoding="utf-8")))
    for pattern in ("playbooks/**/*.yml", "roles/*/tasks/**/*.yml", "roles/*/handlers/*.yml"):
        for path in sorted(checkout.glob(pattern)):
            add(path, of_tasks(yaml.safe_load(path.read_text(encoding="utf-8"))))
    for path in sorted(checkout.glob("roles/*/templates/advice*.j2")):
        add(path, of_advice(path.read_text(encoding="utf-8")))
    in_order = sorted(found, key=lambda text: (words(text), text))
    return tuple(Message(text, tuple(sorted(found[text]))) for text in in_order)
