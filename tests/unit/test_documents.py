# SPDX-License-Identifier: GPL-3.0-or-later
"""What README and docs show: a block parses, names what there is, and is run here or by a test that a table names."""

from __future__ import annotations

import configparser
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from ansible_collections.neuronops.vllm.plugins.plugin_utils import options

from plugins.plugin_utils import stacks

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted(CHECKOUT.glob("docs/*.md"))]
ROLE_PAGES = sorted(CHECKOUT.glob("roles/*/README.md"))
REPOSITORY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["repository"]

# Commands by how they begin: the file that runs them too, and the words in it that do. The longest beginning counts.
NEWCOMER = ("tests/newcomer/test_newcomer.py", '"tutorial.md"')
RUN_BY = {
    ". ~/neuronops/bin/activate": NEWCOMER,
    "ansible neuron -i aws_ec2.yml -m": NEWCOMER,
    "cd": NEWCOMER,
    "chmod 600": NEWCOMER,
    "cp -r ~/.ansible/collections/ansible_collections/neuronops/vllm/inventories": NEWCOMER,
    "export AWS_PROFILE": NEWCOMER,
    "export HOST": NEWCOMER,
    "python3 -m venv": NEWCOMER,
    "rsync": NEWCOMER,
    "ansible-playbook neuronops.vllm.verify": NEWCOMER,
    "make demo": ("tests/run.py", "python -m sandbox.demo"),
    "make test": ("tests/run.py", "def main"),
    "ansible-doc -t": ("tests/unit/test_documents.py", "def test_ansible_doc_shows_what_is_named"),
    "ansible-galaxy collection install": ("tests/installed.sh", "ansible-galaxy collection install"),
    "ansible-inventory -i aws_ec2.yml --graph": ("sandbox/fleet.py", "ansible-inventory"),
    "ansible-playbook neuronops.vllm.bake_image": ("tests/bake/test_bake.py", 'run("bake_image"'),
    "ansible-playbook neuronops.vllm.launch": ("tests/fleet/test_launch.py", "launch.yml"),
    "ansible-playbook neuronops.vllm.rollback": ("molecule/upgrade/roll_back.yml", "playbooks/rollback.yml"),
    "ansible-playbook playbooks/rollback.yml": ("molecule/upgrade/roll_back.yml", "playbooks/rollback.yml"),
    "ansible-playbook neuronops.vllm.site": ("tests/installed.sh", "ansible-playbook neuronops.vllm.site"),
    "ansible-playbook neuronops.vllm.terminate": ("tests/fleet/test_launch.py", "terminate.yml"),
    "ansible-playbook playbooks/verify.yml": ("tests/unit/test_batches.py", "playbooks/verify.yml"),
    "aws": ("tests/unit/test_documents.py", "def test_a_command_of_the_aws_cli_is_one_of_its_service"),
    "curl http://127.0.0.1:8000/v1/models": ("tests/installed.sh", "http://127.0.0.1:8000/v1/models"),
    "curl http://127.0.0.1:8000/v1/completions": ("sandbox/demo.py", "client.completions.create"),
    "ssh": ("sandbox/fleet.py", "def tunnel"),
}
# Commands that no test runs, and why.
NOT_RUN = {
    "ansible neuron -i aws_ec2.yml --become": "loads from the reader's own bucket; its arguments are parsed",
    "ansible-builder": "makes an image in the reader's container engine",
    "ansible-navigator": "runs an image of the reader's container engine",
    "git": "fetches from GitHub",
    "journalctl --unit": "follows what a host says, without an end",
    "pip install": "the reader's own environment",
}
CLIS = {
    "ansible": ("adhoc", "AdHocCLI"),
    "ansible-doc": ("doc", "DocCLI"),
    "ansible-galaxy": ("galaxy", "GalaxyCLI"),
    "ansible-inventory": ("inventory", "InventoryCLI"),
    "ansible-playbook": ("playbook", "PlaybookCLI"),
}
# Options and commands of the AWS CLI itself, which no service has.
GLOBAL = {"cli-input-json", "output", "query", "region", "profile"}
OWN = ("aws configure", "aws s3", "aws sso login")


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, in words or by its look, and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def dedented(lines: list[str]) -> str:
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[indent:] for line in lines)


def look(text: str) -> str:
    """Return the language of a block that names none."""
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    return "sh" if any(first.startswith(command) for command in (*RUN_BY, *NOT_RUN, "make")) else "yaml"


def blocks(page: Path) -> Iterator[Block]:
    """Return the blocks of a page, fenced and indented ones."""
    name, lines, number = str(page.relative_to(CHECKOUT)), page.read_text(encoding="utf-8").splitlines(), 0
    while number < len(lines):
        start, fence = number, re.match(r"( *)```(\S*)$", lines[number])
        number += 1
        if fence:
            while lines[number].strip() != "```":
                number += 1
            text = dedented(lines[start + 1 : number])
            number += 1
            yield Block(name, start + 1, fence[2].strip("{}") or look(text), text)
        elif lines[start].startswith("    ") and not (lines[start - 1].strip() if start else ""):
            in_list = any(
                re.match(r" *(?:[-*]|\d+\.) ", line) for line in lines[max(0, start - 8) : start] if line.strip()
            )
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            if not in_list:
                text = dedented(lines[start:number])
                yield Block(name, start + 1, look(text), text)


