# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup of why AWS would not make an image of an instance."""

from __future__ import annotations

DOCUMENTATION = r"""
name: image_refusal
author: neuronops.vllm contributors (@neuronops)
version_added: 0.1.0
short_description: Why AWS would not make an image of an instance
description:
  - Asks AWS whether it would make the image with these credentials, C(DryRun), which makes nothing and costs nothing.
  - Returns nothing where it would, else what AWS says, which P(neuronops.vllm.aws_explained#filter) explains.
  - C(bake_image) asks before it cleans the host.
options:
  _terms:
    description: The id of the instance.
    type: list
    elements: str
    required: true
  name:
    description: Name of the image.
    type: str
    required: true
  region:
    description: The AWS region.
    type: str
    required: true
requirements:
  - boto3 on the controller
"""

EXAMPLES = r"""
- name: Show why an image would not be made
  ansible.builtin.debug:
    msg: "{{ lookup('neuronops.vllm.image_refusal', 'i-0123456789abcdef0', name='mine', region='eu-west-1') }}"
"""

RETURN = r"""
_list:
  description: What AWS says, or an empty string.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.neuronops.vllm.plugins.plugin_utils import aws


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError as error:
            raise AnsibleLookupError("AWS needs boto3 beside Ansible on this machine: pip install boto3") from error
        (instance,) = terms
        # With the tags, as those are an action of their own.
        tags = [{"Key": "Name", "Value": self.get_option("name")}]
        kinds = [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")]
        try:
            boto3.session.Session(region_name=self.get_option("region")).client("ec2").create_image(
                InstanceId=str(instance), Name=self.get_option("name"), TagSpecifications=kinds, DryRun=True
            )
        except (BotoCoreError, ClientError) as error:
            return ["" if aws.code(str(error)) == "DryRunOperation" else str(error)]
        return [""]
