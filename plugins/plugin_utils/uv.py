# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The uv that is installed on hosts: one pinned requirement with hashes, in data/uv.txt."""

from __future__ import annotations

from pathlib import Path

DATA_FILE = Path(__file__).resolve().parents[2] / "data" / "uv.txt"


def requirement() -> str:
    """Return the requirement as pip reads it."""
    return DATA_FILE.read_text(encoding="utf-8")