ALL = [block for page in PAGES for block in blocks(page)]
IN_ROLES = [block for page in ROLE_PAGES for block in blocks(page)]
SHELL = [block for block in ALL if block.language in ("sh", "bash", "console")]


def commands(block: Block) -> list[str]:
    """Return the commands of a block, each on one line, without comments and prompts."""
    text = re.sub(r"(?m)^[$>] ", "", block.text).replace("\\\n", " ")
    return [
        part.strip()
        for line in text.splitlines()
        for part in re.split(r"\s+&&\s+", re.sub(r"(^|\s+)# .*", "", line))
        if part.strip()
    ]


SHOWN = [(str(block), command) for block in SHELL for command in commands(block)]


def test_the_blocks_are_found() -> None:
    assert len(ALL) > 40
    assert len(SHOWN) > 40
    assert {block.page for block in ALL} >= {"README.md", "docs/tutorial.md", "docs/howto.md", "docs/launch.md"}
    assert {block.language for block in ALL} <= {"sh", "console", "yaml", "json", "ini", "text", "toctree"}


@pytest.mark.parametrize("block", [*ALL, *IN_ROLES], ids=str)
def test_a_block_parses(block: Block) -> None:
    if block.language == "yaml":
        list(yaml.safe_load_all(block.text))
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "ini":
        configparser.ConfigParser(allow_no_value=True, delimiters=("=",)).read_string(block.text)
    elif block.language == "sh":
        done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("where", "command"), SHOWN, ids=lambda value: value[:60])
def test_a_command_is_run_by_a_test_or_it_is_said_why_not(where: str, command: str) -> None:
    rows = [row for row in (*RUN_BY, *NOT_RUN) if command == row or command.startswith(row + " ")]
    rows += [row for row in (*RUN_BY, *NOT_RUN) if command.startswith((row + "-", row + "=", row + "/"))]
    assert rows, f"{where}: name in a table of this file which test runs {command!r}"


@pytest.mark.parametrize("row", RUN_BY)
def test_a_row_names_what_runs_it(row: str) -> None:
    file, words = RUN_BY[row]
    assert words in (CHECKOUT / file).read_text(encoding="utf-8")


def arguments(command: str) -> list[str]:
    """Return the words of a command, without what the shell does with its output."""
    words = shlex.split(command)
    return words[: next((place for place, word in enumerate(words) if word.startswith((">", "|"))), len(words))]


@pytest.mark.parametrize(
    ("where", "command"), [shown for shown in SHOWN if shown[1].split()[0] in CLIS], ids=lambda value: value[:60]
)
def test_ansible_knows_the_arguments(where: str, command: str) -> None:
    name, *given = arguments(command)
    module, cli_class = CLIS[name]
    cli = getattr(importlib.import_module(f"ansible.cli.{module}"), cli_class)([name, *given])
    cli.init_parser()
    cli.parser.parse_args(given)


@cache
def known_options() -> set[str]:
    return {name for of in (*options.roles(), *options.playbooks()) for name in options.specification(of)}


def wrong_options(names: list[str]) -> list[str]:
    """Return the names that begin as an option of the collection and are none."""
    prefixes = tuple(options.prefix(of) for of in (*options.roles(), *options.playbooks()))
    return [name for name in names if name.startswith(prefixes) and name not in known_options() | set(options.FACTS)]


@pytest.mark.parametrize(("where", "command"), SHOWN, ids=lambda value: value[:60])
def test_a_command_names_options_playbooks_and_targets_that_there_are(where: str, command: str) -> None:
    words = arguments(command)
    given = [words[place + 1] for place, word in enumerate(words[:-1]) if word in ("-e", "--extra-vars")]
    assert wrong_options([value.partition("=")[0] for value in given if "=" in value]) == []
    for playbook in re.findall(r"ansible-playbook (?:neuronops\.vllm\.|playbooks/)([a-z_]+)", command):
        assert (CHECKOUT / "playbooks" / f"{playbook}.yml").is_file(), where
    if words[0] == "make":
        targets = re.findall(r"(?m)^([a-z-]+):", (CHECKOUT / "Makefile").read_text())
        assert words[1] in targets, where


