# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold a host for this run of Ansible, and tell the name of the run that holds it where it is another."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError
from ansible_collections.neuronops.vllm.plugins.plugin_utils.observation import HELD_BY, CheckedAction, printable

PROCESSES = Path("/proc")


def controller() -> str:
    """Return a name of this machine that is no other's; of a container, where processes have other numbers, its own."""
    try:
        identity = Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        identity = ""
    try:
        numbers = os.readlink(PROCESSES / "self" / "ns" / "pid")
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{identity} {socket.gethostname()} {numbers}".encode()).hexdigest()


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user of a container that has no name
        return str(os.getuid())


def began(pid: int) -> str:
    """Return when a process of this machine began, as its kernel counts; empty where there is none."""
    try:
        return (
            (PROCESSES / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
        )
    except (OSError, IndexError):
        pass
    if PROCESSES.is_dir() and (PROCESSES / "self").exists():
        return ""
    try:  # a controller without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "unknown"


def this_run() -> dict[str, Any]:
    """Return what tells this run from others, the same in all of its tasks."""
    pid = os.getppid()  # the worker that runs a task is a child of the main process
    return {
        "who": printable(f"{user()}@{socket.gethostname()}", 400),
        "controller": controller(),
        "pid": pid,
        "began": began(pid),
    }


def has_ended(run: dict[str, Any]) -> bool:
    """Say whether a run is one of this controller whose main process is gone."""
    return bool(run["controller"] == controller() and began(run["pid"]) != run["began"])


class ActionModule(CheckedAction):
    MODULE = "host_lock"

    def ask(self) -> dict[str, Any]:
        answer = self._ask(None)
        ended = self._ended(answer)
        return self._ask(ended) if ended else answer

    def _ask(self, ended: dict[str, Any] | None) -> dict[str, Any]:
        arguments = {**self._task.args, "run": this_run(), "ended": ended}
        answer: dict[str, Any] = self._execute_module(
            module_name="neuronops.vllm.host_lock", module_args=arguments, task_vars=self._variables
        )
        return answer

    def _ended(self, answer: dict[str, Any]) -> dict[str, Any] | None:
        """Return the run that holds the host where it has ended."""
        try:
            found = HELD_BY(answer.get("held_by"), "held_by")
        except FormError:
            return None  # it is refused with all else that the host answered
        if not found:
            return None
        run = {name: value for name, value in found.items() if name != "seconds"}
        return run if has_ended(run) else None

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        other = result.get("held_by")
        if result.get("failed") or not other:
            return result
        host = (task_vars or {}).get("inventory_hostname", "the host")
        msg = (
            f"Another run of Ansible, of {printable(other['who'], 400)} (process {other['pid']} there), is at work on "
            f"{host}; it was heard of {other['seconds']} seconds ago. Nothing was changed. Wait for it, or, when it "
            "has ended, set neuron_take_over to true."
        )
        return {**result, **({} if self._task.check_mode else {"failed": True}), "msg": msg}
