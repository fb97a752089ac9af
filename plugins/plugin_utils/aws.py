# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what an error of AWS means for who launches hosts, and what to try."""

from __future__ import annotations

import re

# How botocore words every error that AWS answers, and how AWS names the action that a policy does not allow.
_ANSWERED = re.compile(r"An error occurred \((?P<code>[A-Za-z0-9.]+)\) when calling the (?P<operation>[A-Za-z0-9]+) op")
_ACTION = re.compile(r"not authorized to perform: (?P<action>[a-z0-9-]+:[A-Za-z0-9]+)")
_SERVICES = {
    "GetParameter": "ssm",
    "GetParameters": "ssm",
    "DescribeTargetGroups": "elasticloadbalancing",
    "DescribeTargetHealth": "elasticloadbalancing",
    "DeregisterTargets": "elasticloadbalancing",
    "RegisterTargets": "elasticloadbalancing",
}
_DENIED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
_CREDENTIALS = (
    "`aws sts get-caller-identity` shows whose credentials are used. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and for temporary ones AWS_SESSION_TOKEN; `aws sso login` renews those of a single sign-on"
)
_ZONE = (
    "Try a subnet of another availability zone in launch_subnet_ids, another instance type, fewer of them, or a later "
    "time; a reservation (launch_capacity_reservation_id) has its capacity set aside"
)
_QUOTA = (
    "Ask for a higher quota under Service Quotas, Amazon EC2, `Running On-Demand {family} instances` or `All {family} "
    "Spot Instance Requests`, which counts vCPUs: `aws service-quotas list-service-quotas --service-code ec2` shows "
    "them, of this region alone. Until then ask for fewer or smaller instances"
)
# By the code of the error, or how it begins; the first that fits.
ADVICE: tuple[tuple[str, str], ...] = (
    ("VcpuLimitExceeded", _QUOTA),
    ("MaxSpotInstanceCountExceeded", _QUOTA),
    ("InstanceLimitExceeded", _QUOTA),
    ("InsufficientInstanceCapacity", _ZONE),
    ("InsufficientCapacity", _ZONE),
    ("InsufficientHostCapacity", _ZONE),
    ("ReservationCapacityExceeded", "The reservation has fewer instances left: ask for fewer, or make it larger"),
    (
        "Unsupported",
        "Not every zone has every instance type: `aws ec2 describe-instance-type-offerings --location-type "
        "availability-zone --filters Name=instance-type,Values=TYPE` lists those that do. Name a subnet of one of them "
        "in launch_subnet_ids, or another region in launch_region",
    ),
    ("SpotMaxPriceTooLow", "Raise launch_spot_max_price, or leave it out to pay at most the On-Demand price"),
    (
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        "The account has never used Spot: have its administrator run `aws iam create-service-linked-role "
        "--aws-service-name spot.amazonaws.com`",
    ),
    ("InsufficientFreeAddressesInSubnet", "Name another subnet in launch_subnet_ids, or a larger one"),
    ("VolumeLimitExceeded", "Ask for a higher quota of gp3 storage under Service Quotas, Amazon EBS"),
    ("MaxIOPSLimitExceeded", "Ask for a higher quota of gp3 storage under Service Quotas, Amazon EBS"),
    ("InvalidPlacementGroup.Unknown", "Make the group that launch_placement_group names, or name one that exists"),
    (
        "InvalidCapacityReservation",
        "Set launch_capacity_reservation_id to one of `aws ec2 describe-capacity-reservations`",
    ),
    ("InvalidAMIID", "The image is gone, or not for this account and region. Name another one, or none"),
    ("InvalidKeyPair", "Set launch_key_name to one of `aws ec2 describe-key-pairs`"),
    ("InvalidSubnet", "Set launch_subnet_ids to some of `aws ec2 describe-subnets`"),
    ("InvalidGroup", "Set launch_security_group_ids to some of `aws ec2 describe-security-groups`"),
    ("InvalidParameterValue", "If it is the instance profile: `aws iam list-instance-profiles` shows those there are"),
    ("NoSuchEntity", "Set launch_instance_profile to one of `aws iam list-instance-profiles`"),
    ("ParameterNotFound", "`aws ssm get-parameters-by-path --path /aws/service/neuron --recursive` lists AWS's own"),
    (
        "TargetGroupNotFound",
        "`aws elbv2 describe-target-groups` lists those of the region; name one in neuron_target_groups",
    ),
    (
        "InvalidTarget",
        "The host is not in the VPC of the target group, or does not run: see `aws ec2 describe-instances`",
    ),
    ("DependencyViolation", "Something still uses it: detach that first, then run this again"),
    ("OptInRequired", "The account is not signed up for this: its administrator has to accept it in AWS's console"),
    ("PendingVerification", "AWS is still verifying the account for this region; it sends a mail when that is done"),
    ("RequestLimitExceeded", "Too many requests of this account: run it again in a few minutes"),
    ("AuthFailure", _CREDENTIALS),
    ("InvalidClientTokenId", _CREDENTIALS),
    ("UnrecognizedClient", _CREDENTIALS),
    ("SignatureDoesNotMatch", _CREDENTIALS),
    ("ExpiredToken", _CREDENTIALS),
    ("RequestExpired", _CREDENTIALS),
)
# What botocore says before AWS is reached.
UNREACHED: tuple[tuple[str, str], ...] = (
    ("Unable to locate credentials", _CREDENTIALS),
    ("Partial credentials", _CREDENTIALS),
    ("config profile", "`aws configure list-profiles` shows the profiles there are"),
    ("Token has expired", _CREDENTIALS),
    ("Error loading SSO Token", _CREDENTIALS),
    (
        "Could not connect to the endpoint",
        "Is the region right (launch_region, AWS_REGION), and does this machine reach AWS, directly or by HTTPS_PROXY?",
    ),
    (
        "Invalid region",
        "The region is launch_region, AWS_REGION or that of the profile: `aws ec2 describe-regions` lists them",
    ),
)


