# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep wheels on the controller, so that one host of a platform builds and all others wait for it."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.neuronops.vllm.plugins.module_utils.vllm_source import is_local, kind, shown
from ansible_collections.neuronops.vllm.plugins.plugin_utils.turns import turn
from ansible_collections.neuronops.vllm.plugins.plugin_utils.uv import requirement
from ansible_collections.neuronops.vllm.plugins.plugin_utils.wheel_store import Mirror, StoreError, read, write

# What the controller keeps to itself.
OWN = ("path", "mirror", "mirror_write")
DEFAULT_SOURCE = "https://github.com/vllm-project/vllm.git"


def inputs_hash(arguments: dict[str, Any]) -> str:
    """Return a hash of all that decides on what the wheel is."""
    stack = arguments["stack"]
    inputs = [
        stack["vllm"],
        [stack["python_packages"][name] for name in ("neuronx-cc", "torch")],
        shown(str(arguments.get("source") or DEFAULT_SOURCE)),
        arguments.get("source_checksum") or "",
        arguments.get("source_key") or "",
        str(arguments["python_version"]),
        arguments["architecture"],
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def folder_name(arguments: dict[str, Any]) -> str:
    """Return the name of the wheel's folder, the same on the controller and in the mirror."""
    vllm = arguments["stack"]["vllm"]
    python = "cp" + str(arguments["python_version"]).replace(".", "")
    parts = ["vllm", vllm["version"], vllm["suffix"], python, arguments["architecture"], inputs_hash(arguments)[:8]]
    return "-".join(parts)


def locked_commit(store: Path, arguments: dict[str, Any]) -> str:
    """Return the commit that the same ref of the same source was when a wheel in the store was built from it."""
    wanted = [shown(str(arguments.get("source") or DEFAULT_SOURCE)), arguments["stack"]["vllm"]["ref"]]
    for manifest in map(read, sorted(store.glob("vllm-*"))):
        if manifest and [manifest.get("source"), manifest.get("ref")] == wanted:
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
        store = Path(str(arguments["path"])).expanduser().absolute()
        folder = store / folder_name(arguments)
        host = str(self._variables.get("inventory_hostname", ""))
        started = time.time()
        result.update(changed=False, built=False, directory=str(folder), wheel="")
        try:
            mirror = Mirror(str(arguments["mirror"])) if arguments.get("mirror") else None
            if self._task.check_mode:
                return {**result, "changed": not read(folder), **(read(folder) or {})}
            with turn(folder.with_name(f".{folder.name}.turn")) as notes:
                manifest = read(folder)
                if not manifest and mirror:
                    manifest = mirror.fetch(folder.name, folder)
                    result["changed"] = bool(manifest)
                if not manifest:
                    if notes.get("failed", 0) > started:
                        # Another host tried while this one waited: no need to hear the same from each host in turn.
                        return {**result, "failed": True, "msg": notes["msg"]}
                    answer = self._build(store, folder, arguments)
                    if answer.get("failed") or answer.get("unreachable"):
                        if not answer.get("unreachable"):
                            notes.update(
                                failed=time.time(), msg=f"{answer.get('msg')} (built on {host} for all hosts like it)"
                            )
                        return {**result, **answer}
                    manifest = read(folder)
                    result.update(changed=True, built=True)
                    if mirror and arguments.get("mirror_write"):
                        mirror.put(folder.name, folder)
        except StoreError as error:
            return {**result, "failed": True, "msg": str(error)}
        return {**result, **(manifest or {})}

    def _build(self, store: Path, folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
        """Build on the host and bring the wheel here; return the module's answer."""
        sent = {"uv_requirement": requirement(), "locked_commit": locked_commit(store, arguments), **arguments}
        source = str(arguments.get("source") or DEFAULT_SOURCE)
        if is_local(source) and kind(source) != "git":
            sent["source"] = self._send(source)
        answer: dict[str, Any] = self._execute_module(
            module_name="neuronops.vllm.vllm_wheel", module_args=sent, task_vars=self._variables
        )
        if answer.get("failed") or answer.get("unreachable"):
            return answer
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
            wheel = Path(file.name)
        self._connection.fetch_file(answer["path"], str(wheel))
        manifest = {
            "wheel": Path(answer["path"]).name,
            "source": shown(source),
            "ref": arguments["stack"]["vllm"]["ref"],
            **{name: answer[name] for name in ("sha256", "version", "commit", "requirements")},
        }
        write(folder, wheel, manifest)
        self._execute_module(
            module_name="ansible.legacy.file",
            module_args={"path": answer["path"], "state": "absent"},
            task_vars=self._variables,
        )
        if not read(folder):
            return {
                **answer,
                "failed": True,
                "msg": f"The wheel was damaged on its way from the host to {folder}. Run it again.",
            }
        return answer

    def _send(self, source: str) -> str:
        """Copy the file with the sources to the host, where the module removes it with its temporary folder."""
        if not Path(source).is_file():
            raise AnsibleError(f"vllm_source is {source}, and there is no such file on the controller.")
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, Path(source).name)
        self._transfer_file(source, remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return str(remote)
