# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role vllm proves of a plugin, over small packages in the place of vLLM and the plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.role_variables import ROLES

PROGRAM = (ROLES / "vllm" / "files" / "prove_plugin.py").read_text()
WANTED: dict[str, Any] = {
    "versions": {"vllm": "0.13.0+empty", "vllm-neuron": "0.4.1"},
    "plugin": "vllm-neuron",
    "entry_point": "neuron",
    "platform": "vllm_neuron.platform.NeuronPlatform",
    "modules": ["vllm_neuron.platform"],
}
FILES = {
    "vllm/__init__.py": "",
    "vllm/platforms.py": "from vllm_neuron.platform import NeuronPlatform\ncurrent_platform = NeuronPlatform()\n",
    "vllm/entrypoints/openai/api_server.py": "import sys\nprint('its help')\nsys.exit('no' if FAILS else 0)\n",
    "vllm-0.13.0+empty.dist-info/METADATA": "Name: vllm\nVersion: 0.13.0+empty\n",
    "vllm_neuron/__init__.py": "",
    "vllm_neuron/platform.py": "class NeuronPlatform: ...\n",
    "vllm_neuron-0.4.1.dist-info/METADATA": "Name: vllm-neuron\nVersion: 0.4.1\n",
    "vllm_neuron-0.4.1.dist-info/entry_points.txt": "[vllm.platform_plugins]\nneuron = vllm_neuron:register\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    for name, text in FILES.items():
        write(tmp_path, name, text.replace("FAILS", "False"))
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    path = folder / "site" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def prove(folder: Path, **changed: Any) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.replace('DEVICES = "/dev"', f'DEVICES = "{folder}/dev"')
    assert program != PROGRAM
    start = f"import sys; sys.path.insert(0, {str(folder / 'site')!r})\nexec(compile({program!r}, 'program', 'exec'))"
    command = [sys.executable, "-I", "-c", start, json.dumps({**WANTED, **changed})]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def test_with_a_device_the_platform_and_the_help_are_proven(folder: Path) -> None:
    (folder / "dev" / "neuron0").touch()
    said = prove(folder)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        "PROOF: vllm is 0.13.0+empty",
        "PROOF: vllm-neuron is 0.4.1",
        "PROOF: vllm-neuron has the entry point neuron of vllm.platform_plugins",
        "PROOF: vllm_neuron.platform was imported",
        "PROOF: vLLM chooses vllm_neuron.platform.NeuronPlatform",
        "its help",
        "PROOF: the API server said its help",
    ]


def test_without_a_device_it_says_what_was_not_proven(folder: Path) -> None:
    said = prove(folder)
    assert said.returncode == 0, said.stderr
    assert "PROOF: not proven, as this host has no " in said.stdout and "its help" not in said.stdout


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"versions": {"vllm": "0.13.0"}}, "vllm is 0.13.0+empty, and should be 0.13.0."),
        ({"entry_point": "other"}, "is of no distribution, and should be of vllm-neuron."),
        ({"plugin": "optimum-neuron"}, "is of vllm-neuron, and should be of optimum-neuron."),
        ({"modules": ["vllm_neuron.worker"]}, "No module named 'vllm_neuron.worker'"),
        ({"platform": "vllm_neuron.platform.Other"}, "vLLM chooses the platform vllm_neuron.platform.NeuronPlatform,"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, changed: dict[str, Any], words: str) -> None:
    (folder / "dev" / "neuron0").touch()
    said = prove(folder, **changed)
    assert said.returncode != 0 and words in said.stderr


def test_a_server_that_has_no_help_is_no_proof(folder: Path) -> None:
    (folder / "dev" / "neuron0").touch()
    write(folder, "vllm/entrypoints/openai/api_server.py", "raise SystemExit(3)")
    said = prove(folder)
    assert said.returncode != 0 and "The API server's help ended with status 3." in said.stderr
