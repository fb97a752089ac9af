# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep locks on the controller or in a bucket; one resolves for a platform while all other hosts wait."""

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
from ansible.utils.display import Display
from ansible_collections.neuronops.vllm.plugins.module_utils import forms
from ansible_collections.neuronops.vllm.plugins.module_utils.files import write_at_once
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import ARGUMENTS, PackagesError, check_lock
from ansible_collections.neuronops.vllm.plugins.module_utils.resolve import checked, resolve
from ansible_collections.neuronops.vllm.plugins.plugin_utils import store, task_environment
from ansible_collections.neuronops.vllm.plugins.plugin_utils.observation import said
from ansible_collections.neuronops.vllm.plugins.plugin_utils.places import (
    Place,
    StoreError,
    is_bucket,
    working_folder,
)
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
    return working_folder(str(arguments["path"])) / file


def check_writable(folder: Path, make: bool) -> None:
    """Fail unless a file can be written into the folder, which may not exist yet; asked before any work."""
    try:
        store.check_writable(folder) if make else store.check_can_be_made(folder)
    except OSError as error:
        raise LockError(
            f"Locks cannot be kept in {folder} on the controller: {error}. Set neuron_state to a folder that "
            f"lasts and can be written to, or to s3://BUCKET/PREFIX ({OPTIONS.format('lock_path')} for locks alone). "
            "Nothing was resolved."
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
# The first line: a lock that was cut off on its way may still be one in form.
DIGEST = "# sha256 of the lines below: "


def sealed(text: str) -> str:
    """Return a lock with its digest, which read() compares."""
    return f"{DIGEST}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def unsealed(text: str, required: bool = False) -> str:
    """Return a lock without its digest; raises FormError where that is of another text, or absent though required."""
    first, _end, rest = text.partition("\n")
    if not first.startswith(DIGEST):
        if required:
            raise forms.FormError("its first line is not its digest, as that of each lock is that was written there")
        return text
    if hashlib.sha256(rest.encode()).hexdigest() != first[len(DIGEST) :]:
        raise forms.FormError(
            "it is not what its first line is the digest of: it was damaged, or edited"
            + ("" if required else ". If you have edited it, remove that line")
        )
    return rest


def read(path: Path, arguments: dict[str, Any], where: str = "", required: bool = False) -> tuple[str, dict[str, str]]:
    """Return a lock's text, made of what was understood of the file, and its versions.

    where: what it is called in messages; required: whether it must have a digest.
    """
    try:
        # newline: other ends of a line than \n are no part of a lock.
        with path.open(encoding="utf-8", newline="") as file:
            text = unsealed(file.read(forms.LONGEST_LOCK + 1), required)
        packages = forms.lock(text, where or str(path))
        check_lock(packages, arguments["requirements"], arguments["constraints"], arguments["excluded"])
    except (OSError, UnicodeDecodeError, forms.FormError, PackagesError) as error:
        raise LockError(
            f"The lock {where or f'{path} on the controller'} cannot be used: {error}. Nothing was installed. Take it "
            f"from where it came from, or remove it (or set {OPTIONS.format('lock_refresh')} to true), and it is "
            "resolved anew."
        ) from error
    # Which host resolved it may be chance, and what it made is the same: the name of a release does not depend on it.
    head = [line for line in text.split("\n") if line.startswith("#") and not line.startswith(RESOLVED_ON)]
    return "".join(line + "\n" for line in head) + forms.lock_text(packages), {
        name: version for name, (version, _hashes) in packages.items()
    }


class Kept:
    """One lock, in a folder of the controller or in a bucket, whose copy of this run `path` is then."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.path = lock_file(arguments)
        place = str(arguments["path"])
        self.bucket = Place(place) if is_bucket(place) else None
        self.where = f"{self.bucket.place}/{self.path.name}" if self.bucket else str(self.path)

    def read(self) -> tuple[str, dict[str, str]] | None:
        """Return the lock's text and its versions, or None where there is none here."""
        if not self.path.is_file():
            return None
        return read(self.path, self.arguments, self.where if self.bucket else "", bool(self.bucket))

    def fetch(self) -> bool:
        """Bring the lock here from its bucket; returns whether there is one."""
        blocks = self.bucket.get_file(self.path.name, forms.LONGEST_LOCK, True) if self.bucket else None
        if blocks is None:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_at_once(self.path, b"".join(blocks))
        return True

    def write(self, text: str, first: bool) -> None:
        """Keep a lock; where it is to be the first one, and another controller was faster, that one's is fetched."""
        text = sealed(text)
        if self.bucket and not self.bucket.put_file(self.path.name, text.encode(), first):
            if not self.fetch():
                raise LockError(
                    f"{self.where} is there, as another controller has written it, and may not be read with these "
                    "credentials: allow s3:GetObject. Nothing was installed."
                )
            return
        try:
            write_at_once(self.path, text)
        except OSError as error:
            raise LockError(f"The lock {self.path} on the controller cannot be written: {error}.") from error


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(changed=False, path="", resolved=False, lock="", packages={})
        try:
            return self._lock(result, task_vars or {})
        except (LockError, PackagesError, StoreError, store.NotMadeError) as error:
            return {**result, "failed": True, "msg": str(error)}
        except store.UnreachableError as error:
            return {**result, "unreachable": True, "msg": said(error.answer)}

    def _lock(self, result: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        arguments = arguments_of({"uv_requirement": requirement(), **self._task.args})
        environment = task_environment.variables(self)
        refused = task_environment.refusal(environment)
        if refused:
            raise LockError(refused)
        kept = Kept(arguments)
        result["path"] = kept.where
        try:
            return self._kept(kept, result, environment, task_vars)
        finally:
            for warning in dict.fromkeys(kept.bucket.warnings if kept.bucket else ()):
                Display().warning(warning)

    def _kept(
        self, kept: Kept, result: dict[str, Any], environment: dict[str, str], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the result: the lock that is kept, or that is resolved now."""
        arguments, refresh = kept.arguments, kept.arguments["refresh"]
        if self._task.check_mode:
            found = None if refresh else kept.read() or (kept.read() if kept.fetch() else None)
            if found:
                return {**result, "lock": found[0], "packages": found[1]}
            self._prepare(arguments)
            return {**result, "changed": True}

        def make() -> tuple[str, dict[str, str]]:
            # One that is to be replaced may be damaged, and is only compared.
            fetched = kept.read() if kept.fetch() and not refresh else None
            if fetched:
                return fetched
            self._prepare(arguments)
            before = _content(kept.path)
            host = self._host(task_vars)
            try:
                lock = self._resolve(arguments, environment, task_vars)
            except (LockError, PackagesError) as error:
                where = "on the controller" if arguments["resolver"] == "controller" else f"on {host}"
                raise store.NotMadeError(f"{error} (resolved {where} for all hosts of this platform)") from error
            kept.write(self._head(arguments, host) + lock, first=not refresh)
            found = kept.read()
            if not found:
                raise LockError(f"The lock {kept.where} was written, and is not there. Run it again.")
            after = _content(kept.path)
            result.update(changed=after != before, resolved=True)
            if self._task.diff:
                result["diff"] = {
                    "before": before,
                    "after": after,
                    "before_header": kept.where,
                    "after_header": kept.where,
                }
            return found

        # For a bucket, what speaks against resolving is asked when it is known to have no lock.
        prepare = None if kept.bucket else lambda: self._prepare(arguments)
        (text, packages), _made = store.once(kept.path, kept.read, make, prepare=prepare, anew=refresh)
        return {**result, "lock": text, "packages": packages}

    def _prepare(self, arguments: dict[str, Any]) -> None:
        """Fail where a lock cannot be resolved or kept; before any work."""
        self._check_resolver(arguments)
        check_writable(working_folder(str(arguments["path"])), make=not self._task.check_mode)

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


def _content(path: Path) -> str:
    """Return what a file holds, as text to compare and to show."""
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""
