# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a host out of the target groups of AWS's load balancers, and let it in again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

# arn:PARTITION:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID
ARN = re.compile(
    r"arn:aws[a-z-]*:elasticloadbalancing:(?P<region>[a-z0-9-]+):\d{12}:targetgroup/[A-Za-z0-9-]+/[0-9a-f]+"
)
LOOK_SECONDS = 5.0
SAY_SECONDS = 30.0
# Whoever is no target has this reason; a target of a group that no load balancer uses is "unused" too.
NO_TARGET = "Target.NotRegistered"


class TargetError(Exception):
    """What keeps a host from leaving or joining a group; the message says what to do."""


def region(arn: str) -> str:
    """Return the region of a target group; raises TargetError for what is no ARN of one."""
    found = ARN.fullmatch(arn)
    if not found:
        raise TargetError(
            f"neuron_target_groups has {arn!r}, which is no ARN of a target group: `aws elbv2 describe-target-groups` "
            "lists them as TargetGroupArn"
        )
    return found["region"]


class Group:
    """One target group, and one host as a target of it, at the port of the group."""

    def __init__(self, elb: Any, arn: str, instance: str, address: str) -> None:
        self.elb, self.arn = elb, arn
        (group,) = elb.describe_target_groups(TargetGroupArns=[arn])["TargetGroups"]
        self.name, kind = group["TargetGroupName"], group["TargetType"]
        if kind not in ("instance", "ip"):
            raise TargetError(
                f"The target group {self.name} has targets of the type {kind}, and a host is none of those"
            )
        identity = instance if kind == "instance" else address
        if not identity or (kind == "instance" and not identity.startswith("i-")):
            wanted = (
                "instance id (ec2_instance_id)" if kind == "instance" else "private address (ec2_private_ip_address)"
            )
            raise TargetError(
                f"The target group {self.name} knows its targets by their {wanted}, which the inventory does not say "
                "of the host"
            )
        self.target = {"Id": identity}

    def health(self) -> tuple[str, str, str]:
        """Return the state of the host as a target, the reason, and AWS's words for it."""
        (found,) = self.elb.describe_target_health(TargetGroupArn=self.arn, Targets=[self.target])[
            "TargetHealthDescriptions"
        ]
        health = found["TargetHealth"]
        return health["State"], health.get("Reason", ""), health.get("Description", "")

    def is_target(self) -> bool:
        """Whether requests may come to the host from this group."""
        state, reason, _words = self.health()
        return reason != NO_TARGET and state != "draining"

    def remove(self) -> None:
        """Send no more requests to the host."""
        self.elb.deregister_targets(TargetGroupArn=self.arn, Targets=[self.target])

    def add(self) -> None:
        """Send requests to the host once it is healthy."""
        self.elb.register_targets(TargetGroupArn=self.arn, Targets=[self.target])

    def wait(self, present: bool, seconds: float, say: Callable[[str], None]) -> None:
        """Return when the host takes requests of the group, or has answered the last of them; raises TargetError."""
        began = said = time.monotonic()
        while True:
            state, reason, words = self.health()
            unused = state == "unused"
            if (
                (state == "healthy" or (unused and reason != NO_TARGET))
                if present
                else (unused and reason == NO_TARGET)
            ):
                return
            now = f"{state}{f', {reason}: {words}' if reason else ''}"
            elapsed = time.monotonic() - began
            if elapsed >= seconds:
                what = "not healthy" if present else "still answering requests"
                advice = (
                    "Look at the group's health check: path /health, and the port of the server or of a proxy before it"
                    if present
                    else "The group's deregistration delay may be longer than neuron_target_timeout"
                )
                raise TargetError(f"The host is {what} in {self.name} after {seconds:.0f} s: {now}. {advice}")
            if time.monotonic() - said >= SAY_SECONDS:
                said = time.monotonic()
                say(f"waiting for {elapsed:.0f} of {seconds:.0f} s for the target group {self.name}: {now}")
            time.sleep(min(LOOK_SECONDS, max(0.1, seconds - elapsed)))
