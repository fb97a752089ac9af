# SPDX-License-Identifier: GPL-3.0-or-later
"""A host leaves its target groups before its turn and joins them again after it; AWS is moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible_collections.neuronops.vllm.plugins.plugin_utils import targets

from tests.unit.moto_account import moto_account
from tests.unit.test_turns_of_hosts import turns

REGION = "eu-west-1"
POLICY = json.loads((Path(__file__).resolve().parents[2] / "docs" / "iam" / "targets-policy.json").read_text())


class Account:
    """A VPC with two instances, a load balancer and target groups."""

    def __init__(self, endpoint: str | None = None) -> None:
        ec2, self.elb = (boto3.client(name, REGION, endpoint_url=endpoint) for name in ("ec2", "elbv2"))
        self.vpc = ec2.create_vpc(CidrBlock="10.70.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.70.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")[
                "Subnet"
            ]["SubnetId"]
            for number, zone in enumerate("ab")
        ]
        image = ec2.register_image(Name="ubuntu", Architecture="x86_64", RootDeviceName="/dev/sda1")["ImageId"]
        found = ec2.run_instances(ImageId=image, SubnetId=self.subnets[0], MinCount=2, MaxCount=2)["Instances"]
        self.instances = [instance["InstanceId"] for instance in found]

    def group(self, name: str, kind: str = "instance", used: bool = True) -> str:
        made = self.elb.create_target_group(Name=name, Protocol="HTTP", Port=8000, VpcId=self.vpc, TargetType=kind)
        arn: str = made["TargetGroups"][0]["TargetGroupArn"]
        if used:
            balancer = self.elb.create_load_balancer(Name=name, Subnets=self.subnets)["LoadBalancers"][0]
            forward = {"Type": "forward", "TargetGroupArn": arn}
            self.elb.create_listener(
                LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[forward]
            )
        return arn

    def members(self, arn: str) -> list[str]:
        health = self.elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return sorted(each["Target"]["Id"] for each in health)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with moto_account():
        yield Account()


def test_a_host_joins_and_leaves(account: Account) -> None:
    arn, instance = account.group("one"), account.instances[0]
    group = targets.Group(account.elb, arn, instance, "")
    assert not group.is_target()
    group.add()
    group.wait(True, 0, print)
    assert group.is_target() and account.members(arn) == [instance]
    group.remove()
    group.wait(False, 0, print)
    assert not group.is_target() and account.members(arn) == []


def test_a_group_of_addresses_knows_the_host_by_its_own(account: Account) -> None:
    group = targets.Group(account.elb, account.group("addresses", "ip"), "i-1", "10.70.0.9")
    group.add()
    assert account.members(group.arn) == ["10.70.0.9"]


def test_a_host_that_the_group_cannot_know_is_refused(account: Account) -> None:
    arn, other = account.group("named", used=False), account.group("ips", "ip", used=False)
    with pytest.raises(targets.TargetError, match=r"by their instance id .ec2_instance_id., which the inventory does"):
        targets.Group(account.elb, arn, "trn-1", "10.0.0.1")
    with pytest.raises(targets.TargetError, match="by their private address"):
        targets.Group(account.elb, other, "i-1", "")
    function = account.elb.create_target_group(Name="function", TargetType="lambda")["TargetGroups"][0]
    with pytest.raises(targets.TargetError, match="targets of the type lambda"):
        targets.Group(account.elb, function["TargetGroupArn"], "i-1", "")


@pytest.mark.parametrize(
    "text", ["", "vllm", "arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/x/1"]
)
def test_what_is_no_group_is_refused_by_name(text: str) -> None:
    with pytest.raises(targets.TargetError, match="is no ARN of a target group"):
        targets.region(text)
    good = "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:111122223333:targetgroup/vllm/0123456789abcdef"
    assert targets.region(good) == "us-gov-west-1"


class Slow:
    """A group of which a host becomes what is wanted after some looks."""

    def __init__(self, *states: dict[str, str]) -> None:
        self.states = list(states)

    def describe_target_groups(self, **_: Any) -> dict[str, Any]:
        return {"TargetGroups": [{"TargetGroupName": "vllm", "TargetType": "instance"}]}

    def describe_target_health(self, **_: Any) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"TargetHealthDescriptions": [{"TargetHealth": state}]}


def test_it_is_waited_for_the_last_request_and_for_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(targets, "SAY_SECONDS", 0.0)
    said: list[str] = []
    draining = {"State": "draining", "Reason": "Target.DeregistrationInProgress", "Description": "in progress"}
    gone = {"State": "unused", "Reason": targets.NO_TARGET}
    leaving = targets.Group(Slow(draining, draining, gone), "arn", "i-1", "")
    assert not targets.Group(Slow(draining), "arn", "i-1", "").is_target()
    leaving.wait(False, 5, said.append)
    assert len(said) == 2 and "target group vllm: draining, Target.DeregistrationInProgress: in progress" in said[0]
    joining = targets.Group(Slow({"State": "initial"}, {"State": "healthy"}), "arn", "i-1", "")
    joining.wait(True, 5, said.append)
    # Of a group that no load balancer uses nobody ever becomes healthy.
    targets.Group(Slow({"State": "unused", "Reason": "Target.NotInUse"}), "arn", "i-1", "").wait(True, 0, said.append)
    sick = {"State": "unhealthy", "Reason": "Target.ResponseCodeMismatch", "Description": "codes: [404]"}
    with pytest.raises(
        targets.TargetError, match=r"not healthy in vllm after 0 s: unhealthy, Target.*404.*health check"
    ):
        targets.Group(Slow(sick), "arn", "i-1", "").wait(True, 0, said.append)
    with pytest.raises(
        targets.TargetError, match=r"still answering requests in vllm .* deregistration delay may be longer"
    ):
        targets.Group(Slow(draining), "arn", "i-1", "").wait(False, 0, said.append)


def test_the_policy_has_what_is_called(account: Account) -> None:
    actions = {action for statement in POLICY["Statement"] for action in statement["Action"]}
    assert actions == {
        f"elasticloadbalancing:{name}"
        for name in ("DescribeTargetGroups", "DescribeTargetHealth", "RegisterTargets", "DeregisterTargets")
    }


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a moto that other processes reach."""
    moto_server = pytest.importorskip("moto.server", reason="moto's server is of the development environment alone")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def test_a_turn_takes_the_host_out_and_lets_it_in_again(tmp_path: Path, served: str) -> None:
    account = Account(served)
    arn, (one, two) = account.group("turn"), account.instances
    account.elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": one}])
    # What the role does sees the host outside of its group, also the one that was in it.
    hosts = {"a": {"ec2_instance_id": one}, "b": {"ec2_instance_id": two, "broken": True, "dead": True}}
    run = turns(tmp_path, hosts, [1], groups=(arn,), endpoint=served)
    assert run.status == 2 and run.of("CHANGED") == ["a", "b"]
    changed = [line for line in run.said.splitlines() if line.startswith("changed: [")]
    assert changed == ["changed: [a]"] * 2  # left, and joined again; the other was not in it
    assert account.members(arn) == [one]  # what does not serve is not let in


def test_a_group_that_there_is_not_ends_the_turn_before_anything_changes(tmp_path: Path, served: str) -> None:
    Account(served)
    missing = f"arn:aws:elasticloadbalancing:{REGION}:123456789012:targetgroup/none/0123456789abcdef"
    run = turns(tmp_path, {"a": {"ec2_instance_id": "i-1"}}, [1], groups=(missing,), endpoint=served)
    assert run.status == 2 and run.of("CHANGED") == []
    assert "TargetGroupNotFound" in run.said and "aws elbv2 describe-target-groups" in " ".join(run.said.split())
