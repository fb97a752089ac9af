# SPDX-License-Identifier: GPL-3.0-or-later
"""What launch decides, and what it says when AWS refuses: against moto's EC2 in this process."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.splitter import parse_kv
from ansible_collections.neuronops.vllm.plugins.filter import aws_explained
from ansible_collections.neuronops.vllm.plugins.plugin_utils import aws, fleet, options, stacks
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.stub import Stubber
from moto.backends import get_backend

from tests.unit.moto_account import moto_account
from tests.unit.role_variables import ROLES, TRUSTED, value

REGION = "eu-west-1"
STACK = {**stacks.resolve(), "instance_families": ["inf2", "trn1", "trn1n", "trn2"]}


def given(*groups: tuple[str, int], **more: Any) -> dict[str, Any]:
    """Return the options of launch as the playbook hands them on."""
    variables = {
        "launch_groups": [{"instance_type": name, "count": count} for name, count in groups],
        "launch_key_name": "me",
        "launch_subnet_ids": ["subnet-1"],
        **{f"launch_{name}": value for name, value in more.items()},
    }
    found: dict[str, Any]
    found, wrong = options.converted("launch", variables, variables.__getitem__)
    assert wrong == []
    return found


class Account:
    """An account with a VPC of two zones, a key pair and an image."""

    def __init__(self, ec2: Any, ssm: Any) -> None:
        self.ec2, self.ssm = ec2, ssm
        self.vpc = self.ec2.create_vpc(CidrBlock="10.60.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.60.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")[
                "Subnet"
            ]["SubnetId"]
            for n, zone in enumerate("ab")
        ]
        self.ec2.create_key_pair(KeyName="me")
        self.image = self.ec2.register_image(Name="ubuntu", Architecture="x86_64", RootDeviceName="/dev/sda1")
        self.asked: list[dict[str, Any]] = []
        self.handlers: list[tuple[str, Any]] = []
        self._on("provide-client-params.ec2.RunInstances", lambda params, **_: self.asked.append(params))

    def _on(self, event: str, handler: Any) -> None:
        self.handlers.append((event, handler))
        self.ec2.meta.events.register(event, handler)

    def close(self) -> None:
        for event, handler in self.handlers:
            self.ec2.meta.events.unregister(event, handler)

    def options(self, *groups: tuple[str, int], **more: Any) -> dict[str, Any]:
        return given(*groups, **{"subnet_ids": self.subnets, "image_id": self.image["ImageId"], **more})

    def survey(self, wanted: dict[str, Any]) -> fleet.Place:
        return fleet.survey(self.ec2, self.ssm, wanted, STACK, REGION)

    def launch(self, *groups: tuple[str, int], **more: Any) -> tuple[bool, list[dict[str, Any]]]:
        wanted = self.options(*groups, **more)
        done: tuple[bool, list[dict[str, Any]]] = fleet.launch(self.ec2, wanted, self.survey(wanted))
        return done

    def default_group(self) -> str:
        """Return the VPC's own security group."""
        return str(self.groups("default")[0]["GroupId"])

    def groups(self, name: str) -> list[dict[str, Any]]:
        filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [self.vpc]}]
        found: list[dict[str, Any]] = self.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        return found

    def refuses(self, code: str, message: str, after: int = 0) -> None:
        """From the given RunInstances on, have EC2 answer an error."""
        self.fails(ClientError({"Error": {"Code": code, "Message": message}}, "RunInstances"), after=after)

    def fails(self, error: Exception, operation: str = "RunInstances", after: int = 0) -> None:
        """From the given call on, have an operation raise this."""
        calls = {"seen": 0}

        def answer(**_: Any) -> None:
            calls["seen"] += 1
            if calls["seen"] > after:
                raise error

        self._on(f"before-call.ec2.{operation}", answer)


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[Any, Any]]:
    """Make clients once for all tests: to read the description of EC2's API takes seconds."""
    with moto_account():
        yield boto3.client("ec2", region_name=REGION), boto3.client("ssm", region_name=REGION)


