# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert the options of roles and playbooks where they enter, and refuse what cannot be meant.

Ansible's own argument specifications accept text for every type and convert nothing for the role: `-e x=false` stays
the text "false", which is true. Here each option gets the type that its specification names, whether it came as a YAML
value, as text of `-e name=value` or of a survey, or from an INI file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.neuronops.vllm.plugins.module_utils import addresses, forms

COLLECTION = Path(__file__).resolve().parents[2]
PLAYBOOKS = COLLECTION / "data" / "options.yml"
# The role whose entry points are the playbooks launch and terminate.
FLEET = "fleet"
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# Text of several lines; every other text is one line, as it becomes a line of a file, of a command or of a message.
MULTILINE = ("neuron_driver_repository_key", "vllm_source_key", "vllm_plugin_source_key")
# EC2 finds instances by these, and reads * ? and \ in what it is asked for as signs for other names.
FLEETS = ("launch_fleet", "terminate_fleet")
# Never shown in a message. What is named *_environment may hold a key.
SECRET = re.compile(r"_(api_keys?|environment)$")
# Facts that a role sets for the plays after it.
FACTS = (
    "neuron_driver_reboot_required",
    "neuron_driver_reboot_reasons",
    "vllm_server_activation",
    "vllm_server_must_activate",
    "vllm_server_url",
)
WANTED = {
    "raw": "a value",
    "bool": "true or false",
    "int": "a whole number",
    "str": "a text",
    "path": "a text",
    "list": 'a list; as text it is written in JSON, such as ["a", "b"]',
    "dict": 'a dictionary; as text it is written in JSON, such as {"name": "value"}',
}


class OptionError(ValueError):
    """An option that cannot be used; the message names it, and says what it should be."""


@cache
def _argument_specs(role: str) -> Mapping[str, Any]:
    """Return {entry point: {option: specification}} of a role."""
    path = COLLECTION / "roles" / role / "meta" / "argument_specs.yml"
    specs = yaml_load(path.read_text(encoding="utf-8"))["argument_specs"]
    return {point: spec["options"] for point, spec in specs.items()}


@cache
def roles() -> tuple[str, ...]:
    """Return the names of the roles that have options of their own name; those of `fleet` are the playbooks'."""
    names = (path.parents[1].name for path in COLLECTION.glob("roles/*/meta/argument_specs.yml"))
    return tuple(sorted(name for name in names if name != FLEET))


@cache
def playbooks() -> Mapping[str, Any]:
    """Return the options of the playbooks: {playbook: {option: specification}}."""
    found: dict[str, Any] = yaml_load(PLAYBOOKS.read_text(encoding="utf-8"))
    return {**found, **_argument_specs(FLEET)}


@cache
def specification(of: str) -> Mapping[str, Any]:
    """Return {option: specification} of a role or a playbook."""
    if of in playbooks():
        found: dict[str, Any] = playbooks()[of]
        return found
    if of not in roles():
        raise OptionError(f"{of} is neither a role nor a playbook of neuronops.vllm{did_you_mean(of, roles())}")
    options: dict[str, Any] = _argument_specs(of)["main"]
    return options


def prefix(of: str) -> str:
    """Return what the names of the options of a role or playbook begin with."""
    return "neuron_" if of == "site" else f"{of}_"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest of the known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def unknown(of: str, names: Iterable[str]) -> list[str]:
    """Say of each variable that begins as the options do, and is none of them, which one may be meant."""
    prefixes = [prefix(owner) for owner in (*roles(), *playbooks())]
    found = []
    for name in sorted(names):
        # vllm_server_port begins with the prefix of two roles, and belongs to the one with the longer.
        owner = max((start for start in prefixes if name.startswith(start)), key=len, default="")
        if owner != prefix(of) or name in specification(of) or name in FACTS:
            continue
        kind = "playbook" if of in playbooks() else "role"
        near = did_you_mean(name, specification(of)) or f"; its options are {', '.join(sorted(specification(of)))}"
        found.append(f"{name} is no option of {kind} {of}{near}")
    return found


def convert(name: str, value: Any, spec: Mapping[str, Any]) -> Any:
    """Return the value of an option in the type that its specification names, or raise OptionError."""
    kind = spec.get("type", "str")
    if value is None:
        raise OptionError(f"{name} has no value (null): leave it out, or set it to {WANTED[kind]}")
    if kind == "raw":
        return value
    found: Any = {"bool": _bool, "int": _int, "str": _str, "path": _str, "list": _list, "dict": _dict}[kind](
        name, value
    )
    if kind == "list":
        element = {
            "type": spec.get("elements", "str"),
            **{key: spec[key] for key in ("options", "choices") if key in spec},
        }
        return [convert(f"{name}[{number}]", entry, element) for number, entry in enumerate(found)]
    if kind == "dict" and "options" in spec:
        return _suboptions(name, found, spec["options"])
    if spec.get("choices") and found not in spec["choices"]:
        choices = [str(choice) for choice in spec["choices"]]
        near = did_you_mean(str(found), choices)
        raise OptionError(f"{name} is {_shown(name, value)}, and should be one of {', '.join(choices)}{near}")
    return found


