# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of the light stack behind the stand-in for EC2, and what a test asks of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from sandbox import ec2
from sandbox.fleet import CHECKOUT, Fleet, plain
from sandbox.settings import Settings

LOG = CHECKOUT / ".build" / "logs" / "bake.log"
SERVES = ["curl", "-sf", "--retry", "20", "--retry-connrefused", "http://127.0.0.1:8000/v1/models"]
KEPT = ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/home/ubuntu/.ssh/authorized_keys")


class Account(Fleet):
    """A fleet of one host, and the images that were made."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        LOG.parent.mkdir(parents=True, exist_ok=True)
        LOG.write_text("", encoding="utf-8")
        super().__init__(settings, LOG, lambda _: None)
        state = ec2.read(settings) or {}
        self.ec2 = ec2.client(state["endpoint"])
        self.folder, self.runs = folder, 0
        launch = {"subnet_id": state["subnet_id"], "key_name": state["key_name"]}
        launch |= {"groups": [{"instance_type": "inf2.xlarge", "count": 1}]}
        self.variables: dict[str, Any] = {
            **yaml.safe_load(settings.variables_file.read_text()),
            **yaml.safe_load((CHECKOUT / "sandbox" / "light.yml").read_text()),
            **{f"launch_{name}": value for name, value in launch.items()},
            "neuron_stack": "light-1",
            "neuron_state": str(folder / "state"),
        }

    def run(self, playbook: str, *arguments: str, **more: Any) -> dict[str, dict[str, int]]:
        self.runs += 1
        file = self.folder / f"variables-{self.runs}.yml"
        file.write_text(json.dumps({**self.variables, **more}))
        return self.playbook(f"{playbook}.yml", file, *arguments)

    def host(self) -> tuple[str, str]:
        """The instance's id and address."""
        ((name, variables),) = self.inventory().items()
        return name, plain(variables["ansible_host"])

    def images(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ec2.describe_images(Owners=["self"])["Images"]
        return found

    def read(self, address: str, paths: tuple[str, ...] = KEPT) -> dict[str, str]:
        return {path: self.remote(address, ["sudo", "cat", path]) for path in paths}


def changed(counts: dict[str, dict[str, int]]) -> int:
    return sum(host["changed"] for host in counts.values())