@pytest.fixture
def account(clients: tuple[Any, Any]) -> Iterator[Account]:
    get_backend("ec2").reset()
    made = Account(*clients)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("count", "there", "more"),
    [
        (3, {}, {"a": 2, "b": 1}),
        (4, {"a": 2}, {"b": 2}),
        (5, {"a": 3, "b": 0}, {"b": 2}),
        (2, {"a": 1, "b": 1}, {}),
        # What stands in a subnet that is not named any more counts.
        (3, {"gone": 2}, {"a": 1}),
    ],
)
def test_what_is_missing_goes_where_the_fewest_are(count: int, there: dict[str, int], more: dict[str, int]) -> None:
    assert fleet.spread(count, ["a", "b"], there) == more


@pytest.mark.parametrize(
    ("groups", "more", "said"),
    [
        ([], {}, "launch_groups is empty"),
        ([("inf2.xlarge", -1)], {}, "negative count"),
        ([("inf2.xlarge", 1), ("inf2.xlarge", 2)], {}, "names an instance type twice"),
        ([("inf2.xlarge", 1)], {"subnet_ids": []}, "launch_subnet_ids is required"),
        ([("inf2.xlarge", 1)], {"key_name": ""}, "launch_key_name is required"),
        ([("inf2.xlarge", 1)], {"root_volume_size": 100}, "launch_root_volume_size is 100 GiB"),
        ([("inf2.xlarge", 1)], {"ssh_cidrs": ["0.0.0.0/0"]}, "launch_ssh_from_everywhere=true"),
        ([("inf2.xlarge", 1)], {"ssh_cidrs": ["10.0.0.0/8", "::/0"]}, "launch_ssh_from_everywhere=true"),
        ([("inf2.xlarge", 1)], {"ssh_cidrs": ["0.0.0.0/1", "128.0.0.0/1"]}, "launch_ssh_from_everywhere=true"),
        ([("inf2.xlarge", 1)], {"ssh_cidrs": ["8.0.0.0/8", "9.0.0.0/8"]}, "launch_ssh_from_everywhere=true"),
        ([("inf2.xlarge", 1)], {"ssh_cidrs": ["2000::/3"]}, "launch_ssh_from_everywhere=true"),
        ([("inf2.xlarge", 1)], {"ssh_cidrs": ["10.0.0.0/33"]}, "should be networks such as"),
        ([("inf2.xlarge", 1)], {"ssm": True}, "launch_ssm needs launch_instance_profile"),
        (
            [("inf2.xlarge", 1)],
            {"ssm": True, "instance_profile": "x", "ssh_cidrs": ["10.0.0.0/8"]},
            "launch_ssm opens no port",
        ),
        ([("inf2.xlarge", 1)], {"spot_max_price": "1"}, "launch_spot is not set"),
        ([("inf2.xlarge", 1)], {"spot": True, "capacity_reservation_id": "cr-1"}, "exclude each other"),
        ([("inf2.xlarge", 1), ("trn1.2xlarge", 1)], {"capacity_reservation_id": "cr-1"}, "is of one instance type"),
        ([("trn1.32xlarge", 1)], {"efa": True, "public_address": True}, "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_asking_aws(
    groups: list[tuple[str, int]], more: dict[str, Any], said: str
) -> None:
    found = fleet.problems(given(*groups, **more), STACK)
    assert len(found) == 1 and said in found[0], found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"subnet_ids": [], "subnet_id": "subnet-1"},
        {"ssh_cidrs": ["0.0.0.0/0"], "ssh_from_everywhere": "yes"},
        {"ssm": True, "key_name": "", "instance_profile": "hosts"},
        {"spot": True, "spot_max_price": "0.75"},
    ],
)
def test_what_can_be_meant_is_no_problem(more: dict[str, Any]) -> None:
    assert fleet.problems(given(("inf2.xlarge", 1), ("trn1.2xlarge", 0), **more), STACK) == []


