# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep locks on the controller, so that one host of a platform resolves and all others wait for it."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import parse_lock
from ansible_collections.neuronops.vllm.plugins.plugin_utils.turns import turn
from ansible_collections.neuronops.vllm.plugins.plugin_utils.uv import requirement

# What decides on the content of a lock. Where a package is downloaded from does not, as hashes name its content; an
# index with other builds of torch does.
INPUTS = ("requirements", "constraints", "excluded", "python_version", "architecture")


def inputs_hash(arguments: dict[str, Any]) -> str:
    """Return a hash of all that decides on the content of a lock."""
    inputs: list[Any] = [arguments.get(name) or [] for name in INPUTS]
    inputs.append((arguments.get("sources") or {}).get("torch_index_url") or "")
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def lock_file(arguments: dict[str, Any]) -> Path:
    """Return the file on the controller that the lock for these arguments is kept in."""
    python = "cp" + str(arguments["python_version"]).replace(".", "")
    name = f"{arguments['name']}-{python}-{arguments['architecture']}-{inputs_hash(arguments)[:8]}.txt"
    return Path(str(arguments["path"])).expanduser().absolute() / name


def turn_file(lock: Path) -> Path:
    """Return where the hosts of one run tell each other about one lock: in the run's own temporary folder."""
    name = hashlib.sha256(str(lock.resolve()).encode()).hexdigest()[:16]
    return Path(constants.DEFAULT_LOCAL_TMP) / f"neuronops-{name}"


def write(path: Path, text: str) -> None:
    """Replace a file at once, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).rename(path)


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        missing = {"name", "path", "requirements", "python", "python_version", "architecture"} - set(arguments)
        if missing:
            return {**result, "failed": True, "msg": f"missing required arguments: {', '.join(sorted(missing))}"}
        path = lock_file(arguments)
        host = str((task_vars or {}).get("inventory_hostname", ""))
        started = time.time()
        result.update(changed=False, path=str(path), resolved=False, lock="", packages={})
        with turn(turn_file(path)) as notes:
            refresh = bool(arguments.get("refresh")) and not notes.get("resolved_by")
            if not path.is_file() or refresh:
                if self._task.check_mode:
                    return {**result, "changed": True}
                if notes.get("failed", 0) > started:
                    # Another host tried while this one waited: no need to hear the same from each host in turn.
                    return {**result, "failed": True, "msg": notes["msg"]}
                answer = self._execute_module(
                    module_name="neuronops.vllm.python_lock",
                    module_args={"uv_requirement": requirement(), **arguments},
                    task_vars=task_vars,
                )
                if answer.get("failed") or answer.get("unreachable"):
                    if not answer.get("unreachable"):
                        notes.update(
                            failed=time.time(), msg=f"{answer.get('msg')} (resolved on {host} for all hosts like it)"
                        )
                    return {**result, **answer}
                before = path.read_text(encoding="utf-8") if path.is_file() else ""
                text = self._text(arguments, str(answer["lock"]))
                write(path, text)
                notes["resolved_by"] = host
                result.update(changed=text != before, resolved=True)
                if self._task.diff:
                    result["diff"] = {
                        "before": before,
                        "after": text,
                        "before_header": str(path),
                        "after_header": str(path),
                    }
        lock = path.read_text(encoding="utf-8")
        return {**result, "lock": lock, "packages": parse_lock(lock)}

    def _text(self, arguments: dict[str, Any], lock: str) -> str:
        """Return the lock with a head that says what it is."""
        return (
            f"# {arguments['name']} for CPython {arguments['python_version']} on {arguments['architecture']}, "
            "resolved by neuronops.vllm.python_lock; safe to commit.\n"
            f"# sha256 of what went into it: {inputs_hash(arguments)}\n{lock.strip()}\n"
        )
