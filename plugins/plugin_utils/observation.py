# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check what the modules of this collection answer on a host, before a task on the controller sees it.

A host that was broken into answers what it likes, and Ansible obeys an answer: `add_host` and `ansible_facts` decide on
other hosts and later tasks. ANSWERS is the closed list of what an answer has, the keys of each module's RETURN.

Other keys of the answer itself are dropped, as each version of ansible-core adds some of its own. What is below them
our module alone writes: there a key that is unknown or missing means that something else has answered, and the task
fails. A result is made of nothing but values that were checked. A text that may say anything, such as the name of a
process, is cut and has no control characters. That it is no template need not be said here: ansible-core up to 2.18
wraps the results of all actions as unsafe, and since 2.19 no result is trusted as one.
"""

from __future__ import annotations

import fnmatch
import glob
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from ansible.module_utils.common.validation import check_type_list
from ansible.plugins.action import ActionBase
from ansible_collections.neuronops.vllm.plugins.module_utils import activations, forms, host, release

Check = Callable[[Any, str], Any]

LONGEST_LINE = 1000  # characters
LONGEST_MESSAGE = 6000
LONGEST_TEXT = 100000  # of what --diff shows
MOST_FILES = 1000
# Control characters, those that change the direction of a text, surrogates, unassigned ones, other ends of lines.
_NOT_PRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def printable(text: str, most: int, lines: bool = False) -> str:
    """Return a text that does nothing to a terminal or to who reads it; with `lines`, of more than one line."""
    shown = (
        character if (lines and character == "\n") or unicodedata.category(character) not in _NOT_PRINTABLE else "?"
        for character in text[:most]
    )
    return "".join(shown) + ("..." if len(text) > most else "")


def said(answer: dict[str, Any]) -> str:
    """Return the message of a module that failed, as text."""
    parts = [answer.get(name) for name in ("msg", "module_stderr", "module_stdout")]
    text = "\n".join(str(part).strip() for part in parts if isinstance(part, str) and part.strip())
    if len(text) > LONGEST_MESSAGE:  # installers say at the end why they failed
        text = f"{text[: LONGEST_MESSAGE // 3]}\n...\n{text[-LONGEST_MESSAGE * 2 // 3 + 5 :]}"
    return printable(text or "the module gave no reason", LONGEST_MESSAGE, lines=True)


# The kinds of values: each is given a value and what to call it, and returns it made anew or raises forms.FormError.


def of_form(kind: str) -> Check:
    return lambda value, what: forms.form(kind, value, what)


def one_of(*known: str) -> Check:
    return lambda value, what: forms.one_of(value, known, what)


def whole(most: int, least: int = 0) -> Check:
    return lambda value, what: forms.number(value, what, least, most)


def _free(value: Any, what: str, most: int, lines: bool) -> str:
    if not isinstance(value, str):
        raise forms.FormError(f"{what} is {forms.shortened(value)}, and should be a text")
    return printable(value, most, lines)


def line(value: Any, what: str) -> str:
    return _free(value, what, LONGEST_LINE, lines=False)


def text(value: Any, what: str) -> str:
    return _free(value, what, LONGEST_TEXT, lines=True)


def or_none(check: Check) -> Check:
    return lambda value, what: None if value is None else check(value, what)


def or_empty(check: Check) -> Check:
    return lambda value, what: "" if isinstance(value, str) and not value else check(value, what)


def each(check: Check, most: int = 10000) -> Check:
    return lambda value, what: [
        check(entry, f"{what}[{number}]") for number, entry in enumerate(forms.sequence(value, what, most))
    ]


def table(key: Check, check: Check, most: int = 10000) -> Check:
    """Of a dictionary whose keys have a form too."""

    def checked(value: Any, what: str) -> dict[str, Any]:
        return {
            key(name, f"a key of {what}"): check(entry, f"{what}[{forms.shortened(name)}]")
            for name, entry in forms.mapping(value, what, most).items()
        }

    return checked


def having(**checks: Check) -> Check:
    """Of a dictionary with these keys, all of them and no other."""

    def checked(value: Any, what: str) -> dict[str, Any]:
        found = forms.fields(value, checks, what)
        return {name: check(found[name], f"{what}.{name}") for name, check in checks.items()}

    return checked


def manifests(value: Any, what: str) -> dict[str, Any]:
    found = forms.mapping(value, what, 100)
    return {
        forms.form("file name", role, f"a key of {what}"): release.manifest_of(manifest, forms.shortened(role))
        for role, manifest in found.items()
    }


PID = whole(2**31, 1)
COUNT = whole(100000)
VERSION = of_form("package version")
PATH = of_form("absolute path")
FILES = table(release.file_name, of_form("SHA-256"), MOST_FILES)
KEY = having(
    fingerprint=of_form("fingerprint"),
    user_ids=each(line, 100),
    expires=or_none(of_form("date")),
    expired=forms.truth,
    expires_soon=forms.truth,
    revoked=forms.truth,
)
RELEASE = having(
    schema=release.known_schema,
    id=of_form("file name"),
    stack=of_form("line of text"),
    completed_at=of_form("time"),
    layers=each(of_form("file name"), 100),
)

# The run of Ansible that holds a host.
HELD_BY = or_none(
    having(
        who=line, controller=of_form("SHA-256"), pid=PID, began=of_form("line of text"), seconds=whole(10 * 365 * 86400)
    )
)

NEURON_INFO: dict[str, Check] = {
    "root": forms.truth,
    "kernel": having(
        release=of_form("kernel release"),
        headers=forms.truth,
        newest=of_form("kernel release"),
        newest_headers=forms.truth,
        next_unknown=or_none(line),
        compiler=or_none(of_form("system package")),
    ),
    "hardware": having(
        present=forms.truth,
        devices=each(
            having(
                address=of_form("PCI address"),
                family=one_of(*sorted(set(host.FAMILIES.values()))),
                device_id=of_form("PCI device id"),
            )
        ),
    ),
    "driver": having(
        installed=or_none(VERSION),
        built_for_kernel=forms.truth,
        built_for_newest=forms.truth,
        loaded=or_none(VERSION),
        references=whole(2**31),
        in_use_by=each(having(pid=PID, command=line)),
        not_at_boot=each(line, 1000),
    ),
    "neuron_ls": having(
        path=or_none(PATH),
        rc=or_none(whole(255, -255)),
        error=or_none(line),
        cores=COUNT,
        devices=each(
            having(
                index=COUNT,
                address=or_none(of_form("PCI address")),
                cores=COUNT,
                core_ids=each(COUNT),
                memory_bytes=or_none(forms.number),
                connected_to=each(COUNT),
                instance_type=or_none(of_form("instance type")),
                instance_id=or_none(of_form("instance id")),
                processes=each(having(pid=or_none(PID), command=or_none(line), runtime_version=or_none(VERSION))),
            )
        ),
    ),
    "packages": table(
        of_form("system package"),
        having(version=or_empty(VERSION), held=forms.truth, state=of_form("state")),
    ),
    "dpkg_interrupted": forms.truth,
    "free_bytes": table(of_form("line of text"), or_none(forms.number), 100),
    "environments": each(
        having(
            path=of_form("line of text"),
            real_path=PATH,
            exists=forms.truth,
            python=having(
                executable=or_none(PATH),
                version=or_none(of_form("release of Python")),
                works=forms.truth,
                problem=or_none(line),
            ),
            packages=table(of_form("package name"), of_form("installed version")),
            damaged=table(of_form("line of text"), line),
            manifests=manifests,
            changed_files=each(release.file_name),
            release=or_none(RELEASE),
            ignored=each(line, 1000),
        )
    ),
    "services": each(
        having(
            name=of_form("line of text"),
            load_state=of_form("state"),
            active_state=of_form("state"),
            sub_state=of_form("state"),
            enabled=forms.truth,
            main_pid=or_none(PID),
            executable_real_path=or_none(PATH),
            configuration=or_none(of_form("hash")),
            needs_reload=forms.truth,
            ours=or_none(forms.truth),
            drop_ins=table(of_form("line of text"), each(of_form("file name"), 100)),
        )
    ),
    "activations": each(activations.entry_of, 1000),
    "files": table(of_form("line of text"), or_none(of_form("SHA-256"))),
    "links": table(
        of_form("line of text"), having(kind=one_of("link", "folder", "file", "absent"), target=or_none(PATH))
    ),
    "repository": or_none(having(current=forms.truth, reasons=each(line, 1000), key=or_none(KEY))),
    "record": host.record_of,
}

ANSWERS: dict[str, dict[str, Check]] = {
    "host_lock": {"held_by": HELD_BY},
    "jupyter_kernel": {"files": FILES},
    "managed_python": {"release": or_none(of_form("release of Python")), "reason": line},
    "neuron_info": NEURON_INFO,
    "neuron_repository": {
        "reasons": each(line, 1000),
        "key": or_none(KEY),
        "backups": each(PATH, MOST_FILES),
        "paths": each(PATH, MOST_FILES),
    },
    "packages_ready": {"usable": forms.truth, "reasons": each(line, 1000)},
    "pip_configuration": {"files": FILES},
    "python_packages": {
        "packages": table(of_form("package name"), of_form("installed version")),
        "foreign": each(of_form("package name")),
    },
    "python_venv": {"reason": line},
    "release_prune": {"removed": each(line, 1000), "kept": each(line, 1000)},
    "release_record": {"written": each(of_form("file name"), 100), "release": or_none(RELEASE)},
    "vllm_activation": {
        "number": or_none(whole(10**9, 1)),
        "release": or_none(PATH),
        "configuration": or_none(of_form("hash")),
        "begins": forms.truth,
        "did": each(line, 1000),
        "problem": or_none(line),
        "since": whole(2**40),
    },
    "vllm_answer": {
        "state": one_of("answers", "starting", "ended", "hung", "errors", "stopped", "absent"),
        "problem": or_none(line),
        "pid": or_none(PID),
        "configuration": or_none(of_form("hash")),
        "seconds": or_none(whole(2**40)),
        "status": or_none(whole(999)),
        "tokens": or_none(whole(999)),
        "address": or_none(of_form("address of a server")),
        "port": or_none(whole(65535, 1)),
        "listener": or_none(having(pid=or_none(PID), command=line, ours=forms.truth)),
        "busy": or_none(line),
        "restarts": whole(2**31),
    },
}

_DIFFERENCE = having(before=text, after=text, before_header=line, after_header=line)
_DIFFERENCE_WITHOUT_NAMES = having(before=text, after=text)


def difference(value: Any, what: str) -> Any:
    """What --diff shows: one difference or a list of them, each with or without the names of what it is between."""
    if isinstance(value, list):
        return each(difference, MOST_FILES)(value, what)
    named = isinstance(value, dict) and "before_header" in value
    return (_DIFFERENCE if named else _DIFFERENCE_WITHOUT_NAMES)(value, what)


def checked(module: str, answer: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a module that did not fail; raises forms.FormError."""
    checks = ANSWERS[module]
    missing = sorted(set(checks) - set(answer))
    if missing:
        raise forms.FormError(f"it lacks {', '.join(missing)}")
    found = {name: check(answer[name], name) for name, check in checks.items()}
    found["changed"] = forms.truth(answer.get("changed"), "changed")
    if "diff" in answer:
        found["diff"] = difference(answer["diff"], "diff")
    if module == "neuron_info":
        about_what_was_asked(found, arguments)
    return found


