# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of an Auto Scaling group that get nothing but docs/pull/user-data.sh, and make themselves from a bucket.

Standing in: EC2, S3 and Auto Scaling (moto); cloud-init (the sandbox runs the user data as it does); an instance
profile, whose keys are in the user data, as the containers have no metadata service; the light stack, whose vLLM
computes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml

from sandbox import ec2, hosts, lifecycle
from sandbox.engine import docker
from sandbox.fleet import CHECKOUT
from sandbox.settings import Settings

LOG = CHECKOUT / ".build" / "logs" / "pull.log"
BUCKET, PREFIX = "my-bucket", "neuronops"  # those of docs/pull and docs/iam
SECONDS = 900
SERVES = ["curl", "-sf", "--retry", "20", "--retry-connrefused", "http://127.0.0.1:8000/v1/models"]


class Account:
    """An account with a bucket, and no controller."""

    def __init__(self, settings: Settings, artifact: Path) -> None:
        self.settings, self.state = settings, ec2.read(settings) or {}
        keys = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
        self.s3, self.scaling, self.ec2 = (
            boto3.client(name, ec2.REGION, endpoint_url=self.state["endpoint"], **keys)
            for name in ("s3", "autoscaling", "ec2")
        )
        self.s3.create_bucket(Bucket=BUCKET)
        self.sha256 = hashlib.sha256(artifact.read_bytes()).hexdigest()
        self.name = artifact.name
        self.s3.upload_file(str(artifact), BUCKET, f"{PREFIX}/pull/{artifact.name}")
        variables = {
            **yaml.safe_load(settings.variables_file.read_text()),
            **yaml.safe_load((CHECKOUT / "sandbox" / "light.yml").read_text()),
            "neuron_stack": "light-1",
        }
        self.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/pull/variables.yml", Body=json.dumps(variables).encode())

    def user_data(self, **values: str) -> str:
        """The file as a person fills it in, and where the stand-in for AWS is."""
        text = (CHECKOUT / "docs" / "pull" / "user-data.sh").read_text(encoding="utf-8")
        for name, value in {"artifact": self.name, "sha256": self.sha256, **values}.items():
            text, found = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
            assert found == 1
        stand_in = {
            "AWS_ENDPOINT_URL": self.state["endpoint_of_hosts"],
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
        }
        begin, _, rest = text.partition("\n")
        return "\n".join([begin, *(f"export {name}={value}" for name, value in stand_in.items()), rest])

    def group(self, name: str, user_data: str, size: int = 1) -> None:
        """Have a launch template and an Auto Scaling group of it."""
        jammy = {"Name": "name", "Values": [ec2.image_name("jammy-22.04")]}
        (found,) = self.ec2.describe_images(Filters=[jammy])["Images"]
        tags = [{"Key": "neuronops:fleet", "Value": name}]
        data = {
            "ImageId": found["ImageId"],
            "InstanceType": "inf2.xlarge",
            "UserData": base64.b64encode(user_data.encode()).decode(),
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }
        self.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
        self.scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchTemplate={"LaunchTemplateName": name, "Version": "$Latest"},
            MinSize=size,
            MaxSize=4,
            VPCZoneIdentifier=self.state["subnet_id"],
        )

    def members(self, name: str) -> list[str]:
        """The containers of a group's instances."""
        (group,) = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        wanted = {instance["InstanceId"] for instance in group["Instances"]}
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = [each for each in hosts.listing(self.settings) if each.get("neuronops.instance") in wanted]
            if len(found) == len(wanted):
                return [each["name"] for each in found]
            time.sleep(1)
        raise AssertionError(f"{name} has {wanted}, of which too few run")

    def ended(self, container: str) -> str:
        """What the user data of an instance said, when it has ended."""
        deadline = time.monotonic() + SECONDS
        said = ""
        while time.monotonic() < deadline:
            said = docker("exec", container, "cat", "/var/log/cloud-init-output.log", check=False)
            if re.search(r"^ended with status \d+$", said, re.MULTILINE):
                with LOG.open("a", encoding="utf-8") as log:
                    log.write(f"\n### {container}\n{said}")
                return said
            time.sleep(2)
        raise AssertionError(f"the user data of {container} did not end in {SECONDS} s:\n{said[-3000:]}")

    def kept(self) -> dict[str, str]:
        """What the bucket has of locks and wheels, with the hash of each."""
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/")["Contents"]
        return {each["Key"]: each["ETag"] for each in listed if re.search(r"/(locks|wheels)/[^.]", each["Key"])}

    def pulls(self, container: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run what an association runs, with the stand-in for the instance profile."""
        environment = [f"--env={line.partition(' ')[2]}" for line in self.user_data().splitlines()[1:4]]
        command = ["docker", "exec", *environment, container, "/usr/local/sbin/neuronops-pull", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.write_text("", encoding="utf-8")
    made = tmp_path_factory.mktemp("artifact") / "made"
    subprocess.run([CHECKOUT / "tests" / "artifact.sh", str(made)], check=True, capture_output=True)
    (artifact,) = made.glob("neuronops-vllm-*.tar.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONOPS_SANDBOX_NAME", "neuronops-pull")
        patch.setenv("NEURONOPS_SANDBOX_SUBNET", "10.249.0.0/24")
        settings = Settings.from_environment()
        try:
            lifecycle.up(settings)
            yield Account(settings, artifact)
        finally:
            lifecycle.down(settings)


def changes(output: str) -> list[str]:
    """The tasks that changed something."""
    tasks = output.split("\nTASK [")[1:]
    return [task.partition("]")[0] for task in tasks if re.search(r"^changed: ", task, re.MULTILINE)]


def test_what_cannot_be_fetched_or_is_another_file_is_told_before_anything_is_run(account: Account) -> None:
    account.group("elsewhere", account.user_data(state="s3://no-such-bucket/neuronops"))
    account.group("another", account.user_data(sha256="1" * 64))
    (elsewhere,), (another,) = account.members("elsewhere"), account.members("another")
    said = account.ended(elsewhere)
    assert f"neuronops: s3://no-such-bucket/neuronops/pull/{account.name} cannot be read: " in said
    assert "docs/iam/pull-policy.json" in said and "ended with status 1" in said
    said = account.ended(another)
    assert f"has the SHA-256 {account.sha256}, not {'1' * 64}. Nothing of it was run." in said
    for container in (elsewhere, another):
        assert docker("exec", container, "ls", "/opt").split() == ["neuronops-pull"]
    for name in ("elsewhere", "another"):
        account.scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


def test_an_instance_makes_itself_and_the_next_ones_resolve_and_build_nothing(account: Account) -> None:
    # The first has nobody before it: what it resolves and builds is for all.
    account.group("neuron", account.user_data())
    (first,) = account.members("neuron")
    said = account.ended(first)
    assert "ended with status 0" in said, said[-3000:]
    assert '"object"' in docker("exec", first, *SERVES)
    kept = account.kept()
    assert any("/locks/" in name for name in kept) and any(name.endswith(".whl") for name in kept), kept

    begun = time.monotonic()
    account.scaling.set_desired_capacity(AutoScalingGroupName="neuron", DesiredCapacity=3)
    others = [name for name in account.members("neuron") if name != first]
    assert len(others) == 2
    for container in others:
        said = account.ended(container)
        assert "ended with status 0" in said, said[-3000:]
        assert '"object"' in docker("exec", container, *SERVES)
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\ntwo more instances made themselves in {time.monotonic() - begun:.0f} s\n")
    assert account.kept() == kept
    links = {docker("exec", name, "readlink", "/opt/aws_neuron_venv_pytorch") for name in (first, *others)}
    assert len(links) == 1

    # What an association runs: nothing the second time, and what the bucket says by then.
    again = account.pulls(first)
    assert (again.returncode, changes(again.stdout)) == (0, []), again.stdout[-3000:] + again.stderr
    key = f"{PREFIX}/pull/variables.yml"
    variables = json.loads(account.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    wrong = {**variables, "vllm_server_port": "eight"}
    account.s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(wrong).encode())
    refused = account.pulls(first)
    assert refused.returncode != 0 and "vllm_server_port" in refused.stdout
    assert '"object"' in docker("exec", first, *SERVES)
    account.s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps({**variables, "neuron_stack": "light-2"}).encode())
    upgraded = account.pulls(first)
    assert upgraded.returncode == 0 and changes(upgraded.stdout), upgraded.stdout[-3000:]
    assert "light-2" in docker("exec", first, "readlink", "/opt/aws_neuron_venv_pytorch")
    assert '"object"' in docker("exec", first, *SERVES)
