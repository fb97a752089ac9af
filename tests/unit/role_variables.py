# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a role's variables and template them as Ansible does."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

CHECKOUT = Path(__file__).resolve().parents[2]
ROLES = CHECKOUT / "roles"

# Since ansible-core 2.19 what is read from a file is only templated where this is said.
TRUSTED = (
    {"trusted_as_template": True} if "trusted_as_template" in signature(DataLoader.load_from_file).parameters else {}
)


def read(role: str, folder: str) -> dict[str, Any]:
    """Return what `defaults` or `vars` of a role say."""
    content: dict[str, Any] = DataLoader().load_from_file(str(ROLES / role / folder / "main.yml"), **TRUSTED)
    return content


def value(name: str, known: dict[str, Any]) -> Any:
    """Return one of the known variables, templated."""
    return Templar(loader=DataLoader(), variables=known).template(known[name])
