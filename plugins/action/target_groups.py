# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a host out of target groups from the controller, where boto3 and the credentials are, and let it in again."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.neuronops.vllm.plugins.plugin_utils import aws, targets


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _valid, given = self.validate_argument_spec(
            argument_spec={
                "target_groups": {"type": "list", "elements": "str", "required": True},
                "instance": {"type": "str", "default": ""},
                "address": {"type": "str", "default": ""},
                "state": {"type": "str", "choices": ["present", "absent"], "required": True},
                "timeout": {"type": "int", "default": 600},
            }
        )
        host = str((task_vars or {}).get("inventory_hostname", "the host"))
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise AnsibleActionFail("AWS needs boto3 beside Ansible on this machine: pip install boto3") from error
        present, changed = given["state"] == "present", False
        try:
            groups = []
            for arn in given["target_groups"]:
                client = boto3.session.Session(region_name=targets.region(arn)).client("elbv2")
                groups.append(targets.Group(client, arn, given["instance"], given["address"]))
            # All of them are found before the host leaves the first one, and it leaves all before any is waited for.
            differ = [group for group in groups if group.is_target() != present]
            if not self._task.check_mode:
                for group in differ:
                    changed = True
                    group.add() if present else group.remove()
                for group in groups:
                    group.wait(present, given["timeout"], lambda text: Display().display(f"{host}: {text}"))
            return {**result, "changed": bool(differ), "differs_in": [group.name for group in differ]}
        except targets.TargetError as error:
            msg = f"{error}."
        except (BotoCoreError, ClientError) as error:
            msg = aws.explained(str(error))
        return {**result, "failed": True, "changed": changed, "msg": f"{host}: {msg}"}
