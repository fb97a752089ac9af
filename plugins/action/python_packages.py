# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module beside us, show the person watching that it lives, and check what the host answers."""

from __future__ import annotations

import shlex
import time
from typing import Any

from ansible.utils.display import Display
from ansible_collections.neuronops.vllm.plugins.module_utils.forms import FormError, form
from ansible_collections.neuronops.vllm.plugins.plugin_utils import task_environment
from ansible_collections.neuronops.vllm.plugins.plugin_utils.observation import (
    LONGEST_LINE,
    CheckedAction,
    printable,
)
from ansible_collections.neuronops.vllm.plugins.plugin_utils.uv import requirement

LIMIT = 4 * 3600  # seconds; 3 GB at 2 Mbit/s
SAY = 10  # seconds
# One command that waits on the host; asking again and again from here takes a good part of the host's processor. What
# the job's file holds while the job runs is ansible-core's own affair, so async_status has the last word.
WAIT = """
for second in $(seq {seconds}); do sleep 1; grep -q '"finished": *[0f]' {file} || break; done; tail -n 1 {log}
""".strip()

display = Display()


def job_file(folder: str, job: Any) -> str:
    """Return where ansible-core keeps the state of a job, as a word of the shell; raises FormError."""
    name = shlex.quote(form("file name", job, "the number of its job"))
    # The shell of the host knows whose home it is.
    start = f"~/{shlex.quote(folder[2:])}" if folder.startswith("~/") else shlex.quote(folder)
    return f"{start}/{name}"


class ActionModule(CheckedAction):
    MODULE = "python_packages"

    def ask(self) -> dict[str, Any]:
        refused = task_environment.refusal(task_environment.variables(self))
        if refused:
            return {"failed": True, "msg": refused}
        arguments = {"uv_requirement": requirement(), **self._task.args}
        if self._task.check_mode:
            return self._module("neuronops.vllm.python_packages", arguments)
        return self._watched(arguments)

    def _module(self, name: str, arguments: dict[str, Any], asynchronous: bool = False) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name=name, module_args=arguments, task_vars=self._variables, wrap_async=asynchronous
        )
        return answer

    def _watched(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Start the module, say now and then what it is busy with, and return what it answers."""
        host = self._variables.get("inventory_hostname", "")
        log = f"{arguments.get('path')}/neuronops/{arguments.get('name')}.log"
        before, self._task.async_val = self._task.async_val, LIMIT
        try:
            job = self._module("neuronops.vllm.python_packages", arguments, asynchronous=True)
        finally:
            self._task.async_val = before
        if job.get("failed") or "ansible_job_id" not in job:
            return job
        folder = str(self.get_shell_option("async_dir", default="~/.ansible_async"))
        try:
            file = job_file(folder, job["ansible_job_id"])
        except FormError as error:
            return {"failed": True, "msg": f"What the host answered is not used: {error}."}
        status = {"jid": job["ansible_job_id"], "_async_dir": folder}
        start = time.monotonic()
        while True:
            line = self._low_level_execute_command(WAIT.format(file=file, log=shlex.quote(log), seconds=SAY))["stdout"]
            answer = self._module("ansible.legacy.async_status", status)
            if answer.get("finished") or answer.get("failed") or answer.get("unreachable"):
                break
            waited = time.monotonic() - start
            display.display(
                f"{host}: {waited:.0f} s, {arguments.get('name')}: {printable(line.strip(), LONGEST_LINE) or 'at work'}"
            )
        self._low_level_execute_command(f"rm -f {file}")
        return answer
