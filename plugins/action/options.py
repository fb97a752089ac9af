# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the options of roles and playbooks, and the place for locks and wheels, before a host is touched."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.neuronops.vllm.plugins.plugin_utils import state
from ansible_collections.neuronops.vllm.plugins.plugin_utils.options import (
    COLLECTION,
    OptionError,
    converted,
    playbooks,
    prefix,
    roles,
    specification,
    unknown,
)
from ansible_collections.neuronops.vllm.plugins.plugin_utils.stacks import load

# Ansible loads an action in its main process and forks a worker for each task and host: what is read and compiled here
# is not again in each of them, which took an eighth of a run.
for name in (*roles(), *playbooks()):
    specification(name)
load()
for kind in ("filter", "lookup"):
    for path in sorted((COLLECTION / "plugins" / kind).glob("[a-z]*.py")):
        import_module(f"ansible_collections.neuronops.vllm.plugins.{kind}.{path.stem}")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        of = str(self._task.args.get("of", ""))
        try:
            options, wrong = converted(of, variables, lambda name: self._value(variables, name))
            wrong += unknown(of, variables)
        except OptionError as error:
            return {**result, "failed": True, "msg": str(error)}
        # The variables that all roles share have a prefix of their own.
        if of in roles():
            wrong += converted("site", variables, lambda name: self._value(variables, name))[1] + unknown(
                "site", variables
            )
        if wrong:
            kind = "playbook" if of in playbooks() else "role"
            host = variables.get("inventory_hostname", "")
            msg = f"The options of {kind} {of} cannot be used on {host}, and nothing was changed: {'; '.join(wrong)}."
            return {**result, "failed": True, "msg": msg.replace("?.", "?")}
        warnings: list[str] = []
        if of in roles() and options.get("state") != "absent":
            known = {name: self._value(variables, name) for name in ("neuron_state", *state.JOBS) if name in variables}
            # Outside of the role its defaults are not there, and so nothing says where these go.
            places = {name: value for name, value in options.items() if prefix(of) + name in variables}
            wrong, warnings = state.look(places, known, prefix(of), self._task.check_mode)
        if wrong:
            msg = f"{'; '.join(wrong)}. Nothing was changed."
            return {**result, "failed": True, "msg": msg}
        for warning in warnings:
            Display().warning(warning)
        # Those of roles may hold keys, and are had through the lookup of the same name.
        return {**result, "changed": False, **({"options": options} if of in playbooks() else {})}

    def _value(self, variables: dict[str, Any], name: str) -> Any:
        try:
            return self._templar.template(variables[name])
        except AnsibleError as error:
            raise OptionError(f"{name} cannot be templated: {error}") from error
