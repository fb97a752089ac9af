# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep locks on the controller, which resolves once for a platform while all other hosts wait."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible_collections.neuronops.vllm.plugins.module_utils import forms
from ansible_collections.neuronops.vllm.plugins.module_utils.files import write_at_once
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import ARGUMENTS, PackagesError, check_lock
from ansible_collections.neuronops.vllm.plugins.module_utils.resolve import checked, resolve
from ansible_collections.neuronops.vllm.plugins.plugin_utils import store, task_environment
from ansible_collections.neuronops.vllm.plugins.plugin_utils.observation import said
from ansible_collections.neuronops.vllm.plugins.plugin_utils.uv import on_controller, requirement

# What decides on the content of a lock. Where a package is downloaded from does not, as hashes name its content; an
# index with other builds of torch does.
INPUTS = ("requirements", "constraints", "excluded", "python_version", "architecture")
SPECIFICATION: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "requirements": {"type": "list", "elements": "str", "required": True},
    "constraints": {"type": "list", "elements": "str", "default": []},
    "excluded": {"type": "list", "elements": "str", "default": []},
    "neuron_packages": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "path", "required": True},
    "python_version": {"type": "str", "required": True},
    "architecture": {"type": "str", "required": True},
    "resolver": {"type": "str", "choices": ["controller", "host"], "default": "controller"},
    "refresh": {"type": "bool", "default": False},
    **ARGUMENTS,
}
OPTIONS = "neuron_venv_{0}, transformers_neuronx_{0}, nxd_inference_{0} or vllm_{0}"
# What of a task's environment, which is meant for the hosts, is true on the controller too.
NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX")


class LockError(Exception):
    """What is wrong with the arguments or with a lock; the message says what to do."""