def keys(value: Any) -> Iterator[str]:
    """Return the keys of all dictionaries in a value."""
    if isinstance(value, dict):
        yield from (str(key) for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from keys(entry)


@pytest.mark.parametrize(
    "block", [block for block in (*ALL, *IN_ROLES) if block.language == "yaml"], ids=lambda block: str(block)
)
def test_a_block_of_yaml_sets_options_that_there_are(block: Block) -> None:
    assert wrong_options([key for document in yaml.safe_load_all(block.text) for key in keys(document)]) == []


def test_an_option_that_is_none_is_found() -> None:
    assert wrong_options(["vllm_server_prot", "vllm_server_port", "launch_group", "my_own"]) == [
        "vllm_server_prot",
        "launch_group",
    ]


IN_PROSE = [
    (page.name, match[1])
    for page in PAGES
    for match in re.finditer(r"`(aws [a-z0-9-]+ [a-z-]+)`", page.read_text(encoding="utf-8"))
]
AWS = [shown for shown in (*SHOWN, *IN_PROSE) if shown[1].startswith("aws ") and not shown[1].startswith(OWN)]


@pytest.mark.parametrize(("where", "command"), AWS, ids=lambda value: value[:60])
def test_a_command_of_the_aws_cli_is_one_of_its_service(where: str, command: str) -> None:
    _aws, service, operation, *given = arguments(command)
    operations = members(service)
    assert operation in operations, where
    wanted = {word[2:] for word in given if word.startswith("--")} - GLOBAL
    assert wanted <= operations[operation], f"{where}: {operation} has no {wanted - operations[operation]}"


@cache
def members(service: str) -> dict[str, set[str]]:
    """Return {operation: names of its parameters} of a service, as the AWS CLI writes them."""
    model = botocore.session.get_session().get_service_model(service)
    shapes = {name: model.operation_model(name).input_shape for name in model.operation_names}
    return {kebab(name): {kebab(member) for member in shape.members} for name, shape in shapes.items() if shape}


def kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def ansible(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Ansible that finds the collection in this checkout."""
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".build" / "collections")}
    program = str(Path(sys.executable).parent / command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command",
    sorted({command for _where, command in SHOWN if command.startswith("ansible-doc ") and "neuronops" in command}),
)
def test_ansible_doc_shows_what_is_named(command: str) -> None:
    done = ansible(*arguments(command))
    assert done.returncode == 0, done.stderr
    assert arguments(command)[-1] in done.stdout


def test_the_playbooks_that_are_named_load() -> None:
    named = {match for _where, command in SHOWN for match in re.findall(r"neuronops\.vllm\.\w+(?= -)", command)}
    playbooks = sorted(name for name in named if (CHECKOUT / "playbooks" / f"{name.split('.')[-1]}.yml").is_file())
    assert len(playbooks) == 6
    done = ansible("ansible-playbook", "--syntax-check", "-i", "localhost,", *playbooks)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("playbook: ") == 6


def links(page: Path) -> list[str]:
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^()\s]+)\)", text)


@pytest.mark.parametrize("page", [*PAGES, *ROLE_PAGES], ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_a_link_into_the_repository_leads_somewhere(page: Path) -> None:
    gone = []
    for link in links(page):
        inside = re.match(rf"{re.escape(REPOSITORY)}/(?:blob|tree)/main/([^#]+)", link)
        target = CHECKOUT / inside[1] if inside else page.parent / link.partition("#")[0]
        if (inside or not re.match(r"https?:|#", link)) and not target.exists():
            gone.append(link)
    assert gone == []


def test_the_readme_has_full_addresses_as_galaxy_shows_it_alone() -> None:
    assert len(links(CHECKOUT / "README.md")) > 20
    assert [link for link in links(CHECKOUT / "README.md") if not link.startswith("https://")] == []


def test_the_readme_has_the_sections_of_certified_collections_and_its_commands_first() -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^## (.*)$", text) == [
        "Description",
        "Requirements",
        "Installation",
        "Use cases",
        "Testing",
        "Support",
        "Release notes",
        "Related information",
        "License",
    ]
    assert text.splitlines()[2].split()[:2] == ["make", "demo"]
    assert text.splitlines()[3].split()[:2] == ["make", "test"]


def test_the_readme_says_what_the_data_says_of_the_default_stack() -> None:
    text = " ".join((CHECKOUT / "README.md").read_text(encoding="utf-8").split())
    entry = stacks.resolve()
    assert f"The default stack is `{entry['name']}`" in text
    assert f"Neuron SDK {entry['sdk']}" in text
    assert entry["supported"]["until"] is None
    assert "AWS names no end of its support on inf2 and trn1" in text
    assert re.search(r"ends with (SDK [\d.]+)$", entry["supported"]["families"]["trn2"])[1] in text  # type: ignore[index]  # a reason to fail
    ended = [name for name in stacks.load()["stacks"] if stacks.resolve(name)["supported"]["until"]]
    newest = max(ended, key=stacks.release)
    assert f"The stacks with vLLM {newest.removeprefix('vllm-')} and older are out of AWS's support" in text
    assert f">={yaml.safe_load((CHECKOUT / 'galaxy.yml').read_text())['version']}" in text
