# SPDX-License-Identifier: GPL-3.0-or-later
"""The policies of docs/iam allow what is needed and no more: what moto does not look at, resources and conditions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible.plugins.loader import lookup_loader
from ansible_collections.neuronops.vllm.plugins.plugin_utils import aws, fleet, options, stacks
from botocore.exceptions import ClientError
from moto.core.authorization import enable_iam_authentication

from tests.unit.moto_account import moto_account

CHECKOUT = Path(__file__).resolve().parents[2]
REGION = "eu-west-1"
LAUNCH, HOST, IMAGE = (
    json.loads((CHECKOUT / "docs" / "iam" / f"{name}-policy.json").read_text(encoding="utf-8"))
    for name in ("launch", "host", "image")
)
# What launch calls through boto3 for On-Demand instances, and moto enforces.
CALLED = (
    "ec2:DescribeSubnets",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeImages",
    "ec2:DescribeVpcs",
    "ec2:DescribeInstances",
    "ec2:RunInstances",
    "ec2:CreateSecurityGroup",
    "ec2:AuthorizeSecurityGroupIngress",
)
EFA = ("ec2:DescribeInstanceTypes", "ec2:AuthorizeSecurityGroupEgress")
# moto has no reservations; and what EC2 asks for on its own behalf, moto does not.
NOT_ENFORCED = (
    "ec2:CreateTags",
    "ec2:DescribeCapacityReservations",
    "iam:CreateServiceLinkedRole",
    "iam:PassRole",
)
OTHERS = ("ec2:StartInstances", "ssm:GetParameter")
# tests/fleet shows that terminate needs these.
OF_TERMINATE = ("ec2:DeleteSecurityGroup", "ec2:TerminateInstances")


def several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def actions(policy: dict[str, Any]) -> set[str]:
    return {action for statement in policy["Statement"] for action in several(statement["Action"])}


def test_every_action_of_the_policy_has_its_test() -> None:
    assert actions(LAUNCH) == {*CALLED, *EFA, *NOT_ENFORCED, *OTHERS, *OF_TERMINATE}


def test_what_changes_or_costs_is_bound_to_the_tag_of_launch_or_to_one_role() -> None:
    bound = {
        "aws:RequestTag/neuronops:made-by",
        "aws:ResourceTag/neuronops:made-by",
        "ec2:CreateAction",
        "iam:PassedToService",
        "iam:AWSServiceName",
    }
    for statement in LAUNCH["Statement"]:
        changing = [name for name in several(statement["Action"]) if not re.search(r":(Describe|Get)", name)]
        if not changing:
            continue
        made = [
            name for name in several(statement["Resource"]) if re.search(r":(instance|volume|security-group)/", name)
        ]
        assert "*" not in several(statement["Resource"]), statement["Sid"]
        if statement["Sid"] == "LaunchWithWhatThereIs":  # an instance uses groups that exist; it makes none
            assert made == ["arn:aws:ec2:*:*:security-group/*"] and changing == ["ec2:RunInstances"]
        elif made or changing[0].startswith("iam:"):
            conditions = statement["Condition"]["StringEquals"]
            assert set(conditions) <= bound and conditions, statement["Sid"]
            assert all(value == fleet.MADE_BY for name, value in conditions.items() if name.endswith("made-by"))


def test_a_request_has_the_tags_that_the_policy_wants(user: Any) -> None:
    for kind in user.request()["TagSpecifications"]:
        assert {"Key": "neuronops:made-by", "Value": fleet.MADE_BY} in kind["Tags"]
        assert kind["ResourceType"] in ("instance", "volume")


class User:
    """An account, and a user of it with the policy or a part of it."""

    def __init__(self) -> None:
        self.ec2, self.iam = boto3.client("ec2", REGION), boto3.client("iam", REGION)
        vpc = self.ec2.create_vpc(CidrBlock="10.60.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.60.0.0/24")["Subnet"]["SubnetId"]
        self.ec2.create_key_pair(KeyName="me")
        self.image = self.ec2.register_image(Name="ubuntu", Architecture="x86_64", RootDeviceName="/dev/sda1")[
            "ImageId"
        ]
        self.iam.create_user(UserName="launcher")
        key = self.iam.create_access_key(UserName="launcher")["AccessKey"]
        keys = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        self.own = {name: boto3.client(name, REGION, **keys) for name in ("ec2", "ssm")}
        self.fleet = 0

    def options(self, **more: Any) -> dict[str, Any]:
        self.fleet += 1  # a fleet of its own each time, so that group and instances are made anew
        groups = [{"instance_type": "trn1.32xlarge", "count": 1}]
        given = {"groups": groups, "key_name": "me", "subnet_id": self.subnet, "image_id": self.image, **more}
        variables = {f"launch_{name}": value for name, value in {"fleet": f"fleet{self.fleet}", **given}.items()}
        found: dict[str, Any] = options.converted("launch", variables, variables.__getitem__)[0]
        return found

    def request(self) -> dict[str, Any]:
        wanted = self.options()
        place = fleet.survey(self.ec2, None, wanted, stacks.resolve(), REGION)
        asked: dict[str, Any] = fleet.request(wanted, place, ("trn1.32xlarge", self.subnet, 1), [])
        return asked

    def launch(self, allowed: set[str], **more: Any) -> str:
        """Launch as the user with these actions; return what is said when it is refused, else nothing."""
        statement = {"Effect": "Allow", "Action": sorted(allowed), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.iam.put_user_policy(UserName="launcher", PolicyName="launch", PolicyDocument=document)
        wanted = self.options(**more)
        with enable_iam_authentication():
            try:
                place = fleet.survey(self.own["ec2"], self.own["ssm"], wanted, stacks.resolve(), REGION)
                fleet.rehearse(self.own["ec2"], wanted, place)
                fleet.launch(self.own["ec2"], wanted, place)
            except ClientError as error:
                return str(aws.explained(str(error)))
            except fleet.FleetError as error:
                return str(error)
        return ""


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with moto_account():
        yield User()


def test_the_policy_is_enough(user: User) -> None:
    assert user.launch(actions(LAUNCH)) == ""
    assert user.launch(actions(LAUNCH), efa=True) == ""
    # And On-Demand instances need nothing besides, with an image that is named.
    assert user.launch(set(CALLED)) == ""


@pytest.mark.parametrize("action", [*CALLED, *EFA])
def test_an_action_that_is_missing_is_named(user: User, action: str) -> None:
    said = user.launch(actions(LAUNCH) - {action}, efa=action in EFA)
    assert f"lack the permission {action}. docs/iam/launch-policy.json" in said


def test_a_parameter_that_must_not_be_read_is_told(user: User) -> None:
    said = user.launch(actions(LAUNCH) - {"ssm:GetParameter"}, image_id="", image_ssm_parameter="/x")
    assert "lack the permission ssm:GetParameter" in said and "the ARN of a parameter of your own" in said


def test_a_stopped_instance_needs_the_permission_to_start_it(user: User) -> None:
    wanted = user.options()
    place = fleet.survey(user.ec2, None, wanted, stacks.resolve(), REGION)
    _changed, made = fleet.launch(user.ec2, wanted, place)
    user.ec2.stop_instances(InstanceIds=[made[0]["instance_id"]])
    assert "permission ec2:StartInstances" in user.launch(
        actions(LAUNCH) - {"ec2:StartInstances"}, fleet=wanted["fleet"]
    )
    assert user.launch(actions(LAUNCH), fleet=wanted["fleet"]) == ""


def test_a_host_reads_the_model_and_reports_to_systems_manager() -> None:
    # Whether an agent may report is not moto's to say: these are of AWS's own AmazonSSMManagedInstanceCore.
    assert {"ssm:UpdateInstanceInformation", "ssmmessages:OpenDataChannel", "ec2messages:GetMessages"} <= actions(HOST)
    s3 = {name: statement for statement in HOST["Statement"] for name in several(statement["Action"]) if "s3:" in name}
    assert {name: statement["Resource"] for name, statement in s3.items()} == {
        "s3:ListBucket": "arn:aws:s3:::example-models",
        "s3:GetObject": "arn:aws:s3:::example-models/llama/*",
    }
    assert s3["s3:ListBucket"]["Condition"] == {"StringLike": {"s3:prefix": ["llama/*"]}}


def test_moto_lets_the_host_read_the_model_and_nothing_else(user: User) -> None:
    user.iam.create_user(UserName="host")
    # moto denies every statement with a condition, which here only narrows what may be listed.
    statements = [{key: value for key, value in each.items() if key != "Condition"} for each in HOST["Statement"]]
    document = json.dumps({**HOST, "Statement": statements})
    user.iam.put_user_policy(UserName="host", PolicyName="host", PolicyDocument=document)
    key = user.iam.create_access_key(UserName="host")["AccessKey"]
    all_of, own = (
        boto3.client("s3", "us-east-1", **keys)
        for keys in (
            {},
            {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]},
        )
    )
    all_of.create_bucket(Bucket="example-models")
    for name in ("llama/config.json", "other/config.json"):
        all_of.put_object(Bucket="example-models", Key=name, Body=b"{}")
    with enable_iam_authentication():
        assert own.get_object(Bucket="example-models", Key="llama/config.json")["Body"].read() == b"{}"
        with pytest.raises(ClientError, match="AccessDenied"):
            own.get_object(Bucket="example-models", Key="other/config.json")
        with pytest.raises(ClientError, match="AccessDenied"):
            own.put_object(Bucket="example-models", Key="llama/config.json", Body=b"")


def refusal(monkeypatch: pytest.MonkeyPatch, key: dict[str, str], instance: str) -> str:
    """What the lookup says to a user with these keys."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    lookup = lookup_loader.get("neuronops.vllm.image_refusal", loader=None, templar=None)
    (said,) = lookup.run([instance], {}, name="mine", region=REGION)
    return str(said)


