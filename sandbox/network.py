# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker network that stands in for the VPC's subnet."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess

from sandbox.engine import docker
from sandbox.settings import SandboxError, Settings


def _docker_networks() -> dict[str, list[ipaddress.IPv4Network]]:
    names = docker("network", "ls", "--quiet").split()
    found: dict[str, list[ipaddress.IPv4Network]] = {}
    for network in json.loads(docker("network", "inspect", *names)):
        configs = (network.get("IPAM") or {}).get("Config") or []
        found[network["Name"]] = [
            ipaddress.IPv4Network(config["Subnet"]) for config in configs if "." in config.get("Subnet", "")
        ]
    return found


def _routes() -> dict[str, ipaddress.IPv4Network]:
    """The machine's own networks, by interface; a default route is everybody's and counts for nothing here."""
    if not shutil.which("ip"):
        return {}
    done = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=False)
    routes = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []
    return {f"{route.get('dev')}": ipaddress.IPv4Network(route["dst"]) for route in routes if "/" in route["dst"]}


def overlap(
    settings: Settings,
    networks: dict[str, list[ipaddress.IPv4Network]],
    routes: dict[str, ipaddress.IPv4Network],
) -> str | None:
    """Name what already uses the sandbox's addresses, or None."""
    for name, subnets in networks.items():
        for subnet in subnets:
            if name != settings.name and subnet.overlaps(settings.subnet):
                return f"the Docker network {name} ({subnet})"
    known = {subnet for subnets in networks.values() for subnet in subnets}
    for interface, subnet in routes.items():
        if subnet not in known and subnet.overlaps(settings.subnet):
            return f"the network {subnet} on this machine's {interface}"
    return None


def ensure(settings: Settings) -> None:
    networks = _docker_networks()
    if settings.name in networks:
        if networks[settings.name] != [settings.subnet]:
            raise SandboxError(
                f"A Docker network {settings.name} exists with other addresses than {settings.subnet}. "
                "Remove that sandbox (`python -m sandbox down`) or set NEURONOPS_SANDBOX_NAME to another name."
            )
        return
    taken = overlap(settings, networks, _routes())
    if taken:
        raise SandboxError(
            f"The sandbox's subnet {settings.subnet} overlaps {taken}. "
            "Set NEURONOPS_SANDBOX_SUBNET to a free private network, for example 10.204.0.0/24."
        )
    # EC2 gives out addresses from the lower half; Docker, for containers that are not on EC2, from the upper one.
    upper = list(settings.subnet.subnets(prefixlen_diff=1))[1]
    docker(
        "network", "create", "--driver", "bridge", "--label", f"neuronops.sandbox={settings.name}",
        "--subnet", str(settings.subnet), "--gateway", settings.gateway, "--ip-range", str(upper), settings.name,
    )  # fmt: skip


def remove(settings: Settings) -> None:
    if settings.name in _docker_networks():
        docker("network", "rm", settings.name)
