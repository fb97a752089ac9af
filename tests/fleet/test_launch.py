# SPDX-License-Identifier: GPL-3.0-or-later
"""launch.yml, terminate.yml and the inventory against moto's EC2, without hosts behind the instances."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests

from plugins.plugin_utils import stacks
from sandbox import ec2
from sandbox.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
# Each takes a run of a playbook, so `make test` has some of them and `make test-all` all.
THOROUGH = pytest.mark.thorough


class Cloud:
    """An account with a subnet and a key pair, and the programs that act on it."""

    def __init__(self, endpoint: str, state: dict[str, Any]) -> None:
        self.state, self.endpoint = state, endpoint
        self.ec2 = ec2.client(endpoint)
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_"))}
        self.environment = {
            **own,
            **ec2.credentials(),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_MAX_ATTEMPTS": "1",
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "no_proxy": "127.0.0.1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def client(self, service: str, region: str = ec2.REGION) -> Any:
        """Return a client that may do everything."""
        keys = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
        return boto3.client(service, region, endpoint_url=self.endpoint, **keys)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def playbook(self, name: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        # The inventory is asked for hosts only where a play wants some: a third of the time of each run.
        inventory = ("-i", "localhost,") if name == "launch" else ()
        return self.run("ansible-playbook", *inventory, f"playbooks/{name}.yml", "-e", json.dumps(variables))

    def launch(self, *groups: tuple[str, int], **variables: Any) -> subprocess.CompletedProcess[str]:
        given = {
            "launch_subnet_id": self.state["subnet_id"],
            "launch_key_name": self.state["key_name"],
            "launch_groups": [{"instance_type": name, "count": count} for name, count in groups],
            "launch_wait_for_ssh": False,
            **variables,
        }
        return self.playbook("launch", **{name: value for name, value in given.items() if value is not None})

    def instances(self) -> list[dict[str, Any]]:
        found = self.ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
        return [instance for reservation in found["Reservations"] for instance in reservation["Instances"]]

    def groups(self) -> list[str]:
        found = self.ec2.describe_security_groups(Filters=[{"Name": "tag-key", "Values": ["neuronops:fleet"]}])
        return [group["GroupId"] for group in found["SecurityGroups"]]


def changed(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stdout + done.stderr
    count = re.search(r"localhost +: ok=\d+ +changed=(\d+)", done.stdout)
    assert count, done.stdout
    return int(count[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stand-in for EC2 as the sandbox starts it; its instances stay records, since their subnet is another one."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONOPS_CACHE", str(cache))
        patch.setenv("NEURONOPS_SANDBOX_NAME", "launch-test")
        patch.setenv("NEURONOPS_SANDBOX_SUBNET", "10.251.0.0/24")
        settings = Settings.from_environment()
        settings.prepare()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", settings.state / "id_ed25519"], check=True)
        state = ec2.start(settings)
        try:
            yield state["endpoint"], state
        finally:
            ec2.stop(settings)


@pytest.fixture
def cloud(server: tuple[str, dict[str, Any]]) -> Iterator[Cloud]:
    endpoint, state = server
    made = Cloud(endpoint, state)
    # Another VPC with a subnet in each of two zones, in which the sandbox makes no containers.
    zones = {"10.252.0.0/25": "us-east-1a", "10.252.0.128/25": "us-east-1b"}
    found = made.ec2.describe_subnets(Filters=[{"Name": "cidr-block", "Values": list(zones)}])["Subnets"]
    if not found:
        vpc = made.ec2.create_vpc(CidrBlock="10.252.0.0/24")["Vpc"]["VpcId"]
        found = [
            made.ec2.create_subnet(VpcId=vpc, CidrBlock=network, AvailabilityZone=zone)["Subnet"]
            for network, zone in zones.items()
        ]
    first, second = (subnet["SubnetId"] for subnet in sorted(found, key=lambda subnet: str(subnet["AvailabilityZone"])))
    made.state = {**state, "subnet_id": first, "subnet_ids": [first, second]}
    yield made
    for instance in made.instances():
        made.ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    for group in made.groups():
        made.ec2.delete_security_group(GroupId=group)


def test_what_is_launched_is_as_documented_and_a_second_run_launches_nothing(cloud: Cloud) -> None:
    groups = (("inf2.xlarge", 2), ("trn1.2xlarge", 1))
    zones = {"launch_subnet_id": None, "launch_subnet_ids": cloud.state["subnet_ids"]}
    assert changed(cloud.launch(*groups, **zones)) > 0
    instances = cloud.instances()
    assert {i["SubnetId"] for i in instances if i["InstanceType"] == "inf2.xlarge"} == set(cloud.state["subnet_ids"])
    assert sorted(instance["InstanceType"] for instance in instances) == ["inf2.xlarge", "inf2.xlarge", "trn1.2xlarge"]
    for instance in instances:
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        assert tags["neuronops:fleet"] == "neuron" and tags["neuronops:made-by"] == "neuronops.vllm.launch"
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert instance["KeyName"] == cloud.state["key_name"]
        assert "PublicIpAddress" not in instance
        disk = cloud.ec2.describe_volumes(VolumeIds=[instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]])["Volumes"]
        assert (disk[0]["Size"], disk[0]["VolumeType"], disk[0]["Encrypted"]) == (512, "gp3", True)
        image = cloud.ec2.describe_images(ImageIds=[instance["ImageId"]])["Images"][0]
        assert image["OwnerId"] == ec2.CANONICAL and f"-{stacks.resolve()['ubuntu']}-" in image["Name"]
        group = cloud.ec2.describe_security_groups(GroupIds=[instance["NetworkInterfaces"][0]["Groups"][0]["GroupId"]])[
            "SecurityGroups"
        ]
        rules = [
            (rule["FromPort"], rule["ToPort"], [r["CidrIp"] for r in rule["IpRanges"]])
            for rule in group[0]["IpPermissions"]
        ]
        assert rules == [(22, 22, ["10.252.0.0/24"])]

    assert changed(cloud.launch(*groups, **zones)) == 0
    assert len(cloud.instances()) == 3

    listed = json.loads(cloud.run("ansible-inventory", "--list").stdout)
    assert len(listed["neuron"]["hosts"]) == 3
    assert len(listed["type_inf2_xlarge"]["hosts"]) == 2 and len(listed["family_trn1"]["hosts"]) == 1
    assert {"fleet_neuron", "zone_us_east_1a", "zone_us_east_1b"} <= set(listed["all"]["children"])
    addresses = {str(variables["ansible_host"]) for variables in listed["_meta"]["hostvars"].values()}
    assert all("10.252.0." in address for address in addresses) and len(addresses) == 3

    refused = cloud.launch(("inf2.xlarge", 1))
    assert refused.returncode != 0 and "has 2 inf2.xlarge, more than the 1 asked for" in " ".join(
        refused.stdout.split()
    )
    assert len(cloud.instances()) == 3


def test_terminate_removes_what_launch_made_when_it_is_confirmed(cloud: Cloud) -> None:
    foreign = cloud.ec2.run_instances(
        ImageId=cloud.ec2.describe_images(Owners=[ec2.CANONICAL])["Images"][0]["ImageId"],
        MinCount=1,
        MaxCount=1,
        SubnetId=cloud.state["subnet_id"],
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "neuronops:fleet", "Value": "neuron"}]},
        ],
    )["Instances"][0]["InstanceId"]
    assert changed(cloud.launch(("inf2.xlarge", 1))) > 0
    own = next(i["InstanceId"] for i in cloud.instances() if i["InstanceId"] != foreign)
    for variables in ({}, {"terminate_confirm": "yes"}):
        refused = cloud.playbook("terminate", **variables)
        assert refused.returncode != 0 and own in refused.stdout and "terminate_confirm=neuron" in refused.stdout
    refused = cloud.playbook("terminate", terminate_confirm="neuron", terminate_instance_ids=[foreign])
    assert refused.returncode != 0 and "is not an instance that launch.yml made" in " ".join(refused.stdout.split())
    assert len(cloud.instances()) == 2

    assert changed(cloud.playbook("terminate", terminate_confirm="neuron")) > 0
    assert [instance["InstanceId"] for instance in cloud.instances()] == [foreign]
    assert cloud.groups() == []
    assert changed(cloud.playbook("terminate", terminate_confirm="neuron")) == 0


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"neuron_stack_overrides": {"ubuntu": "22.04"}}, "jammy-22.04"),
        ({"neuron_stack_overrides": {"ubuntu": "24.04"}}, "noble-24.04"),
        # What the user says wins.
        ({"neuron_stack_overrides": {"ubuntu": "24.04"}, "launch_image_name": "*focal-20.04*"}, "focal-20.04"),
    ],
)
def test_the_image_is_the_ubuntu_of_the_stack(cloud: Cloud, variables: dict[str, Any], name: str) -> None:
    assert changed(cloud.launch(("inf2.xlarge", 1), **variables)) > 0
    image = cloud.ec2.describe_images(ImageIds=[cloud.instances()[0]["ImageId"]])["Images"][0]
    assert name in image["Name"]


@pytest.mark.parametrize(
    "parameter", [pytest.param(name, marks=THOROUGH if number else ()) for number, name in enumerate(ec2.PARAMETERS)]
)
def test_a_deep_learning_ami_is_found_by_its_parameter(cloud: Cloud, parameter: str) -> None:
    # launch_image_name is of no account then.
    done = cloud.launch(("inf2.xlarge", 1), launch_image_ssm_parameter=parameter, launch_image_name="no-such-image")
    assert changed(done) > 0
    image = cloud.ec2.describe_images(ImageIds=[cloud.instances()[0]["ImageId"]])["Images"][0]
    assert (image["Name"], image["OwnerId"]) == (ec2.PARAMETERS[parameter], ec2.DEEP_LEARNING)


def test_a_parameter_that_is_not_there_is_told_and_nothing_is_made(cloud: Cloud) -> None:
    parameter = "/aws/service/neuron/dlami/base/ubuntu-18.04/latest/image_id"
    done = cloud.launch(("inf2.xlarge", 1), launch_image_ssm_parameter=parameter)
    assert done.returncode != 0 and parameter in said(done)
    assert cloud.instances() == [] and cloud.groups() == []


def test_a_trn2_is_launched_for_a_stack_that_drives_it(cloud: Cloud) -> None:
    families = {"neuron_stack_overrides": {"instance_families": ["trn2"], "ubuntu": "24.04"}}
    assert changed(cloud.launch(("trn2.48xlarge", 1), ("trn2.3xlarge", 1), **families)) > 0
    assert {instance["InstanceType"] for instance in cloud.instances()} == {"trn2.48xlarge", "trn2.3xlarge"}
    listed = json.loads(cloud.run("ansible-inventory", "--list").stdout)
    assert len(listed["family_trn2"]["hosts"]) == 2 and len(listed["type_trn2_48xlarge"]["hosts"]) == 1


@pytest.mark.parametrize(
    ("groups", "variables", "said"),
    [
        pytest.param(
            [("trn2.48xlarge", 1)],
            {"neuron_stack": "vllm-0.9.2"},
            "drives inf2, trn1, trn1n; launch_groups asks for trn2.",
            marks=THOROUGH,
        ),
        ([("p5.48xlarge", 1)], {}, "trn1.32xlarge"),
        pytest.param(
            [("inf2.xlarge", 1)], {"launch_root_volume_size": 100}, "launch_root_volume_size is 100 GiB", marks=THOROUGH
        ),
        pytest.param([("inf2.xlarge", 1)], {"launch_subnet_id": None}, "launch_subnet_ids is required", marks=THOROUGH),
        pytest.param([("inf2.xlarge", 1)], {"launch_key_name": None}, "launch_key_name is required", marks=THOROUGH),
        pytest.param([("inf2.xlarge", 1)], {"launch_volume": 600}, "launch_volume", marks=THOROUGH),
        pytest.param([], {}, "launch_groups is empty", marks=THOROUGH),
        ([("inf2.xlarge", -1)], {}, "negative count"),
        pytest.param([("inf2.xlarge", 1), ("inf2.xlarge", 2)], {}, "names an instance type twice", marks=THOROUGH),
        pytest.param([("inf2.xlarge", 1)], {"launch_image_name": "no-such-image-*"}, "has no image", marks=THOROUGH),
        ([("inf2.xlarge", 1)], {"launch_subnet_id": "subnet-00000000"}, "has no subnet subnet-00000000"),
        pytest.param([("inf2.xlarge", 1)], {"launch_key_name": "nobodys"}, "nobodys", marks=THOROUGH),
        pytest.param([("inf2.xlarge", 1)], {"neuron_stack": "vllm-9.9.9"}, "vllm-9.9.9", marks=THOROUGH),
    ],
)
def test_wrong_variables_are_refused_before_anything_is_made(
    cloud: Cloud, groups: list[tuple[str, int]], variables: dict[str, Any], said: str
) -> None:
    done = cloud.launch(*groups, **variables)
    assert done.returncode != 0
    assert said in " ".join((done.stdout + done.stderr).split())
    assert cloud.instances() == [] and cloud.groups() == []


def test_check_mode_makes_nothing(cloud: Cloud) -> None:
    variables = {
        "launch_subnet_id": cloud.state["subnet_id"],
        "launch_key_name": cloud.state["key_name"],
        "launch_groups": [{"instance_type": "inf2.xlarge", "count": 1}],
    }
    done = cloud.run("ansible-playbook", "--check", "playbooks/launch.yml", "-e", json.dumps(variables))
    assert changed(done) > 0
    assert cloud.instances() == [] and cloud.groups() == []


def instances_of(cloud: Cloud, **tags: str) -> list[str]:
    """Start an instance that launch.yml did not make, with tags."""
    image = cloud.ec2.describe_images(Owners=[ec2.CANONICAL])["Images"][0]["ImageId"]
    given = [{"Key": name.replace("_", ":"), "Value": value} for name, value in tags.items()]
    made = cloud.ec2.run_instances(
        ImageId=image,
        MinCount=1,
        MaxCount=1,
        SubnetId=cloud.state["subnet_id"],
        TagSpecifications=[{"ResourceType": "instance", "Tags": given}],
    )
    return [instance["InstanceId"] for instance in made["Instances"]]


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def test_an_empty_list_terminates_nothing_and_a_text_is_refused(cloud: Cloud) -> None:
    assert changed(cloud.launch(("inf2.xlarge", 1))) > 0
    identity = cloud.instances()[0]["InstanceId"]
    for nothing in ("[]", json.loads("[]")):
        done = cloud.playbook("terminate", terminate_confirm="neuron", terminate_instance_ids=nothing)
        assert changed(done) == 0 and "no instance is terminated" in said(done)
    for wrong in ("", identity, None, {"ids": [identity]}):
        done = cloud.playbook("terminate", terminate_confirm="neuron", terminate_instance_ids=wrong)
        assert done.returncode != 0 and "terminate_instance_ids" in said(done) and "a list" in said(done)
    misspelt = cloud.playbook("terminate", terminate_confirm="neuron", terminate_instance_id=[identity])
    assert misspelt.returncode != 0 and "did you mean terminate_instance_ids?" in said(misspelt)
    assert len(cloud.instances()) == 1 and len(cloud.groups()) == 1
    as_text = json.dumps([identity])
    assert changed(cloud.playbook("terminate", terminate_confirm="neuron", terminate_instance_ids=as_text)) > 0
    assert cloud.instances() == []


def test_options_as_text_mean_the_same_and_ids_are_told_before_the_wait(cloud: Cloud) -> None:
    groups = json.dumps([{"instance_type": "inf2.xlarge", "count": "1"}])
    given = {"launch_subnet_id": cloud.state["subnet_id"], "launch_key_name": cloud.state["key_name"]}
    texts = {**given, "launch_groups": groups, "launch_wait_for_ssh": "false", "launch_root_volume_size": "600"}
    pairs = [argument for name, text in texts.items() for argument in ("-e", f"{name}={json.dumps(text)}")]
    done = cloud.run("ansible-playbook", "-i", "localhost,", "playbooks/launch.yml", *pairs)
    assert changed(done) > 0 and len(cloud.instances()) == 1
    assert "skipping: [localhost] => (item=i-" in done.stdout
    told, waited = (done.stdout.index(f": {task}") for task in ("Report the instances", "Wait for each instance"))
    assert told < waited and cloud.instances()[0]["InstanceId"] in done.stdout[told:waited]


def test_ssh_is_opened_to_all_of_the_vpc_and_rules_of_others_stay(cloud: Cloud) -> None:
    vpc = cloud.ec2.create_vpc(CidrBlock="10.60.0.0/16")["Vpc"]["VpcId"]
    cloud.ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock="100.64.0.0/16")
    subnet = cloud.ec2.create_subnet(VpcId=vpc, CidrBlock="100.64.1.0/24")["Subnet"]["SubnetId"]
    assert changed(cloud.launch(("inf2.xlarge", 1), launch_subnet_id=subnet)) > 0
    group = cloud.groups()[0]
    theirs = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "IpRanges": [{"CidrIp": "10.60.0.0/16"}]}
    cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[theirs])
    cloud.ec2.create_tags(Resources=[group], Tags=[{"Key": "owner", "Value": "somebody"}])
    assert changed(cloud.launch(("inf2.xlarge", 1), launch_subnet_id=subnet)) == 0
    found = cloud.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    rules = {rule["FromPort"]: {r["CidrIp"] for r in rule["IpRanges"]} for rule in found["IpPermissions"]}
    assert rules == {22: {"10.60.0.0/16", "100.64.0.0/16"}, 8000: {"10.60.0.0/16"}}
    assert {"Key": "owner", "Value": "somebody"} in found["Tags"]


def test_through_systems_manager_no_port_is_open_and_no_key_is_needed(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    iam.create_instance_profile(InstanceProfileName="hosts")
    given = {"launch_ssm": "true", "launch_instance_profile": "hosts", "launch_key_name": None}
    # A port that an earlier launch opened is not taken over.
    assert changed(cloud.launch(("inf2.xlarge", 1), launch_fleet="neuron")) > 0
    assert changed(cloud.launch(("trn1.2xlarge", 1), **given)) > 0
    (closed,) = (i for i in cloud.instances() if i["InstanceType"] == "trn1.2xlarge")
    (group,) = closed["NetworkInterfaces"][0]["Groups"]
    assert cloud.ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"][0]["IpPermissions"] == []
    assert "KeyName" not in closed and closed["IamInstanceProfile"]["Arn"].endswith("/hosts")
    iam.delete_instance_profile(InstanceProfileName="hosts")
    assert changed(cloud.playbook("terminate", terminate_confirm="neuron")) > 0
    assert cloud.instances() == [] and cloud.groups() == []


@THOROUGH
def test_spot_and_adapters_are_launched_once(cloud: Cloud) -> None:
    given = {"launch_spot": "true", "launch_efa": "true", "launch_placement_group": "together"}
    assert changed(cloud.launch(("trn1.32xlarge", 2), **given)) > 0
    assert changed(cloud.launch(("trn1.32xlarge", 2), **given)) == 0
    assert [instance["InstanceLifecycle"] for instance in cloud.instances()] == ["spot", "spot"]
    (group,) = cloud.ec2.describe_security_groups(GroupIds=cloud.groups())["SecurityGroups"]
    for rules in (group["IpPermissions"], group["IpPermissionsEgress"]):
        own = [pair["GroupId"] for rule in rules for pair in rule["UserIdGroupPairs"] if rule["IpProtocol"] == "-1"]
        assert own == [group["GroupId"]]


def test_the_whole_world_is_let_in_only_when_it_is_said_twice(cloud: Cloud) -> None:
    refused = cloud.launch(("inf2.xlarge", 1), launch_ssh_cidrs=["0.0.0.0/0", "::/0"])
    assert refused.returncode != 0 and "launch_ssh_from_everywhere" in said(refused)
    assert cloud.instances() == [] and cloud.groups() == []
    given = {"launch_ssh_cidrs": ["0.0.0.0/0", "2001:db8::/32"], "launch_ssh_from_everywhere": "yes"}
    assert changed(cloud.launch(("inf2.xlarge", 1), **given)) > 0
    rule = cloud.ec2.describe_security_groups(GroupIds=cloud.groups())["SecurityGroups"][0]["IpPermissions"]
    assert [r["CidrIp"] for each in rule for r in each["IpRanges"]] == ["0.0.0.0/0"]
    assert [r["CidrIpv6"] for each in rule for r in each["Ipv6Ranges"]] == ["2001:db8::/32"]


def test_a_region_comes_from_the_profile_and_is_never_chosen_for_the_user(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile fleet]\nregion = us-east-1\n", encoding="utf-8")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        cloud.environment.pop(name, None)
    for command in (("ansible-inventory", "--graph"), ("ansible-playbook", "playbooks/terminate.yml")):
        done = cloud.run(*command)
        assert done.returncode != 0 and "No AWS region is given" in said(done)
    keys = [
        f"{name.lower()} = {cloud.environment.pop(name)}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ]
    (tmp_path / "credentials").write_text("\n".join(["[fleet]", *keys, ""]), encoding="utf-8")
    cloud.environment.update(
        AWS_CONFIG_FILE=str(tmp_path / "config"),
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"),
        AWS_PROFILE="fleet",
    )
    assert changed(cloud.launch(("inf2.xlarge", 1))) > 0
    assert cloud.instances()[0]["InstanceId"] in cloud.run("ansible-inventory", "--graph").stdout


class TestInventory:
    def test_an_odd_instance_takes_no_other_away(self, cloud: Cloud) -> None:
        assert changed(cloud.launch(("inf2.xlarge", 1))) > 0
        odd = instances_of(cloud, neuronops_fleet="")[0]
        listed = json.loads(cloud.run("ansible-inventory", "--list").stdout)
        assert len(listed["neuron"]["hosts"]) == 2 and listed["fleet_unnamed"]["hosts"] == [odd]
        assert len(listed["fleet_neuron"]["hosts"]) == 1

    def test_several_fleets_are_changed_only_when_that_is_meant(self, cloud: Cloud) -> None:
        instances_of(cloud, neuronops_fleet="staging")
        instances_of(cloud, neuronops_fleet="production")
        check = ("ansible-playbook", "playbooks/site.yml", "--check", "-e", "vllm_server_model=/m")
        done = cloud.run(*check)
        assert done.returncode != 0 and "fleets production, staging" in said(done)
        meant = cloud.run(*check, "-e", "neuron_several_fleets=true", "-e", "vllm_server_port=eight")
        assert "vllm_server_port is 'eight'" in said(meant)
        one = cloud.run(*check, "--limit", "fleet_staging", "-e", "vllm_server_port=eight")
        assert "vllm_server_port is 'eight'" in said(one) and "fleets" not in said(one).partition("TASK")[0]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["-e", "vllm_server_model=/m", "-e", "vllm_server_prot=9000"], "did you mean vllm_server_port?"),
            pytest.param(
                ["-e", "vllm_server_model=/m", "-e", "neuron_stak=x"], "did you mean neuron_stack?", marks=THOROUGH
            ),
            (["-e", "vllm_server_model=/m", "-e", "neuron_stack=0.9.2"], "Did you mean vllm-0.9.2?"),
            pytest.param(
                ["-e", "vllm_server_model=/m", "-e", '{"neuron_stack_overrides": "{"}'],
                "neuron_stack_overrides",
                marks=THOROUGH,
            ),
            (["--limit", "host1"], "vllm_server_model"),
            (["--tags", "vllm_serve", "-e", "vllm_server_model=/m"], "The tags are the names of the roles"),
            pytest.param(
                ["--skip-tags", "all", "-e", "vllm_server_model=/m"],
                "The tags are the names of the roles",
                marks=THOROUGH,
            ),
            (["-e", "vllm_server_model=/m", "-e", "vllm_venv=/opt/mine"], "vllm_venv is given with -e"),
            pytest.param(
                ["-e", "vllm_server_model=/m", "-e", "vllm_state=absent"],
                "vllm_state is absent for host1",
                marks=THOROUGH,
            ),
            (["-e", "vllm_server_model=/m", "-e", "neuron_batch=9"], "neuron_batch 9"),
            pytest.param(
                ["-e", "vllm_server_model=/m", "-e", "neuron_before_activation=/nowhere.yml"],
                "neuron_before_activation",
                marks=THOROUGH,
            ),
        ],
    )
    def test_site_refuses_before_a_host_is_touched(
        self, cloud: Cloud, tmp_path: Path, arguments: list[str], words: str
    ) -> None:
        # A host that would not even answer: what is refused here was refused before anything was asked of it.
        (tmp_path / "hosts").write_text("[neuron]\nhost1 ansible_host=127.0.0.1 ansible_port=9\n", encoding="utf-8")
        done = cloud.run("ansible-playbook", "playbooks/site.yml", "-i", str(tmp_path / "hosts"), *arguments)
        assert done.returncode != 0 and words in said(done) and "UNREACHABLE" not in done.stdout, done.stdout
        assert len(done.stdout) + len(done.stderr) < 6000

    def test_group_variables_are_checked_where_they_apply(self, cloud: Cloud, tmp_path: Path) -> None:
        (tmp_path / "hosts").write_text("[neuron]\nhost1 ansible_host=127.0.0.1 ansible_port=9\n", encoding="utf-8")
        (tmp_path / "group_vars").mkdir()
        (tmp_path / "group_vars" / "neuron.yml").write_text("neuron_stack: nonsense\n", encoding="utf-8")
        done = cloud.run(
            "ansible-playbook", "playbooks/site.yml", "-i", str(tmp_path / "hosts"), "-e", "vllm_server_model=/m"
        )
        assert done.returncode != 0 and "no stack 'nonsense'" in said(done) and "UNREACHABLE" not in done.stdout

    @pytest.mark.parametrize("tags", ["all", "neuron_driver"])
    def test_the_model_of_every_host_is_checked_before_the_first_is_changed(
        self, cloud: Cloud, tmp_path: Path, tags: str, request: pytest.FixtureRequest
    ) -> None:
        # Another pytest that starts closes the folders of all to the user who has to read the model.
        open_to_all = Path(tempfile.mkdtemp())
        request.addfinalizer(lambda: shutil.rmtree(open_to_all))
        (open_to_all / "config.json").write_text("{}", encoding="utf-8")
        open_to_all.chmod(0o755)
        hosts = f"""[neuron]
