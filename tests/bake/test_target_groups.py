# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet behind a load balancer of AWS: one host at a time is out of its target group while it changes.

Standing in: EC2 and Elastic Load Balancing (moto, where who registers is healthy at once), and the light stack.
"""

from __future__ import annotations

import threading

import boto3

from sandbox import ec2
from tests.bake.account import Account, changed


def test_one_host_at_a_time_is_out_of_its_group(account: Account) -> None:
    state = ec2.read(account.settings) or {}
    elb = boto3.client(
        "elbv2",
        ec2.REGION,
        endpoint_url=state["endpoint"],
        aws_access_key_id="sandbox",
        aws_secret_access_key="sandbox",  # noqa: S106 - moto accepts anything
    )
    made = elb.create_target_group(Name="vllm", Protocol="HTTP", Port=8000, VpcId=state["vpc_id"])
    arn = made["TargetGroups"][0]["TargetGroupArn"]

    def members() -> set[str]:
        health = elb.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
        return {each["Target"]["Id"] for each in health}

    account.run("launch", launch_image_name=ec2.image_name("jammy-22.04"), launch_groups=[
        {"instance_type": "inf2.xlarge", "count": 2}
    ])  # fmt: skip
    hosts = set(account.inventory())
    # Without the option nothing is asked of AWS; with it, hosts with nothing else to do join.
    account.run("site")
    assert members() == set()
    account.variables["neuron_target_groups"] = [arn]
    assert changed(account.run("site")) == 2 and members() == hosts
    assert changed(account.run("site")) == 0

    seen: list[set[str]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            seen.append(members())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        account.variables["neuron_stack"] = "light-2"
        account.run("site")
    finally:
        ended.set()
        watcher.join()
    assert members() == hosts
    out = [hosts - there for there in seen]
    assert {frozenset(each) for each in out} == {frozenset(), *(frozenset([name]) for name in hosts)}
