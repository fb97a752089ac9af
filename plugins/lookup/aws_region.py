# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup of the AWS region that boto3 would use."""

from __future__ import annotations

DOCUMENTATION = r"""
name: aws_region
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: The AWS region of the environment or of the AWS profile
description:
  - Returns the region where boto3 looks for it, C(AWS_REGION), C(AWS_DEFAULT_REGION), or the region of the profile that
    C(AWS_PROFILE) names in the AWS configuration.
  - Fails when there is none. No region is chosen for the user, as hosts would be launched in the wrong one.
options:
  _terms:
    description: A region that the user gave; an empty one counts as none.
    type: list
    elements: str
    required: false
requirements:
  - botocore on the controller
"""

EXAMPLES = r"""
- name: Show the region
  ansible.builtin.debug:
    msg: "{{ lookup('neuronops.vllm.aws_region') }}"
"""

RETURN = r"""
_list:
  description: The region.
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        given = next((str(term) for term in terms if term), "") or os.environ.get("AWS_REGION", "")
        if given:
            return [given]
        try:
            from botocore.exceptions import BotoCoreError
            from botocore.session import Session
        except ImportError as error:
            raise AnsibleLookupError("AWS needs boto3 beside Ansible on this machine: pip install boto3") from error
        try:
            region = Session(profile=os.environ.get("AWS_PROFILE") or None).get_config_variable("region")
        except BotoCoreError as error:
            raise AnsibleLookupError(f"The AWS configuration cannot be used: {error}") from error
        if not region:
            raise AnsibleLookupError("No AWS region is given. Set AWS_REGION, or a region in the AWS profile.")
        return [str(region)]
