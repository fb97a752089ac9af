# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module beside us with the pinned uv, and check what the host answers."""

from __future__ import annotations

from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils import task_environment
from ansible_collections.neuronops.vllm.plugins.plugin_utils.observation import CheckedAction
from ansible_collections.neuronops.vllm.plugins.plugin_utils.uv import requirement


class ActionModule(CheckedAction):
    MODULE = "managed_python"

    def ask(self) -> dict[str, Any]:
        refused = task_environment.refusal(task_environment.variables(self))
        if refused:
            return {"failed": True, "msg": refused}
        answer: dict[str, Any] = self._execute_module(
            module_name=f"neuronops.vllm.{self.MODULE}",
            module_args={"uv_requirement": requirement(), **self._task.args},
            task_vars=self._variables,
        )
        return answer
