# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locks with hashes of the tools that vLLM is built with: data/build_tools.yml and the folder beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ansible.module_utils.common.yaml import yaml_load

DATA_FILE = Path(__file__).resolve().parents[2] / "data" / "build_tools.yml"


def lock(requirements: Sequence[str], python_version: str) -> str:
    """Return the lock of these build requirements for a Python version, or an empty text when there is none."""
    for entry in yaml_load(DATA_FILE.read_text(encoding="utf-8")):
        if entry["requirements"] == list(requirements) and python_version in entry["pythons"]:
            file = DATA_FILE.parent / "build_tools" / str(entry["lock"])
            return file.read_text(encoding="utf-8")
    return ""
