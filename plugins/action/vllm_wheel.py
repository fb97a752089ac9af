# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep wheels on the controller or in a bucket, so that one host of a platform builds and all others wait for it.

What a host answers, or a manifest says, is compared with the stack before anything is done with it, and of both only
named fields are returned. No path comes from a host.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.neuronops.vllm.plugins.module_utils.files import sha256
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError, form, wheel_name
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import (
    ARCHIVES,
    OPTIONS,
    described,
    is_commit,
    is_local,
    kind,
    shown,
    wanted_version,
)
from ansible_collections.neuronops.vllm.plugins.plugin_utils import build_tools, store
from ansible_collections.neuronops.vllm.plugins.plugin_utils.observation import said
from ansible_collections.neuronops.vllm.plugins.plugin_utils.places import is_bucket, working_folder
from ansible_collections.neuronops.vllm.plugins.plugin_utils.uv import requirement
from ansible_collections.neuronops.vllm.plugins.plugin_utils.wheel_store import (
    FIELDS,
    Mirror,
    StoreError,
    checked,
    read,
    write,
)

DEFAULT_BUILD_PATH = "/opt/neuronops/build"
# The module's folder below the build path, and an absolute path that means the same to every program on the way.
WORKPLACE = ".neuronops-build"
BUILD_PATH = re.compile(r"(?:/[A-Za-z0-9._@%+,:= -]{1,255}){1,50}/?\Z")


