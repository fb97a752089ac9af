# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a sandbox lives: its name, its network and its folders."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path


class SandboxError(Exception):
    """Something that the person who started the sandbox can mend; the message says what and how."""


def cache_folder() -> Path:
    """The folder for what is worth keeping between runs, outside the checkout."""
    named = os.environ.get("NEURONOPS_CACHE")
    return Path(named or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "neuronops")).expanduser().absolute()


@dataclass(frozen=True)
class Settings:
    """One sandbox. Several with different names and subnets can run side by side."""

    name: str
    subnet: ipaddress.IPv4Network
    cache: Path

    @classmethod
    def from_environment(cls) -> Settings:
        name = os.environ.get("NEURONOPS_SANDBOX_NAME") or "neuronops-sandbox"
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
            raise SandboxError(
                f"NEURONOPS_SANDBOX_NAME is {name!r}: use up to 40 lower-case letters, digits and hyphens."
            )
        text = os.environ.get("NEURONOPS_SANDBOX_SUBNET") or "10.203.0.0/24"
        try:
            subnet = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise SandboxError(f"NEURONOPS_SANDBOX_SUBNET is {text!r}, which is no IPv4 network: {error}.") from None
        # EC2 knows subnets of /16 to /28; half of the addresses are kept for containers that are not on EC2.
        if not subnet.is_private or not 16 <= subnet.prefixlen <= 26:
            raise SandboxError(f"NEURONOPS_SANDBOX_SUBNET is {text}: use a private network of /16 to /26.")
        return cls(name, subnet, cache_folder())

    @property
    def state(self) -> Path:
        """Keys, certificates, addresses and logs of this sandbox; removed with it."""
        return self.cache / "sandbox" / self.name

    @property
    def gateway(self) -> str:
        return str(self.subnet[1])

    @property
    def repositories_address(self) -> str:
        return str(self.subnet[2])

    @property
    def repositories(self) -> Path:
        """The tree of the repositories; its faults are this sandbox's own."""
        return self.state / "repositories"

    @property
    def served(self) -> Path:
        return self.repositories / "www"

    @property
    def variables_file(self) -> Path:
        """Variables that every play against this sandbox needs."""
        return self.state / "vars.yml"

    @property
    def image(self) -> str:
        """The images' name without the tag: `<image>:debian12`."""
        return self.name

    def prepare(self) -> None:
        for folder in (self.cache, self.state.parent, self.state):
            folder.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
