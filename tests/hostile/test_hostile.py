# SPDX-License-Identifier: GPL-3.0-or-later
"""A short part of the proof, from a shell that sets everything that could be in its way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """The environment of that shell."""
    poisoned = tmp_path / "poisoned"
    poisoned.mkdir()
    for name in ("yaml", "jinja2", "sitecustomize", "usercustomize"):
        (poisoned / f"{name}.py").write_text(f"raise SystemExit('{name} of the caller')\n")
    configuration = tmp_path / "ansible.cfg"
    configuration.write_text("[defaults]\ncallback_result_format = json\nnocows = false\nstdout_callback = nonsense\n")
    needed = ("PATH", "HOME", "NEURONOPS_CACHE")
    return {name: os.environ[name] for name in needed if name in os.environ} | {
        "NO_PROXY": "localhost,127.0.0.1",
        "http_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_PROFILE": "nonexistent",
        "AWS_REGION": "eu-nowhere-1",
        "AWS_ACCESS_KEY_ID": "AKIANOBODY",
        "ANSIBLE_CONFIG": str(configuration),
        "ANSIBLE_STDOUT_CALLBACK": "nonexistent",
        "ANSIBLE_COLLECTIONS_PATH": "/nonexistent",
        "ANSIBLE_INVENTORY": "/nonexistent",
        "MOLECULE_GLOB": "/nonexistent",
        "PYTHONPATH": str(poisoned),
        "PYTEST_ADDOPTS": "--no-such-option",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "de_DE.UTF-8",
        "LANGUAGE": "de",
    }


def test_a_short_part_passes(hostile: dict[str, str]) -> None:
    command = ["make", f"PYTHON3={sys.executable}", "test-part", "PART=short"]
    done = subprocess.run(command, cwd=CHECKOUT, env=hostile, umask=0o077, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" passed, 0 failed")
    assert "short" in done.stdout


@pytest.mark.parametrize("command", [["-m", "sandbox", "status"], ["-m", "sandbox.demo", "--help"]])
def test_the_sandbox_starts(hostile: dict[str, str], command: list[str]) -> None:
    hostile = {**hostile, "NEURONOPS_SANDBOX_NAME": "neuronops-nobodys"}
    del hostile["PYTHONPATH"]  # these are started with a Python of the caller
    done = subprocess.run(
        [sys.executable, *command], cwd=CHECKOUT, env=hostile, umask=0o077, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    assert "Traceback" not in done.stderr


def test_contributors_start_pytest_by_itself(hostile: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "--quiet", "tests/unit/test_wheel_store.py", "tests/unit/test_stacks.py"]
    own = {name: value for name, value in hostile.items() if not name.startswith("PY")}
    done = subprocess.run(command, cwd=CHECKOUT, env=own, umask=0o022, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