def about_what_was_asked(found: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Fail unless an observation is about the paths and names that were asked for: roles count on their order."""
    services = list(map(str, check_type_list(arguments.get("services") or [])))
    if [service["name"] for service in found["services"]] != services:
        raise forms.FormError(f"services are not {forms.shortened(services)}, which were asked for")
    files = check_type_list(arguments.get("files") or [])
    if not _are(sorted(found["files"]), sorted(set(map(str, files)))):
        raise forms.FormError(f"files are not {forms.shortened(files)}, which were asked for")
    links = check_type_list(arguments.get("links") or [])
    if not _are(sorted(found["links"]), sorted(set(map(str, links)))):
        raise forms.FormError(f"links are not {forms.shortened(links)}, which were asked for")
    names = [name[: -len(".service")] if name.endswith(".service") else name for name in services]
    if not {entry["service"] for entry in found["activations"]} <= set(names):
        raise forms.FormError(f"activations are not of {forms.shortened(services)}, which were asked for")
    environments = check_type_list(arguments.get("environments") or [])
    if not _are([entry["path"] for entry in found["environments"]], environments):
        raise forms.FormError(f"environments are not {forms.shortened(environments)}, which were asked for")
    if (found["repository"] is None) != (not arguments.get("repository")):
        raise forms.FormError("repository is not what was asked for")


def _are(paths: Iterable[str], asked: list[Any]) -> bool:
    """Say whether these are the paths asked for; of patterns the host alone knows what matches them."""
    left = list(paths)
    for wanted in map(str, asked):
        if wanted.startswith("~") or "$" in wanted:
            # The host alone knows what these stand for: one absolute path, or as many as a pattern matches.
            if not left and not glob.has_magic(wanted):
                return False
            count = len(left) if glob.has_magic(wanted) else 1
            if not all(forms.known("absolute path", path) for path in left[:count]):
                return False
            del left[:count]
        elif glob.has_magic(wanted):
            while left and _matches(left[0], wanted):
                left.pop(0)
        elif not left or left.pop(0) != wanted:
            return False
    return not left


def _matches(path: str, pattern: str) -> bool:
    """Say whether a path matches a pattern as glob does: part by part, and never by leading out of a folder."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(
        part == wanted or (part not in (".", "..") and fnmatch.fnmatchcase(part, wanted))
        for part, wanted in zip(parts, patterns)
    )


