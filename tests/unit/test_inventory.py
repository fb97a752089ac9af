# SPDX-License-Identifier: GPL-3.0-or-later
"""The example inventory reaches every kind of instance; moto makes none of IPv6 alone, so its expression is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.template
import pytest
import yaml

from tests.unit.role_variables import value

CHECKOUT = Path(__file__).resolve().parents[2]
INVENTORY = yaml.safe_load((CHECKOUT / "inventories" / "aws_ec2.yml").read_text(encoding="utf-8"))
PRIVATE = {"ec2_private_ip_address": "10.0.0.4"}
PUBLIC = {"ec2_public_ip_address": "192.0.2.4"}
IPV6 = {"ec2_ipv6_address": "2001:db8::4"}
INTERFACES = {"ec2_network_interfaces": [{"mac": "x"}, {"ipv6_addresses": [{"ipv6_address": "2001:db8::5"}]}]}
OUTSIDE = {"neuron_connect_to": "public"}


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({**PRIVATE, **PUBLIC, **IPV6}, "10.0.0.4"),
        ({**PRIVATE, **PUBLIC, **OUTSIDE}, "192.0.2.4"),
        ({**PRIVATE, **OUTSIDE}, "10.0.0.4"),
        (IPV6, "2001:db8::4"),
        (INTERFACES, "2001:db8::5"),
        ({**INTERFACES, **OUTSIDE}, "2001:db8::5"),
    ],
)
def test_a_host_is_reached_by_the_address_that_it_has(variables: dict[str, Any], address: str) -> None:
    # Since ansible-core 2.19 a text is only templated where this is said, as the inventory plugin does.
    trusted = getattr(ansible.template, "trust_as_template", str)
    expression = trusted("{{ " + INVENTORY["compose"]["ansible_host"] + " }}")
    assert value("host", {**variables, "host": expression}) == address


def test_the_fleet_to_launch_and_the_static_inventory_say_what_launch_and_site_read() -> None:
    from ansible_collections.neuronops.vllm.plugins.plugin_utils import options

    given = yaml.safe_load((CHECKOUT / "inventories" / "fleet.yml").read_text(encoding="utf-8"))
    assert options.converted("launch", given, given.__getitem__)[1] == [] == options.unknown("launch", given)
    static = yaml.safe_load((CHECKOUT / "inventories" / "static.yml").read_text(encoding="utf-8"))
    assert list(static) == [options.specification("site")["neuron_hosts"]["default"]]
