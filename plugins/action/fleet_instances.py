# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Launch the instances of a fleet from the controller, where boto3 and the credentials are."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.neuronops.vllm.plugins.plugin_utils import aws, fleet


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _valid, given = self.validate_argument_spec(
            argument_spec={
                "options": {"type": "dict", "required": True},
                "stack": {"type": "dict", "required": True},
                "region": {"type": "str", "required": True},
            }
        )
        options = given["options"]
        wrong = fleet.problems(options, given["stack"])
        if wrong:
            raise AnsibleActionFail(f"{' '.join(wrong)} Nothing was launched.")
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise AnsibleActionFail(
                "AWS needs boto3 beside Ansible on this machine: pip install boto3. Nothing was launched."
            ) from error
        launched: list[dict[str, Any]] = []
        unsure = ""
        try:
            session = boto3.session.Session(region_name=given["region"])
            ec2 = session.client("ec2")
            place = fleet.survey(ec2, session.client("ssm"), options, given["stack"], given["region"])
            # Nothing is made before AWS has said that it would launch the instances.
            changed, instances = fleet.rehearse(ec2, options, place)
            if not self._task.check_mode:
                changed, instances = fleet.launch(ec2, options, place)
            return {**result, "changed": changed, "instances": instances}
        except fleet.LaunchError as error:
            launched, unsure, msg = error.launched, error.unsure, str(error)
        except fleet.FleetError as error:
            msg = str(error)
        except (BotoCoreError, ClientError) as error:
            msg = aws.explained(str(error))
        msg = f"{msg.rstrip('.')}. {fleet.told(launched, options['fleet'], given['region'], unsure)}".replace("?.", "?")
        return {**result, "failed": True, "changed": bool(launched or unsure), "msg": msg, "instances": launched}