def warnings(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the module's warnings, as texts."""
    found = answer.get("warnings")
    # ansible-core 2.19 and later make objects of them.
    texts = [getattr(getattr(entry, "event", None), "msg", entry) for entry in found] if isinstance(found, list) else []
    lines = [printable(entry, LONGEST_LINE) for entry in texts[:100] if isinstance(entry, str)]
    return {"warnings": lines} if lines else {}


def result(module: str, answer: dict[str, Any], machine: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a task: what a module of this collection answered on a machine, or why that is not used."""
    if answer.get("unreachable"):
        return {"unreachable": True, "msg": said(answer)}
    if answer.get("failed"):
        return {"failed": True, "changed": False, "msg": said(answer), **warnings(answer)}
    try:
        return {**checked(module, answer, arguments), **warnings(answer)}
    except (forms.FormError, RecursionError) as error:
        problem = error if isinstance(error, forms.FormError) else "it is nested too deeply"
    msg = f"What {machine} answered to {module} is not used: {problem}. Has it another program in place of its Python?"
    return {"failed": True, "changed": False, "msg": printable(msg, LONGEST_MESSAGE)}


class CheckedAction(ActionBase):  # type: ignore[misc]  # ansible has no types
    """Runs the module of the same name on the host, and returns what of its answer was understood."""

    MODULE = ""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        begun: dict[str, Any] = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        machine = getattr(self._task, "delegate_to", None) or self._variables.get("inventory_hostname", "the host")
        found = result(self.MODULE, self.ask(), str(machine), self._task.args)
        # What was found out about the host's Python before the module was sent; else each task would find it out anew.
        if self._discovered_interpreter_key:
            found["ansible_facts"] = {self._discovered_interpreter_key: self._discovered_interpreter}
        return {**begun, **found}

    def ask(self) -> dict[str, Any]:
        """Return what the host answers, as it is."""
        answer: dict[str, Any] = self._execute_module(
            module_name=f"neuronops.vllm.{self.MODULE}", module_args=self._task.args, task_vars=self._variables
        )
        return answer
