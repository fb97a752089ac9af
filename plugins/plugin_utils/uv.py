# Copyright (c) 2026 neuronops.vllm contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The uv that resolves and installs: one pinned requirement with hashes, and where the controller has it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ansible_collections.neuronops.vllm.plugins.module_utils import process
from ansible_collections.neuronops.vllm.plugins.module_utils.packages import PackagesError, have_uv, uv_version

DATA_FILE = Path(__file__).resolve().parents[2] / "data" / "uv.txt"


def requirement() -> str:
    """Return the requirement as pip reads it."""
    return DATA_FILE.read_text(encoding="utf-8")


def on_controller(wanted: str, tools_path: str, sources: dict[str, Any]) -> str:
    """Return the path of the wanted uv on this machine: one that is there, or one installed for this user."""
    version = uv_version(wanted)
    program = Path(tools_path) / f"uv-{version}" / "bin" / "uv"
    if os.access(program, os.X_OK):
        return str(program)
    for there in (str(Path(sys.executable).parent / "uv"), shutil.which("uv")):
        if there and os.access(there, os.X_OK) and says(there) == version:
            return there
    own = Path("~/.cache/neuronops/tools").expanduser()
    try:
        return str(have_uv(wanted, str(own), sys.executable, sources))
    except (PackagesError, OSError) as error:
        raise PackagesError(
            f"uv {version}, which resolves, is not on the controller and cannot be installed into {own}: {error}. "
            "Install it beside Ansible, or set neuron_venv_lock_resolver (transformers_neuronx_lock_resolver, "
            "nxd_inference_lock_resolver, vllm_lock_resolver) to the name of a host, which then resolves for all."
        ) from error


def says(program: str) -> str:
    """Return the version that a uv says it has, or nothing."""
    try:
        status, output, _errors = process.run(
            [program, "--version"], timeout=60, cwd=process.FOLDER, env=process.environment(UV_NO_CONFIG="1")
        )
    except OSError:
        return ""
    words = output.decode(errors="replace").split()
    return words[1] if status == 0 and len(words) > 1 and words[0] == "uv" else ""