def test_a_family_that_the_stack_does_not_drive_is_refused() -> None:
    (found,) = fleet.problems(given(("trn2.48xlarge", 1)), {**STACK, "instance_families": ["inf2", "trn1"]})
    assert "drives inf2, trn1; launch_groups asks for trn2." in found


def test_instances_are_spread_and_a_second_run_launches_nothing(account: Account) -> None:
    changed, made = account.launch(("inf2.xlarge", 3), ("trn1.2xlarge", 1))
    where = sorted((found["instance_type"], found["availability_zone"]) for found in made)
    assert changed and where == [
        ("inf2.xlarge", f"{REGION}a"),
        ("inf2.xlarge", f"{REGION}a"),
        ("inf2.xlarge", f"{REGION}b"),
        ("trn1.2xlarge", f"{REGION}a"),
    ]
    assert {found["state"] for found in made} == {"running"}
    again, there = account.launch(("inf2.xlarge", 3), ("trn1.2xlarge", 1))
    assert not again and len(there) == 4
    # A fourth goes to the zone that has fewer; a group that is left out is left alone.
    more, there = account.launch(("inf2.xlarge", 4))
    assert more and sorted(found["availability_zone"][-1] for found in there) == ["a", "a", "b", "b"]
    with pytest.raises(fleet.FleetError, match=r"has 4 inf2\.xlarge, more than the 1 asked for") as refused:
        account.launch(("inf2.xlarge", 1))
    assert f"{fleet.terminate_command('neuron', REGION, some=True)}. There are i-" in str(refused.value)


def test_what_is_stopped_is_started_and_not_launched_again(account: Account) -> None:
    _changed, made = account.launch(("inf2.xlarge", 2))
    account.ec2.stop_instances(InstanceIds=[made[0]["instance_id"]])
    wanted = account.options(("inf2.xlarge", 2))
    rehearsed, _there = fleet.rehearse(account.ec2, wanted, account.survey(wanted))
    assert rehearsed
    changed, there = account.launch(("inf2.xlarge", 2))
    assert changed and {found["instance_id"] for found in there} == {found["instance_id"] for found in made}
    assert {found["state"] for found in there} == {"running"}


def test_a_rehearsal_launches_nothing(account: Account) -> None:
    wanted = account.options(("inf2.xlarge", 1))
    assert fleet.rehearse(account.ec2, wanted, account.survey(wanted)) == (True, [])
    assert account.ec2.describe_instances()["Reservations"] == [] and account.groups("neuronops-neuron") == []


def test_a_rehearsal_says_what_the_launch_then_does(account: Account) -> None:
    one = ("inf2.xlarge", 1)
    _changed, made = account.launch(("trn1.2xlarge", 1))
    account.ec2.stop_instances(InstanceIds=[made[0]["instance_id"]])
    account.launch(one)
    cases: list[tuple[bool, dict[str, Any]]] = [
        (False, {}),  # the stopped instance is of a group that is left out
        (True, {"ssh_cidrs": ["192.0.2.0/24"]}),  # a rule is missing
        (True, {"ssm": True, "key_name": "", "instance_profile": "hosts"}),  # a group is missing
        (False, {"security_group_ids": [account.default_group()]}),
    ]
    for changed, more in cases:
        wanted = account.options(one, **more)
        rehearsed = fleet.rehearse(account.ec2, wanted, account.survey(wanted))
        launched = fleet.launch(account.ec2, wanted, account.survey(wanted))
        assert rehearsed == launched and launched[0] is changed and len(launched[1]) == 1


def test_spot_is_asked_for_and_found_again(account: Account) -> None:
    more = {"spot": True, "spot_max_price": "0.75"}
    _changed, made = account.launch(("inf2.xlarge", 2), **more)
    assert account.asked[0]["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "MaxPrice": "0.75"},
    }
    found = account.ec2.describe_instances(InstanceIds=[made[0]["instance_id"]])["Reservations"][0]["Instances"][0]
    assert found["InstanceLifecycle"] == "spot"
    assert account.launch(("inf2.xlarge", 2), **more)[0] is False


