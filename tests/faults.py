# SPDX-License-Identifier: GPL-3.0-or-later
"""The side effects that a molecule scenario leaves out of its test, on hosts that were converged.

    python -m tests.faults SCENARIO

They are the scenario's `side_effect_sequence`. No command of molecule runs one, so a copy of the scenario's file
has them as its test; it is beside that file for as long as the run takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
NAME = ".faults.yml"


def with_side_effects(text: str) -> dict[str, Any]:
    """The scenario of a molecule.yml, with its side effects as its test."""
    scenario: dict[str, Any] = yaml.safe_load(text)
    sequence = scenario["scenario"].pop("side_effect_sequence")
    scenario["scenario"]["test_sequence"] = ["destroy", "create", "prepare", "converge", *sequence, "destroy"]
    return scenario


def main(name: str) -> int:
    folder = CHECKOUT / "molecule" / name
    file = folder / NAME
    file.write_text(yaml.safe_dump(with_side_effects((folder / "molecule.yml").read_text()), sort_keys=False))
    try:
        command = ["molecule", "test", "--scenario-name", name]
        environment = {**os.environ, "MOLECULE_GLOB": f"molecule/*/{NAME}"}
        return subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode
    finally:
        file.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