def code(text: str) -> str:
    """Return the code of the error that a text tells of, or nothing."""
    found = _ANSWERED.search(text)
    return found["code"] if found else ""


def advice(text: str, instance_type: str = "") -> str:
    """Return what to try when AWS, or botocore on the way to it, has said this; nothing where that is not known."""
    found = _ANSWERED.search(text)
    if not found:
        return next((tip for words, tip in UNREACHED if words in text), "")
    named = _ACTION.search(text)
    if named or found["code"] in _DENIED:
        action = named["action"] if named else f"{_SERVICES.get(found['operation'], 'ec2')}:{found['operation']}"
        policy, who = ("launch", "launch, terminate and the inventory need")
        if found["operation"] == "CreateImage":
            policy, who = ("image", "bake_image needs")
        elif found["operation"].endswith(("Targets", "TargetGroups", "TargetHealth")):
            policy, who = ("targets", "neuron_target_groups needs")
        lacking = (
            f"The credentials lack the permission {action}. docs/iam/{policy}-policy.json of the collection has all "
            f"that {who}"
        )
        own = "It allows parameters below /aws/service/ alone: the ARN of a parameter of your own is to be added there"
        return f"{lacking}. {own}" if action == "ssm:GetParameter" else lacking
    tip = next((tip for start, tip in ADVICE if found["code"].startswith(start)), "")
    return tip.replace("{family}", "Inf" if instance_type.startswith("inf") else "Trn")


def explained(text: str, instance_type: str = "") -> str:
    """Return what AWS has said, with what to try behind it."""
    tip = advice(text, instance_type)
    said = text.strip().rstrip(".")
    return f"{said}. {tip}." if tip and not tip.endswith("?") else f"{said}. {tip}".strip()