@pytest.mark.parametrize(("kind", "cards"), [("trn1.32xlarge", 8), ("trn1n.32xlarge", 16), ("trn2.48xlarge", 16)])
def test_every_network_card_gets_an_adapter(account: Account, kind: str, cards: int) -> None:
    # moto keeps one interface for each device index, so the request is looked at.
    account.launch((kind, 1), efa=True, subnet_ids=account.subnets[:1], placement_group="together")
    asked = account.asked[0]
    found = [(each["NetworkCardIndex"], each["DeviceIndex"]) for each in asked["NetworkInterfaces"]]
    assert found == [(0, 0), *((card, 1) for card in range(1, cards))]
    assert {each["InterfaceType"] for each in asked["NetworkInterfaces"]} == {"efa"}
    assert asked["Placement"] == {"GroupName": "together"}


def test_a_type_without_adapters_is_refused(account: Account) -> None:
    with pytest.raises(fleet.FleetError, match=r"trn1\.2xlarge has none"):
        account.survey(account.options(("trn1.2xlarge", 1), ("trn1.32xlarge", 1), efa=True))


def test_a_placement_group_is_of_one_zone(account: Account) -> None:
    with pytest.raises(fleet.FleetError, match=f"names several: {REGION}a, {REGION}b"):
        account.survey(account.options(("trn1.32xlarge", 2), placement_group="together"))


def reservation(**more: Any) -> dict[str, Any]:
    """Return a reservation as EC2 describes it; moto has none."""
    return {
        "CapacityReservationId": "cr-1",
        "InstanceType": "trn2.48xlarge",
        "AvailabilityZone": f"{REGION}a",
        "State": "active",
        "AvailableInstanceCount": 2,
        "StartDate": datetime.datetime(2026, 12, 1, 11, 30, tzinfo=datetime.timezone.utc),
        **more,
    }


@pytest.mark.parametrize(
    ("found", "market"),
    [
        (reservation(ReservationType="capacity-block"), {"MarketType": "capacity-block"}),
        (reservation(ReservationType="default"), {}),
    ],
)
def test_a_reservation_is_used_in_its_market(account: Account, found: dict[str, Any], market: dict[str, str]) -> None:
    wanted = account.options(("trn2.48xlarge", 2), capacity_reservation_id="cr-1", subnet_ids=account.subnets[:1])
    place = account.survey({**wanted, "capacity_reservation_id": ""})
    with Stubber(account.ec2) as stub:
        stub.add_response("describe_capacity_reservations", {"CapacityReservations": [found]})
        place.market = fleet._reservation(account.ec2, wanted, place)
    asked = fleet.request(wanted, place, ("trn2.48xlarge", account.subnets[0], 2), [])
    assert asked.get("InstanceMarketOptions", {}) == market
    target = {"CapacityReservationTarget": {"CapacityReservationId": "cr-1"}}
    assert asked["CapacityReservationSpecification"] == target


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (reservation(State="scheduled"), "is scheduled, and should be active; it begins 2026-12-01 11:30 UTC"),
        (reservation(InstanceType="trn1.32xlarge"), "is of trn1.32xlarge, and launch_groups asks for trn2.48xlarge"),
        (reservation(AvailabilityZone=f"{REGION}b"), f"is in {REGION}b, and launch_subnet_ids has"),
        (reservation(AvailableInstanceCount=1), "has 1 instances left, and 2 are missing"),
    ],
)
def test_a_reservation_that_does_not_fit_is_refused(account: Account, found: dict[str, Any], said: str) -> None:
    wanted = account.options(("trn2.48xlarge", 2), capacity_reservation_id="cr-1", subnet_ids=account.subnets[:1])
    place = account.survey({**wanted, "capacity_reservation_id": ""})
    with Stubber(account.ec2) as stub, pytest.raises(fleet.FleetError, match=said):
        stub.add_response("describe_capacity_reservations", {"CapacityReservations": [found]})
        fleet._reservation(account.ec2, wanted, place)