def _wrong(name: str, value: Any, kind: str) -> OptionError:
    how = f"{_shown(name, value)} ({_type(value)})"
    quotes = ""
    if kind in ("str", "path") and isinstance(value, (int, float)):
        quotes = ". Write it in quotes, as 3.10 is the number 3.1 and no is false without them"
    return OptionError(f"{name} is {how}, and should be {WANTED[kind]}{quotes}")


def _type(value: Any) -> str:
    """Return the name of a type as people write YAML."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    if isinstance(value, Mapping):
        return "a dictionary"
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)


def _shown(name: str, value: Any) -> str:
    return (
        "a value that is not shown"
        if SECRET.search(name.partition("[")[0].partition(".")[0])
        else forms.shortened(value)
    )


def _bool(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return bool(value)
    text = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if text not in TRUE + FALSE:
        raise _wrong(name, value, "bool")
    return text in TRUE


def _int(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and re.match(r"\s*[+-]?[0-9]{1,18}\s*\Z", value, re.ASCII):
        return int(value)
    raise _wrong(name, value, "int")


def _str(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "str")
    lines = value.split("\n") if name in MULTILINE else [value]
    for line in lines:
        try:
            forms.form("line of text", line.rstrip("\r") if name in MULTILINE else line)
        except forms.FormError:
            raise OptionError(
                f"{name} is {_shown(name, value)}: it must be one line of at most 4096 characters, without "
                "control characters"
            ) from None
    if name in FLEETS and (not value.strip() or set(value) & set("*?\\")):
        raise OptionError(f"{name} is {_shown(name, value)}, and should be a name without *, ? and \\ in it")
    if len(lines) == 1 and not SECRET.search(name.partition("[")[0]) and addresses.has_credentials(value):
        raise OptionError(
            f"{name} holds a user or a password, and it ends up in logs and files that others read. Put them "
            "into the .netrc of the user that reads it: on the hosts root, on the controller your own"
        )
    return value


def _json(name: str, value: Any, kind: str) -> Any:
    """Return what a text that is written in JSON holds; a text that is none is refused, never taken apart by guess."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise _wrong(name, value, kind) from None


def _list(name: str, value: Any) -> list[Any]:
    found = _json(name, value, "list")
    if not isinstance(found, (list, tuple)):
        raise _wrong(name, value, "list")
    return list(found)


def _dict(name: str, value: Any) -> dict[str, Any]:
    found = _json(name, value, "dict")
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise _wrong(name, value, "dict")
    if name.endswith("_environment"):
        return _environment(name, found)
    return dict(found)


def _environment(name: str, variables: Mapping[str, Any]) -> dict[str, str]:
    """Return environment variables: names as shells have them, values as single lines of text."""
    found = {}
    for key, value in variables.items():
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*\Z", key, re.ASCII):
            raise OptionError(
                f"{name} has the variable {forms.shortened(key)}, and such a name has letters, digits and _ only"
            )
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise OptionError(f"{name}.{key} is {_type(value)}, and should be a text: write it in quotes")
        try:
            found[key] = forms.form("line of text", str(value))
        except forms.FormError:
            raise OptionError(f"{name}.{key} must be a single line without control characters") from None
        if name != "vllm_server_environment" and addresses.has_credentials(found[key]):
            raise OptionError(
                f"{name}.{key} holds a user or a password, which every user of the hosts would see in the list of "
                "processes. Put the proxy with its password into files that only root reads: /etc/apt/apt.conf.d/ for "
                "apt, /etc/pip.conf or /root/.config/pip/pip.conf for pip and uv, /root/.gitconfig for git"
            )
    return found


def _suboptions(name: str, value: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    for key in value:
        if key not in options:
            raise OptionError(f"{name} has no option {key}{did_you_mean(key, options)}")
    for key, spec in options.items():
        if spec.get("required") and key not in value:
            raise OptionError(f"{name}.{key} is required, and is missing")
    return {key: convert(f"{name}.{key}", entry, options[key]) for key, entry in value.items()}


def converted(
    of: str, names: Iterable[str], value_of: Callable[[str], Any], only: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return ({option without its prefix: value}, [what is wrong]) of a role or playbook.

    names: all variables that are set; value_of: returns one of them, templated; only: one option, without its prefix.
    An option that is not set has the default of its specification, or is left out where that has none.
    """
    given, start = set(names), prefix(of)
    options: dict[str, Any] = {}
    wrong: list[str] = []
    for name, spec in specification(of).items():
        key = name[len(start) :]
        if only not in (None, key):
            continue
        try:
            if name in given:
                options[key] = convert(name, value_of(name), spec)
            elif spec.get("required"):
                wrong.append(f"{name} is required, and is not set")
            elif "default" in spec:
                options[key] = spec["default"]
        except OptionError as error:
            wrong.append(str(error))
    return options, wrong


CONVERSIONS: Mapping[str, Callable[[str, Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "str": _str,
    "path": _str,
    "list": _list,
    "dict": _dict,
}
