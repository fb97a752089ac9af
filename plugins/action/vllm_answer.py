# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module beside us until the server answers or has failed, and check what the host answers.

The controller waits and the host does not: each look is one short command, so that no connection is silent for long.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.utils.display import Display
from ansible_collections.neuronops.vllm.plugins.plugin_utils import observation
from ansible_collections.neuronops.vllm.plugins.plugin_utils.server_plan import settled

SAY = 30  # seconds between lines of progress
LONGEST_PAUSE = 5.0  # seconds between looks


class ActionModule(observation.CheckedAction):
    MODULE = "vllm_answer"

    def ask(self) -> dict[str, Any]:
        """Return the last answer of the host: of the first look, or the one after which there is nothing to wait
        for."""
        arguments = self._task.args
        machine = str(getattr(self._task, "delegate_to", None) or self._variables.get("inventory_hostname", "the host"))
        wait = _number(arguments.get("wait"), 0)
        restarts = _number(arguments.get("restarts"), -1)
        began = said = time.monotonic()
        looks = 0
        while True:
            answer = super().ask()
            looks += 1
            found = observation.result(self.MODULE, answer, machine, arguments)
            if found.get("failed") or found.get("unreachable"):
                return answer
            if restarts < 0:
                restarts = found["restarts"]
            elapsed = time.monotonic() - began
            over = settled(found, wait, restarts, str(arguments.get("configuration") or ""), looks, elapsed)
            if over is not None:
                return {**answer, **over}
            if time.monotonic() - said > SAY:
                said = time.monotonic()
                busy = f"busy with: {found['busy']}" if found["busy"] else "it has written nothing"
                Display().display(
                    f"{machine}: waiting for {elapsed:.0f} of {wait} s for {arguments.get('service')} to answer, "
                    f"{found['problem']}; {busy}"
                )
            time.sleep(min(LONGEST_PAUSE, 1 + elapsed / 10))


def _number(value: Any, default: int) -> int:
    """Return an option as a number; the module itself refuses what is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return default