def test_a_host_of_systems_manager_has_no_key_and_its_profile(account: Account) -> None:
    boto3.client("iam").create_instance_profile(InstanceProfileName="hosts")
    account.launch(("inf2.xlarge", 1), ssm=True, key_name="", instance_profile="hosts")
    assert "KeyName" not in account.asked[0] and account.asked[0]["IamInstanceProfile"] == {"Name": "hosts"}
    arn = "arn:aws:iam::123456789012:instance-profile/hosts"
    wanted = account.options(("inf2.xlarge", 1), instance_profile=arn)
    batch = ("inf2.xlarge", account.subnets[0], 1)
    assert fleet.request(wanted, account.survey(wanted), batch, [])["IamInstanceProfile"] == {"Arn": arn}


def test_a_subnet_of_ipv6_alone_gets_what_it_has(account: Account) -> None:
    wanted = account.options(("inf2.xlarge", 1))
    place = account.survey(wanted)
    place.subnets = [{**subnet, "Ipv6Native": True, "AvailableIpAddressCount": 0} for subnet in place.subnets]
    fleet._check_addresses(wanted, place)
    asked = fleet.request(wanted, place, ("inf2.xlarge", account.subnets[0], 1), ["sg-1"])
    (interface,) = asked["NetworkInterfaces"]
    assert interface["Ipv6AddressCount"] == 1 and "AssociatePublicIpAddress" not in interface
    assert asked["MetadataOptions"]["HttpProtocolIpv6"] == "enabled" and interface["Groups"] == ["sg-1"]
    address = {"NetworkInterfaces": [{"Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}]}]}
    instance = {"InstanceId": "i-1", "InstanceType": "inf2.xlarge", "State": {"Name": "running"}, **address}
    assert fleet.shown(instance)["ipv6_address"] == "2001:db8::1"


def test_a_group_has_what_is_asked_for_and_keeps_the_rules_of_others(account: Account) -> None:
    account.ec2.associate_vpc_cidr_block(VpcId=account.vpc, CidrBlock="100.64.0.0/16")
    account.launch(("inf2.xlarge", 1), tags={"owner": "me"})
    (group,) = account.groups("neuronops-neuron")
    assert {"Key": "owner", "Value": "me"} in group["Tags"]
    theirs = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "IpRanges": [{"CidrIp": "10.60.0.0/16"}]}
    account.ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[theirs])
    assert account.launch(("inf2.xlarge", 1))[0] is False
    assert account.launch(("inf2.xlarge", 1), ssh_cidrs=["192.0.2.0/24", "2001:db8::/32"])[0] is True
    assert account.launch(("inf2.xlarge", 1), ssh_cidrs=["192.0.2.0/24", "2001:db8::/32"])[0] is False
    rules = account.groups("neuronops-neuron")[0]["IpPermissions"]
    ranges = {(rule["FromPort"], each["CidrIp"]) for rule in rules for each in rule["IpRanges"]}
    assert ranges == {(22, "10.60.0.0/16"), (22, "100.64.0.0/16"), (22, "192.0.2.0/24"), (8000, "10.60.0.0/16")}
    assert [each["CidrIpv6"] for rule in rules for each in rule["Ipv6Ranges"]] == ["2001:db8::/32"]


def test_a_network_is_the_same_however_it_is_written(account: Account) -> None:
    networks = ["10.0.0.5/16", "10.0.0.0/255.255.0.0", "2001:DB8::/32", "192.0.2.7", "2001:db8:1:0::9", "192.0.2.7/32"]
    for changed in (True, False):
        assert account.launch(("inf2.xlarge", 1), ssh_cidrs=networks)[0] is changed
    rules = account.groups("neuronops-neuron")[0]["IpPermissions"]
    assert [each["CidrIp"] for rule in rules for each in rule["IpRanges"]] == ["10.0.0.0/16", "192.0.2.7/32"]
    ranges = [each["CidrIpv6"] for rule in rules for each in rule["Ipv6Ranges"]]
    assert ranges == ["2001:db8::/32", "2001:db8:1::9/128"]


def test_adapters_reach_each_other_and_nothing_else_comes_in_without_ssh(account: Account) -> None:
    more = {"ssm": True, "key_name": "", "efa": True}
    for run in (True, False):
        assert account.launch(("trn1.32xlarge", 1), **more)[0] is run
    (group,) = account.groups("neuronops-neuron-ssm-efa")
    (rule,) = group["IpPermissions"]
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]] and not rule["IpRanges"]
    assert [pair["GroupId"] for each in group["IpPermissionsEgress"] for pair in each["UserIdGroupPairs"]] == [
        group["GroupId"]
    ]
    account.launch(("inf2.xlarge", 1), ssm=True, key_name="")
    assert account.groups("neuronops-neuron-ssm")[0]["IpPermissions"] == []