first vllm_server_model={open_to_all}
last vllm_server_model={tmp_path}/nothing
[neuron:vars]
vllm_server_max_model_len=64
ansible_connection=local
ansible_become=false
ansible_python_interpreter={sys.executable}
"""
        (tmp_path / "hosts").write_text(hosts, encoding="utf-8")
        # The hosts are this machine, on which another such run may have been ended.
        taken = ("-e", "neuron_take_over=true", "--tags", tags)
        done = cloud.run("ansible-playbook", "playbooks/site.yml", "-i", str(tmp_path / "hosts"), *taken)
        assert done.returncode != 0 and f"last has no folder {tmp_path}/nothing" in said(done)
        assert "Ensure that the hosts serve" not in done.stdout and "changed=0" in done.stdout

    def test_an_inventory_that_is_not_there_is_told_first(self, cloud: Cloud, tmp_path: Path) -> None:
        nothing = tmp_path / "ansible.cfg"
        nothing.touch()
        done = cloud.run(
            "ansible-playbook",
            "playbooks/site.yml",
            "-i",
            "nowhere.yml",
            ANSIBLE_CONFIG=str(nothing),
            ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / ".build" / "collections"),
        )
        assert done.returncode != 0 and "Was it read?" in said(done)

    def test_a_copy_of_the_folder_has_the_user_and_its_safeguard(self, cloud: Cloud, tmp_path: Path) -> None:
        copy = tmp_path / "fleet"
        shutil.copytree(CHECKOUT / "inventories", copy)
        static = (copy / "static.yml").read_text(encoding="utf-8")
        static = static.replace("  hosts: {}\n", "").replace("#   hosts:", "  hosts:").replace("#     inf2", "    inf2")
        (copy / "static.yml").write_text(static, encoding="utf-8")
        environment = {
            **{name: value for name, value in cloud.environment.items() if name != "ANSIBLE_CONFIG"},
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".build" / "collections"),
        }

        def listed(**more: str) -> subprocess.CompletedProcess[str]:
            command = ["ansible-playbook", "-i", ".", str(CHECKOUT / "playbooks" / "site.yml"), "--list-hosts"]
            return subprocess.run(
                command, cwd=copy, env={**environment, **more}, capture_output=True, text=True, check=False
            )

        found = listed()
        assert "inf2-a" in found.stdout and "inf2-b" in found.stdout and "fleet.yml" not in found.stderr, found.stderr
        refused = listed(AWS_ENDPOINT_URL="http://127.0.0.1:9")
        assert refused.returncode != 0 and "inf2-a" not in refused.stdout
        user = subprocess.run(
            ["ansible-inventory", "-i", ".", "--host", "inf2-a"],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert json.loads(user.stdout)["ansible_user"] == "ubuntu"

    def test_the_group_of_an_existing_fleet_is_an_option(self, cloud: Cloud, tmp_path: Path) -> None:
        hosts = "[accelerators]\nmine ansible_host=127.0.0.1 ansible_port=9\n[neuron]\nother ansible_host=127.0.0.1\n"
        (tmp_path / "hosts").write_text(hosts, encoding="utf-8")
        site = ("ansible-playbook", "playbooks/site.yml", "-i", str(tmp_path / "hosts"), "-e", "vllm_server_port=eight")
        done = cloud.run(*site, "-e", "neuron_hosts=accelerators")
        assert "cannot be used on mine" in said(done) and "other" not in done.stdout.partition("PLAY RECAP")[2]
        (tmp_path / "group_vars").mkdir()
        (tmp_path / "group_vars" / "all.yml").write_text("neuron_hosts: accelerators\n", encoding="utf-8")
        done = cloud.run(*site)
        assert "cannot be used on mine" in said(done) and "other" not in done.stdout.partition("PLAY RECAP")[2]
        done = cloud.run(*site, "-e", "neuron_hosts=acelerators")
        assert done.returncode != 0 and "has no host in the group `acelerators`" in said(done)

    def test_a_fleet_of_several_regions_and_of_ones_own_tag_is_found(self, cloud: Cloud, tmp_path: Path) -> None:
        elsewhere = cloud.client("ec2", "eu-west-1")
        here = instances_of(cloud, team="ml")[0]
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "ml"}]}]
        made = elsewhere.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, TagSpecifications=tags)["Instances"]
        text = (CHECKOUT / "inventories" / "aws_ec2.yml").read_text(encoding="utf-8")
        own = text.replace("  tag-key: neuronops:fleet\n", "  tag:team: [ml]\n")
        own = own.replace("""  - "{{ lookup('neuronops.vllm.aws_region') }}"\n""", "  - us-east-1\n  - eu-west-1\n")
        assert own.count("tag:team") == 1 and own.count("eu-west-1") == 1
        (tmp_path / "aws_ec2.yml").write_text(own, encoding="utf-8")
        done = cloud.run("ansible-inventory", "-i", str(tmp_path / "aws_ec2.yml"), "--list")
        listed = json.loads(done.stdout)
        assert set(listed["neuron"]["hosts"]) == {here, made[0]["InstanceId"]} == set(listed["fleet_unnamed"]["hosts"])
        elsewhere.terminate_instances(InstanceIds=[made[0]["InstanceId"]])

    def test_no_host_ends_with_a_message_and_an_error(self, cloud: Cloud) -> None:
        done = cloud.playbook("site")
        assert done.returncode != 0 and "has no host in the group `neuron`" in " ".join(done.stdout.split())

    def test_an_endpoint_that_does_not_answer_ends_with_a_message_and_an_error(self, cloud: Cloud) -> None:
        for command in (("ansible-inventory", "--graph"), ("ansible-playbook", "playbooks/site.yml")):
            done = cloud.run(*command, AWS_ENDPOINT_URL="http://127.0.0.1:9")
            assert done.returncode != 0
            assert "http://127.0.0.1:9" in done.stdout + done.stderr

    def test_the_public_address_is_a_switch(self, cloud: Cloud) -> None:
        assert changed(cloud.launch(("inf2.xlarge", 1), launch_public_address=True)) > 0
        public = cloud.instances()[0]["PublicIpAddress"]
        listed = cloud.run("ansible-inventory", "--list", "-e", "neuron_connect_to=public")
        assert f'"{public}"' in json.dumps(json.loads(listed.stdout)["_meta"]["hostvars"])
        host = next(iter(json.loads(listed.stdout)["_meta"]["hostvars"].values()))
        assert public in str(host["ansible_host"])


POLICIES = CHECKOUT / "docs" / "iam"


def as_moto_reads_it(policy: dict[str, Any]) -> dict[str, Any]:
    """Return the actions of a policy alone: moto compares those, and denies every statement with a resource of EC2 or a
    condition. That there are such, and which, tests/unit/test_policies.py looks at."""
    statements = [{"Effect": each["Effect"], "Action": each["Action"], "Resource": "*"} for each in policy["Statement"]]
    return {"Version": policy["Version"], "Statement": statements}


def without(policy: dict[str, Any], action: str) -> dict[str, Any]:
    """Return a policy that lacks an action."""
    statements = []
    for each in policy["Statement"]:
        actions = [each["Action"]] if isinstance(each["Action"], str) else each["Action"]
        left = [name for name in actions if name != action]
        statements += [{**each, "Action": left}] if left else []
    return {**policy, "Statement": statements}


@contextlib.contextmanager
def only(cloud: Cloud, policy: dict[str, Any]) -> Iterator[None]:
    """Have the programs run as a user with this policy and nothing else, and moto refuse what it does not allow."""
    iam = cloud.client("iam")
    name = f"user-{len(iam.list_users()['Users'])}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="launch", PolicyDocument=json.dumps(as_moto_reads_it(policy)))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    before = dict(cloud.environment)
    cloud.environment.update(AWS_ACCESS_KEY_ID=key["AccessKeyId"], AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"])
    checks = functools.partial(requests.post, f"{cloud.endpoint}/moto-api/reset-auth", timeout=10)
    checks(data=b"0")
    try:
        yield
    finally:
        checks(data=b"inf")
        cloud.environment = before


class TestPermissions:
    POLICY = json.loads((POLICIES / "launch-policy.json").read_text(encoding="utf-8"))

    def test_the_policy_is_enough_for_launch_inventory_and_terminate(self, cloud: Cloud) -> None:
        with only(cloud, self.POLICY):
            assert changed(cloud.launch(("inf2.xlarge", 1))) > 0
            listed = json.loads(cloud.run("ansible-inventory", "--list").stdout)
            assert len(listed["fleet_neuron"]["hosts"]) == 1
            assert changed(cloud.playbook("terminate", terminate_confirm="neuron")) > 0
        assert cloud.instances() == [] and cloud.groups() == []

    @pytest.mark.parametrize(
        "action",
        [
            "ec2:RunInstances",
            pytest.param("ec2:CreateSecurityGroup", marks=THOROUGH),
            pytest.param("ec2:AuthorizeSecurityGroupIngress", marks=THOROUGH),
            *(
                pytest.param(f"ec2:Describe{what}", marks=THOROUGH)
                for what in ("Images", "Instances", "KeyPairs", "SecurityGroups", "Subnets", "Vpcs")
            ),
        ],
    )
    def test_launch_names_the_action_that_is_missing(self, cloud: Cloud, action: str) -> None:
        with only(cloud, without(self.POLICY, action)):
            done = cloud.launch(("inf2.xlarge", 1))
        assert done.returncode != 0 and f"permission {action}" in said(done), done.stdout
        assert "Nothing was launched" in said(done) and cloud.instances() == []

    @pytest.mark.parametrize(
        "action", ["ec2:TerminateInstances", pytest.param("ec2:DeleteSecurityGroup", marks=THOROUGH)]
    )
    def test_terminate_names_the_action_that_is_missing(self, cloud: Cloud, action: str) -> None:
        instances_of(cloud, neuronops_fleet="neuron", **{"neuronops_made-by": "neuronops.vllm.launch"})
        vpc = cloud.instances()[0]["VpcId"]
        group = cloud.ec2.create_security_group(GroupName="neuronops-neuron", Description="x", VpcId=vpc)["GroupId"]
        tags = {"neuronops:fleet": "neuron", "neuronops:made-by": "neuronops.vllm.launch"}
        cloud.ec2.create_tags(Resources=[group], Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
        with only(cloud, without(self.POLICY, action)):
            done = cloud.playbook("terminate", terminate_confirm="neuron")
        assert done.returncode != 0 and f"permission {action}" in said(done), done.stdout

    @THOROUGH
    def test_no_credentials_and_a_wrong_key_are_told(self, cloud: Cloud) -> None:
        with only(cloud, self.POLICY):
            cloud.environment["AWS_SECRET_ACCESS_KEY"] = "wrong"  # noqa: S105 - a key that is none
            wrong = cloud.launch(("inf2.xlarge", 1))
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                cloud.environment.pop(name)
            cloud.environment["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
            cloud.environment["AWS_EC2_METADATA_DISABLED"] = "true"
            none = cloud.launch(("inf2.xlarge", 1))
        for done in (wrong, none):
            assert done.returncode != 0 and "aws sts get-caller-identity" in said(done), done.stdout
            assert "Nothing was launched." in said(done)