def arguments_of(task: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with their types, each of its form; raises LockError before anything is done with them."""
    validated = ArgumentSpecValidator(SPECIFICATION).validate(task)
    if validated.error_messages:
        raise LockError("; ".join(validated.error_messages))
    try:
        return dict(checked(validated.validated_parameters))
    except forms.FormError as error:
        raise LockError(f"{error}. Nothing was resolved.") from error


def inputs_hash(arguments: dict[str, Any]) -> str:
    """Return a hash of all that decides on the content of a lock."""
    inputs: list[Any] = []
    for name in INPUTS:
        value = arguments.get(name) or []
        inputs.append(sorted(value) if isinstance(value, list) else value)  # the order decides on nothing
    inputs.append((arguments.get("sources") or {}).get("torch_index_url") or "")
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def lock_file(arguments: dict[str, Any]) -> Path:
    """Return the file on the controller that the lock for these arguments is kept in."""
    name = forms.form("file name", arguments["name"], "name")
    python = "cp" + forms.form("Python version", arguments["python_version"], "python_version").replace(".", "")
    architecture = forms.form("architecture", arguments["architecture"], "architecture")
    file = f"{name}-{python}-{architecture}-{inputs_hash(arguments)[:8]}.txt"
    return Path(str(arguments["path"])).expanduser().absolute() / file


def check_writable(folder: Path, make: bool) -> None:
    """Fail unless a file can be written into the folder, which may not exist yet; asked before any work."""
    try:
        store.check_writable(folder) if make else store.check_can_be_made(folder)
    except OSError as error:
        raise LockError(
            f"Locks cannot be kept in {folder} on the controller: {error}. Set {OPTIONS.format('lock_path')} to a "
            "folder that lasts and can be written to. Nothing was resolved."
        ) from error


@contextmanager
def process_environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables of this process for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


RESOLVED_ON = "# It was resolved on host "


def read(path: Path, arguments: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a lock's text, made of what was understood of the file, and its versions."""
    try:
        # newline: other ends of a line than \n are no part of a lock.
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(forms.LONGEST_LOCK + 1)
        packages = forms.lock(text, str(path))
        check_lock(packages, arguments["requirements"], arguments["constraints"], arguments["excluded"])
    except (OSError, UnicodeDecodeError, forms.FormError, PackagesError) as error:
        raise LockError(
            f"The lock {path} on the controller cannot be used: {error}. Nothing was installed. Take it from where it "
            f"came from, or remove it (or set {OPTIONS.format('lock_refresh')} to true), and it is resolved anew."
        ) from error
    # Which host resolved it may be chance, and what it made is the same: the name of a release does not depend on it.
    head = [line for line in text.split("\n") if line.startswith("#") and not line.startswith(RESOLVED_ON)]
    return "".join(line + "\n" for line in head) + forms.lock_text(packages), {
        name: version for name, (version, _hashes) in packages.items()
    }


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(changed=False, path="", resolved=False, lock="", packages={})
        try:
            return self._lock(result, task_vars or {})
        except (LockError, PackagesError, store.NotMadeError) as error:
            return {**result, "failed": True, "msg": str(error)}
        except store.UnreachableError as error:
            return {**result, "unreachable": True, "msg": said(error.answer)}

    def _lock(self, result: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        arguments = arguments_of({"uv_requirement": requirement(), **self._task.args})
        environment = task_environment.variables(self)
        refused = task_environment.refusal(environment)
        if refused:
            raise LockError(refused)
        path = lock_file(arguments)
        result["path"] = str(path)
        if self._task.check_mode:
            if path.is_file() and not arguments["refresh"]:
                text, packages = read(path, arguments)
                return {**result, "lock": text, "packages": packages}
            self._prepare(path, arguments)
            return {**result, "changed": True}

        def look() -> tuple[str, dict[str, str]] | None:
            return read(path, arguments) if path.is_file() else None

        def make() -> tuple[str, dict[str, str]]:
            before = path.read_bytes().decode(errors="replace") if path.is_file() else ""
            host = self._host(task_vars)
            try:
                lock = self._resolve(arguments, environment, task_vars)
            except (LockError, PackagesError) as error:
                where = "on the controller" if arguments["resolver"] == "controller" else f"on {host}"
                raise store.NotMadeError(f"{error} (resolved {where} for all hosts of this platform)") from error
            try:
                write_at_once(path, self._head(arguments, host) + lock)
            except OSError as error:
                raise LockError(f"The lock {path} on the controller cannot be written: {error}.") from error
            text, packages = read(path, arguments)
            after = path.read_bytes().decode(errors="replace")
            result["changed"] = after != before
            if self._task.diff:
                result["diff"] = {
                    "before": before,
                    "after": after,
                    "before_header": str(path),
                    "after_header": str(path),
                }
            return text, packages

        (text, packages), result["resolved"] = store.once(
            path, look, make, prepare=lambda: self._prepare(path, arguments), anew=arguments["refresh"]
        )
        return {**result, "lock": text, "packages": packages}

    def _prepare(self, path: Path, arguments: dict[str, Any]) -> None:
        """Fail where a lock cannot be resolved or kept; before any work."""
        self._check_resolver(arguments)
        check_writable(path.parent, make=not self._task.check_mode)

    def _check_resolver(self, arguments: dict[str, Any]) -> None:
        """Fail where the controller is to resolve from a folder that only hosts see."""
        wheelhouse = arguments["sources"].get("wheelhouse") or ""
        local = "://" not in wheelhouse or wheelhouse.lower().startswith("file:")
        if wheelhouse and local and arguments["resolver"] == "controller":
            raise LockError(
                f"The wheelhouse {wheelhouse} is a folder on the hosts, which the controller cannot see, and there is "
                f"no lock yet. Set {OPTIONS.format('lock_resolver')} to the name of a host that has it, which then "
                "resolves for all, or name the wheelhouse by the URL of a page. Nothing was resolved."
            )

    def _host(self, task_vars: dict[str, Any]) -> str:
        """Return the name of the host that the task runs on."""
        return str(getattr(self._task, "delegate_to", None) or task_vars.get("inventory_hostname", ""))

    def _resolve(self, arguments: dict[str, Any], environment: dict[str, str], task_vars: dict[str, Any]) -> str:
        """Return the lock as it was resolved, made of what was understood; raises LockError or PackagesError."""
        if arguments["resolver"] == "controller":
            network = {name: value for name, value in environment.items() if name.upper() in NETWORK}
            # What runs in this process is one host's task; the programs it starts take their variables from here.
            with process_environment(network):
                uv = on_controller(arguments["uv_requirement"], arguments["tools_path"], arguments["sources"])
                return str(resolve(arguments, uv, sys.executable, elsewhere=True))
        answer = self._execute_module(
            module_name="neuronops.vllm.python_lock",
            module_args={"uv_requirement": requirement(), **self._task.args},
            task_vars=task_vars,
        )
        if answer.get("unreachable"):
            raise store.UnreachableError(answer)
        if answer.get("failed"):
            raise LockError(said(answer))
        try:
            packages = forms.lock(answer.get("lock"), f"the lock that {self._host(task_vars)} answered")
            check_lock(packages, arguments["requirements"], arguments["constraints"], arguments["excluded"])
        except (forms.FormError, PackagesError) as error:
            raise LockError(f"The answer of {self._host(task_vars)} is no lock that can be used: {error}.") from error
        return forms.lock_text(packages)

    def _head(self, arguments: dict[str, Any], host: str) -> str:
        """Return the comments that say what a lock is, and who resolved it."""
        who = (
            "# It was resolved on the controller."
            if arguments["resolver"] == "controller"
            else RESOLVED_ON + ascii(host)[1:-1][:200].rstrip("\\") + "."
        )
        return (
            f"# {arguments['name']} for CPython {arguments['python_version']} on {arguments['architecture']}, "
            "resolved by neuronops.vllm.python_lock; safe to commit.\n"
            f"{who}\n"
            f"# sha256 of what went into it: {inputs_hash(arguments)}\n"
        )
