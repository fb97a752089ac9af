# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which instances of a fleet are missing and where they go, and launch them.

amazon.aws.ec2_instance knows neither Spot, nor Capacity Blocks, nor EFA interfaces, hence this, over boto3.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.neuronops.vllm.plugins.plugin_utils import aws

MADE_BY = "neuronops.vllm.launch"
SMALLEST_DISK = 512  # GiB
THERE = ["pending", "running", "stopping", "stopped"]
# With these EC2 answers that it failed, and not that it refuses: what was asked for may be done all the same.
UNSURE = ("InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable")


class FleetError(ValueError):
    """What cannot be launched as it is asked for; the message names the option. Nothing was launched."""


class LaunchError(FleetError):
    """It ended in the middle; `launched` is what runs by then, and `unsure` what was asked for without an answer."""

    def __init__(self, message: str, launched: Sequence[Mapping[str, Any]], unsure: str = "") -> None:
        super().__init__(message)
        self.launched = list(launched)
        self.unsure = unsure


@dataclass
class Place:
    """What the account has, and where the fleet goes."""

    subnets: list[Mapping[str, Any]]
    image: Mapping[str, Any]
    there: list[dict[str, Any]]
    interfaces: Mapping[str, int]
    # Spot, the market of a Capacity Block, or none.
    market: Mapping[str, Any] = field(default_factory=dict)
    networks: list[str] = field(default_factory=list)

    @property
    def vpc(self) -> str:
        return str(self.subnets[0]["VpcId"])


def subnet_ids(options: Mapping[str, Any]) -> list[str]:
    """Return the subnets in the order in which they were named, each once."""
    return list(dict.fromkeys([*filter(None, [options["subnet_id"]]), *options["subnet_ids"]]))