def wanted(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what the stack says of the wheel that is asked for; raises FormError."""
    found: dict[str, Any] = described(arguments["stack"], arguments.get("of") or "vllm")
    return found


def source_of(arguments: dict[str, Any]) -> str:
    """Return where the sources are."""
    return str(arguments.get("source") or wanted(arguments)["source"])


def inputs_hash(arguments: dict[str, Any]) -> str:
    """Return a hash of all that decides on what the wheel is."""
    stack, wheel = arguments["stack"], wanted(arguments)
    # The whole entry of vLLM, though not all of it decides: wheels that were built before are found by this hash.
    built = ("name", "version", "ref", "commit", "build_requirements")
    inputs = [
        # A plugin is compared with the vLLM that it is built for.
        {**{name: wheel[name] for name in built}, "vllm": stack["vllm"]["version"]}
        if wheel["of"] == "plugin"
        else stack["vllm"],
        [stack["python_packages"][name] for name in wheel["packages"]],
        shown(source_of(arguments)),
        arguments.get("source_checksum") or "",
        arguments.get("source_key") or "",
        str(arguments["python_version"]),
        arguments["architecture"],
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def folder_name(arguments: dict[str, Any]) -> str:
    """Return the name of the wheel's folder, the same on the controller and in the mirror; raises FormError."""
    wheel = wanted(arguments)
    python = "cp" + form("Python version", str(arguments["python_version"]), "python_version").replace(".", "")
    architecture = form("architecture", arguments["architecture"], "architecture")
    version = form("version", wheel["version"], f"{wheel['of']}.version of the stack")
    # A plugin has no suffix.
    suffix = [form("file name", wheel["suffix"], "vllm.suffix of the stack")] if wheel["of"] == "vllm" else []
    parts = [wheel["name"], version, *suffix, python, architecture, inputs_hash(arguments)[:8]]
    return form("file name", "-".join(parts), "the name of the wheel's folder")


def check_wheel(facts: dict[str, Any], arguments: dict[str, Any]) -> None:
    """Fail unless facts that have their forms are about the wheel that the stack describes; raises FormError."""
    wheel = wanted(arguments)
    archive = kind(source_of(arguments)) == "archive"
    if archive != (facts["commit"] == ""):
        raise FormError(f"commit is {facts['commit']!r}, and {'an archive has none' if archive else 'there is one'}")
    commit = "" if archive else wheel["commit"] or (wheel["ref"] if is_commit(wheel["ref"]) else "")
    if commit and facts["commit"] != commit:
        raise FormError(f"commit is {facts['commit']}, and the stack's is {commit}")
    _scm, version = wanted_version(wheel, facts["commit"])
    if facts["version"] != version:
        raise FormError(f"version is {facts['version']}, and should be {version}")
    wheel_name(facts["wheel"], wheel["name"], version)


def told(answer: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a host says of the wheel that it has built, of nothing but the known fields; raises FormError."""
    package = wanted(arguments)["name"]
    facts = checked({name: answer[name] for name in FIELDS if name in answer}, what="its answer", package=package)
    check_wheel(facts, arguments)
    return facts


def check_writable(folder: Path) -> None:
    """Fail unless wheels can be kept in the folder; before any work."""
    try:
        store.check_writable(folder)
    except OSError as error:
        raise StoreError(
            f"Wheels cannot be kept in {folder} on the controller: {error}. Set neuron_state to a folder "
            "that lasts and can be written to, or to s3://BUCKET/PREFIX (vllm_wheel_path, path of the module, for "
            "wheels alone). Nothing was built."
        ) from error


def truth(arguments: dict[str, Any], name: str, default: bool) -> bool:
    """Return an argument that is true or false, also where it was given as text; raises StoreError."""
    value = arguments.get(name)
    try:
        return bool(boolean(default if value is None or value == "" else value))
    except TypeError as error:
        raise StoreError(f"{name} is {value!r}, and should be true or false. Nothing was changed.") from error


def locked_commit(wheels: Path, bucket: Mirror | None, arguments: dict[str, Any]) -> str:
    """Return the commit that the same ref of the same source was when a wheel in the store was built from it."""
    wheel = wanted(arguments)
    start, package = f"{wheel['name']}-", wheel["name"]

    def of_bucket(bucket: Mirror) -> Iterator[dict[str, Any] | None]:
        # What is damaged, of another package, or not for us to see is no reason not to build.
        with contextlib.suppress(StoreError):
            for name in bucket.names(start):
                with contextlib.suppress(StoreError):
                    yield bucket.manifest(name)

    folders = (read(folder, package=package) for folder in sorted(wheels.glob(f"{start}*")))
    for manifest in of_bucket(bucket) if bucket else folders:
        if manifest and [manifest.get("source"), manifest.get("ref")] == [shown(source_of(arguments)), wheel["ref"]]:
            return str(manifest["commit"])
    return ""


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._variables = task_vars or {}
        arguments = dict(self._task.args)
        missing = {"path", "stack", "venv", "python_version", "architecture"} - set(arguments)
        if missing:
            return {**result, "failed": True, "msg": f"missing required arguments: {', '.join(sorted(missing))}"}
        try:
            return {**result, **self._wheel(arguments)}
        except (StoreError, FormError) as error:
            return {**result, "failed": True, "msg": str(error)}
        except (KeyError, TypeError) as error:
            if isinstance(arguments["stack"], dict) and {"vllm", "python_packages"} <= set(arguments["stack"]):
                raise
            problem = f"stack is no entry of the stack data: {error!r} is missing or of another type"
            return {**result, "failed": True, "msg": problem}

    def _wheel(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the result: the wheel from the store, from the mirror or from the host."""
        place, package = str(arguments["path"]), wanted(arguments)["name"]
        wheels = working_folder(place)
        folder = wheels / folder_name(arguments)
        result: dict[str, Any] = {"changed": False, "built": False, "directory": str(folder), "wheel": ""}
        may_build = truth(arguments, "build", True)
        mirror_write = truth(arguments, "mirror_write", False)
        insecure = truth(arguments, "mirror_insecure", False)
        mirror = Mirror(str(arguments["mirror"]), insecure, package) if arguments.get("mirror") else None
        bucket = Mirror(place, package=package) if is_bucket(place) else None
        elsewhere = [each for each in (bucket, mirror) if each]
        # What comes out of the bucket is in a folder of this run alone, and is no change.
        made_here: list[str] = []

        def check(manifest: dict[str, Any]) -> None:
            check_wheel(manifest, arguments)

        def look() -> dict[str, Any] | None:
            return read(folder, check, package)

        def somewhere() -> dict[str, Any] | None:
            return next((found for found in (each.manifest(folder.name, check) for each in elsewhere) if found), None)

        def make() -> dict[str, Any]:
            if bucket:
                return keep_in(bucket)
            fetched = mirror.fetch(folder.name, folder, check) if mirror else None
            return fetched or build(folder)

        def build(into: Path) -> dict[str, Any]:
            if not may_build:
                raise StoreError(f"The mirror had {folder.name} a moment ago, and has it no more. Run it again.")
            result["built"] = True
            return self._build(into, locked_commit(wheels, bucket, arguments), arguments, check)

        def keep_in(bucket: Mirror) -> dict[str, Any]:
            """Return the wheel that the bucket has in the end; another controller may have put it there meanwhile."""
            fetched = bucket.fetch(folder.name, folder, check)
            if fetched:
                return fetched
            # Apart, as other hosts of the run look into the folder.
            apart = wheels / "made" / folder.name
            if not (mirror and mirror.fetch(folder.name, apart, check)):
                build(apart)
            made_here.append(folder.name)
            result["built"] = bucket.put(folder.name, apart) and result["built"]
            kept = bucket.fetch(folder.name, folder, check)
            if not kept:
                raise StoreError(f"{bucket.place}/{folder.name} was written, and is not there. Run it again.")
            return kept

        if self._task.check_mode:
            manifest = look() or (bucket.manifest(folder.name, check) if bucket else None)
            would = not manifest and (may_build or bool(mirror and mirror.manifest(folder.name, check)))
            return {**result, "changed": would, **_facts(manifest)}
        manifest = look()
        if not manifest and (may_build or somewhere()):
            prepare = None if bucket else lambda: check_writable(wheels)
            try:
                manifest, made = store.once(folder, look, make, prepare)
                result["changed"] = bool(made_here) if bucket else made
            except store.NotMadeError as error:
                return {**result, "built": False, "failed": True, "msg": str(error)}
            except store.UnreachableError as error:
                return {**result, "built": False, "unreachable": True, "msg": said(error.answer)}
        # Also when it was built before: the mirror may have been away then.
        if manifest and mirror and mirror_write and mirror.manifest(folder.name, check) is None:
            with store.turn(folder):
                result["changed"] = mirror.put(folder.name, folder) or result["changed"]
        for warning in dict.fromkeys(warning for each in elsewhere for warning in each.warnings):
            Display().warning(warning)
        return {**result, **_facts(manifest)}

    def _build(
        self, folder: Path, commit: str, arguments: dict[str, Any], check: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Build on the host, bring the wheel here and return its manifest; raises NotMadeError, UnreachableError."""
        build_path = str(arguments.get("build_path") or DEFAULT_BUILD_PATH)
        if not BUILD_PATH.match(build_path) or ".." in build_path.split("/"):
            raise StoreError(
                f"build_path is {build_path!r}, and should be an absolute path of letters, digits and common signs."
            )
        source, wanted_wheel = source_of(arguments), wanted(arguments)
        known = build_tools.lock(wanted_wheel["build_requirements"], str(arguments["python_version"]))
        sent = {
            "uv_requirement": requirement(),
            "locked_commit": commit,
            **{name: value for name, value in arguments.items() if not name.startswith("mirror") and name != "build"},
            "build_lock": arguments.get("build_lock") or known,
            # The controller says where the wheel is to be left, and so needs not be told.
            "result_folder": f"wheel-{secrets.token_hex(8)}",
            "started_by": store.person(),
        }
        if is_local(source) and kind(source) != "git":
            sent["source"] = self._send(source, wanted_wheel["of"])
        answer: dict[str, Any] = self._execute_module(
            module_name="neuronops.vllm.vllm_wheel", module_args=sent, task_vars=self._variables
        )
        if answer.get("unreachable"):
            raise store.UnreachableError(answer)
        if answer.get("failed"):
            raise self._not_made(said(answer))
        try:
            facts = told(answer, arguments)
        except FormError as error:
            raise self._not_made(
                f"The host says that it has built a wheel, and it is not the wanted one: {error}. Nothing was "
                "fetched from it. Is there another program in the place of its Python?"
            ) from error
        left = f"{build_path.rstrip('/')}/{WORKPLACE}/{sent['result_folder']}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
            wheel = Path(file.name)
        try:
            self._connection.fetch_file(f"{left}/{facts['wheel']}", str(wheel))
            whole = sha256(wheel) == facts["sha256"]
            if whole:
                manifest = {**facts, "source": shown(source), "ref": wanted_wheel["ref"]}
                write(folder, wheel, manifest, wanted_wheel["name"])
        finally:
            wheel.unlink(missing_ok=True)
        self._execute_module(
            module_name="ansible.legacy.file",
            module_args={"path": left, "state": "absent"},
            task_vars=self._variables,
        )
        if not whole:
            raise self._not_made(f"The wheel was damaged on its way from the host to {folder}. Run it again.")
        kept = read(folder, check, wanted_wheel["name"])
        if not kept:
            raise StoreError(
                f"The wheel that was kept in {folder} cannot be read again. Is the disk full? Run it again."
            )
        return kept

    def _not_made(self, why: str) -> store.NotMadeError:
        host = getattr(self._task, "delegate_to", None) or self._variables.get("inventory_hostname", "")
        return store.NotMadeError(f"{why} (built on {host} for all hosts like it)")

    def _send(self, source: str, of: str) -> str:
        """Copy the file with the sources to the host, where the module removes it with its temporary folder."""
        if not Path(source).is_file():
            raise AnsibleError(f"{OPTIONS[of]} is {source}, and there is no such file on the controller.")
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        # Its name says what kind of file it is, and nothing else.
        end = next(end for end in (*ARCHIVES, ".bundle") if source.endswith(end))
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, f"vllm-sources{end}")
        self._transfer_file(source, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return str(remote)


def _facts(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Return what of a manifest is a result."""
    return {name: manifest[name] for name in FIELDS} if manifest else {}
