# SPDX-License-Identifier: GPL-3.0-or-later
"""Count the tasks of a run, and end it, or do something to its host, where one of them begins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: boundaries
type: aggregate
short_description: Ends a run at a boundary between two tasks
description:
  - For the tests alone. Writes to the file NEURONOPS_BOUNDARIES a line for each task that begins, and one for each that
    ran on some host and was not skipped.
  - Where the task with the number NEURONOPS_BOUNDARY begins, it starts the program NEURONOPS_AT_BOUNDARY, a list in
    JSON, and waits for its first line. Where there is no program, it ends the process group of this run by SIGKILL.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible has no types
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "boundaries"

    def __init__(self) -> None:
        super().__init__()
        self.file = Path(os.environ["NEURONOPS_BOUNDARIES"])
        self.boundary = int(os.environ.get("NEURONOPS_BOUNDARY") or 0)
        self.program: list[str] = json.loads(os.environ.get("NEURONOPS_AT_BOUNDARY") or "[]")
        self.begun = 0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.begins(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.begins(task)

    def v2_runner_on_ok(self, result: Any) -> None:
        self.write(ran=self.begun)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self.write(ran=self.begun)

    def write(self, **values: Any) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            print(json.dumps(values), file=file)

    def begins(self, task: Any) -> None:
        self.begun += 1
        self.write(number=self.begun, action=task.action, name=task.get_name())
        if self.begun != self.boundary:
            return
        if not self.program:
            # The group is of this run alone: whoever starts it gives it a session of its own.
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpgrp(), signal.SIGKILL)
            raise SystemExit("This run has no process group of its own, and is not ended.")
        started = subprocess.Popen(
            self.program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
        assert started.stdout
        started.stdout.readline()