def test_a_group_of_that_name_that_launch_did_not_make_is_left_alone(account: Account) -> None:
    account.ec2.create_security_group(GroupName="neuronops-neuron", Description="theirs", VpcId=account.vpc)
    with pytest.raises(fleet.FleetError, match="that launch did not make"):
        account.survey(account.options(("inf2.xlarge", 1)))


def test_what_the_account_does_not_have_is_named(account: Account) -> None:
    one = ("inf2.xlarge", 1)
    other = account.ec2.create_vpc(CidrBlock="10.61.0.0/16")["Vpc"]["VpcId"]
    elsewhere = account.ec2.create_subnet(VpcId=other, CidrBlock="10.61.0.0/24")["Subnet"]["SubnetId"]
    group = account.ec2.create_security_group(GroupName="theirs", Description="x", VpcId=other)["GroupId"]
    tiny = account.ec2.create_subnet(VpcId=account.vpc, CidrBlock="10.60.9.0/28")["Subnet"]["SubnetId"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"subnet_ids": ["subnet-0"]}, f"{REGION} has no subnet subnet-0.*is the region right"),
        ({"subnet_ids": [account.subnets[0], elsewhere]}, f"must be of one VPC.*{elsewhere} in {other}"),
        ({"key_name": "nobodys"}, f"{REGION} has no key pair nobodys"),
        (
            {"security_group_ids": [group]},
            f"{group} of {other}, and the subnet {account.subnets[0]} is of {account.vpc}",
        ),
        ({"security_group_ids": ["sg-0"]}, "has no security group sg-0"),
        ({"image_id": "ami-0"}, "has no image ami-0 of launch_image_id: it is gone"),
        ({"image_id": "", "image_name": "none-*"}, r"has no image none-\* of the account 099720109477"),
        ({"image_id": "", "image_ssm_parameter": "/none"}, "has no parameter /none.*get-parameters-by-path"),
    ]
    for more, said in cases:
        with pytest.raises(fleet.FleetError, match=said):
            account.survey(account.options(one, **more))
    with pytest.raises(fleet.FleetError, match=f"The subnet {tiny} has 11 free addresses, and 12 are needed"):
        account.survey(account.options(("inf2.xlarge", 12), subnet_ids=[tiny]))
    assert account.asked == []


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        ("VcpuLimitExceeded", "You have requested more vCPU capacity", "`Running On-Demand Trn instances`"),
        ("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded", "`All Trn Spot Instance Requests`"),
        ("InsufficientInstanceCapacity", "We do not have sufficient capacity", "subnet of another availability zone"),
        ("Unsupported", "Your requested instance type is not supported in your zone", "instance-type-offerings"),
        ("SpotMaxPriceTooLow", "Your price is too low", "Raise launch_spot_max_price"),
        ("ReservationCapacityExceeded", "Full", "fewer instances left"),
        ("InvalidPlacementGroup.Unknown", "The Placement Group is unknown", "launch_placement_group"),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "No", "create-service-linked-role"),
        ("UnauthorizedOperation", "You are not authorized to perform this operation.", "permission ec2:RunInstances."),
        (
            "UnauthorizedOperation",
            "You are not authorized to perform this operation. User: x is not authorized to perform: iam:PassRole on y",
            "permission iam:PassRole.",
        ),
    ],
)
def test_what_aws_refuses_is_told_with_what_to_try_and_what_runs_by_then(
    account: Account, code: str, message: str, said: str
) -> None:
    account.refuses(code, message, after=1)
    with pytest.raises(fleet.LaunchError) as refused:
        account.launch(("inf2.xlarge", 1), ("trn1.2xlarge", 1))
    assert message.rstrip(".") in str(refused.value) and said in f"{refused.value}."
    (launched,) = refused.value.launched
    told = fleet.told(refused.value.launched, "neuron", REGION)
    assert launched["instance_id"] in told and told.endswith(fleet.terminate_command("neuron", REGION))
    assert fleet.told([], "neuron", REGION) == "Nothing was launched."