def test_who_may_not_make_an_image_hears_of_it_before_the_host_is_cleaned(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = user.options()
    _changed, made = fleet.launch(user.ec2, wanted, fleet.survey(user.ec2, None, wanted, stacks.resolve(), REGION))
    instance = made[0]["instance_id"]
    user.iam.create_user(UserName="baker")
    key = user.iam.create_access_key(UserName="baker")["AccessKey"]
    # moto compares actions alone: neither resources of EC2 nor conditions.
    allowed = {"Effect": "Allow", "Action": sorted(actions(IMAGE)), "Resource": "*"}
    with enable_iam_authentication():
        said = aws.explained(refusal(monkeypatch, key, instance))
    assert "lack the permission ec2:CreateImage. docs/iam/image-policy.json of the collection has all that" in said
    document = json.dumps({**IMAGE, "Statement": [allowed]})
    user.iam.put_user_policy(UserName="baker", PolicyName="image", PolicyDocument=document)
    with enable_iam_authentication():
        assert refusal(monkeypatch, key, instance) == ""
    assert user.ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": ["mine"]}])["Images"] == []


def test_an_image_is_made_of_what_launch_made_alone() -> None:
    assert actions(IMAGE) == {"ec2:CreateImage", "ec2:CreateTags", "ec2:DescribeImages", "ec2:DescribeInstances"}
    by_sid = {statement["Sid"]: statement for statement in IMAGE["Statement"]}
    assert by_sid["MakeAnImageOfWhatLaunchMade"]["Condition"] == {
        "StringEquals": {"aws:ResourceTag/neuronops:made-by": fleet.MADE_BY}
    }
    assert by_sid["TagThem"]["Condition"] == {"StringEquals": {"ec2:CreateAction": "CreateImage"}}