def networks(texts: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return each network once, as EC2 writes it too whatever the text was, or raise ValueError where one is none."""
    return list(dict.fromkeys(ipaddress.ip_network(text, strict=False) for text in texts))


def _world(texts: Iterable[str]) -> bool | None:
    """Return whether networks, side by side, are a large part of the internet; None where one is no network."""
    try:
        known = networks(texts)
    except ValueError:
        return None
    v4 = ipaddress.collapse_addresses(each for each in known if isinstance(each, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(each for each in known if isinstance(each, ipaddress.IPv6Network))
    # No organisation has more than a /8 in one piece, or of IPv6 a /16.
    return any(each.prefixlen < 8 for each in v4) or any(each.prefixlen < 16 for each in v6)


def problems(options: Mapping[str, Any], stack: Mapping[str, Any]) -> list[str]:
    """Say what of the options of `launch` cannot be meant; AWS is asked nothing."""
    types = [group["instance_type"] for group in options["groups"]]
    families = list(dict.fromkeys(name.partition(".")[0] for name in types))
    wanted = [group["instance_type"] for group in options["groups"] if group["count"] > 0]
    world = _world(options["ssh_cidrs"])
    reservation, spot = options["capacity_reservation_id"], options["spot"]
    checks = (
        (not types, "launch_groups is empty. Name at least one instance type and how many of it."),
        (
            len(set(types)) != len(types),
            "launch_groups names an instance type twice. Give each type once, with the whole number.",
        ),
        (any(group["count"] < 0 for group in options["groups"]), "launch_groups has a negative count."),
        (
            not subnet_ids(options),
            "launch_subnet_ids is required, and is not set. `aws ec2 describe-subnets` lists them.",
        ),
        (
            options["root_volume_size"] < SMALLEST_DISK,
            f"launch_root_volume_size is {options['root_volume_size']} GiB. Environments with torch, their "
            f"predecessors and compiled models need at least {SMALLEST_DISK}.",
        ),
        (
            world is None,
            f"launch_ssh_cidrs is {', '.join(options['ssh_cidrs'])}, and should be networks such as 10.0.0.0/16.",
        ),
        (
            bool(world) and not options["ssh_from_everywhere"],
            f"launch_ssh_cidrs is {', '.join(options['ssh_cidrs'])}, which lets the whole world try to log in. Name "
            "your networks, or say that it is meant with launch_ssh_from_everywhere=true.",
        ),
        (
            not options["key_name"] and not options["ssm"],
            "launch_key_name is required, and is not set: the name of an EC2 key pair of yours, for SSH. Without SSH: "
            "launch_ssm=true.",
        ),
        (
            options["ssm"] and not options["instance_profile"],
            "launch_ssm needs launch_instance_profile, an instance profile that lets the host report to Systems "
            "Manager, as docs/iam/host-policy.json does.",
        ),
        (
            options["ssm"] and bool(options["ssh_cidrs"]),
            "launch_ssm opens no port, and launch_ssh_cidrs names networks that may use SSH. Leave out one of them.",
        ),
        (
            spot and bool(reservation),
            "launch_spot and launch_capacity_reservation_id exclude each other. Leave out one.",
        ),
        (
            bool(options["spot_max_price"]) and not spot,
            "launch_spot_max_price is the most that a Spot instance may cost, and launch_spot is not set.",
        ),
        (
            bool(reservation) and len(wanted) > 1,
            "launch_capacity_reservation_id is of one instance type, and launch_groups names several. Run launch once "
            "for each, with the groups of that reservation alone: a group that is left out is left alone.",
        ),
        (
            options["efa"] and options["public_address"],
            "launch_efa and launch_public_address exclude each other: EC2 gives no public address to an instance that "
            "is launched with several network interfaces.",
        ),
        (
            bool(set(families) - set(stack["instance_families"])),
            f"The stack {stack['name']} drives {', '.join(stack['instance_families'])}; launch_groups asks for "
            f"{', '.join(families)}. Choose other types, or another neuron_stack: docs/versions.md says which is for "
            "which.",
        ),
    )
    return [sentence for wrong, sentence in checks if wrong]


def spread(count: int, subnets: Sequence[str], there: Mapping[str, int]) -> dict[str, int]:
    """Return how many more of a type go into each subnet: round robin, those that have the fewest first."""
    now = {subnet: there.get(subnet, 0) for subnet in subnets}
    more = dict.fromkeys(subnets, 0)
    for _number in range(max(0, count - sum(there.values()))):
        subnet = min(now, key=lambda name: now[name])  # the first named, among equals
        now[subnet] += 1
        more[subnet] += 1
    return {subnet: number for subnet, number in more.items() if number}


def fleet_filters(fleet: str) -> list[dict[str, Any]]:
    """Return the filters of EC2 that find what launch made for a fleet."""
    return [
        {"Name": "tag:neuronops:fleet", "Values": [fleet]},
        {"Name": "tag:neuronops:made-by", "Values": [MADE_BY]},
    ]


def shown(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the playbook needs to know of an instance."""
    return {
        "instance_id": instance["InstanceId"],
        "instance_type": instance["InstanceType"],
        "subnet_id": instance.get("SubnetId", ""),
        "availability_zone": instance.get("Placement", {}).get("AvailabilityZone", ""),
        "private_ip_address": instance.get("PrivateIpAddress", ""),
        "public_ip_address": instance.get("PublicIpAddress", ""),
        "ipv6_address": _ipv6(instance),
        "state": instance["State"]["Name"],
        "reason": instance.get("StateReason", {}).get("Message", ""),
    }


def _ipv6(instance: Mapping[str, Any]) -> str:
    addresses = [
        address["Ipv6Address"]
        for interface in instance.get("NetworkInterfaces", [])
        for address in interface.get("Ipv6Addresses", [])
    ]
    return str(instance.get("Ipv6Address") or next(iter(addresses), ""))


def instances(ec2: Any, **query: Any) -> list[dict[str, Any]]:
    """Return the instances that EC2 finds, page by page."""
    pages = ec2.get_paginator("describe_instances").paginate(**query)
    return [shown(found) for page in pages for each in page["Reservations"] for found in each["Instances"]]


def survey(ec2: Any, ssm: Any, options: Mapping[str, Any], stack: Mapping[str, Any], region: str) -> Place:
    """Return where the fleet goes, or raise FleetError for what the account does not have. Everything is only read."""
    subnets = _subnets(ec2, subnet_ids(options), region)
    if options["key_name"]:
        pairs = ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [options["key_name"]]}])["KeyPairs"]
        if not pairs:
            raise FleetError(
                f"{region} has no key pair {options['key_name']}, which launch_key_name names. `aws ec2 "
                "describe-key-pairs` lists them, and `aws ec2 import-key-pair` brings yours"
            )
    _check_groups(ec2, options, subnets, region)
    if options["placement_group"] and len({subnet["AvailabilityZone"] for subnet in subnets}) > 1:
        raise FleetError(
            "launch_placement_group keeps instances side by side in one availability zone, and launch_subnet_ids names "
            f"several: {', '.join(subnet['AvailabilityZone'] for subnet in subnets)}. Name subnets of one zone"
        )
    there = instances(ec2, Filters=[*fleet_filters(options["fleet"]), {"Name": "instance-state-name", "Values": THERE}])
    place = Place(
        subnets=subnets,
        image=_image(ec2, ssm, options, stack, region),
        there=there,
        interfaces=_interfaces(ec2, options) if options["efa"] else {},
        networks=_networks(ec2, subnets[0]["VpcId"]),
    )
    _check_counts(options, there, region)
    if options["capacity_reservation_id"]:
        place.market = _reservation(ec2, options, place)
    elif options["spot"]:
        price = {"MaxPrice": options["spot_max_price"]} if options["spot_max_price"] else {}
        place.market = {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time", **price}}
    _check_addresses(options, place)
    return place


def _subnets(ec2: Any, wanted: Sequence[str], region: str) -> list[Mapping[str, Any]]:
    found = {
        subnet["SubnetId"]: subnet
        for subnet in ec2.describe_subnets(Filters=[{"Name": "subnet-id", "Values": list(wanted)}])["Subnets"]
    }
    missing = [name for name in wanted if name not in found]
    if missing:
        raise FleetError(
            f"{region} has no subnet {', '.join(missing)}, which launch_subnet_ids names. `aws ec2 describe-subnets "
            f"--region {region}` lists them; is the region right?"
        )
    vpcs = {name: found[name]["VpcId"] for name in wanted}
    if len(set(vpcs.values())) > 1:
        where = ", ".join(f"{name} in {vpc}" for name, vpc in vpcs.items())
        raise FleetError(f"launch_subnet_ids must be of one VPC, and are {where}")
    return [found[name] for name in wanted]


def group_name(options: Mapping[str, Any]) -> str:
    """Return the name of the fleet's own group; without SSH it is another, in which no rule stays from before."""
    return f"neuronops-{options['fleet']}{'-ssm' if options['ssm'] else ''}{'-efa' if options['efa'] else ''}"


def _own_group(ec2: Any, options: Mapping[str, Any], vpc: str) -> Mapping[str, Any] | None:
    """Return the fleet's own group where it is there; one of that name that launch did not make is refused."""
    name = group_name(options)
    filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    if not found:
        return None
    if {"Key": "neuronops:made-by", "Value": MADE_BY} not in found[0].get("Tags", []):
        raise FleetError(
            f"{vpc} has a security group {name} that launch did not make ({found[0]['GroupId']}). Name it in "
            "launch_security_group_ids if it is meant, or choose another launch_fleet"
        )
    return dict(found[0])


def _check_groups(ec2: Any, options: Mapping[str, Any], subnets: Sequence[Mapping[str, Any]], region: str) -> None:
    wanted = list(options["security_group_ids"])
    if not wanted:
        _own_group(ec2, options, subnets[0]["VpcId"])
        return
    found = ec2.describe_security_groups(Filters=[{"Name": "group-id", "Values": wanted}])["SecurityGroups"]
    vpcs = {group["GroupId"]: group["VpcId"] for group in found}
    missing = [name for name in wanted if name not in vpcs]
    if missing:
        raise FleetError(f"{region} has no security group {', '.join(missing)}, which launch_security_group_ids names")
    others = {name: vpc for name, vpc in vpcs.items() if vpc != subnets[0]["VpcId"]}
    if others:
        where = ", ".join(f"{name} of {vpc}" for name, vpc in others.items())
        raise FleetError(
            f"launch_security_group_ids holds {where}, and the subnet {subnets[0]['SubnetId']} is of "
            f"{subnets[0]['VpcId']}. Name groups of that VPC, or none, and one is made"
        )


def _ssh(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Return the rules that let networks use SSH, as EC2 wants them."""
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    return [
        {**rule, "Ipv6Ranges": [{"CidrIpv6": str(network), "Description": "SSH"}]}
        if network.version == 6
        else {**rule, "IpRanges": [{"CidrIp": str(network), "Description": "SSH"}]}
        for network in networks(texts)
    ]


def _covers(there: Sequence[Mapping[str, Any]], rule: Mapping[str, Any]) -> bool:
    """Tell whether a group has a rule already."""
    names = {"IpRanges": "CidrIp", "Ipv6Ranges": "CidrIpv6", "UserIdGroupPairs": "GroupId"}
    same = [
        each for each in there if all(each.get(key) == rule.get(key) for key in ("IpProtocol", "FromPort", "ToPort"))
    ]
    return any(
        entry[name] in [found[name] for each in same for found in each.get(kind, [])]
        for kind, name in names.items()
        for entry in rule.get(kind, [])
    )


def _missing_rules(
    options: Mapping[str, Any], place: Place, group: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rules (in, out) that the fleet's own group lacks; those that others added to it stay."""
    # Elastic Fabric Adapters of a group reach each other only where the group lets itself in and out.
    own = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"], "Description": "EFA"}]}]
    adapters = own if options["efa"] else []
    ssh = [] if options["ssm"] else _ssh(options["ssh_cidrs"] or place.networks)
    return (
        [rule for rule in ssh + adapters if not _covers(group["IpPermissions"], rule)],
        [rule for rule in adapters if not _covers(group["IpPermissionsEgress"], rule)],
    )


def ensure_groups(ec2: Any, options: Mapping[str, Any], place: Place) -> tuple[bool, list[str]]:
    """Return (whether anything was changed, the security groups): the user's, or the fleet's own with what it lets in.

    Tags that others added to it stay.
    """
    if options["security_group_ids"]:
        return False, list(options["security_group_ids"])
    there = found = _own_group(ec2, options, place.vpc)
    if not found:
        way = "No way in to" if options["ssm"] else "SSH to"
        made = ec2.create_security_group(
            GroupName=group_name(options),
            Description=f"{way} the Neuron hosts of the fleet {options['fleet']}",
            VpcId=place.vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": _tags(options)}],
        )["GroupId"]
        ec2.get_waiter("security_group_exists").wait(GroupIds=[made])
        found = dict(ec2.describe_security_groups(GroupIds=[made])["SecurityGroups"][0])
    identity = found["GroupId"]
    ingress, egress = _missing_rules(options, place, found)
    if ingress:
        ec2.authorize_security_group_ingress(GroupId=identity, IpPermissions=ingress)
    if egress:
        ec2.authorize_security_group_egress(GroupId=identity, IpPermissions=egress)
    return bool(not there or ingress or egress), [identity]


def _groups_change(ec2: Any, options: Mapping[str, Any], place: Place) -> bool:
    """Tell whether ensure_groups would change anything."""
    if options["security_group_ids"]:
        return False
    found = _own_group(ec2, options, place.vpc)
    return not found or any(_missing_rules(options, place, found))


def _tags(options: Mapping[str, Any], **more: str) -> list[dict[str, str]]:
    tags = {**options["tags"], **more, "neuronops:fleet": options["fleet"], "neuronops:made-by": MADE_BY}
    return [{"Key": name, "Value": str(value)} for name, value in tags.items()]


def _image(ec2: Any, ssm: Any, options: Mapping[str, Any], stack: Mapping[str, Any], region: str) -> Mapping[str, Any]:
    name = options["image_name"] or stack["ubuntu_image"]
    identity, source = options["image_id"], "launch_image_id"
    if not identity and options["image_ssm_parameter"]:
        source = f"launch_image_ssm_parameter {options['image_ssm_parameter']}"
        try:
            identity = ssm.get_parameter(Name=options["image_ssm_parameter"])["Parameter"]["Value"]
        except ssm.exceptions.ParameterNotFound as error:
            raise FleetError(
                f"{region} has no parameter {options['image_ssm_parameter']}, which launch_image_ssm_parameter names. "
                f"{aws.advice(str(error))}"
            ) from error
    if identity:
        query: dict[str, Any] = {"Filters": [{"Name": "image-id", "Values": [identity]}], "IncludeDeprecated": True}
        what = f"{identity} of {source}"
    else:
        filters = {"name": name, "architecture": "x86_64", "state": "available"}
        query = {
            "Owners": [options["image_owner"]],
            "Filters": [{"Name": k, "Values": [v]} for k, v in filters.items()],
        }
        what = f"{name} of the account {options['image_owner']}"
    images = sorted(ec2.describe_images(**query)["Images"], key=lambda image: str(image["CreationDate"]))
    if not images:
        raise FleetError(
            f"{region} has no image {what}: it is gone, of another region, or not shared with this account. Name "
            "another one in launch_image_id, launch_image_ssm_parameter or launch_image_name; without them it is "
            "Ubuntu's, as the stack names it. `aws ec2 describe-images` shows what there is"
        )
    return dict(images[-1])


def _interfaces(ec2: Any, options: Mapping[str, Any]) -> dict[str, int]:
    """Return how many EFA interfaces each type has, as EC2 says: 8 of trn1.32xlarge, 16 of trn2.48xlarge."""
    types = [group["instance_type"] for group in options["groups"] if group["count"] > 0]
    found = ec2.describe_instance_types(InstanceTypes=types)["InstanceTypes"] if types else []
    cards = {
        each["InstanceType"]: int(each["NetworkInfo"].get("EfaInfo", {}).get("MaximumEfaInterfaces", 0))
        for each in found
    }
    without = [name for name in types if not cards.get(name)]
    if without:
        raise FleetError(
            f"launch_efa asks for Elastic Fabric Adapters, and {', '.join(without)} has none. Leave launch_efa out, or "
            "launch the types that have them, such as trn1.32xlarge, by themselves"
        )
    return cards


def _networks(ec2: Any, vpc: str) -> list[str]:
    """Return all networks of the VPC; the first one alone may not hold the subnet."""
    found = ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"][0]
    ipv4 = [
        each["CidrBlock"]
        for each in found.get("CidrBlockAssociationSet", [])
        if each.get("CidrBlockState", {}).get("State") == "associated"
    ]
    ipv6 = [
        each["Ipv6CidrBlock"]
        for each in found.get("Ipv6CidrBlockAssociationSet", [])
        if each.get("Ipv6CidrBlockState", {}).get("State") == "associated"
    ]
    return (ipv4 or [found["CidrBlock"]]) + ipv6


def terminate_command(fleet: str, region: str, some: bool = False) -> str:
    """Return what to type to terminate a fleet, or some instances of it, whatever its name and the region."""
    given = {"terminate_fleet": fleet, "terminate_region": region, "terminate_confirm": fleet}
    # Ansible divides the text of -e at spaces that are not in quotes.
    pairs = [
        f"{name}={text if shlex.quote(text) == text else json.dumps(text, ensure_ascii=False)}"
        for name, text in given.items()
    ]
    ids = ['{"terminate_instance_ids": [...]}'] if some else []
    return " ".join(["ansible-playbook neuronops.vllm.terminate", *(f"-e {shlex.quote(each)}" for each in ids + pairs)])


def _check_counts(options: Mapping[str, Any], there: Iterable[Mapping[str, Any]], region: str) -> None:
    for group in options["groups"]:
        ids = [found["instance_id"] for found in there if found["instance_type"] == group["instance_type"]]
        if len(ids) > group["count"]:
            raise FleetError(
                f"The fleet {options['fleet']} has {len(ids)} {group['instance_type']}, more than the {group['count']} "
                "asked for, and nobody but you knows which may go. Terminate those first: "
                f"{terminate_command(options['fleet'], region, some=True)}. There are {', '.join(ids)}"
            )


def _reservation(ec2: Any, options: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    """Check that the reservation is for what is missing, and return its market: that of a Capacity Block, or none."""
    name = options["capacity_reservation_id"]
    found = ec2.describe_capacity_reservations(CapacityReservationIds=[name])["CapacityReservations"][0]
    missing = [batch for batch in batches(options, place) if batch[2]]
    if not missing:
        return {}
    kind = missing[0][0]
    zones = {each["SubnetId"]: each["AvailabilityZone"] for each in place.subnets}
    elsewhere = [f"{each} in {zone}" for each, zone in zones.items() if zone != found["AvailabilityZone"]]
    number = sum(count for _kind, _subnet, count in missing)
    if found["State"] != "active":
        raise FleetError(
            f"The reservation {name} is {found['State']}, and should be active"
            + (f"; it begins {found['StartDate']:%Y-%m-%d %H:%M} UTC" if found.get("StartDate") else "")
        )
    if found["InstanceType"] != kind:
        raise FleetError(f"The reservation {name} is of {found['InstanceType']}, and launch_groups asks for {kind}")
    if elsewhere:
        raise FleetError(
            f"The reservation {name} is in {found['AvailabilityZone']}, and launch_subnet_ids has "
            f"{', '.join(elsewhere)}. Name subnets of its zone alone"
        )
    if found["AvailableInstanceCount"] < number:
        raise FleetError(
            f"The reservation {name} has {found['AvailableInstanceCount']} instances left, and {number} are missing"
        )
    return {"MarketType": "capacity-block"} if found.get("ReservationType") == "capacity-block" else {}


def _check_addresses(options: Mapping[str, Any], place: Place) -> None:
    needed: Counter[str] = Counter()
    for kind, subnet, count in batches(options, place):
        needed[subnet] += count * max(1, place.interfaces.get(kind, 1))
    for each in place.subnets:
        free, name = each.get("AvailableIpAddressCount", 0), each["SubnetId"]
        if not each.get("Ipv6Native") and needed[name] > free:
            raise FleetError(
                f"The subnet {name} has {free} free addresses, and {needed[name]} are "
                "needed. Name another subnet in launch_subnet_ids, or a larger one"
            )


def batches(options: Mapping[str, Any], place: Place) -> list[tuple[str, str, int]]:
    """Return what is missing: (instance type, subnet, how many)."""
    names = [str(subnet["SubnetId"]) for subnet in place.subnets]
    missing = []
    for group in options["groups"]:
        kind = group["instance_type"]
        there = Counter(found["subnet_id"] for found in place.there if found["instance_type"] == kind)
        missing += [(kind, subnet, count) for subnet, count in spread(group["count"], names, there).items()]
    return missing


def request(
    options: Mapping[str, Any], place: Place, batch: tuple[str, str, int], group_ids: Sequence[str]
) -> dict[str, Any]:
    """Return what RunInstances is asked for."""
    kind, subnet_id, count = batch
    subnet = next(each for each in place.subnets if each["SubnetId"] == subnet_id)
    ipv6_only = bool(subnet.get("Ipv6Native"))
    profile = options["instance_profile"]
    optional = {
        "KeyName": options["key_name"],
        "IamInstanceProfile": {"Arn" if profile.startswith("arn:") else "Name": profile} if profile else {},
        "InstanceMarketOptions": place.market,
        "Placement": {"GroupName": options["placement_group"]} if options["placement_group"] else {},
        "CapacityReservationSpecification": {
            "CapacityReservationTarget": {"CapacityReservationId": options["capacity_reservation_id"]}
        }
        if options["capacity_reservation_id"]
        else {},
    }
    disk = {
        "VolumeType": "gp3",
        "VolumeSize": options["root_volume_size"],
        "Encrypted": True,
        "DeleteOnTermination": True,
        **({"KmsKeyId": options["root_volume_kms_key_id"]} if options["root_volume_kms_key_id"] else {}),
    }
    shared = {"SubnetId": subnet_id, "DeleteOnTermination": True, **({"Groups": list(group_ids)} if group_ids else {})}
    if place.interfaces.get(kind):
        # Network card 0 has the primary interface; on each other card the interface is that card's second device.
        interfaces = [
            {**shared, "InterfaceType": "efa", "NetworkCardIndex": card, "DeviceIndex": min(card, 1)}
            for card in range(place.interfaces[kind])
        ]
    else:
        public = {} if ipv6_only else {"AssociatePublicIpAddress": options["public_address"]}
        interfaces = [{**shared, "DeviceIndex": 0, **public}]
    if ipv6_only:
        interfaces[0]["Ipv6AddressCount"] = 1
    return {
        "ImageId": place.image["ImageId"],
        "InstanceType": kind,
        "MinCount": count,
        "MaxCount": count,
        "NetworkInterfaces": interfaces,
        "BlockDeviceMappings": [{"DeviceName": place.image["RootDeviceName"], "Ebs": disk}],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            **({"HttpProtocolIpv6": "enabled"} if ipv6_only else {}),
        },
        "TagSpecifications": [
            {"ResourceType": what, "Tags": _tags(options, Name=f"{options['fleet']}-{kind}")}
            for what in ("instance", "volume")
        ],
        **{name: value for name, value in optional.items() if value},
    }


def _own(options: Mapping[str, Any], place: Place) -> list[dict[str, Any]]:
    """Return those instances that are there and of the groups; the others are left alone."""
    kinds = {group["instance_type"] for group in options["groups"] if group["count"] > 0}
    return [found for found in place.there if found["instance_type"] in kinds]


def _stopped(own: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [found for found in own if found["state"] in ("stopping", "stopped")]


def rehearse(ec2: Any, options: Mapping[str, Any], place: Place) -> tuple[bool, list[dict[str, Any]]]:
    """Ask AWS whether it would launch what is missing, which costs nothing; return what launch() would.

    What would be launched has no ID yet, and is not among the instances.
    """
    missing, own = batches(options, place), _own(options, place)
    for batch in missing:
        try:
            ec2.run_instances(**request(options, place, batch, options["security_group_ids"]), DryRun=True)
        except ec2.exceptions.ClientError as error:
            if aws.code(str(error)) != "DryRunOperation":
                raise FleetError(aws.explained(str(error), batch[0])) from error
    return bool(missing or _stopped(own) or _groups_change(ec2, options, place)), own


def launch(ec2: Any, options: Mapping[str, Any], place: Place) -> tuple[bool, list[dict[str, Any]]]:
    """Start and launch what is missing, and return (whether anything changed, all instances of the groups)."""
    from botocore.exceptions import BotoCoreError

    own = _own(options, place)
    launched: list[dict[str, Any]] = []
    kind = unsure = ""
    try:
        grouped, group_ids = ensure_groups(ec2, options, place)
        stopped = _stopped(own)
        if stopped:
            ids = [found["instance_id"] for found in stopped]
            ec2.get_waiter("instance_stopped").wait(InstanceIds=ids)
            unsure = f"{', '.join(ids)} started"
            ec2.start_instances(InstanceIds=ids)
            launched, unsure = [*stopped], ""
        for batch in batches(options, place):
            kind, subnet, count = batch
            unsure = f"{count} {kind} in {subnet} were launched"
            # botocore gives each call a ClientToken, so that its own retries launch nothing twice.
            made = ec2.run_instances(**request(options, place, batch, group_ids))
            launched, unsure = [*launched, *(shown(found) for found in made["Instances"])], ""
        ids = list(dict.fromkeys(found["instance_id"] for found in [*own, *launched]))
        return bool(grouped or launched), _running(ec2, ids) if ids else []
    except ec2.exceptions.ClientError as error:
        unsure = unsure if aws.code(str(error)) in UNSURE else ""
        raise LaunchError(aws.explained(str(error), kind), launched, unsure) from error
    except BotoCoreError as error:
        raise LaunchError(aws.explained(str(error)), launched, unsure) from error
    except FleetError as error:
        raise LaunchError(str(error), launched) from error


def _running(ec2: Any, ids: list[str]) -> list[dict[str, Any]]:
    """Wait until the instances run, and return them; what AWS took back at once is told with its reason."""
    from botocore.exceptions import WaiterError

    try:
        ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 5, "MaxAttempts": 120})
    except WaiterError as error:
        ended = [found for found in instances(ec2, InstanceIds=ids) if found["state"] != "running"]
        why = "; ".join(f"{found['instance_id']} is {found['state']}: {found['reason'] or error}" for found in ended)
        raise FleetError(f"Not all instances run. {why or error}") from error
    return instances(ec2, InstanceIds=ids)


def told(launched: Sequence[Mapping[str, Any]], fleet: str, region: str, unsure: str = "") -> str:
    """Say what was launched before something failed, and of what that is not known."""
    if not launched and not unsure:
        return "Nothing was launched."
    names = ", ".join(f"{found['instance_id']} ({found['instance_type']})" for found in launched)
    said = [f"Launched or started before that, and paid for: {names}."] if launched else []
    if unsure:
        said.append(f"It is not known whether {unsure}: the answer was lost. The next run finds them by their tags.")
    said.append(
        "Run launch again, which adds what is missing, or terminate the whole fleet: "
        f"{terminate_command(fleet, region)}"
    )
    return " ".join(said)