@pytest.mark.parametrize("name", ["neuron", "chat", "my team", "its'", 'it\'s the "best" one'])
def test_the_command_that_terminates_names_the_fleet_and_the_region(name: str) -> None:
    command = shlex.split(fleet.terminate_command(name, REGION, some=True))
    assert command[:2] == ["ansible-playbook", "neuronops.vllm.terminate"] and command[2::2] == ["-e"] * 4
    assert command[3] == '{"terminate_instance_ids": [...]}'
    read = {key: text for pair in command[5::2] for key, text in parse_kv(pair).items()}
    assert read == {"terminate_fleet": name, "terminate_region": REGION, "terminate_confirm": name}
    plain = fleet.terminate_command("chat", REGION)
    assert plain.endswith(f" -e terminate_fleet=chat -e terminate_region={REGION} -e terminate_confirm=chat")


@pytest.mark.parametrize(
    ("operation", "after", "launched", "unsure"),
    [
        # The answer to the first batch is lost, that to the second, the wait for them, and nothing but the group.
        ("RunInstances", 0, 0, "1 inf2.xlarge in SUBNET were launched"),
        ("RunInstances", 1, 1, "1 trn1.2xlarge in SUBNET were launched"),
        ("DescribeInstances", 1, 2, ""),
        ("CreateSecurityGroup", 0, 0, ""),
    ],
)
def test_a_lost_connection_hides_no_instance(
    account: Account, operation: str, after: int, launched: int, unsure: str
) -> None:
    account.fails(ReadTimeoutError(endpoint_url="https://ec2.test"), operation, after)
    with pytest.raises(fleet.LaunchError, match="Read timeout on endpoint URL") as failed:
        account.launch(("inf2.xlarge", 1), ("trn1.2xlarge", 1))
    assert len(failed.value.launched) == launched
    assert failed.value.unsure == unsure.replace("SUBNET", account.subnets[0])
    told = fleet.told(failed.value.launched, "neuron", REGION, failed.value.unsure)
    assert ("Nothing was launched" in told) == (operation == "CreateSecurityGroup")
    assert ("It is not known whether" in told) == bool(unsure)
    assert told.count("i-") == launched


def test_a_server_that_fails_leaves_open_whether_it_launched(account: Account) -> None:
    account.refuses("InternalError", "An internal error has occurred")
    with pytest.raises(fleet.LaunchError) as failed:
        account.launch(("inf2.xlarge", 2), subnet_ids=account.subnets[:1])
    assert failed.value.unsure == f"2 inf2.xlarge in {account.subnets[0]} were launched"


def test_what_was_started_is_told_when_the_rest_is_refused(account: Account) -> None:
    _changed, made = account.launch(("inf2.xlarge", 1))
    account.ec2.stop_instances(InstanceIds=[made[0]["instance_id"]])
    account.refuses("VcpuLimitExceeded", "You have requested more vCPU capacity")
    with pytest.raises(fleet.LaunchError) as refused:
        account.launch(("inf2.xlarge", 2))
    assert [found["instance_id"] for found in refused.value.launched] == [made[0]["instance_id"]]


def test_each_call_that_launches_has_a_token_that_keeps_a_retry_from_launching_twice(account: Account) -> None:
    tokens: list[str] = []
    account._on("before-call.ec2.RunInstances", lambda params, **_: tokens.append(params["body"]["ClientToken"]))
    account.launch(("inf2.xlarge", 2))
    assert len(set(tokens)) == 2 and all(tokens)


def test_a_rehearsal_tells_what_aws_would_refuse(account: Account) -> None:
    account.refuses("UnauthorizedOperation", "You are not authorized to perform this operation.")
    wanted = account.options(("inf2.xlarge", 1))
    with pytest.raises(fleet.FleetError, match=r"the permission ec2:RunInstances.*launch-policy\.json"):
        fleet.rehearse(account.ec2, wanted, account.survey(wanted))


def test_an_instance_that_aws_takes_back_is_told_with_the_reason(account: Account) -> None:
    wanted = account.options(("inf2.xlarge", 1), security_group_ids=[account.default_group()])
    place = account.survey(wanted)
    ended = {"InstanceId": "i-1", "InstanceType": "inf2.xlarge", "State": {"Name": "terminated"}}
    reason = {"StateReason": {"Message": "Client.VolumeLimitExceeded: Volume limit exceeded"}}
    found = {"Reservations": [{"Instances": [{**ended, **reason}]}]}
    with Stubber(account.ec2) as stub, pytest.raises(fleet.LaunchError) as refused:
        stub.add_response("run_instances", {"Instances": [{**ended, "State": {"Name": "pending"}}]})
        stub.add_response("describe_instances", found)
        stub.add_response("describe_instances", found)
        fleet.launch(account.ec2, wanted, place)
    assert "i-1 is terminated: Client.VolumeLimitExceeded" in str(refused.value)
    assert [each["instance_id"] for each in refused.value.launched] == ["i-1"]


@pytest.mark.parametrize(
    ("wants_public", "public", "private", "ipv6", "address"),
    [
        (False, "198.51.100.7", "10.0.0.7", "", "10.0.0.7"),
        (True, "198.51.100.7", "10.0.0.7", "", "198.51.100.7"),
        # Launched before launch_public_address was set.
        (True, "", "10.0.0.7", "2001:db8::7", "10.0.0.7"),
        (True, "", "", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_the_address_that_is_waited_for_is_the_one_in_the_message(
    wants_public: bool, public: str, private: str, ipv6: str, address: str
) -> None:
    tasks = DataLoader().load_from_file(str(ROLES / "fleet" / "tasks" / "launch.yml"), **TRUSTED)
    (task,) = (each for each in tasks if "ansible.builtin.wait_for" in each)
    item = {"public_ip_address": public, "private_ip_address": private, "ipv6_address": ipv6}
    known = {
        **task.get("vars", {}),
        **task["ansible.builtin.wait_for"],
        "__fleet_given": {"options": {"public_address": wants_public}},
        "item": {"instance_id": "i-1", "instance_type": "inf2.xlarge", **item},
    }
    assert value("host", known) == address
    assert f"on port 22 of {address}. Is this machine" in value("msg", known)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Unable to locate credentials", "aws sts get-caller-identity"),
        ("The config profile (nobody) could not be found", "aws configure list-profiles"),
        ('Could not connect to the endpoint URL: "https://ec2.eu-nowhere-1.amazonaws.com/"', "Is the region right"),
        (
            "An error occurred (AccessDeniedException) when calling the GetParameter operation: No",
            "/aws/service/ alone: the ARN of a parameter of your own",
        ),
        ("An error occurred (RequestExpired) when calling the DescribeSubnets operation: x", "aws sso login"),
    ],
)
def test_what_botocore_says_is_explained(text: str, said: str) -> None:
    assert said in aws.explained(text)


def test_the_result_of_a_loop_is_explained_by_the_item_that_failed() -> None:
    denied = "Failed: An error occurred (UnauthorizedOperation) when calling the DeleteSecurityGroup operation: no"
    result = {"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": denied}]}
    assert "permission ec2:DeleteSecurityGroup" in aws_explained.aws_explained(result)
    assert aws_explained.aws_explained({"msg": "Our own sentence."}) == "Our own sentence."
